//! A lane: slots in which the threads of one process ask, and one thread of another process answers.
//!
//! The idea: a ring has one producer, and producers that share one need a lock, which a signal handler that interrupts
//! its holder would wait for in vain. So a lane has no order and no indices. Whoever asks has a slot to itself, writes
//! the request there and sets the slot's bit in one word; who answers takes a bit away, and with it the request. A
//! bit can be taken once: a request whose bit is still there was not begun, and whoever asked can take it back.
//!
//! Either side may find any bytes in the region at any time. An answer to a slot concerns that slot alone, so there is
//! nothing that a peer could make inconsistent: it can only spoil its own requests. What is read of a request is read
//! once, into a [`Request`].
//!
//! The layout, in words of 8 bytes from the start of the region's arena:
//!
//! | word | content |
//! |---|---|
//! | 0 | the bits of the slots that hold a request |
//! | 1 | where the last one who asked was, as `look` notes it |
//! | 16 | 1 while who answers sleeps; the futex word that it sleeps on |
//! | 32 | not 0 once nothing is answered any more |
//! | 33 | where who answers was at the last answer |
//! | 34 | how often one who asked met it on its own processor |
//! | 64 + 2064 n | slot n |
//!
//! and of a slot: its state, which is also the futex word of who waits; the operation (lower half) and the length of the
//! payload; the subject; the result; from word 16 on, the payload.
//!
//! Sleeping is the pattern that `ring` explains: announce, then look once more; the peer acts, then looks for the
//! announcement. Closing a lane, and waking its server for something else, keep to it as well.

use std::time::{Duration, Instant};

use static_assertions::const_assert;

#[cfg(loom)]
use crate::lane_model::{Arena, Region, futex};
use crate::look::{self, Spin};
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use crate::sync::{AtomicU64, fence};
#[cfg(not(loom))]
use crate::{
    arena::Arena,
    futex,
    region::{Geometry, Region},
};

/// Requests that can be under way at once. Two are enough for a model to confuse one with the other.
pub const SLOTS: usize = if cfg!(loom) { 2 } else { 32 };
/// The longest payload of a request, in bytes. A model needs one word.
pub const SLOT_BYTES: usize = if cfg!(loom) { WORD } else { 16 << 10 };

const WORD: usize = size_of::<u64>();
/// Words of two cache lines, which the processor fetches as a pair. Each word more takes time in a model.
const LINE: usize = if cfg!(loom) { 4 } else { 16 };
/// Words of a page.
const PAGE: usize = if cfg!(loom) { 1 } else { 4096 / WORD };
const POSTED: usize = 0;
const ASKER: usize = 1;
const SLEEPING: usize = LINE;
const CLOSED: usize = 2 * LINE;
const ANSWERER: usize = CLOSED + 1;
const MET: usize = CLOSED + 2;
const FIRST_SLOT: usize = 4 * LINE;
const PAYLOAD: usize = LINE;
const SLOT_WORDS: usize = PAYLOAD + SLOT_BYTES / WORD;

/// Words of a slot, before its payload.
const STATE: usize = 0;
const OPERATION: usize = 1;
const SUBJECT: usize = 2;
const RESULT: usize = 3;

/// Words of a lane: whole pages, of which an arena is made.
pub const WORDS: usize = (FIRST_SLOT + SLOTS * SLOT_WORDS).next_multiple_of(PAGE);
const_assert!(SLOTS <= u64::BITS as usize);

/// The geometry of the region that a lane lies in. Its rings are not used.
#[cfg(not(loom))]
pub const GEOMETRY: Geometry = Geometry {
    ring_entries: 1,
    arena_bytes: (WORDS * WORD) as u32,
};

/// States of a slot. The request was not answered yet.
const ASKED: u64 = 0;
/// The same, and who asked sleeps.
const ASLEEP: u64 = 1;
/// It was answered.
const ANSWERED: u64 = 2;
/// It was not issued, and is to be made in another way.
const REFUSED: u64 = 3;

/// A request, as it was when it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is about, in a naming that the two sides have agreed upon.
    pub subject: u64,
    /// What to do.
    pub operation: u32,
    /// The length of the payload in bytes, whatever the peer says that it is.
    pub length: u32,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out: 0 or more, or a negated errno. The payload is the answer's.
    Done(i64),
    /// Nothing was done. It is to be made in another way.
    Refused,
}

/// What ended a wait for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is an answer.
    Answered(Answer),
    /// There will be none: the lane is closed. [`Lane::withdraw`] says whether the request was begun.
    Closed,
    /// There is none yet.
    TimedOut,
}

/// A lane's words. Where a slot is named by its number, numbers beyond [`SLOTS`] name one of them, too.
#[derive(Clone, Copy)]
pub struct Lane<'a>(&'a [AtomicU64; WORDS]);

impl<'a> Lane<'a> {
    /// The lane in the arena of a region of [`GEOMETRY`]; `None` if the arena is of another size.
    pub fn new(arena: &'a [AtomicU64]) -> Option<Lane<'a>> {
        arena.try_into().ok().map(Lane)
    }

    fn word(&self, index: usize) -> &'a AtomicU64 {
        &self.0[index % WORDS]
    }

