//! Programs that try to reach processes outside: by naming a group, a user, everybody or a number, and by what the
//! kernel does for a terminal.
//!
//! `unsafe` is here for system calls that have no wrapper, which is what they are tried for.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{getpgrp, getpid, getsid, getuid};

use crate::Outcome;
use crate::isolation::said;

const IOPRIO_WHO_PGRP: i64 = 2;
const IOPRIO_WHO_USER: i64 = 3;
/// The last of the best-effort class (ioprio_set(2)).
const IOPRIO_LAST: i64 = (2 << 13) | 7;
const F_OWNER_PGRP: libc::c_int = 2;

fn call(number: libc::c_long, arguments: [i64; 4]) -> String {
    let [first, second, third, fourth] = arguments;
    // SAFETY: every pointer among the arguments outlives the call, or is null.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, 0, 0) };
    said(Errno::result(result).map_err(io::Error::from))
}

/// Whoever is in its group, or of its user, or anybody that it can name by -1 is asked to do less, and sent SIGUSR1.
pub fn reach_groups(_: &[String]) -> Outcome {
    // SAFETY: to ignore a signal installs no handler.
    unsafe { signal(Signal::SIGUSR1, SigHandler::SigIgn) }?;
    let user = i64::from(getuid().as_raw());
    let usr1 = libc::SIGUSR1.into();
    let (group, of_user) = (libc::PRIO_PGRP.into(), libc::PRIO_USER.into());
    let attempts = [
        (
            "setpriority of the group",
            libc::SYS_setpriority,
            [group, 0, 1, 0],
        ),
        (
            "setpriority of the user",
            libc::SYS_setpriority,
            [of_user, user, 1, 0],
        ),
        (
            "ioprio_set of the group",
            libc::SYS_ioprio_set,
            [IOPRIO_WHO_PGRP, 0, IOPRIO_LAST, 0],
        ),
        (
            "ioprio_set of the user",
            libc::SYS_ioprio_set,
            [IOPRIO_WHO_USER, user, IOPRIO_LAST, 0],
        ),
        ("kill of everybody", libc::SYS_kill, [-1, usr1, 0, 0]),
        ("kill of the group", libc::SYS_kill, [0, usr1, 0, 0]),
    ];
    for (name, number, arguments) in attempts {
        println!("{name}: {}", call(number, arguments));
    }
    Ok(())
}

