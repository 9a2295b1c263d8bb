//! Confines itself as a process of Ringfence does, then attempts one thing and prints what came of it: `ok`, or the
//! name of the error. A filter that does not let the attempt through kills it instead.
//!
//! Usage: `captive server|sentry|init ATTEMPT`
//!
//! `unsafe` is here because any system call is tried, by its number.

#![allow(unsafe_code)]

use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::ptr::null;
use std::sync::OnceLock;

use libc::c_long;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use nvproxy_abi::Abi;
use nvproxy_abi::policy::Capabilities;

/// Of asm-generic/fcntl.h.
const F_SETSIG: i32 = 10;
/// Of linux/kcmp.h.
const KCMP_FILE: c_long = 0;
const KCMP_VM: c_long = 1;
const KCMP_FILES: c_long = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, attempt] = &arguments[..] else {
        eprintln!("usage: captive server|sentry|init ATTEMPT");
        return ExitCode::FAILURE;
    };
    let Some(attempt) = find(attempt) else {
        eprintln!("no such attempt");
        return ExitCode::FAILURE;
    };
    own();
    sockets();
    if let Err(reason) = confine(role) {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    match Errno::result(attempt()) {
        Ok(_) => println!("ok"),
        Err(errno) => println!("{errno:?}"),
    }
    ExitCode::SUCCESS
}

/// In a user namespace of its own, where it has the rights that the process of that role starts with.
fn confine(role: &str) -> Result<(), Box<dyn Error>> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| format!("{file}: {error}"))?;
    }
    match role {
        "server" => {
            let abi = Abi::of_release(&"580.142".parse()?, Capabilities::default())?;
            Ok(nvproxy_server::confinement::enter(&[], abi)?)
        }
        "sentry" => ringfence_sentry::confinement::enter(false)
            .map_err(|failure| failure.to_string().into()),
        "init" => ringfence::launch::init::confine().map_err(|failure| failure.to_string().into()),
        _ => Err("no such role".into()),
    }
}

