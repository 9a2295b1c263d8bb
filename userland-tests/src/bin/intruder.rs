//! In a sentry's place: enters the namespaces of a sentry, keeps the one capability that it has, and tries every call by
//! which one process can name another on a server. For each it prints its name and `ok`, or the name of the error.
//!
//! Standard input is a pidfd of the server, which a sentry has, too. The sentry's filter is left out, since what keeps it
//! from its server is to hold without; or each attempt is made under it, and `killed` if the filter does not let it through.
//!
//! Usage: `intruder SENTRY NUMBER [filtered]`, where NUMBER is what the server is to be called in the sentry's process namespace. Only
//! root can do this: a sentry shows its namespaces to nobody else.
//!
//! `unsafe` is here because of fork(2), and of calls that have no wrapper.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::process::{ExitCode, exit};
use std::ptr::{null, null_mut};

use libc::{c_int, c_long};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use ringfence_confinement::{Table, install, policies};

/// CAP_SYS_PTRACE of linux/capability.h.
const CAP_SYS_PTRACE: u32 = 1 << 19;
/// The pidfd.
const PIDFD: c_long = 0;
/// Of linux/ioprio.h.
const IOPRIO_WHO_PROCESS: c_long = 1;
/// `PIDFD_GET_USER_NAMESPACE` and `PIDFD_GET_PID_NAMESPACE` of linux/pidfd.h (Linux 6.11).
const PIDFD_GET_USER_NAMESPACE: c_long = 0xff09;
const PIDFD_GET_PID_NAMESPACE: c_long = 0xff05;

fn main() -> ExitCode {
    match enter() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn enter() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, sentry, number, how @ ..] = &arguments[..] else {
        return Err("usage: intruder SENTRY NUMBER [filtered]".into());
    };
    let is_filtered = !how.is_empty();
    let number: c_long = number.parse()?;
    let open = |name: &str| File::open(format!("/proc/{sentry}/ns/{name}"));
    let namespaces = [
        (open("user")?, CloneFlags::CLONE_NEWUSER),
        (open("pid")?, CloneFlags::CLONE_NEWPID),
        (open("mnt")?, CloneFlags::CLONE_NEWNS),
    ];
    for (namespace, kind) in namespaces {
        setns(namespace, kind)?;
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(ExitCode::SUCCESS),
            other => Err(format!("{other:?}").into()),
        },
        ForkResult::Child => {
            keep_rights().map_err(|errno| format!("capset: {errno}"))?;
            try_all(number, is_filtered);
            exit(0)
        }
    }
}

/// Leaves this process the rights of a sentry.
fn keep_rights() -> Result<(), Errno> {
    // `_LINUX_CAPABILITY_VERSION_3`, and sets of effective, permitted and inheritable capabilities in two halves (capget(2)).
    let header = [0x2008_0522u32, 0];
    let sets = [CAP_SYS_PTRACE, CAP_SYS_PTRACE, 0, 0, 0, 0];
    // SAFETY: both outlive the call, which reads them.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    Errno::result(result)?;
    nix::sys::prctl::set_no_new_privs()
}

fn try_all(number: c_long, is_filtered: bool) {
    for (name, attempt) in BY_NUMBER {
        tell(name, is_filtered, || attempt(number));
    }
    for (name, flags) in FILES {
        let attempt = || open(number, name, *flags);
        tell(&format!("/proc/N/{name}"), is_filtered, attempt);
    }
    for (name, attempt) in BY_DESCRIPTOR {
        tell(name, is_filtered, attempt);
    }
}

fn tell(name: &str, is_filtered: bool, attempt: impl FnOnce() -> c_long) {
    if is_filtered {
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                if let Err(reason) = enter_filter() {
                    println!("{name}: {reason}");
                    exit(0);
                }
            }
            Ok(ForkResult::Parent { child }) => {
                if let Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)) = waitpid(child, None) {
                    println!("{name}: killed");
                }
                return;
            }
            Err(errno) => return println!("{name}: fork: {errno}"),
        }
    }
    match Errno::result(attempt()) {
        Ok(_) => println!("{name}: ok"),
        Err(errno) => println!("{name}: {errno:?}"),
    }
    if is_filtered {
        exit(0);
    }
}

