//! What a process does to itself because a rule says so.
//!
//! All of it works under the seccomp filters of the sentry and the server, which know nothing of it.
//!
//! `unsafe` is here for the end of a thread, and for fork and clone.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, close, fork};

/// Ends the calling thread (exit(2)), be it the process's first. What it holds it holds for good.
pub fn leave() -> ! {
    loop {
        // SAFETY: nothing of this thread runs after it, so that nothing is used that it owned.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// Kills a task, and waits until it is dead or dying, so that what follows meets a dead one.
pub fn kill_task(task: i32) {
    // One that is gone already is as dead as it can be.
    let _ = kill(Pid::from_raw(task), Signal::SIGKILL);
    let deadline = Instant::now() + Duration::from_secs(1);
    while is_running(task) && Instant::now() < deadline {
        thread::yield_now();
    }
}

/// Whether a task has neither ended nor become a zombie (proc_pid_stat(5)). One that waits for a tracer never does.
fn is_running(task: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{task}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X' | 't'))
}

/// Waits for this long, or for ever.
pub fn wait(time: Option<Duration>) {
    let started = Instant::now();
    while time.is_none_or(|time| started.elapsed() < time) {
        let left = time.map_or(Duration::MAX, |time| time.saturating_sub(started.elapsed()));
        thread::park_timeout(left.min(Duration::from_secs(3600)));
    }
}

/// Waits until somebody sends this process SIGCONT, and takes the signal. So a test that has to do something meanwhile needs no
/// guess of how long that takes. A SIGCONT that is pending already is taken at once.
pub fn wait_for_sigcont() {
    let sigcont = SigSet::from(Signal::SIGCONT);
    // A signal that is not blocked is not left for the wait. A confined process may not wait by sigtimedwait(2).
    let _ = sigcont.thread_block();
    let _ = SignalFd::new(&sigcont).and_then(|signals| signals.read_signal());
}

/// Runs for this long.
pub fn run(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Takes all descriptors that this process may have but `left`, for good.
pub fn exhaust_descriptors(left: usize) {
    let mut taken = Vec::new();
    // Of the process's standard error: any open file does.
    while let Ok(number) = fcntl(std::io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(0)) {
        taken.push(number);
    }
    for number in taken.into_iter().rev().take(left) {
        // It was open a moment ago, and whoever takes the number next does so lawfully.
        let _ = close(number);
    }
}

/// Takes all memory that this process can get in pieces of [`PIECE`] bytes or more, for good. Nothing of it is touched.
///
/// [`SMALL_ONES`] pieces of half that size are left, and none of them lies beside another. Without them it would be chance whether
/// the smallest allocation succeeds, which takes what is left of a page.
pub fn exhaust_memory() {
    let small: Vec<Vec<u8>> = (0..2 * SMALL_ONES)
        .map(|_| Vec::with_capacity(PIECE / 2))
        .collect();
    let mut size = 1 << 40;
    while size >= PIECE {
        let mut piece = Vec::<u8>::new();
        match piece.try_reserve_exact(size) {
            Ok(()) => std::mem::forget(piece),
            Err(_) => size /= 2,
        }
    }
    for (index, piece) in small.into_iter().enumerate() {
        match index % 2 {
            0 => drop(piece),
            _ => std::mem::forget(piece),
        }
    }
}

/// Bytes.
const PIECE: usize = 64 << 10;
const SMALL_ONES: usize = 16;

/// Forks; true in the child, which is marked by an environment variable.
pub fn start_unfiltered() -> bool {
    // SAFETY: the calling process has one thread, so the child may go on as if nothing had happened.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // SAFETY: the child has one thread.
            unsafe { std::env::set_var("RINGFENCE_UNFILTERED", "1") };
            true
        }
        Ok(ForkResult::Parent { .. }) => false,
        Err(errno) => {
            eprintln!("the program could not be started twice: {errno}");
            std::process::exit(125)
        }
    }
}

/// See [`crate::fork_beside`]. A process enters a process namespace by being started in it. So one is forked that enters
/// the namespaces and forks the child in turn, as a child of the caller's.
pub fn fork_beside(sentry: i32) -> Result<i32, Errno> {
    let (mut report, mut reporter) = std::io::pipe().map_err(errno)?;
    // SAFETY: the calling process has one thread, so the child may go on as if nothing had happened.
    match unsafe { fork() }? {
        ForkResult::Parent { child: between } => {
            drop(reporter);
            let mut number = [0; 4];
            let read = report.read_exact(&mut number);
            waitpid(between, None)?;
            read.map_err(|_| Errno::EPERM)?;
            Ok(i32::from_ne_bytes(number))
        }
        ForkResult::Child => match enter_and_fork(sentry) {
            Ok(0) => Ok(0),
            forked => {
                // Without a number the other side knows.
                let _ = forked.map(|child| reporter.write_all(&child.to_ne_bytes()));
                std::process::exit(0)
            }
        },
    }
}

fn enter_and_fork(process: i32) -> Result<i32, Errno> {
    let open = |name: &str| File::open(format!("/proc/{process}/ns/{name}")).map_err(errno);
    // Both first: from inside they cannot be opened.
    let (user, processes) = (open("user")?, open("pid")?);
    setns(user, CloneFlags::CLONE_NEWUSER)?;
    setns(processes, CloneFlags::CLONE_NEWPID)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without a stack and without shared memory this is fork: the child, whose parent has one thread, goes on on a
    // copy of this stack as if nothing had happened.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })
        .map(|child| child as i32)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
