//! How much a sentry may have under way at once.
//!
//! An honest sentry has no more submissions under way than its ring has entries, and no two of them in the same bytes of
//! the arena. One that does not wait for completions, or names the same bytes again and again, could otherwise have any
//! number of requests queued here, each with a copy of its payload.

use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence_ipc::Geometry;

/// What is under way.
#[derive(Debug)]
pub struct Load {
    most_submissions: usize,
    most_bytes: usize,
    submissions: AtomicUsize,
    bytes: AtomicUsize,
}

impl Default for Load {
    /// Nothing is under way, and as much may be as an honest sentry's rings and arena have room for.
    fn default() -> Load {
        let Geometry {
            ring_entries,
            arena_bytes,
        } = Geometry::default();
        Load {
            most_submissions: ring_entries as usize,
            most_bytes: arena_bytes as usize,
            submissions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl Load {
    /// A submission was taken; false if there are more than there can be.
    #[must_use]
    pub fn begin(&self) -> bool {
        add(&self.submissions, 1, self.most_submissions)
    }

    /// A submission was completed.
    pub fn end(&self) {
        self.submissions.fetch_sub(1, Ordering::Relaxed);
    }

    /// A payload was copied; false if there are more bytes of them than there can be.
    #[must_use]
    pub fn copied(&self, bytes: usize) -> bool {
        add(&self.bytes, bytes, self.most_bytes)
    }

    /// A payload is no longer needed that [`Load::copied`] counted.
    pub fn dropped(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds to a count, unless that would make it more than `most`.
fn add(count: &AtomicUsize, further: usize, most: usize) -> bool {
    let sum = |count: usize| count.checked_add(further).filter(|sum| *sum <= most);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_what_an_honest_sentry_has_and_no_more() {
        let load = Load::default();
        let Geometry {
            ring_entries,
            arena_bytes,
        } = Geometry::default();
        assert!((0..ring_entries).all(|_| load.begin()));
        assert!(!load.begin());
        load.end();
        assert!(load.begin());
        assert!(load.copied(arena_bytes as usize));
        assert!(!load.copied(1));
        assert!(!load.copied(usize::MAX));
        load.dropped(2);
        assert!(load.copied(2));
    }
}
