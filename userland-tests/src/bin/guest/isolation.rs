//! What a task sees of the host, and what it may not ask of the kernel.
//!
//! `unsafe` is here for system calls that have no wrapper, which is what they are tried for.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};

use nix::errno::Errno;
use nix::pty::openpty;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, socket,
};

use crate::Outcome;

pub fn said<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.raw_os_error().map_or_else(
            || error.to_string(),
            |errno| format!("{:?}", Errno::from_raw(errno)),
        ),
    }
}

/// Which interfaces there are, and whether the host's sockets (a port, a path, an abstract name) can be reached.
pub fn network(arguments: &[String]) -> Outcome {
    let [port, path, name] = arguments else {
        return Err("a port, a path and a name".into());
    };
    let table = fs::read_to_string("/proc/net/dev")?;
    let interfaces = table.lines().filter_map(|line| line.split_once(':'));
    let interfaces: Vec<&str> = interfaces.map(|(name, _)| name.trim()).collect();
    println!("only lo: {}", interfaces == ["lo"]);
    println!(
        "port: {}",
        said(TcpStream::connect(("127.0.0.1", port.parse()?)))
    );
    println!("path: {}", said(UnixStream::connect(path)));
    let address = SocketAddr::from_abstract_name(name)?;
    println!("abstract: {}", said(UnixStream::connect_addr(&address)));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!(
        "itself: {}",
        said(TcpStream::connect(listener.local_addr()?))
    );
    Ok(())
}

/// Connects to a socket of a launcher's, and says whether it is let go without an answer.
pub fn knock(arguments: &[String]) -> Outcome {
    let [path] = arguments else {
        return Err("a path".into());
    };
    let socket = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::empty(),
        None,
    )?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    let received = recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::empty());
    match received {
        Ok(0) | Err(Errno::ECONNRESET) => println!("turned away"),
        received => println!("{received:?}"),
    }
    Ok(())
}

/// Connects its standard input, which is a socket that is connected, to a port of this network instead.
pub fn reconnected(arguments: &[String]) -> Outcome {
    let [port] = arguments else {
        return Err("a port".into());
    };
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse()?);
    rustix::net::connect_unspec(io::stdin())?;
    rustix::net::connect(io::stdin(), &address)?;
    Ok(())
}

/// Tries to create, or write to, each of the files.
pub fn write(paths: &[String]) -> Outcome {
    for path in paths {
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"written\n").and_then(|()| file.metadata()));
        match written {
            Ok(file) if file.rdev() == NULL => println!("{path}: the null device"),
            written => println!("{path}: {}", said(written.map(drop))),
        }
    }
    Ok(())
}

/// Says of each of the files whether there is anything to be read, and whether it can be opened to be written, and writes
/// nothing.
pub fn look(paths: &[String]) -> Outcome {
    for path in paths {
        let read = File::open(path).and_then(|mut file| file.read(&mut [0; 64]));
        let read = match read {
            Ok(0) => "empty".to_owned(),
            Ok(_) => "text".to_owned(),
            failed => said(failed.map(drop)),
        };
        let opened = OpenOptions::new().write(true).open(path);
        let opened = opened.and_then(|file| file.metadata());
        match opened {
            Ok(file) if file.rdev() == NULL => {
                println!("{path}: {read}, to write: the null device")
            }
            opened => println!("{path}: {read}, to write: {}", said(opened.map(drop))),
        }
    }
    Ok(())
}

/// The null device, which covers what is hidden.
const NULL: u64 = libc::makedev(1, 3);

/// Tries to change the permissions of each of the files.
pub fn permit(paths: &[String]) -> Outcome {
    for path in paths {
        let permissions = Permissions::from_mode(0o600);
        println!("{path}: {}", said(fs::set_permissions(path, permissions)));
    }
    Ok(())
}

/// What is in each of the directories, or in each of the files.
pub fn read(paths: &[String]) -> Outcome {
    for path in paths {
        let names = fs::read_dir(path).and_then(|entries| {
            let names: io::Result<Vec<String>> = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect();
            names
        });
        match names {
            Ok(mut names) => {
                names.sort();
                println!("{path}: {names:?}");
            }
            Err(_) => match fs::read_to_string(path) {
                Ok(text) => println!("{path}: {text:?}"),
                failed => println!("{path}: {}", said(failed)),
            },
        }
    }
    Ok(())
}