/// Asks that whoever owns the description of its standard input be sent SIGUSR1 when there is something to read, and says
/// what came of it. A process without a filter says nothing; one that has a filter waits for it if it has an argument.
pub fn signal_owner(arguments: &[String]) -> Outcome {
    const F_SETSIG: i64 = 10;
    let is_unfiltered = std::env::var_os("RINGFENCE_UNFILTERED").is_some();
    let is_beside = !arguments.is_empty();
    let on: libc::c_int = 1;
    let on = (&raw const on) as i64;
    let (usr1, is_async) = (libc::SIGUSR1.into(), libc::O_ASYNC.into());
    let fcntl = libc::SYS_fcntl;
    for (name, number, arguments) in [
        ("F_SETSIG", fcntl, [0, F_SETSIG, usr1, 0]),
        ("O_ASYNC", fcntl, [0, libc::F_SETFL.into(), is_async, 0]),
        (
            "FIOASYNC",
            libc::SYS_ioctl,
            [0, libc::FIOASYNC as i64, on, 0],
        ),
    ] {
        let outcome = call(number, arguments);
        if !is_unfiltered {
            println!("{name}: {outcome}");
        }
    }
    if is_beside && !is_unfiltered {
        // They have the same description. The signal was chosen before.
        while nix::fcntl::fcntl(io::stdin(), FcntlArg::F_GETFL)? & libc::O_ASYNC == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// Names a process and a group outside by their numbers there, in every call that takes one.
pub fn reach(arguments: &[String]) -> Outcome {
    let [process, group] = arguments else {
        return Err("a process and its group".into());
    };
    let (process, group): (i64, i64) = (process.parse()?, group.parse()?);
    let own_group = getpgrp() == getpid();
    println!("leads its group: {own_group}, session: {}", getsid(None)?);
    let term = libc::SIGTERM.into();
    let (mask, policy) = ([1u64; 16], [0i32; 16]);
    let (mask, policy) = (mask.as_ptr() as i64, policy.as_ptr() as i64);
    let limit = [1u64; 2];
    let limit = limit.as_ptr() as i64;
    // Of SI_QUEUE, as processes may send it.
    let information: [i32; 32] = std::array::from_fn(|word| if word == 2 { -1 } else { 0 });
    let information = information.as_ptr() as i64;
    let pipe = io::pipe()?;
    let reading = i64::from(pipe.0.as_raw_fd());
    let owner = [F_OWNER_PGRP, group as libc::c_int];
    let owner = owner.as_ptr() as i64;
    let (of_process, of_group) = (libc::PRIO_PROCESS.into(), libc::PRIO_PGRP.into());
    let attempts = [
        ("kill", libc::SYS_kill, [process, term, 0, 0]),
        ("kill of a group", libc::SYS_kill, [-group, term, 0, 0]),
        ("tkill", libc::SYS_tkill, [process, term, 0, 0]),
        ("tgkill", libc::SYS_tgkill, [process, process, term, 0]),
        (
            "rt_sigqueueinfo",
            libc::SYS_rt_sigqueueinfo,
            [process, term, information, 0],
        ),
        ("pidfd_open", libc::SYS_pidfd_open, [process, 0, 0, 0]),
        (
            "getpriority",
            libc::SYS_getpriority,
            [of_process, process, 0, 0],
        ),
        (
            "getpriority of a group",
            libc::SYS_getpriority,
            [of_group, group, 0, 0],
        ),
        (
            "setpriority",
            libc::SYS_setpriority,
            [of_process, process, 1, 0],
        ),
        (
            "setpriority of a group",
            libc::SYS_setpriority,
            [of_group, group, 1, 0],
        ),
        ("ioprio_get", libc::SYS_ioprio_get, [1, process, 0, 0]),
        (
            "ioprio_set",
            libc::SYS_ioprio_set,
            [1, process, IOPRIO_LAST, 0],
        ),
        (
            "ioprio_set of a group",
            libc::SYS_ioprio_set,
            [IOPRIO_WHO_PGRP, group, IOPRIO_LAST, 0],
        ),
        (
            "sched_setscheduler",
            libc::SYS_sched_setscheduler,
            [process, 3, policy, 0],
        ),
        (
            "sched_setparam",
            libc::SYS_sched_setparam,
            [process, policy, 0, 0],
        ),
        (
            "sched_setattr",
            libc::SYS_sched_setattr,
            [process, policy, 0, 0],
        ),
        (
            "sched_getscheduler",
            libc::SYS_sched_getscheduler,
            [process, 0, 0, 0],
        ),
        (
            "sched_setaffinity",
            libc::SYS_sched_setaffinity,
            [process, 8, mask, 0],
        ),
        (
            "sched_getaffinity",
            libc::SYS_sched_getaffinity,
            [process, 128, mask, 0],
        ),
        (
            "prlimit64",
            libc::SYS_prlimit64,
            [process, libc::RLIMIT_NOFILE.into(), limit, 0],
        ),
        ("getpgid", libc::SYS_getpgid, [process, 0, 0, 0]),
        ("getsid", libc::SYS_getsid, [process, 0, 0, 0]),
        ("setpgid into a group", libc::SYS_setpgid, [0, group, 0, 0]),
        (
            "setpgid of a process",
            libc::SYS_setpgid,
            [process, 0, 0, 0],
        ),
        (
            "ptrace",
            libc::SYS_ptrace,
            [libc::PTRACE_SEIZE.into(), process, 0, 0],
        ),
        (
            "get_robust_list",
            libc::SYS_get_robust_list,
            [process, mask, mask, 0],
        ),
        (
            "F_SETOWN",
            libc::SYS_fcntl,
            [reading, libc::F_SETOWN.into(), process, 0],
        ),
        (
            "F_SETOWN of a group",
            libc::SYS_fcntl,
            [reading, libc::F_SETOWN.into(), -group, 0],
        ),
        (
            "F_SETOWN_EX of a group",
            libc::SYS_fcntl,
            [reading, 15, owner, 0],
        ),
        ("setsid", libc::SYS_setsid, [0; 4]),
    ];
    for (name, number, arguments) in attempts {
        println!("{name}: {}", call(number, arguments));
    }
    Ok(())
}

/// Waits until there is something in a file. Then it does to the terminal, in the background, what would put others there
/// in difficulty, and adds to the file what came of it. Then it waits for a key, or for the terminal's end.
pub fn steal(arguments: &[String]) -> Outcome {
    use std::io::{Read, Write};
    let [report] = arguments else {
        return Err("a file".into());
    };
    while fs::read_to_string(report).unwrap_or_default().is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: to ignore a signal installs no handler.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTTOU);
    stops.thread_block()?;
    let mut report = OpenOptions::new().append(true).open(report)?;
    let terminal = File::open("/dev/tty")?;
    let group = getpgrp().as_raw();
    let size = [1u16, 1, 0, 0];
    let number = i64::from(terminal.as_raw_fd());
    let tiocspgrp = libc::TIOCSPGRP as i64;
    let attempts = [
        ("TIOCSCTTY", [number, libc::TIOCSCTTY as i64, 1, 0]),
        (
            "TIOCSPGRP",
            [number, tiocspgrp, (&raw const group) as i64, 0],
        ),
        (
            "TIOCSWINSZ",
            [number, libc::TIOCSWINSZ as i64, size.as_ptr() as i64, 0],
        ),
        (
            "TIOCSTI",
            [number, libc::TIOCSTI as i64, c"x".as_ptr() as i64, 0],
        ),
    ];
    for (name, arguments) in attempts {
        writeln!(report, "{name}: {}", call(libc::SYS_ioctl, arguments))?;
    }
    let mut settings = nix::sys::termios::tcgetattr(&terminal)?;
    nix::sys::termios::cfmakeraw(&mut settings);
    let set =
        nix::sys::termios::tcsetattr(&terminal, nix::sys::termios::SetArg::TCSANOW, &settings);
    writeln!(report, "tcsetattr: {}", said(set.map_err(io::Error::from)))?;
    writeln!(report, "done")?;
    let mut key = [0];
    let read = match (&terminal).read(&mut key) {
        Ok(1) => "a key",
        _ => "hung up",
    };
    writeln!(report, "{read}")?;
    Ok(())
}
