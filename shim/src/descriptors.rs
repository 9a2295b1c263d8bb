//! What descriptor numbers are called in the lane, so that the sentry is asked once for each.
//!
//! A number means something else once it was closed. The functions by which a program closes or replaces descriptors
//! say so here ([`Descriptors::forget`]). An answer of the sentry's that was asked for before that must not be noted after
//! it; so each place counts how often it was forgotten, and takes a note only if that has not changed.
//!
//! A program that closes around the C library's functions can have the descriptor meant that was open before, until the
//! server has closed that. It confuses nobody else by it: its lane names nothing that was not its own.

use std::sync::atomic::{AtomicU64, Ordering};

use nvproxy_abi::lane::SUBJECTS;

/// Numbers of which something is noted. Requests on others are left to the trap.
const NUMBERS: usize = 1024;

/// Parts of a place: how often it was forgotten, the lane that the note is about, and the note.
const COUNT: u64 = 1 << 32;
const LANE_SHIFT: u32 = 16;
const NOTE_MASK: u64 = 0xffff;
/// The note that requests are to be left to the trap. Other notes are one more than a subject; 0 is none.
const TRAP: u64 = NOTE_MASK;
const _: () = assert!((SUBJECTS as u64) < TRAP);

/// What is known of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// What it is called in the lane.
    Subject(u32),
    /// It means nothing that the lane can name.
    Trap,
    /// Nothing, so far.
    Nothing(Unknown),
}

/// Permission to note something, while nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(u64);

/// The notes. All bytes zero is a table without any.
#[repr(transparent)]
pub struct Descriptors([AtomicU64; NUMBERS]);

impl Descriptors {
    fn place(&self, descriptor: i32) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(descriptor).ok()?)
    }

    /// What is known of `descriptor` in the lane with this number.
    pub fn look_up(&self, descriptor: i32, lane: u16) -> Known {
        let Some(place) = self.place(descriptor) else {
            return Known::Trap;
        };
        let noted = place.load(Ordering::Acquire);
        let is_of_lane = (noted >> LANE_SHIFT) as u16 == lane;
        match noted & NOTE_MASK {
            TRAP if is_of_lane => Known::Trap,
            note if is_of_lane && note > 0 => Known::Subject(note as u32 - 1),
            _ => Known::Nothing(Unknown(noted)),
        }
    }

    /// Notes what `descriptor` is called, or that it is not called anything, unless it was forgotten since `unknown`.
    pub fn note(&self, descriptor: i32, unknown: Unknown, lane: u16, subject: Option<u32>) {
        let note = match subject {
            Some(subject) if subject < SUBJECTS => u64::from(subject) + 1,
            _ => TRAP,
        };
        let noted = unknown.0 & !(COUNT - 1) | u64::from(lane) << LANE_SHIFT | note;
        if let Some(place) = self.place(descriptor) {
            // Whoever was faster noted the same, or the number means something else by now.
            let _ = place.compare_exchange(unknown.0, noted, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// `descriptor` may mean something else from now on.
    pub fn forget(&self, descriptor: i32) {
        let Some(place) = self.place(descriptor) else {
            return;
        };
        let forgotten = |noted: u64| Some((noted & !(COUNT - 1)).wrapping_add(COUNT));
        let _ = place.fetch_update(Ordering::AcqRel, Ordering::Relaxed, forgotten);
    }

    /// The same for all from `first` to `last`.
    pub fn forget_all(&self, first: u32, last: u32) {
        for descriptor in first..=last.min(NUMBERS as u32 - 1) {
            self.forget(descriptor as i32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Descriptors {
        Descriptors([const { AtomicU64::new(0) }; NUMBERS])
    }

    fn unknown(descriptors: &Descriptors, descriptor: i32, lane: u16) -> Unknown {
        match descriptors.look_up(descriptor, lane) {
            Known::Nothing(unknown) => unknown,
            known => panic!("{known:?}"),
        }
    }

    #[test]
    fn what_is_noted_is_known_until_it_is_forgotten() {
        let descriptors = none();
        let first = unknown(&descriptors, 3, 1);
        descriptors.note(3, first, 1, Some(0));
        assert_eq!(descriptors.look_up(3, 1), Known::Subject(0));
        descriptors.forget(3);
        let second = unknown(&descriptors, 3, 1);
        assert_ne!(first, second);
        descriptors.note(3, second, 1, None);
        assert_eq!(descriptors.look_up(3, 1), Known::Trap);
        descriptors.forget_all(0, u32::MAX);
        unknown(&descriptors, 3, 1);
    }

    #[test]
    fn an_answer_from_before_a_close_is_not_noted_after_it() {
        let descriptors = none();
        let before = unknown(&descriptors, 9, 1);
        descriptors.forget(9);
        descriptors.note(9, before, 1, Some(4));
        unknown(&descriptors, 9, 1);
    }

    #[test]
    fn notes_are_of_one_lane() {
        let descriptors = none();
        descriptors.note(0, unknown(&descriptors, 0, 1), 1, Some(7));
        descriptors.note(0, unknown(&descriptors, 0, 2), 2, Some(8));
        assert_eq!(descriptors.look_up(0, 2), Known::Subject(8));
        unknown(&descriptors, 0, 1);
    }

    #[test]
    fn numbers_beyond_the_table_are_left_to_the_trap() {
        let descriptors = none();
        for descriptor in [-1, NUMBERS as i32, i32::MAX, i32::MIN] {
            assert_eq!(descriptors.look_up(descriptor, 0), Known::Trap);
            descriptors.forget(descriptor);
        }
        let highest = unknown(&descriptors, NUMBERS as i32 - 1, 0);
        descriptors.note(NUMBERS as i32 - 1, highest, 0, Some(SUBJECTS));
        assert_eq!(descriptors.look_up(NUMBERS as i32 - 1, 0), Known::Trap);
    }
}