/// What to attempt, by name. The attempts are bare system calls, so that nothing else is called on the way.
fn find(name: &str) -> Option<fn() -> c_long> {
    Some(match name {
        "open a file of the host" => || open("/etc/passwd", libc::O_RDONLY),
        "open a file of another process" => || open("/proc/1/environ", libc::O_RDONLY),
        "open /proc" => || open("/proc", libc::O_RDONLY),
        "create a file" => || open("/file", libc::O_WRONLY | libc::O_CREAT),
        "make a directory" => || {
            let path = c("/directory");
            call(libc::SYS_mkdir, [path.as_ptr() as c_long, 0o755, 0, 0, 0])
        },
        "socket" => || {
            call(
                libc::SYS_socket,
                [
                    libc::AF_INET as c_long,
                    libc::SOCK_STREAM as c_long,
                    0,
                    0,
                    0,
                ],
            )
        },
        "socketpair" => || {
            let mut ends = [0; 2];
            let ends = ends.as_mut_ptr() as c_long;
            let (family, kind) = (libc::AF_UNIX as c_long, libc::SOCK_SEQPACKET as c_long);
            call(libc::SYS_socketpair, [family, kind, 0, ends, 0])
        },
        "socketpair of another family" => || {
            let mut ends = [0; 2];
            let ends = ends.as_mut_ptr() as c_long;
            let (family, kind) = (libc::AF_TIPC as c_long, libc::SOCK_SEQPACKET as c_long);
            call(libc::SYS_socketpair, [family, kind, 0, ends, 0])
        },
        "execve" => || {
            let path = c("/proc/self/exe");
            call(libc::SYS_execve, [path.as_ptr() as c_long, 0, 0, 0, 0])
        },
        "fork" => || call(libc::SYS_clone, [libc::SIGCHLD as c_long, 0, 0, 0, 0]),
        "clone3" => || call(libc::SYS_clone3, [0; 5]),
        "map executable memory" => || map(4096, libc::PROT_READ | libc::PROT_EXEC),
        "map more than the limit" => || map(64 << 30, libc::PROT_NONE),
        "make memory executable" => || {
            let page = map(4096, libc::PROT_READ | libc::PROT_WRITE);
            let executable = (libc::PROT_READ | libc::PROT_EXEC) as c_long;
            call(libc::SYS_mprotect, [page, 4096, executable, 0, 0])
        },
        "ioctl of a terminal" => || ioctl(libc::TCGETS as c_long),
        "NV_ESC_RM_CONTROL" => || ioctl(0xc020_462a),
        "an escape that no table has" => || ioctl(0xc020_46ff),
        "UVM_INITIALIZE" => || ioctl(0x3000_0001),
        "a request of UVM that no table has" => || ioctl(0xff),
        "SECCOMP_IOCTL_NOTIF_RECV" => || ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV as c_long),
        // Of a signal that is ignored unless somebody handles it.
        "kill" => || call(libc::SYS_kill, [own(), libc::SIGWINCH.into(), 0, 0, 0]),
        "kill, by a signal that nobody passes on" => {
            || call(libc::SYS_kill, [own(), libc::SIGURG.into(), 0, 0, 0])
        }
        "kcmp, of descriptors" => || call(libc::SYS_kcmp, [own(), own(), KCMP_FILE, 0, 0]),
        "kcmp, of descriptor tables" => || call(libc::SYS_kcmp, [own(), own(), KCMP_FILES, 0, 0]),
        "kcmp, of memory" => || call(libc::SYS_kcmp, [own(), own(), KCMP_VM, 0, 0]),
        "pidfd_open" => || call(libc::SYS_pidfd_open, [1 << 29, 0, 0, 0, 0]),
        "pidfd_open, with another flag" => || {
            let flags = libc::O_NONBLOCK.into();
            call(libc::SYS_pidfd_open, [1 << 29, flags, 0, 0, 0])
        },
        "pidfd_getfd" => || call(libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0]),
        "pidfd_getfd, with a flag" => || call(libc::SYS_pidfd_getfd, [0, 0, 1, 0, 0]),
        "pidfd_send_signal" => || call(libc::SYS_pidfd_send_signal, [0, 0, 0, 0, 0]),
        "dup" => || call(libc::SYS_dup, [0, 0, 0, 0, 0]),
        "F_DUPFD_CLOEXEC" => || fcntl(libc::F_DUPFD_CLOEXEC, 0),
        "F_SETOWN" => || fcntl(libc::F_SETOWN, own()),
        "F_SETFL" => || fcntl(libc::F_SETFL, libc::O_NONBLOCK.into()),
        "F_SETFL, to send signals" => || fcntl(libc::F_SETFL, libc::O_ASYNC.into()),
        "F_SETSIG" => || fcntl(F_SETSIG, libc::SIGKILL.into()),
        "F_SETLEASE" => || fcntl(libc::F_SETLEASE, libc::F_RDLCK.into()),
        "F_SETLK" => || fcntl(libc::F_SETLK, 0),
        "F_OFD_SETLK" => || fcntl(libc::F_OFD_SETLK, 0),
        "send to an abstract name" => send_to_abstract_name,
        "SO_TYPE" => || option(libc::SYS_getsockopt, libc::SO_TYPE),
        "SO_PEERCRED" => || option(libc::SYS_getsockopt, libc::SO_PEERCRED),
        "setting SO_SNDTIMEO" => || option(libc::SYS_setsockopt, libc::SO_SNDTIMEO),
        "setting SO_PASSCRED" => || option(libc::SYS_setsockopt, libc::SO_PASSCRED),
        "freeing a part of a file" => || {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            call(libc::SYS_fallocate, [0, mode.into(), 0, 4096, 0])
        },
        "filling a part of a file" => || call(libc::SYS_fallocate, [0, 0, 0, 4096, 0]),
        "memfd_create" => || {
            let name = c("memory");
            call(
                libc::SYS_memfd_create,
                [name.as_ptr() as c_long, 0, 0, 0, 0],
            )
        },
        "ftruncate" => || call(libc::SYS_ftruncate, [0, 4096, 0, 0, 0]),
        "pwrite64" => || call(libc::SYS_pwrite64, [1, 0, 0, 0, 0]),
        "F_ADD_SEALS" => || fcntl(libc::F_ADD_SEALS, 0),
        "readlinkat" => || {
            let path = c("/proc/self/exe");
            let directory = c_long::from(libc::AT_FDCWD);
            call(
                libc::SYS_readlinkat,
                [directory, path.as_ptr() as c_long, 0, 0, 0],
            )
        },
        "signal a thread of its own" => || call(libc::SYS_tgkill, [own(), own(), 0, 0, 0]),
        "signal a thread of another" => || call(libc::SYS_tgkill, [1, 1, 0, 0, 0]),
        "ptrace another" => || {
            call(
                libc::SYS_ptrace,
                [libc::PTRACE_SEIZE as c_long, 1 << 29, 0, 0, 0],
            )
        },
        "be traced" => || {
            call(
                libc::SYS_ptrace,
                [libc::PTRACE_TRACEME as c_long, 0, 0, 0, 0],
            )
        },
        "read the memory of another" => || {
            let mut byte = 0u8;
            let vector = libc::iovec {
                iov_base: (&raw mut byte).cast(),
                iov_len: 1,
            };
            let vector = &raw const vector as c_long;
            call(libc::SYS_process_vm_readv, [1 << 29, vector, 1, vector, 1])
        },
        "mount" => || call(libc::SYS_mount, [0; 5]),
        "unshare" => || {
            call(
                libc::SYS_unshare,
                [libc::CLONE_NEWUSER as c_long, 0, 0, 0, 0],
            )
        },
        "setuid" => || call(libc::SYS_setuid, [0; 5]),
        "capset" => || call(libc::SYS_capset, [0; 5]),
        "become traceable" => || {
            call(
                libc::SYS_prctl,
                [libc::PR_SET_DUMPABLE as c_long, 1, 0, 0, 0],
            )
        },
        "raise a limit" => || call(libc::SYS_prlimit64, [0; 5]),
        "io_uring_setup" => || call(libc::SYS_io_uring_setup, [0; 5]),
        "bpf" => || call(libc::SYS_bpf, [0; 5]),
        "a call of x32" => || call(0x4000_0000 | libc::SYS_getpid, [0; 5]),
        _ => return None,
    })
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// This process's number, which is first asked for before it is confined.
fn own() -> c_long {
    static NUMBER: OnceLock<u32> = OnceLock::new();
    (*NUMBER.get_or_init(std::process::id)).into()
}

