//! What a process does to itself because a rule says so.
//!
//! Dying and waiting make no system call that the process does not make anyway, so a seccomp filter need not allow more
//! in a test build. The limits do: `prlimit64`.
//!
//! `unsafe` is here for the instruction that kills.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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

/// Bytes.
const PIECE: usize = 64 << 10;

/// Takes all memory that this thread can get in pieces of [`PIECE`], for good. Smaller ones are still to be had.
pub fn exhaust_memory() {
    // The address space ends here. What is left is what the allocator has in reserve for this thread.
    set_limit(Resource::RLIMIT_AS, 1 << 20);
    let mut piece = Vec::<u8>::new();
    while piece.try_reserve_exact(PIECE).is_ok() {
        std::mem::forget(std::mem::take(&mut piece));
    }
}

fn set_limit(resource: Resource, limit: u64) {
    let set = getrlimit(resource).and_then(|(_, most)| setrlimit(resource, limit.min(most), most));
    if let Err(errno) = set {
        eprintln!("a limit could not be set: {errno}");
    }
}