/// Has this process make no call that a sentry could not make.
fn enter_filter() -> Result<(), String> {
    let own = [std::process::id()];
    let (name, numbers) = ("self", &own[..]);
    let program = policies::SENTRY.compile(&[Table { name, numbers }]);
    let program = program.map_err(|problem| problem.to_string())?;
    install(&program).map_err(|errno| errno.to_string())
}

type ByNumber = fn(c_long) -> c_long;
type ByDescriptor = fn() -> c_long;

/// Attempts on the process of a number.
const BY_NUMBER: &[(&str, ByNumber)] = &[
    ("kill", |n| call(libc::SYS_kill, [n, 0, 0, 0, 0])),
    ("tkill", |n| call(libc::SYS_tkill, [n, 0, 0, 0, 0])),
    ("tgkill", |n| call(libc::SYS_tgkill, [n, n, 0, 0, 0])),
    ("rt_sigqueueinfo", |n| {
        let information = queued();
        let information = &raw const information as c_long;
        call(libc::SYS_rt_sigqueueinfo, [n, 0, information, 0, 0])
    }),
    ("rt_tgsigqueueinfo", |n| {
        let information = queued();
        let information = &raw const information as c_long;
        call(libc::SYS_rt_tgsigqueueinfo, [n, n, 0, information, 0])
    }),
    ("F_SETOWN", |n| {
        call(libc::SYS_fcntl, [1, libc::F_SETOWN.into(), n, 0, 0])
    }),
    ("pidfd_open", |n| {
        call(libc::SYS_pidfd_open, [n, 0, 0, 0, 0])
    }),
    ("pidfd_open, of a thread", |n| {
        let thread = libc::O_EXCL.into();
        call(libc::SYS_pidfd_open, [n, thread, 0, 0, 0])
    }),
    ("PTRACE_SEIZE", |n| {
        let seized = call(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), n, 0, 0, 0]);
        if seized == 0 {
            // It cannot be let go of while it runs, but ends to be traced with this process.
            call(libc::SYS_ptrace, [libc::PTRACE_DETACH.into(), n, 0, 0, 0]);
        }
        seized
    }),
    ("process_vm_readv", |n| {
        memory(n, libc::SYS_process_vm_readv)
    }),
    ("process_vm_writev", |n| {
        memory(n, libc::SYS_process_vm_writev)
    }),
    ("kcmp", |n| {
        let own = std::process::id().into();
        // KCMP_FILE of linux/kcmp.h.
        call(libc::SYS_kcmp, [own, n, 0, 1, 1])
    }),
    ("move_pages", |n| {
        call(libc::SYS_move_pages, [n, 0, 0, 0, 0])
    }),
    ("migrate_pages", |n| {
        let nodes = [1u64];
        let nodes = nodes.as_ptr() as c_long;
        call(libc::SYS_migrate_pages, [n, 1, nodes, nodes, 0])
    }),
    ("get_robust_list", |n| {
        let mut found = [0u64; 2];
        let [head, length] = [0, 1].map(|index| &raw mut found[index] as c_long);
        call(libc::SYS_get_robust_list, [n, head, length, 0, 0])
    }),
    ("prlimit", |n| {
        let mut found = [0u64; 2];
        let found = found.as_mut_ptr() as c_long;
        let resource = c_long::from(libc::RLIMIT_NOFILE);
        call(libc::SYS_prlimit64, [n, resource, 0, found, 0])
    }),
    ("sched_getaffinity", |n| {
        let mut found = [0u64; 16];
        call(
            libc::SYS_sched_getaffinity,
            [n, 128, found.as_mut_ptr() as c_long, 0, 0],
        )
    }),
    ("sched_setaffinity", |n| {
        let all = [u64::MAX; 16];
        call(
            libc::SYS_sched_setaffinity,
            [n, 128, all.as_ptr() as c_long, 0, 0],
        )
    }),
    ("sched_getscheduler", |n| {
        call(libc::SYS_sched_getscheduler, [n, 0, 0, 0, 0])
    }),
    ("sched_setscheduler", |n| {
        let parameters = [0u32];
        let parameters = parameters.as_ptr() as c_long;
        let other = c_long::from(libc::SCHED_OTHER);
        call(libc::SYS_sched_setscheduler, [n, other, parameters, 0, 0])
    }),
    ("sched_getattr", |n| {
        let mut found = [0u8; 64];
        call(
            libc::SYS_sched_getattr,
            [n, found.as_mut_ptr() as c_long, 64, 0, 0],
        )
    }),
    ("sched_rr_get_interval", |n| {
        let mut found = [0u64; 2];
        let found = found.as_mut_ptr() as c_long;
        call(libc::SYS_sched_rr_get_interval, [n, found, 0, 0, 0])
    }),
    ("getpriority", |n| {
        call(
            libc::SYS_getpriority,
            [libc::PRIO_PROCESS.into(), n, 0, 0, 0],
        )
    }),
    ("setpriority", |n| {
        call(
            libc::SYS_setpriority,
            [libc::PRIO_PROCESS.into(), n, 0, 0, 0],
        )
    }),
    ("ioprio_get", |n| {
        call(libc::SYS_ioprio_get, [IOPRIO_WHO_PROCESS, n, 0, 0, 0])
    }),
    ("ioprio_set", |n| {
        call(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, n, 0, 0, 0])
    }),
    ("getpgid", |n| call(libc::SYS_getpgid, [n, 0, 0, 0, 0])),
    ("getsid", |n| call(libc::SYS_getsid, [n, 0, 0, 0, 0])),
    ("capget", |n| {
        let header = [0x2008_0522u32, n as u32];
        let mut sets = [0u32; 6];
        let sets = sets.as_mut_ptr() as c_long;
        call(libc::SYS_capget, [header.as_ptr() as c_long, sets, 0, 0, 0])
    }),
    ("perf_event_open", |n| {
        // `struct perf_event_attr` of linux/perf_event.h: PERF_TYPE_SOFTWARE, its size, PERF_COUNT_SW_DUMMY; nothing of the
        // kernel is counted.
        let mut event = [0u64; 16];
        event[0] = 1 | 64 << 32;
        event[1] = 9;
        event[5] = 1 << 5 | 1 << 6;
        let event = event.as_ptr() as c_long;
        call(libc::SYS_perf_event_open, [event, n, -1, -1, 0])
    }),
];