/// A socket with an abstract name, and one without, which are made before this process is confined.
fn sockets() -> &'static [UnixDatagram; 2] {
    static SOCKETS: OnceLock<[UnixDatagram; 2]> = OnceLock::new();
    SOCKETS.get_or_init(|| {
        let name = SocketAddr::from_abstract_name(abstract_name()).expect("a short name");
        let named = UnixDatagram::bind_addr(&name).expect("a socket with a name");
        [named, UnixDatagram::unbound().expect("a socket")]
    })
}

fn abstract_name() -> String {
    format!("captive-{}", own())
}

fn send_to_abstract_name() -> c_long {
    let [_, unnamed] = sockets();
    let name = abstract_name();
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    // After a byte of zero (unix(7)).
    for (place, byte) in address.sun_path.iter_mut().skip(1).zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    let length = size_of_val(&address.sun_family) + 1 + name.len();
    // SAFETY: a message without anything is one of zeros.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = length as libc::socklen_t;
    let message = &raw const message as c_long;
    call(
        libc::SYS_sendmsg,
        [unnamed.as_raw_fd().into(), message, 0, 0, 0],
    )
}

fn open(path: &str, flags: i32) -> c_long {
    let path = c(path);
    let directory = c_long::from(libc::AT_FDCWD);
    call(
        libc::SYS_openat,
        [directory, path.as_ptr() as c_long, flags.into(), 0o644, 0],
    )
}

/// A request on stdin, which is no device.
fn ioctl(request: c_long) -> c_long {
    call(libc::SYS_ioctl, [0, request, null::<u8>() as c_long, 0, 0])
}

/// A command on stdin.
fn fcntl(command: i32, argument: c_long) -> c_long {
    call(libc::SYS_fcntl, [0, command.into(), argument, 0, 0])
}

/// Gets or sets an option of stdin, which is no socket.
fn option(how: c_long, option: i32) -> c_long {
    call(how, [0, libc::SOL_SOCKET.into(), option.into(), 0, 0])
}

fn map(length: c_long, protection: i32) -> c_long {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel chooses where the new memory lies, and nobody uses it.
    unsafe { libc::syscall(libc::SYS_mmap, 0, length, protection, flags, -1, 0) }
}

fn call(number: c_long, arguments: [c_long; 5]) -> c_long {
    let [a, b, c, d, e] = arguments;
    // SAFETY: pointers among the arguments are null or lead to what outlives the call; memory that is protected
    // otherwise is used by nobody.
    unsafe { libc::syscall(number, a, b, c, d, e, 0 as c_long) }
}
