//! How long to look for the peer's work before sleeping.
//!
//! The idea: to look for a while is cheaper than to sleep, unless the peer waits for the very processor that the looking
//! takes. The kernel puts both on one where the others are busy, and nothing but sleeping ends that. So each side notes
//! where it was when it last had something for the other, and who finds its own processor noted sleeps at once.
//!
//! But then the kernel has no cause to part them again, once another processor is free: neither ever waits for long. So
//! once in a while one looks all the same.
//!
//! A note is a hint. It may be outdated, and a peer may lie in it, at its own cost.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering, spin_loop};

/// How long to look before sleeping. Sleeping and being woken costs several microseconds, and tens on a
/// processor that idles; looking costs a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spin {
    /// At most this long. Counted in time, because a processor's pause takes from 1 to 140 cycles.
    pub duration: Duration,
}

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

impl Spin {
    /// Sleep at once.
    pub const NONE: Self = Self {
        duration: Duration::ZERO,
    };

    /// A spin that fits this machine: none where the peer cannot run at the same time, longer than
    /// light driver calls take where there are a few processors, and longer than most calls and the
    /// gaps between them where there are processors to spare. The first call of a process counts the
    /// processors, for which it reads the process's cgroup: who will be confined calls this before.
    pub fn automatic() -> Self {
        // Zero until they were counted. Two threads that count at once come to the same number. (The
        // model's atomics cannot be static, and there is nothing to model.)
        static PROCESSORS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let processors = match PROCESSORS.load(relaxed) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            counted => counted,
        };
        PROCESSORS.store(processors, relaxed);
        Self::for_processors(processors)
    }

    /// The same for as many processors.
    pub fn for_processors(processors: usize) -> Self {
        Self {
            duration: match processors {
                ..2 => Duration::ZERO,
                2..8 => Duration::from_micros(50),
                _ => Duration::from_millis(1),
            },
        }
    }

    /// Looks until `ready` or until it took too long; whether it was ready in the end.
    pub(crate) fn until(self, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        if self == Self::NONE {
            return false;
        }
        let started = Instant::now();
        while started.elapsed() < self.duration {
            for _ in 0..LOOKS {
                spin_loop();
                if ready() {
                    return true;
                }
            }
        }
        false
    }
}

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

/// Looks until `ready` or as long as `spin` says, but only once if the peer's note says that it was here; whether it was
/// ready in the end. `met` counts how often the note said so.
pub(crate) fn until(
    spin: Spin,
    of_peer: &AtomicU64,
    met: &AtomicU64,
    mut ready: impl FnMut() -> bool,
) -> bool {
    if ready() {
        return true;
    }
    let is_here = |here| of_peer.load(Ordering::Relaxed) == here;
    let sleeps_at_once = || {
        this().is_some_and(is_here)
            && !(met.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(TRIAL)
    };
    spin != Spin::NONE && !sleeps_at_once() && spin.until(ready)
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