/// Files of a process, and how to open them.
const FILES: &[(&str, c_int)] = &[
    ("status", libc::O_RDONLY),
    ("mem", libc::O_RDWR),
    ("maps", libc::O_RDONLY),
    ("pagemap", libc::O_RDONLY),
    ("environ", libc::O_RDONLY),
    ("auxv", libc::O_RDONLY),
    ("syscall", libc::O_RDONLY),
    ("fd", libc::O_RDONLY),
    ("fd/0", libc::O_PATH),
    ("fdinfo", libc::O_RDONLY),
    ("map_files", libc::O_RDONLY),
    ("root", libc::O_PATH),
    ("cwd", libc::O_PATH),
    ("exe", libc::O_RDONLY),
    ("task", libc::O_RDONLY),
    ("ns/user", libc::O_PATH),
    ("ns/pid", libc::O_PATH),
    ("ns/mnt", libc::O_PATH),
    ("oom_score_adj", libc::O_WRONLY),
    ("clear_refs", libc::O_WRONLY),
];

/// Attempts on the process of the pidfd.
const BY_DESCRIPTOR: &[(&str, ByDescriptor)] = &[
    ("pidfd_getfd", || {
        call(libc::SYS_pidfd_getfd, [PIDFD, 0, 0, 0, 0])
    }),
    ("pidfd_send_signal", || {
        call(libc::SYS_pidfd_send_signal, [PIDFD, 0, 0, 0, 0])
    }),
    ("process_madvise", || {
        let part = [0x1000u64, 0x1000];
        let (part, cold) = (part.as_ptr() as c_long, libc::MADV_COLD.into());
        call(libc::SYS_process_madvise, [PIDFD, part, 1, cold, 0])
    }),
    ("setns, of a pidfd", || {
        let namespace = libc::CLONE_NEWPID.into();
        call(libc::SYS_setns, [PIDFD, namespace, 0, 0, 0])
    }),
    ("setns to the user of a pidfd", || {
        let namespace = libc::CLONE_NEWUSER.into();
        call(libc::SYS_setns, [PIDFD, namespace, 0, 0, 0])
    }),
    ("PIDFD_GET_USER_NAMESPACE", || {
        call(libc::SYS_ioctl, [PIDFD, PIDFD_GET_USER_NAMESPACE, 0, 0, 0])
    }),
    ("PIDFD_GET_PID_NAMESPACE", || {
        call(libc::SYS_ioctl, [PIDFD, PIDFD_GET_PID_NAMESPACE, 0, 0, 0])
    }),
    ("its number", || {
        let text = fs::read_to_string("/proc/self/fdinfo/0").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        let number = line.and_then(|number| number.trim().parse().ok());
        // The kernel says 0 of a process that has no number here.
        match number {
            Some(number @ 1..) => number,
            _ => {
                Errno::ESRCH.set();
                -1
            }
        }
    }),
];