/// Who and where it is, its environment, and its descriptors.
pub fn surroundings(_: &[String]) -> Outcome {
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    println!("{user}:{group} in {}", std::env::current_dir()?.display());
    let mut variables: Vec<(String, String)> = std::env::vars().collect();
    variables.sort();
    for (name, value) in variables {
        println!("{name}={value}");
    }
    let directory = fs::read_dir("/proc/self/fd")?;
    let mut links: Vec<(u32, String)> = Vec::new();
    for entry in directory {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse()?;
        let link = fs::read_link(entry.path())?;
        // One of them is that of the directory that is being read.
        if number > 2 && !link.starts_with("/proc") {
            links.push((number, link.to_string_lossy().into_owned()));
        }
    }
    links.sort();
    println!("{links:?}");
    Ok(())
}

/// Terminals: one can be made, and what is typed on the one that was given cannot be made up.
pub fn terminals(_: &[String]) -> Outcome {
    let made = openpty(None, None)?;
    println!("made {}", nix::unistd::ttyname(&made.slave)?.display());
    let typed = b"x";
    for (name, request) in [("TIOCSTI", libc::TIOCSTI), ("TIOCLINUX", libc::TIOCLINUX)] {
        // SAFETY: both read one byte, which outlives the call.
        let result = unsafe { libc::ioctl(0, request, typed.as_ptr()) };
        println!(
            "{name}: {}",
            said(Errno::result(result).map_err(io::Error::from))
        );
    }
    Ok(())
}

/// Calls that administer the machine or lead out of the sandbox, each with arguments that a kernel without a filter
/// would find something else wrong with, or nothing.
const FORBIDDEN: &[(&str, libc::c_long, [u64; 3])] = &[
    ("acct", libc::SYS_acct, [0; 3]),
    ("add_key", libc::SYS_add_key, [0; 3]),
    ("bpf", libc::SYS_bpf, [0; 3]),
    ("chroot", libc::SYS_chroot, [0; 3]),
    ("clock_settime", libc::SYS_clock_settime, [0; 3]),
    (
        "clone into a user namespace",
        libc::SYS_clone,
        [libc::CLONE_NEWUSER as u64, 0, 0],
    ),
    (
        "clone into a network namespace",
        libc::SYS_clone,
        [libc::CLONE_NEWNET as u64, 0, 0],
    ),
    ("clone3", libc::SYS_clone3, [0; 3]),
    ("delete_module", libc::SYS_delete_module, [0; 3]),
    ("fanotify_init", libc::SYS_fanotify_init, [0; 3]),
    (
        "fcntl F_NOTIFY",
        libc::SYS_fcntl,
        [0, libc::F_NOTIFY as u64, 0],
    ),
    (
        "fcntl F_SETFL O_ASYNC",
        libc::SYS_fcntl,
        [0, libc::F_SETFL as u64, libc::O_ASYNC as u64],
    ),
    (
        "fcntl F_SETLEASE",
        libc::SYS_fcntl,
        [0, libc::F_SETLEASE as u64, libc::F_RDLCK as u64],
    ),
    ("fcntl F_SETSIG", libc::SYS_fcntl, [0, 10, 0]),
    ("fcntl F_SET_RW_HINT", libc::SYS_fcntl, [0, 1036, 0]),
    ("fcntl F_SET_FILE_RW_HINT", libc::SYS_fcntl, [0, 1038, 0]),
    ("finit_module", libc::SYS_finit_module, [0; 3]),
    ("fsmount", libc::SYS_fsmount, [0; 3]),
    ("fsopen", libc::SYS_fsopen, [0; 3]),
    ("init_module", libc::SYS_init_module, [0; 3]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    ("ioperm", libc::SYS_ioperm, [0; 3]),
    ("iopl", libc::SYS_iopl, [0; 3]),
    ("kcmp of init", libc::SYS_kcmp, [1, 1, 0]),
    ("kexec_file_load", libc::SYS_kexec_file_load, [0; 3]),
    ("kexec_load", libc::SYS_kexec_load, [0; 3]),
    ("keyctl", libc::SYS_keyctl, [0; 3]),
    ("mount", libc::SYS_mount, [0; 3]),
    ("mount_setattr", libc::SYS_mount_setattr, [0; 3]),
    ("move_mount", libc::SYS_move_mount, [0; 3]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [0; 3]),
    ("open_tree", libc::SYS_open_tree, [0; 3]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 3]),
    (
        "personality without randomization",
        libc::SYS_personality,
        [libc::ADDR_NO_RANDOMIZE as u64, 0, 0],
    ),
    ("pivot_root", libc::SYS_pivot_root, [0; 3]),
    (
        "prlimit64 of init",
        libc::SYS_prlimit64,
        [1, libc::RLIMIT_CPU as u64, 0],
    ),
    (
        "ptrace of init",
        libc::SYS_ptrace,
        [libc::PTRACE_SEIZE as u64, 1, 0],
    ),
    ("quotactl", libc::SYS_quotactl, [0; 3]),
    ("reboot", libc::SYS_reboot, [0; 3]),
    ("request_key", libc::SYS_request_key, [0; 3]),
    ("sethostname", libc::SYS_sethostname, [0; 3]),
    ("setns", libc::SYS_setns, [0; 3]),
    (
        "setsockopt SO_ATTACH_FILTER",
        libc::SYS_setsockopt,
        [0, libc::SOL_SOCKET as u64, 26],
    ),
    ("settimeofday", libc::SYS_settimeofday, [0; 3]),
    (
        "AF_ALG",
        libc::SYS_socket,
        [libc::AF_ALG as u64, libc::SOCK_SEQPACKET as u64, 0],
    ),
    (
        "AF_PACKET",
        libc::SYS_socket,
        [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0],
    ),
    (
        "AF_VSOCK",
        libc::SYS_socket,
        [libc::AF_VSOCK as u64, libc::SOCK_STREAM as u64, 0],
    ),
    (
        "raw AF_INET",
        libc::SYS_socket,
        [libc::AF_INET as u64, libc::SOCK_RAW as u64, 1],
    ),
    ("swapon", libc::SYS_swapon, [0; 3]),
    ("syslog", libc::SYS_syslog, [3, 0, 0]),
    ("umount2", libc::SYS_umount2, [0; 3]),
    (
        "unshare into a user namespace",
        libc::SYS_unshare,
        [libc::CLONE_NEWUSER as u64, 0, 0],
    ),
    ("userfaultfd", libc::SYS_userfaultfd, [0; 3]),
    ("vhangup", libc::SYS_vhangup, [0; 3]),
];

