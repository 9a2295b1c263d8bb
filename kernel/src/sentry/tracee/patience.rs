//! How long pins may keep one another waiting: some two seconds, counted in looks that are a millisecond apart.
//!
//! The clock goes on while the sandbox is frozen by the freezer of cgroups, and no look is taken then. All pins of a sandbox
//! are carried out by one thread, so one count of looks serves them all: what has passed since a pin began to wait is
//! what it, and those before it, have taken. The driver's own call is not among that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    const OF_A_PASS: u64 = 50;

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

    /// A pass over all tasks has taken this long, without a pause. In a sandbox with thousands of them that is many looks. Of
    /// a long one most may be that the sandbox was frozen: no more than [`Patience::OF_A_PASS`] counts.
    pub fn spend(&self, taken: Duration) {
        let looks = taken.as_millis() as u64;
        let counted = looks.min(Patience::OF_A_PASS);
        self.looks.0.fetch_add(counted, Ordering::Relaxed);
    }

    /// Pauses until the next look; false if there have been enough of them.
    pub fn pause(&self) -> bool {
        let is_left = self.is_left();
        self.looks.0.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
        is_left
    }
}
