//! Which processor a thread is on: a note that the two sides of a channel leave each other.
//!
//! The idea: to look for the peer's work for a while is cheaper than to sleep, unless the peer waits for the very processor
//! that the looking takes. The kernel puts both on one where the others are busy, and nothing but sleeping ends that. So
//! each side notes where it was when it last had something for the other, and who finds its own processor noted does not
//! look for long.
//!
//! But then the kernel has no cause to part them again, once another processor is free: neither ever waits for long. So
//! once in a while one looks all the same.
//!
//! A note is a hint. It may be outdated, and a peer may lie in it, at its own cost.

use crate::{
    ring::Spin,
    sync::{AtomicU64, Ordering},
};

/// This thread's processor, plus one; `None` if the kernel does not say. (The C library reads it from this thread's own
/// memory, where the kernel keeps it: rseq(2).)
#[cfg(not(loom))]
fn this() -> Option<u64> {
    let processor = nix::sched::sched_getcpu().ok()?;
    u64::try_from(processor).ok()?.checked_add(1)
}

/// A model knows no processors.
#[cfg(loom)]
fn this() -> Option<u64> {
    None
}

/// Notes where this thread is, in a word that is 0 before.
pub(crate) fn note(word: &AtomicU64) {
    let Some(processor) = this() else { return };
    // The load spares the cache line while nothing changes, which is nearly always.
    if word.load(Ordering::Relaxed) != processor {
        word.store(processor, Ordering::Relaxed);
    }
}

/// One of so many times a side looks although its peer was on its processor.
const TRIAL: u64 = 32;

/// As long as `spin` says, unless the peer's note says that it was here. `met` counts how often it did.
pub(crate) fn fitting(spin: Spin, of_peer: &AtomicU64, met: &AtomicU64) -> Spin {
    let is_here = |here| of_peer.load(Ordering::Relaxed) == here;
    if this().is_some_and(is_here)
        && !(met.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TRIAL)
    {
        Spin::NONE
    } else {
        spin
    }
}

/// For tests: confines this thread to one processor, and returns which.
#[cfg(all(test, not(loom)))]
pub(crate) fn stay_here() -> usize {
    use nix::{
        sched::{CpuSet, sched_getcpu, sched_setaffinity},
        unistd::Pid,
    };
    let here = sched_getcpu().unwrap();
    let mut only = CpuSet::new();
    only.set(here).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).unwrap();
    here
}
