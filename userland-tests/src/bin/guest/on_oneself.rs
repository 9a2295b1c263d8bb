//! Calls for which the kernel asks no capability where a process makes them on itself or on what it may trace, and which
//! fail on others: on init, and on a process outside, of which somebody there has sent a descriptor.
//!
//! `unsafe` is here for calls that no library in use wraps.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_long, c_ulong};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::pause;
use ringfence::guest::Client;
use ringfence_ipc::Socket;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{ALL, DEVICE, GIB, Gpu, MEMORY, SUBDEVICE};
use crate::pinning::Pages;

/// Of linux/mempolicy.h.
const MPOL_DEFAULT: c_ulong = 0;
const MPOL_BIND: c_ulong = 2;
/// Of linux/kcmp.h.
const KCMP_FILES: c_ulong = 2;
/// Bits in a list of nodes: more than any kernel has.
const NODES: c_ulong = 1024;
const INIT: c_ulong = 1;

fn call(number: c_long, arguments: [c_ulong; 6]) -> String {
    let [one, two, three, four, five, six] = arguments;
    // SAFETY: the pointers among them are of what outlives the call, and as large as the kernel expects.
    let result = unsafe { libc::syscall(number, one, two, three, four, five, six) };
    match Errno::result(result) {
        Ok(_) => "ok".to_owned(),
        Err(errno) => format!("{errno:?}"),
    }
}

fn address<T>(of: &T) -> c_ulong {
    std::ptr::from_ref(of) as c_ulong
}

/// A descriptor for a process, or for one of its threads (pidfd_open(2)).
pub fn pidfd_open(task: libc::pid_t, flags: libc::c_uint) -> nix::Result<OwnedFd> {
    // SAFETY: the arguments are numbers.
    let result = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, task, flags) })?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// A duplicate of another task's descriptor (pidfd_getfd(2)).
