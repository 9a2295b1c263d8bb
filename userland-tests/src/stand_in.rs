//! Files that stand in for the driver's nodes and take down every ioctl, as the kernel read it from the caller's memory.
//!
//! They lie on a file system of this process's own (FUSE; the protocol is linux/fuse.h's). The kernel copies an ioctl's
//! argument by the size in its number, as a driver does, and hands it over; the answer is the argument, unchanged. Files
//! are mounted in a namespace of the command that is to use them, so that no mount outlives it and none takes a
//! privilege, and the thread that serves them ends when they are gone.
//!
//! `unsafe` is here for what happens between fork and exec.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use ringfence_ipc::Socket;

const NAMES: [&str; 3] = ["nvidiactl", "nvidia0", "nvidia-uvm"];
/// The inode of the directory; the files' follow.
const DIRECTORY: u64 = 1;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const IOCTL: u32 = 39;
const BATCH_FORGET: u32 = 42;

/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;

/// One ioctl, as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether the server made it, rather than a task.
    pub by_server: bool,
    pub command: u32,
    pub argument: Vec<u8>,
}

/// The thread that serves the files of one command; it ends with what it has seen when the command's sandbox is gone.
pub type Serving = JoinHandle<Vec<Seen>>;

/// Has `command` start in a namespace in which the files lie in `directory`. Call the result once it was started.
pub fn mount_for(command: &mut Command, directory: &Path) -> impl FnOnce() -> Serving + use<> {
    let (ours, theirs) = Socket::pair().expect("sockets");
    let directory = directory.to_owned();
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let set_up = move || -> io::Result<()> {
        if user.is_root() {
            // Root may mount without a user namespace, in which there would be no other user.
            unshare(CloneFlags::CLONE_NEWNS)?;
            let alone = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, alone, None::<&str>)?;
        } else {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
        }
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let number = device.as_raw_fd();
        let options =
            format!("fd={number},rootmode=40000,user_id={user},group_id={group},allow_other");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("nodes"),
            &directory,
            Some("fuse"),
            flags,
            Some(options.as_str()),
        )?;
        theirs.send(0, device.as_fd()).map_err(io::Error::other)
    };
    // SAFETY: the child makes system calls and allocates a few strings, which glibc allows after a fork.
    unsafe { command.pre_exec(set_up) };
    move || {
        let (_, device) = ours.receive().expect("the mount's descriptor");
        std::thread::spawn(move || serve(File::from(device)))
    }
}

/// Serves until the file system is unmounted.
fn serve(mut device: File) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // ENODEV: unmounted.
            Err(_) => return seen,
        };
        let request = &buffer[..length];
        let opcode = word(request, 4);
        let (error, body) = match answer(request, opcode, &mut seen) {
            Some(Ok(body)) => (0, body),
            Some(Err(errno)) => (-(errno as i32), Vec::new()),
            None => continue,
        };
        let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(&request[8..16]);
        reply.extend(body);
        // The caller may have been killed meanwhile.
        let _ = device.write(&reply);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// What to answer; `None` if nothing.
fn answer(request: &[u8], opcode: u32, seen: &mut Vec<Seen>) -> Option<Result<Vec<u8>, Errno>> {
    let inode = u64::from(word(request, 16));
    let body = &request[HEADER..];
    Some(match opcode {
        INIT => {
            // Version 7.31; no feature but requests of up to 128 KiB.
            let words = [7u32, 31, 0, 0, 0, 128 << 10, 1, 32];
            let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            body.resize(64, 0);
            Ok(body)
        }
        LOOKUP => {
            let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
            let found = NAMES.iter().position(|known| known.as_bytes() == name);
            found.ok_or(Errno::ENOENT).map(|index| {
                let inode = DIRECTORY + 1 + index as u64;
                let mut body = inode.to_ne_bytes().to_vec();
                body.resize(40, 0);
                body.extend(attributes(inode));
                body
            })
        }
        GETATTR => {
            let mut body = vec![0; 16];
            body.extend(attributes(inode));
            Ok(body)
        }
        OPEN | OPENDIR => Ok(vec![0; 16]),
        READDIR if word(body, 8) == 0 => Ok(entries()),
        READDIR | RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
        IOCTL => {
            let argument = body.get(32..).unwrap_or_default().to_vec();
            seen.push(Seen {
                by_server: is_server(word(request, 32)),
                command: word(body, 12),
                argument: argument.clone(),
            });
            let mut body = vec![0; 16];
            body.extend(argument);
            Ok(body)
        }
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        _ => Err(Errno::ENOSYS),
    })
}

/// `struct fuse_attr` of the directory or a file.
fn attributes(inode: u64) -> Vec<u8> {
    let mode = if inode == DIRECTORY {
        libc::S_IFDIR | 0o755
    } else {
        libc::S_IFREG | 0o666
    };
    let mut attributes = inode.to_ne_bytes().to_vec();
    attributes.resize(60, 0);
    let (user, group) = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    for word in [mode, 1, user, group, 0, 4096, 0] {
        attributes.extend(word.to_ne_bytes());
    }
    attributes
}

fn entries() -> Vec<u8> {
    let mut entries = Vec::new();
    for (index, name) in (1u64..).zip(NAMES) {
        entries.extend((DIRECTORY + index).to_ne_bytes());
        entries.extend(index.to_ne_bytes());
        entries.extend((name.len() as u32).to_ne_bytes());
        entries.extend(u32::from(libc::DT_REG).to_ne_bytes());
        entries.extend(name.as_bytes());
        entries.resize(entries.len().next_multiple_of(8), 0);
    }
    entries
}

/// Whether a thread, which waits for its answer, is one of the server's.
fn is_server(thread: u32) -> bool {
    let line = fs::read(format!("/proc/{thread}/cmdline")).unwrap_or_default();
    line.starts_with(b"ringfence-nvproxy-server")
}