/// Makes calls of these numbers, with arguments that are all zero.
pub fn calls(numbers: &[String]) -> Outcome {
    for number in numbers {
        // SAFETY: every pointer among the arguments is null, and the callers name calls that change nothing then.
        let result = unsafe { libc::syscall(number.parse()?, 0, 0, 0, 0, 0, 0) };
        let outcome = said(Errno::result(result).map_err(io::Error::from));
        println!("{number}: {outcome}");
    }
    Ok(())
}

/// What is answered to the ioctls that open the next and the previous mount namespace (NS_MNT_GET_NEXT and NS_MNT_GET_PREV of
/// linux/nsfs.h), as they are written, and with the type of another file's.
pub fn namespaces_by_ioctl(_: &[String]) -> Outcome {
    const SIZE: usize = 16;
    let own = File::open("/proc/self/ns/mnt")?;
    for (kind, number) in [(0xb7, 11), (0xb7, 12), (b'd', 11), (b'd', 12)] {
        let command = nix::request_code_read!(kind, number, SIZE);
        let mut information = [0_u8; SIZE];
        // SAFETY: the kernel writes as many bytes as the command says.
        let result =
            unsafe { libc::ioctl(own.as_raw_fd(), command as _, information.as_mut_ptr()) };
        let outcome = said(Errno::result(result).map_err(io::Error::from));
        println!("{kind:#x} {number}: {outcome}");
    }
    Ok(())
}

/// Tries them all.
pub fn forbidden(_: &[String]) -> Outcome {
    for (name, call, arguments) in FORBIDDEN {
        let [first, second, third] = arguments;
        // SAFETY: every pointer among the arguments is null, and nothing is asked that changes this process.
        let result = unsafe { libc::syscall(*call, *first, *second, *third, 0, 0, 0) };
        if result == 0 && *call == libc::SYS_clone {
            std::process::exit(0);
        }
        println!(
            "{name}: {}",
            said(Errno::result(result).map_err(io::Error::from))
        );
    }
    Ok(())
}
