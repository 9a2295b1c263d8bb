//! Pins, while other processes of the sandbox do what makes them hard to hold.
//!
//! `unsafe` is here for processes that the library does not make, and what they share.

#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;

use crate::Outcome;
use crate::children::child;
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{Gpu, MEMORY, word};
use crate::lent::answer;
use crate::pinning::{Pages, pin, pin_at_once};

/// Pins and frees again and again until a process that executes this program with `arguments` has ended; says what
/// came of the pins, and of the process.
fn pin_beside(arguments: &[&str]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let mut other = Command::new("/proc/self/exe").args(arguments).spawn()?;
    let mut outcomes = BTreeSet::new();
    let ended = loop {
        outcomes.insert(word(pin_at_once(&gpu, MEMORY, &pages)));
        // It is not there if the pin failed.
        let _ = gpu.free(MEMORY);
        if let Some(status) = other.try_wait()? {
            break status;
        }
    };
    // Others may keep the processors for so long that there was no time to pin.
    let was_short = outcomes.remove("EAGAIN");
    let outcomes: Vec<String> = outcomes.into_iter().collect();
    println!("pins: {}", outcomes.join(", "));
    if arguments.contains(&COPYING) {
        println!("time was short: {was_short}");
    }
    println!("beside: {ended}");
    println!("then: {}", word(pin(&gpu, MEMORY, &pages)));
    Ok(())
}

/// What the processes of chains share: when one ran last, how long none did, and whether they are to end. Nobody waits for a
/// child from here on.
fn begin_chains(shared: &Pages) -> nix::Result<[&AtomicU64; 3]> {
    // SAFETY: the kernel has no handler to run.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
    // SAFETY: it lives as long as these words, which are used for nothing else.
    Ok([0, 1, 2].map(|at| unsafe { &*shared.address().cast::<AtomicU64>().add(at) }))
}

/// Pins so many times beside processes of which each makes the next, for the same parent, and ends. Says whether all pins
/// succeeded or failed for want of time, and whether none of these processes ran for so many milliseconds during each that
/// succeeded.
pub fn chain(arguments: &[String]) -> Outcome {
    let [times, milliseconds] = arguments else {
        return Err("how often, and how long?".into());
    };
    let (times, milliseconds): (u32, u64) = (times.parse()?, milliseconds.parse()?);
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let shared = Pages::new(libc::MAP_SHARED)?;
    let [last, longest, is_over] = begin_chains(&shared)?;
    last.store(now(), Ordering::SeqCst);
    let _ = child(|| loop_of_processes(last, longest, is_over))?;
    let (mut outcomes, mut stood_still) = (BTreeSet::new(), true);
    for _ in 0..times {
        longest.store(0, Ordering::SeqCst);
        let outcome = word(pin_at_once(&gpu, MEMORY, &pages));
        // The next one is to have said how long there was none.
        let seen = last.load(Ordering::SeqCst);
        while last.load(Ordering::SeqCst) == seen {
            std::thread::yield_now();
        }
        if outcome == "ok" {
            gpu.free(MEMORY)?;
            stood_still &= longest.load(Ordering::SeqCst) >= milliseconds * 1_000_000;
        }
        outcomes.insert(outcome);
        if !stood_still {
            break;
        }
    }
    is_over.store(1, Ordering::SeqCst);
    outcomes.remove("EAGAIN");
    let outcomes: Vec<String> = outcomes.into_iter().collect();
    println!("pins: {}", outcomes.join(", "));
    println!("stood still: {stood_still}");
    Ok(())
}

/// Pins once beside several such chains, which end with it, and says what came of that.
pub fn chains(_: &[String]) -> Outcome {
    const CHAINS: u32 = 8;
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let shared = Pages::new(libc::MAP_SHARED)?;
    let [last, longest, is_over] = begin_chains(&shared)?;
    for _ in 0..CHAINS {
        let _ = child(|| loop_of_processes(last, longest, is_over))?;
    }
    println!("pinned: {}", word(pin_at_once(&gpu, MEMORY, &pages)));
    is_over.store(1, Ordering::SeqCst);
    Ok(())
}

