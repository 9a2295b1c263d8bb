//! How long pins may keep one another waiting: some two seconds, counted in looks that are a millisecond apart, and in
//! milliseconds for which the thread that looks has run or was kept from running by others.
//!
//! The clock goes on while the sandbox is frozen by the freezer of cgroups, and none of these is counted then. All pins of a
//! sandbox are carried out by one thread, so one count serves them all: what has passed since a pin began to wait is
//! what it, and those before it, have taken. The driver's own call is not among that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::PAUSE;

/// The looks that were taken in a sandbox.
#[derive(Default)]
pub struct Looks(AtomicU64);

impl Looks {
    /// How many there are by now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is left until there have been enough looks.
pub struct Patience<'a> {
    looks: &'a Looks,
    until: u64,
}

impl Patience<'_> {
    const LOOKS: u64 = 2000;

    /// Of what began when there had been so many looks.
    pub fn since(count: u64, looks: &Looks) -> Patience<'_> {
        Patience {
            looks,
            until: count.saturating_add(Patience::LOOKS),
        }
    }

    /// Whether there may be more.
    pub fn is_left(&self) -> bool {
        self.looks.count() < self.until
    }

    /// Counts what was done besides pauses. In a sandbox with thousands of tasks a pass over all of them takes as long as many
    /// looks, and longer where others keep the processors.
    pub fn spend(&self, work: &mut Work) {
        let looks = work.milliseconds();
        self.looks.0.fetch_add(looks, Ordering::Relaxed);
    }

    /// Pauses until the next look; false if there have been enough of them.
    pub fn pause(&self) -> bool {
        let is_left = self.is_left();
        self.looks.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
        is_left
    }
}

/// For how long the calling thread has been running, or would have if others had not been.
pub struct Work {
    counted: Duration,
}

impl Work {
    /// From now on.
    pub fn begin() -> Work {
        Work {
            counted: Work::so_far(),
        }
    }

    /// Whole milliseconds since the last call, or the beginning.
    fn milliseconds(&mut self) -> u64 {
        let milliseconds = Work::so_far().saturating_sub(self.counted).as_millis() as u64;
        self.counted += Duration::from_millis(milliseconds);
        milliseconds
    }

    /// By /proc/PID/schedstat (Documentation/scheduler/sched-stats.rst in Linux): nanoseconds for which a thread ran, and for
    /// which it waited to run. A kernel without that knows the former alone.
    fn so_far() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut words = text.split(' ').map_while(|word| word.parse().ok());
        match (words.next(), words.next()) {
            (Some(ran), Some(waited)) => Duration::from_nanos(u64::saturating_add(ran, waited)),
            _ => clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Into::into),
        }
    }
}