    fn of_slot(&self, slot: usize, index: usize) -> &'a AtomicU64 {
        self.word(FIRST_SLOT + slot % SLOTS * SLOT_WORDS + index)
    }

    fn bit(slot: usize) -> u64 {
        1 << (slot % SLOTS)
    }

    /// The words of a slot's payload.
    pub fn payload(&self, slot: usize) -> impl Iterator<Item = &'a AtomicU64> {
        let start = FIRST_SLOT + slot % SLOTS * SLOT_WORDS + PAYLOAD;
        let words = self.0.get(start..start + SLOT_BYTES / WORD);
        words.unwrap_or_default().iter()
    }

    /// Makes a request of what lies in the slot's payload. The slot has to be the caller's own, and none of its requests
    /// under way.
    pub fn post(&self, slot: usize, request: Request) {
        let Request {
            subject,
            operation,
            length,
        } = request;
        let operation = u64::from(length) << 32 | u64::from(operation);
        self.of_slot(slot, OPERATION).store(operation, Relaxed);
        self.of_slot(slot, SUBJECT).store(subject, Relaxed);
        self.of_slot(slot, STATE).store(ASKED, Relaxed);
        look::note(self.word(ASKER));
        self.word(POSTED).fetch_or(Lane::bit(slot), Release);
        fence(SeqCst);
        let sleeping = self.word(SLEEPING);
        // The load spares the cache line while nobody sleeps.
        if sleeping.load(Relaxed) != 0 && sleeping.swap(0, Relaxed) != 0 {
            futex::wake_low(sleeping);
        }
    }

    /// The answer to the slot's request, if there is one.
    pub fn answer(&self, slot: usize) -> Option<Answer> {
        match self.of_slot(slot, STATE).load(Acquire) {
            ASKED | ASLEEP => None,
            ANSWERED => {
                let result = self.of_slot(slot, RESULT).load(Relaxed);
                Some(Answer::Done(result as i64))
            }
            _ => Some(Answer::Refused),
        }
    }

    /// Waits for the answer: looks as long as `spin` says, then sleeps, at most for `timeout`. For who has
    /// nothing else to do meanwhile.
    pub fn wait(&self, slot: usize, spin: Spin, timeout: Duration) -> Waited {
        // A deadline too far for the clock to count is no deadline.
        let deadline = Instant::now().checked_add(timeout);
        let mut waited = self.look(slot, spin);
        let mut left = timeout;
        // Wakes may be spurious: one that the answer to an earlier request was late with comes in the midst of this.
        while waited == Waited::TimedOut && left > Duration::ZERO {
            self.sleep(slot, left);
            waited = self.look(slot, Spin::NONE);
            if let Some(deadline) = deadline {
                left = deadline.saturating_duration_since(Instant::now());
            }
        }
        waited
    }

    /// Looks for the answer as long as `spin` says, and mostly only once if who answers was on this processor. Allocates
    /// nothing and takes no lock.
    pub fn look(&self, slot: usize, spin: Spin) -> Waited {
        look::until(spin, self.word(ANSWERER), self.word(MET), || {
            self.answer(slot).is_some() || self.is_closed()
        });
        match self.answer(slot) {
            Some(answer) => Waited::Answered(answer),
            None if self.is_closed() => Waited::Closed,
            None => Waited::TimedOut,
        }
    }

    /// Sleeps until there is an answer, at most for `timeout`. Wakes may be spurious. Allocates nothing and takes no lock.
    pub fn sleep(&self, slot: usize, timeout: Duration) {
        let state = self.of_slot(slot, STATE);
        let announced = state.compare_exchange(ASKED, ASLEEP, Relaxed, Relaxed);
        fence(SeqCst);
        // A second sleep finds the announcement of the first.
        if matches!(announced, Ok(_) | Err(ASLEEP)) && !self.is_closed() {
            // Woken, or never asleep, or a signal, or late: the words know.
            let _ = futex::wait_low(state, ASLEEP as u32, Some(timeout));
        }
    }

    /// Takes the slot's request back; false if it was begun.
    pub fn withdraw(&self, slot: usize) -> bool {
        let bit = Lane::bit(slot);
        self.word(POSTED).fetch_and(!bit, AcqRel) & bit != 0
    }

    /// Whether nothing is answered any more that was not begun.
    pub fn is_closed(&self) -> bool {
        self.word(CLOSED).load(Acquire) != 0
    }
}

/// The end that asks, in a process that may allocate memory.
pub struct LaneClient {
    arena: Arena,
}

impl LaneClient {
    /// The end of a region of [`GEOMETRY`]; `None` if the region is another's.
    pub fn new(region: &Region) -> Option<LaneClient> {
        let arena = Arena::new(region.arena());
        Lane::new(arena.words()).map(|_| ())?;
        Some(LaneClient { arena })
    }

