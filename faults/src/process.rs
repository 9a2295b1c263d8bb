//! What a process does to itself because a rule says so.
//!
//! Dying and waiting make no system call that the process does not make anyway, so a seccomp filter need not allow more
//! in a test build. The limits do: `prlimit64`, and reading `/proc/self/statm`.
//!
//! `unsafe` is here for the instruction that kills, and for fork.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, fork};

/// Dies of SIGILL, which process 1 of a namespace is not spared, either.
pub fn die() -> ! {
    // SAFETY: the instruction is defined to be undefined; nothing runs after it.
    unsafe { std::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
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

/// Allows this process no descriptor whose number is `limit` or more.
pub fn limit_descriptors(limit: u64) {
    set_limit(Resource::RLIMIT_NOFILE, limit);
}

/// Allows this process `bytes` more of address space than it has.
pub fn limit_memory(bytes: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').next().and_then(|pages| pages.parse().ok());
    set_limit(Resource::RLIMIT_AS, pages.unwrap_or(0) * 4096 + bytes);
}

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

fn set_limit(resource: Resource, limit: u64) {
    let set = getrlimit(resource).and_then(|(_, most)| setrlimit(resource, limit.min(most), most));
    if let Err(errno) = set {
        eprintln!("a limit could not be set: {errno}");
    }
}