/// Nanoseconds of the monotonic clock.
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

fn loop_of_processes(last: &AtomicU64, longest: &AtomicU64, is_over: &AtomicU64) -> Outcome {
    while is_over.load(Ordering::SeqCst) == 0 {
        let now = now();
        let since = now.saturating_sub(last.swap(now, Ordering::SeqCst));
        longest.fetch_max(since, Ordering::SeqCst);
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        // SAFETY: it is fork(2) but for the parent, and this process has one thread.
        if Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? != 0 {
            break;
        }
    }
    // SAFETY: nothing of this process is to be done at its end.
    unsafe { libc::_exit(0) }
}

/// Pins beside a process that executes itself again and again, as [`execute`] says.
pub fn executions(arguments: &[String]) -> Outcome {
    let arguments = arguments.iter().map(String::as_str);
    let arguments: Vec<&str> = std::iter::once("execute").chain(arguments).collect();
    pin_beside(&arguments)
}

const COPYING: &str = "with much to copy";

/// Executes itself so many times, each time from another thread than the first, "among threads", many of them, "with much to
/// copy" besides, so that it takes its time before it ends the others, or "behind a request", for whose answer the first one
/// waits.
pub fn execute(arguments: &[String]) -> Outcome {
    const OTHERS: usize = 40;
    let [times, how] = arguments else {
        return Err("how often, and how?".into());
    };
    let times: u32 = times.parse()?;
    if times == 0 {
        return Ok(());
    }
    let again = [(times - 1).to_string(), how.clone()];
    let is_behind_a_request = how == "behind a request";
    // The most that an execution copies is a quarter of the stack's limit, 128 KiB in a piece (execve(2)).
    let pieces = if how == COPYING { 14 } else { 0 };
    let uvm = address_space()?;
    if !is_behind_a_request {
        for _ in 0..OTHERS {
            std::thread::spawn(|| {
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    }
    let first = gettid();
    let executing = std::thread::spawn(move || {
        while is_behind_a_request && !is_in_an_ioctl(first) {
            std::thread::yield_now();
        }
        // Each time at another moment of a pin.
        std::thread::sleep(Duration::from_millis(u64::from(times * 7 % 23)));
        Command::new("/proc/self/exe")
            .arg("execute")
            .args(again)
            .envs((0..pieces).map(|piece| (format!("PIECE_{piece}"), "x".repeat(127 << 10))))
            .exec()
    });
    if is_behind_a_request {
        register_gpu(&uvm)?;
    }
    Err(executing.join().expect("the other thread").into())
}

/// By proc_pid_syscall(5).
pub fn is_in_an_ioctl(thread: nix::unistd::Pid) -> bool {
    let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall"));
    call.is_ok_and(|call| call.starts_with(&format!("{} ", libc::SYS_ioctl)))
}

/// So many descriptors of one file at most.
const DESCRIPTORS: u64 = 100_000;
/// So many locks at most, of a byte each: the kernel takes the longer for one the more there are.
const LOCKS: u64 = 20_000;
/// So often the kernel looks at a lock when all the descriptors are closed, one after the other, which takes it seconds.
const LOOKS: u64 = 800_000_000;

/// Pins with very many of both, as far as the limit of descriptors has room; if there are arguments, under a filter of its
/// own that answers the call of that number with that errno.
pub fn locks(arguments: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let file = File::create("/tmp/locks")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let room = hard.saturating_sub(100).min(DESCRIPTORS);
    for record in (0..LOCKS.min(LOOKS / room.max(1))).rev() {
        lock(&file, 2 * record as i64)?;
    }
    let mut descriptors = Vec::new();
    for _ in 0..room {
        descriptors.push(file.try_clone()?);
    }
    if let [call, errno] = arguments {
        answer(call.parse()?, errno.parse()?)?;
    }
    println!("pinned: {}", word(pin(&gpu, MEMORY, &pages)));
    std::mem::forget(descriptors);
    // SAFETY: nothing is to be done at the end.
    unsafe { libc::_exit(0) }
}

/// Locks a byte, for this process.
fn lock(file: &File, start: i64) -> nix::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&lock)).map(drop)
}