pub fn fetch(from: &OwnedFd, descriptor: i32) -> nix::Result<OwnedFd> {
    let (call, from) = (libc::SYS_pidfd_getfd, from.as_raw_fd());
    // SAFETY: the arguments are numbers.
    let result = Errno::result(unsafe { libc::syscall(call, from, descriptor, 0) })?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// On which node memory lies.
pub fn memory_policy(_: &[String]) -> Outcome {
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let page = pages.address() as c_ulong;
    let (mut nodes, mut mode) = ([0 as c_ulong; 16], 0i32);
    nodes[0] = 1;
    let (of, status) = ([page], [0i32]);
    let (nodes, of, status) = (address(&nodes), address(&of), address(&status));
    let own = c_ulong::from(std::process::id());
    let say = |what: &str, number, arguments| println!("{what}: {}", call(number, arguments));
    let policy = &raw mut mode as c_ulong;
    say(
        "get_mempolicy",
        libc::SYS_get_mempolicy,
        [policy, 0, 0, 0, 0, 0],
    );
    let bind = [MPOL_BIND, nodes, NODES, 0, 0, 0];
    say("set_mempolicy", libc::SYS_set_mempolicy, bind);
    let default = [MPOL_DEFAULT, 0, 0, 0, 0, 0];
    say("set_mempolicy again", libc::SYS_set_mempolicy, default);
    let bound = [page, 4096, MPOL_BIND, nodes, NODES, 0];
    say("mbind", libc::SYS_mbind, bound);
    let home = [page, 4096, 0, 0, 0, 0];
    say("home node", libc::SYS_set_mempolicy_home_node, home);
    for (whose, process) in [("its own", 0), ("by number", own), ("init's", INIT)] {
        let query = [process, 1, of, 0, status, 0];
        say(&format!("move_pages, {whose}"), libc::SYS_move_pages, query);
        let all = [process, NODES, nodes, nodes, 0, 0];
        say(
            &format!("migrate_pages, {whose}"),
            libc::SYS_migrate_pages,
            all,
        );
    }
    Ok(())
}

/// What takes the right to trace a process.
pub fn of_another(_: &[String]) -> Outcome {
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let advised = [pages.address() as c_ulong, 4096];
    let (mut ready, says_so) = std::io::pipe()?;
    let shy = child(|| {
        nix::sys::prctl::set_dumpable(false)?;
        (&says_so).write_all(&[0])?;
        pause();
        Ok(())
    })?;
    let open = child(|| {
        pause();
        Ok(())
    })?;
    let own = std::process::id() as libc::pid_t;
    ready.read_exact(&mut [0])?;
    let init = INIT as libc::pid_t;
    for (who, process) in [
        ("itself", own),
        ("a child", open.as_raw()),
        ("one that is not dumpable", shy.as_raw()),
        ("init", init),
    ] {
        let pidfd = pidfd_open(process, 0)?;
        let fetched = fetch(&pidfd, 1).map(drop);
        let of = [own, process].map(|process| process as c_ulong);
        let compared = call(libc::SYS_kcmp, [of[0], of[1], KCMP_FILES, 0, 0, 0]);
        println!("{who}: {fetched:?}, {compared}");
    }
    let pidfd = pidfd_open(own, 0)?;
    let number = pidfd.as_raw_fd() as c_ulong;
    let advice = libc::MADV_COLD as c_ulong;
    let advise = [number, address(&advised), 1, advice, 0, 0];
    println!(
        "process_madvise: {}",
        call(libc::SYS_process_madvise, advise)
    );
    let sharing = libc::CLONE_FS as c_ulong;
    println!(
        "unshare: {}",
        call(libc::SYS_unshare, [sharing, 0, 0, 0, 0, 0])
    );
    for child in [shy, open] {
        kill(child, Signal::SIGKILL)?;
        waitpid(child, None)?;
    }
    Ok(())
}

/// A client whose descriptor was fetched from its process, which has ended since.
pub fn fetched(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    let owner = child(|| {
        let gpu = Gpu::open()?;
        gpu.allocate(MEMORY, GIB)?;
        theirs.write_all(&gpu.client.root.to_ne_bytes())?;
        theirs.write_all(&gpu.client.control.as_raw_fd().to_ne_bytes())?;
        Ok(theirs.read_exact(&mut [0])?)
    })?;
    let mut word = || {
        let mut word = [0; 4];
        ours.read_exact(&mut word)
            .map(|()| u32::from_ne_bytes(word))
    };
    let (root, number) = (word()?, word()?);
    let control = fetch(&pidfd_open(owner.as_raw(), 0)?, number as i32)?;
    ours.write_all(&[0])?;
    expect_success(owner)?;
    let client = Client {
        control: File::from(control),
        root,
    };
    println!("used: {} GiB free", client.free_memory(SUBDEVICE)? / GIB);
    client.free(DEVICE, MEMORY)?;
    println!("freed: {} GiB free", client.free_memory(SUBDEVICE)? / GIB);
    drop(client);
    observer.wait_for_free_memory(ALL)?;
    println!("closed: {} GiB free", observer.free_memory()? / GIB);
    Ok(())
}

/// What comes of fetching from a process whose descriptor arrives on standard input.
pub fn from_outside(_: &[String]) -> Outcome {
    // SAFETY: nothing else uses standard input.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(0) });
    let (_, pidfd) = socket.receive()?;
    println!("from outside: {:?}", fetch(&pidfd, 1).map(drop));
    Ok(())
}

/// A message queue (mq_overview(7)), used as programs do, by two processes.
pub fn queue(_: &[String]) -> Outcome {
    let name = c"/everyday".as_ptr();
    let flags = libc::O_CREAT | libc::O_RDWR;
    // SAFETY: the name is terminated, and there are no attributes.
    let queue = unsafe { libc::mq_open(name, flags, 0o700, std::ptr::null::<libc::mq_attr>()) };
    let queue = Errno::result(queue)?;
    let message = b"a message";
    let sender = child(|| {
        // SAFETY: the name is terminated.
        let queue = Errno::result(unsafe { libc::mq_open(name, libc::O_WRONLY) })?;
        // SAFETY: the message is as long as that.
        let sent = unsafe { libc::mq_send(queue, message.as_ptr().cast(), message.len(), 1) };
        Ok(Errno::result(sent).map(drop)?)
    })?;
    let mut buffer = [0u8; 8192];
    let (room, priority) = (buffer.len(), std::ptr::null_mut());
    // SAFETY: the buffer has that much room.
    let length = unsafe { libc::mq_receive(queue, buffer.as_mut_ptr().cast(), room, priority) };
    let length = Errno::result(length)?;
    println!("{}", String::from_utf8_lossy(&buffer[..length as usize]));
    expect_success(sender)?;
    let names = std::fs::read_dir("/dev/mqueue")?;
    let names = names.map(|entry| entry.map(|entry| entry.file_name()));
    println!("{:?}", names.collect::<Result<Vec<_>, _>>()?);
    // SAFETY: the name is terminated.
    Ok(Errno::result(unsafe { libc::mq_unlink(name) }).map(drop)?)
}