/// What sigqueue(3) sends along.
fn queued() -> libc::siginfo_t {
    // SAFETY: an all-zero siginfo_t is a valid one.
    let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
    information.si_code = libc::SI_QUEUE;
    information
}

/// Reads or writes 8 bytes of the memory of the process `number`: of its first mapping that can be written, or of none.
fn memory(number: c_long, how: c_long) -> c_long {
    let maps = fs::read_to_string(format!("/proc/{number}/maps")).unwrap_or_default();
    let writable = maps.lines().find(|line| line.contains(" rw-p "));
    let start = writable.and_then(|line| line.split('-').next());
    let address = start.and_then(|start| usize::from_str_radix(start, 16).ok());
    let mut bytes = [0u64];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: 8,
    };
    let remote = libc::iovec {
        iov_base: address.map_or(null_mut(), |address| address as *mut _),
        iov_len: 8,
    };
    let [local, remote] = [&raw const local, &raw const remote].map(|vector| vector as c_long);
    // What is written is what was there.
    let read = call(libc::SYS_process_vm_readv, [number, local, 1, remote, 1]);
    if how == libc::SYS_process_vm_readv {
        read
    } else {
        call(how, [number, local, 1, remote, 1])
    }
}

fn open(number: c_long, file: &str, flags: c_int) -> c_long {
    let path = std::ffi::CString::new(format!("/proc/{number}/{file}")).unwrap_or_default();
    let directory = c_long::from(libc::AT_FDCWD);
    let opened = call(
        libc::SYS_openat,
        [directory, path.as_ptr() as c_long, flags.into(), 0, 0],
    );
    // Some files can be opened by everybody, and what they say is the question.
    if opened >= 0 && flags == libc::O_RDONLY && !is_directory(opened) {
        let mut byte = 0u8;
        return call(libc::SYS_read, [opened, &raw mut byte as c_long, 1, 0, 0]);
    }
    opened
}

fn is_directory(descriptor: c_long) -> bool {
    fs::metadata(format!("/proc/self/fd/{descriptor}")).is_ok_and(|status| status.is_dir())
}

fn call(number: c_long, arguments: [c_long; 5]) -> c_long {
    let [a, b, c, d, e] = arguments;
    // SAFETY: pointers among the arguments are null or lead to what outlives the call.
    unsafe { libc::syscall(number, a, b, c, d, e, null::<u8>()) }
}
