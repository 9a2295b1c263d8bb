//! Locks of open file descriptions (F_OFD_SETLK, F_OFD_SETLKW, fcntl(2)): as programs use them, and on the driver's nodes,
//! where the server's own tell which description is still there.
//!
//! `unsafe` is here for handlers of signals, and for standard input.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use ringfence::guest::{Mapping, open};
use ringfence_ipc::Socket;

use crate::Outcome;
use crate::children::{child, end_of, expect_success};
use crate::gpu::{Gpu, MEMORY, MIB};
use crate::host_memory::{SCATTERED, allocate, say_what_is_left};
use crate::mapped_host_memory::{show, unmap};
use crate::on_oneself::{fetch, pidfd_open};

/// All of a file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn lock(file: impl AsFd, kind: libc::c_int) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole(kind))).map(drop)
}

fn wait_and_lock(file: impl AsFd) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLKW(&whole(libc::F_WRLCK))).map(drop)
}

static HANDLED: AtomicBool = AtomicBool::new(false);

extern "C" fn handle(_: libc::c_int) {
    HANDLED.store(true, Ordering::SeqCst);
}

/// Has `SIGUSR1` handled, so.
fn handle_with(flags: SaFlags) -> nix::Result<()> {
    HANDLED.store(false, Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(handle), flags, SigSet::empty());
    // SAFETY: the handler stores a flag.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map(drop)
}

/// As databases do.
pub fn as_programs_do(_: &[String]) -> Outcome {
    let path = "/tmp/locked";
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path)
    };
    let (one, other) = (open()?, open()?);
    println!("locked: {:?}", lock(&one, libc::F_WRLCK));
    println!("by another: {:?}", lock(&other, libc::F_WRLCK));
    println!(
        "by a duplicate: {:?}",
        lock(one.try_clone()?, libc::F_WRLCK)
    );
    println!(
        "opened to be read: {:?}",
        lock(File::open(path)?, libc::F_WRLCK)
    );
    println!("a socket: {:?}", lock(UnixStream::pair()?.0, libc::F_WRLCK));
    println!(
        "a device: {:?}",
        lock(File::open("/dev/null")?, libc::F_RDLCK)
    );
    handle_with(SaFlags::empty())?;
    interrupted("interrupted", &other, false)?;
    interrupted("interrupted among threads", &other, true)?;
    handle_with(SaFlags::SA_RESTART)?;
    begun_anew(&one, &other)?;
    lock(&other, libc::F_UNLCK)?;
    lock(&one, libc::F_WRLCK)?;
    let waiting = child(|| Ok(wait_and_lock(open()?)?))?;
    std::thread::sleep(Duration::from_millis(50));
    kill(waiting, Signal::SIGTERM)?;
    println!("ended: {}", end_of(waiting)?);
    drop((one, other));
    println!("after all: {:?}", lock(open()?, libc::F_WRLCK));
    Ok(())
}

/// A process whose first thread waits for a lock, beside another if that is said, and says what came of it.
fn waiting(what: &str, file: &File, among_threads: bool) -> nix::Result<Pid> {
    child(|| {
        if among_threads {
            std::thread::spawn(|| {
                let _ = SigSet::all().thread_block();
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
        let outcome = wait_and_lock(file);
        println!("{what}: {outcome:?}, {}", HANDLED.load(Ordering::SeqCst));
        Ok(())
    })
}

/// A signal that such a process gets.
fn interrupted(what: &str, file: &File, among_threads: bool) -> Outcome {
    let waiting = waiting(what, file, among_threads)?;
    std::thread::sleep(Duration::from_millis(100));
    kill(waiting, Signal::SIGUSR1)?;
    expect_success(waiting)
}

/// The thread that waits gets a signal, and goes on waiting until it has the lock of `one`.
fn begun_anew(one: &File, other: &File) -> Outcome {
    let waiting = waiting("begun anew", other, true)?;
    std::thread::sleep(Duration::from_millis(100));
    let (call, thread) = (libc::SYS_tgkill, waiting.as_raw());
    // SAFETY: the arguments are numbers.
    Errno::result(unsafe { libc::syscall(call, thread, thread, libc::SIGUSR1) })?;
    std::thread::sleep(Duration::from_millis(100));
    let state = waitpid(waiting, Some(WaitPidFlag::WNOHANG))?;
    println!("after a while: {}", state == WaitStatus::StillAlive);
    lock(one, libc::F_UNLCK)?;
    expect_success(waiting)
}

/// Every way to unlock all of a file; says what came of each.
fn unlock(file: &OwnedFd) -> nix::Result<()> {
    println!("taken: {:?}", lock(file, libc::F_RDLCK));
    println!("unlocked: {:?}", lock(file, libc::F_UNLCK));
    println!(
        "a duplicate: {:?}",
        lock(file.try_clone().map_err(|_| Errno::EMFILE)?, libc::F_UNLCK)
    );
    let waiting = fcntl(file, FcntlArg::F_OFD_SETLKW(&whole(libc::F_UNLCK)));
    println!("waiting for it: {:?}", waiting.map(drop));
    // These are other kinds of locks, whose unlocking succeeds and undoes nothing.
    let of_process = fcntl(file, FcntlArg::F_SETLK(&whole(libc::F_UNLCK)));
    println!("a process's: {:?}", of_process.map(drop));
    // SAFETY: the arguments are numbers.
    let of_flock = Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) });
    println!("by flock: {:?}", of_flock.map(drop));
    Ok(())
}

/// Memory that is mapped and freed counts until the mapping is gone (`--host-memory 64MiB`), which the server tells by a
/// lock on the description: "here" this process tries to take it away, "in another process" one that has fetched the
/// descriptor, "elsewhere" whoever has the other end of standard input.
pub fn marked(arguments: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let bytes = 48 * MIB;
    let target = open(Node::Control)?;
    allocate(&gpu, MEMORY, bytes, SCATTERED)?;
    let address = show(&gpu, MEMORY, bytes, &target)?;
    let mapping = Mapping::of(&target, bytes as usize)?;
    unmap(&gpu, MEMORY, address)?;
    gpu.free(MEMORY)?;
    say_what_is_left("before", &gpu)?;
    let target = OwnedFd::from(target);
    match arguments {
        [way] if way == "here" => unlock(&target)?,
        [way] if way == "in another process" => {
            let (number, owner) = (target.as_raw_fd(), std::process::id());
            let other = child(|| {
                let pidfd = pidfd_open(owner as libc::pid_t, 0)?;
                // It was inherited, too; this is the same description by another way.
                Ok(unlock(&fetch(&pidfd, number)?)?)
            })?;
            expect_success(other)?;
        }
        _ => {
            // SAFETY: nothing else uses standard input.
            let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
            let mut answer = stream.try_clone()?;
            Socket::from(OwnedFd::from(stream)).send(0, target.as_fd())?;
            answer.read_exact(&mut [0])?;
        }
    }
    say_what_is_left("afterwards", &gpu)?;
    drop(mapping);
    drop(target);
    say_what_is_left("unmapped", &gpu)
}

/// Tries it on the description that arrives on standard input.
pub fn unmark(_: &[String]) -> Outcome {
    // SAFETY: nothing else uses standard input.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let mut answer = stream.try_clone()?;
    let (_, target) = Socket::from(OwnedFd::from(stream)).receive()?;
    unlock(&target)?;
    drop(target);
    Ok(answer.write_all(&[0])?)
}