    /// All of its memory, payloads included.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Its slots. There are always some, since the size was checked.
    pub fn lane(&self) -> Option<Lane<'_>> {
        Lane::new(self.arena.words())
    }
}

/// The end that answers.
pub struct LaneServer {
    arena: Arena,
    /// Where the search for the next request begins, so that no slot is passed over for ever.
    next: usize,
    /// How often the last one who asked was met on this end's processor.
    met: AtomicU64,
}

impl LaneServer {
    /// The end of a region of [`GEOMETRY`] in which nothing has happened yet; `None` if the region is another's.
    pub fn new(region: &Region) -> Option<LaneServer> {
        let server = LaneServer {
            arena: Arena::new(region.arena()),
            next: 0,
            met: AtomicU64::new(0),
        };
        Lane::new(server.arena.words()).map(|_| ())?;
        Some(server)
    }

    /// Where payloads lie.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Where the payload of a slot starts, in bytes from the start of the arena.
    pub fn payload_offset(slot: usize) -> u32 {
        ((FIRST_SLOT + slot % SLOTS * SLOT_WORDS + PAYLOAD) * WORD) as u32
    }

    fn lane(&self) -> Option<Lane<'_>> {
        Lane::new(self.arena.words())
    }

    /// Whether there may be a request to take.
    pub fn is_ready(&self) -> bool {
        self.lane()
            .is_some_and(|lane| lane.word(POSTED).load(Relaxed) & all_slots() != 0)
    }

    /// Looks for a request, or for `enough`, as long as `spin` says, and mostly only once if the last one who asked was on
    /// this processor; whether there is either.
    pub fn look(&self, spin: Spin, enough: impl Fn() -> bool) -> bool {
        let Some(lane) = self.lane() else {
            return enough();
        };
        look::until(spin, lane.word(ASKER), &self.met, || {
            self.is_ready() || enough()
        })
    }

    /// Takes the next request, and the number of its slot. Whoever takes one answers it.
    pub fn take(&mut self) -> Option<(usize, Request)> {
        let lane = Lane::new(self.arena.words())?;
        let posted = lane.word(POSTED).load(Relaxed) & all_slots();
        let from_next = posted & (u64::MAX << self.next);
        let chosen = if from_next != 0 { from_next } else { posted };
        if chosen == 0 {
            return None;
        }
        let slot = chosen.trailing_zeros() as usize;
        self.next = (slot + 1) % SLOTS;
        if !lane.withdraw(slot) {
            return None;
        }
        let operation = lane.of_slot(slot, OPERATION).load(Relaxed);
        let request = Request {
            subject: lane.of_slot(slot, SUBJECT).load(Relaxed),
            operation: operation as u32,
            length: (operation >> 32) as u32,
        };
        Some((slot, request))
    }

    /// Answers what was taken from the slot, and wakes who sleeps for it.
    pub fn answer(&self, slot: usize, answer: Answer) {
        let Some(lane) = self.lane() else { return };
        let state = match answer {
            Answer::Done(result) => {
                lane.of_slot(slot, RESULT).store(result as u64, Relaxed);
                ANSWERED
            }
            Answer::Refused => REFUSED,
        };
        look::note(lane.word(ANSWERER));
        let word = lane.of_slot(slot, STATE);
        if word.swap(state, AcqRel) == ASLEEP {
            futex::wake_low(word);
        }
    }

    /// Sleeps until there is a request, unless there is one or `enough` says that there is something else to do. Wakes may
    /// be spurious, and the peer can withhold one.
    pub fn sleep(&self, enough: impl FnOnce() -> bool) {
        let Some(lane) = self.lane() else { return };
        let sleeping = lane.word(SLEEPING);
        sleeping.swap(1, Relaxed);
        fence(SeqCst);
        if !self.is_ready() && !enough() {
            // However it ends, the words say what there is to do.
            let _ = futex::wait_low(sleeping, 1, None);
        }
        sleeping.store(0, Relaxed);
    }

    /// Wakes who sleeps in [`LaneServer::sleep`], from another thread, which has the region.
    pub fn wake(arena: &Arena) {
        if let Some(lane) = Lane::new(arena.words()) {
            // Whoever announces a sleep after this finds what the caller did before.
            fence(SeqCst);
            lane.word(SLEEPING).store(0, Relaxed);
            futex::wake_low(lane.word(SLEEPING));
        }
    }

    /// Ends the service, when all that was taken is answered: wakes everybody who waits, and takes nothing more.
    pub fn close(self) {
        let Some(lane) = self.lane() else { return };
        lane.word(CLOSED).store(1, Release);
        fence(SeqCst);
        for slot in 0..SLOTS {
            let state = lane.of_slot(slot, STATE);
            if state
                .compare_exchange(ASLEEP, ASKED, Relaxed, Relaxed)
                .is_ok()
            {
                futex::wake_low(state);
            }
        }
    }
}

fn all_slots() -> u64 {
    u64::MAX >> (u64::BITS as usize - SLOTS)
}

#[cfg(all(test, not(loom)))]
mod tests;
