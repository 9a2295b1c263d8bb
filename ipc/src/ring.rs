//! Rings: one producer, one consumer, and no trust between them.
//!
//! The idea: `head` counts the entries ever consumed and `tail` the entries ever published. Both
//! run freely and wrap with the integer; their difference is the number of entries in the ring.
//! Each side keeps its own index in private memory and merely *announces* it in the region. It
//! never reads its own index back, and it believes the peer's only within the range that an honest
//! peer can have reached. The first index outside of that range makes the endpoint corrupt for
//! good: there is no meaning left to recover.
//!
//! Publication is a release store of `tail` after the entries' words, consumption a release store
//! of `head` after they were copied out; the peer's acquire loads pair with them.
//!
//! Sleeping is Dekker's pattern. The consumer announces that it sleeps, then looks at the ring
//! once more; the producer publishes, then looks for the announcement. A sequentially consistent
//! fence between the two steps on either side makes it impossible that both miss the other. The
//! kernel closes the rest of the gap: it puts the consumer to sleep only while the announcement
//! still stands. A producer takes the announcement away before it wakes, so that one sleep costs
//! at most one wake.
//!
//! Callers guarantee nothing beyond Rust's own rules. Two producers on one ring, which the types
//! prevent within a channel, would garble entries and endanger no memory.

use std::{
    error::Error,
    fmt,
    marker::PhantomData,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use ringfence_faults::{Act, Point, at};

use crate::look::{self, Spin};
#[cfg(not(loom))]
use crate::region::RingMemory;
#[cfg(loom)]
use crate::ring_model::RingMemory;
use crate::sync::{AtomicU64, ENTRY_WORDS, Ordering, fence};

/// The sleep word's value while the consumer is awake.
const AWAKE: u32 = 0;
/// The sleep word's value while the consumer sleeps or is about to.
const ASLEEP: u32 = 1;

/// What a ring can carry: a value that is its words and nothing else.
pub trait Entry: Copy {
    /// The entry as it lies in the ring.
    fn to_words(self) -> [u64; ENTRY_WORDS];
    /// The entry that these words are. Any words make an entry, for a hostile peer writes any.
    fn from_words(words: [u64; ENTRY_WORDS]) -> Self;
}

/// The peer announced an index that an honest peer cannot have reached. The ring stays unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "the ring is corrupt: the peer announced an index that it cannot have reached",
        )
    }
}

impl Error for Corrupt {}

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The consumer has not made room yet. Nothing was written.
    Full,
    /// See [`Corrupt`].
    Corrupt,
}

impl fmt::Display for PushError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => formatter.write_str("the ring is full: the peer consumes too slowly"),
            Self::Corrupt => Corrupt.fmt(formatter),
        }
    }
}

impl Error for PushError {}

impl From<Corrupt> for PushError {
    fn from(_: Corrupt) -> Self {
        Self::Corrupt
    }
}

/// Why waiting for an entry failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// See [`Corrupt`].
    Corrupt,
    /// futex(2) failed in a way that is no part of waiting, for instance by a seccomp filter.
    Futex(Errno),
}

impl fmt::Display for WaitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt => Corrupt.fmt(formatter),
            Self::Futex(errno) => write!(formatter, "cannot sleep on the ring's futex: {errno}"),
        }
    }
}

impl Error for WaitError {}

impl From<Corrupt> for WaitError {
    fn from(_: Corrupt) -> Self {
        Self::Corrupt
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// An entry is ready: the next [`Consumer::pop`] returns it.
    Ready,
    /// The timeout passed and the ring is still empty. Time to ask whether the peer still lives.
    TimedOut,
}

/// Where one end of a ring stands, for another process to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The end's own index: what it published, or consumed, last.
    pub own: u32,
    /// The last index of the peer's that was possible.
    pub peer: u32,
}

/// The writing end of a ring.
pub struct Producer<T> {
    memory: RingMemory,
    /// The index after the last staged entry; `published` or more.
    staged: u32,
    /// The index after the last published entry, which is what `tail` was last set to.
    published: u32,
    /// The last head that the peer announced and that was possible.
    seen_head: u32,
    corrupt: bool,
    entries: PhantomData<fn(T)>,
}

impl<T: Entry> Producer<T> {
    pub(crate) fn new(memory: RingMemory) -> Self {
        Self {
            memory,
            staged: 0,
            published: 0,
            seen_head: 0,
            corrupt: false,
            entries: PhantomData,
        }
    }

    /// The end that another process had, which stood at `position` and is used no more. `None` if
    /// no end can stand there. What the region says by now is believed no more than ever.
    #[cfg(not(loom))]
    pub(crate) fn resume(memory: RingMemory, position: Position) -> Option<Self> {
        let Position { own, peer } = position;
        (own.wrapping_sub(peer) <= memory.capacity()).then(|| Self {
            staged: own,
            published: own,
            seen_head: peer,
            ..Self::new(memory)
        })
    }

    /// Publishes what is staged, and says where this end then stands.
    pub fn position(&mut self) -> Position {
        self.publish();
        Position {
            own: self.published,
            peer: self.seen_head,
        }
    }

    /// How many entries fit into the ring.
    pub fn capacity(&self) -> u32 {
        self.memory.capacity()
    }

    /// Publishes one entry, and with it all that were staged before. Does not [`ring`](Self::ring).
    pub fn push(&mut self, entry: &T) -> Result<(), PushError> {
        self.stage(entry)?;
        self.publish();
        Ok(())
    }

    /// Writes one entry into the ring without showing it to the consumer. A batch is staged entry
    /// by entry and becomes visible at once with [`publish`](Self::publish). After
    /// [`PushError::Full`] what was staged stays staged.
    pub fn stage(&mut self, entry: &T) -> Result<(), PushError> {
        if ringfence_faults::ENABLED {
            return self.write_with(entry.to_words(), at(Point::Stage));
        }
        self.write(entry.to_words())
    }

    /// Writes one entry's words into the next slot.
    pub(crate) fn write(&mut self, words: [u64; ENTRY_WORDS]) -> Result<(), PushError> {
        if self.corrupt {
            return Err(PushError::Corrupt);
        }
        if self.staged.wrapping_sub(self.seen_head) == self.memory.capacity() {
            self.refresh_head()?;
            if self.staged.wrapping_sub(self.seen_head) == self.memory.capacity() {
                return Err(PushError::Full);
            }
        }
        let slot = self.memory.slot(self.staged);
        for (shared, word) in slot.iter().zip(words) {
            shared.store(word, Ordering::Relaxed);
        }
        self.staged = self.staged.wrapping_add(1);
        Ok(())
    }

    /// Shows all staged entries to the consumer at once. Does not [`ring`](Self::ring).
    pub fn publish(&mut self) {
        if self.published != self.staged {
            self.published = self.staged;
            look::note(self.memory.processor());
            self.memory.tail().store(self.published, Ordering::Release);
        }
    }

    /// Wakes the consumer if, and only if, it announced that it sleeps: at most one system call,
    /// and none while the consumer is busy. Call it after publishing.
    pub fn ring(&self) {
        if self.needs_ring() {
            match at(Point::Doorbell) {
                Some(Act::Drop) => return,
                Some(Act::Duplicate) => self.memory.wake_sleeper(),
                _ => {}
            }
            self.memory.wake_sleeper();
        }
    }

    /// Wakes the consumer whatever it announced. For a producer that has waited for an answer
    /// longer than it should have to, lest a wake that was lost is waited for in vain.
    pub fn ring_again(&self) {
        self.memory.wake_sleeper();
    }

    /// Passes over `entries` slots as if they had been written.
    pub(crate) fn skip(&mut self, entries: u32) {
        self.staged = self.staged.wrapping_add(entries);
    }

    /// Whether the consumer has to be woken. True at most once per announced sleep, because the
    /// announcement is taken away: whoever gets `true` owes the consumer
    /// a wake. [`ring`](Self::ring) pays it. Call it after publishing.
    #[must_use = "a consumer whose announcement was taken away sleeps until it is woken"]
    pub fn needs_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        let sleeping = self.memory.sleeping();
        // The load spares the cache line while the consumer is awake.
        sleeping.load(Ordering::Relaxed) == ASLEEP
            && sleeping.swap(AWAKE, Ordering::Relaxed) == ASLEEP
    }

    /// Takes over the peer's head, if it lies between the last one and what is published.
    fn refresh_head(&mut self) -> Result<(), Corrupt> {
        let head = self.memory.head().load(Ordering::Acquire);
        let advanced = head.wrapping_sub(self.seen_head);
        if advanced > self.published.wrapping_sub(self.seen_head) {
            self.corrupt = true;
            return Err(Corrupt);
        }
        self.seen_head = head;
        Ok(())
    }
}

/// The reading end of a ring.
pub struct Consumer<T> {
    memory: RingMemory,
    /// The index of the next entry, which is what `head` was last set to.
    head: u32,
    /// The last tail that the peer announced and that was possible.
    seen_tail: u32,
    /// How often the producer was met on this end's processor.
    met: AtomicU64,
    corrupt: bool,
    entries: PhantomData<fn() -> T>,
}

impl<T: Entry> Consumer<T> {
    pub(crate) fn new(memory: RingMemory) -> Self {
        Self {
            memory,
            head: 0,
            seen_tail: 0,
            met: AtomicU64::new(0),
            corrupt: false,
            entries: PhantomData,
        }
    }

    /// As [`Producer::resume`].
    #[cfg(not(loom))]
    pub(crate) fn resume(memory: RingMemory, position: Position) -> Option<Self> {
        let Position { own, peer } = position;
        (peer.wrapping_sub(own) <= memory.capacity()).then(|| Self {
            head: own,
            seen_tail: peer,
            ..Self::new(memory)
        })
    }

    /// Where this end stands.
    pub fn position(&self) -> Position {
        Position {
            own: self.head,
            peer: self.seen_tail,
        }
    }

    /// Copies the next entry out, once, and frees its place; `None` when the ring is empty.
    pub fn pop(&mut self) -> Result<Option<T>, Corrupt> {
        if !self.poll()? {
            return Ok(None);
        }
        let mut words = [0; ENTRY_WORDS];
        for (word, shared) in words.iter_mut().zip(self.memory.slot(self.head)) {
            *word = shared.load(Ordering::Relaxed);
        }
        self.head = self.head.wrapping_add(1);
        self.memory.head().store(self.head, Ordering::Release);
        Ok(Some(T::from_words(words)))
    }

    /// Whether [`pop`](Self::pop) has something to say, an error included. A cheap look, for a
    /// caller that spins on more than this ring.
    pub fn is_ready(&self) -> bool {
        self.corrupt
            || self.seen_tail != self.head
            || self.memory.tail().load(Ordering::Relaxed) != self.head
    }

    /// Looks at the ring as long as `spin` says, and mostly only once if the producer was on this processor when
    /// it published last; whether there is something to [`pop`](Self::pop).
    pub fn look(&self, spin: Spin) -> bool {
        look::until(spin, self.memory.processor(), &self.met, || self.is_ready())
    }

    /// Announces that this consumer is about to sleep on [`sleep_word`](Self::sleep_word). False
    /// when there is something to [`pop`](Self::pop), an error included; then nothing is announced
    /// and sleeping would miss it.
    #[must_use = "sleeping although entries are ready may last for ever"]
    pub fn announce_sleep(&self) -> bool {
        // A swap, so that every change between awake and asleep builds on the one before it. With
        // a store, that a producer's earlier taking away cannot outlive this announcement would
        // need an argument, and one that loom does not follow.
        self.memory.sleeping().swap(ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.is_ready() {
            self.cancel_sleep();
            return false;
        }
        true
    }

    /// Takes the announcement back: the consumer is awake for a reason other than the doorbell.
    pub fn cancel_sleep(&self) {
        self.memory.sleeping().store(AWAKE, Ordering::Relaxed);
    }

    /// Wakes this consumer's own thread out of its sleep on [`sleep_word`](Self::sleep_word), as the
    /// doorbell does.
    pub fn wake(&self) {
        self.cancel_sleep();
        self.memory.wake_sleeper();
    }

    /// The futex word to sleep on after [`announce_sleep`](Self::announce_sleep) and the value
    /// that it has to have for the sleep to begin, for a futex wait of the shared kind by system
    /// call or by io_uring. It is mapped for as long as this consumer lives, and the wait must not
    /// outlive it. The peer can wake without cause and can withhold a wake.
    #[cfg(not(loom))]
    pub fn sleep_word(&self) -> (*const u32, u32) {
        (self.memory.sleeping().as_ptr(), ASLEEP)
    }

    /// Waits until an entry is ready: looks at the ring as long as `spin` says, then sleeps.
    /// Without a timeout it waits for ever for a peer that died, of which the socket tells.
    pub fn wait(&mut self, spin: Spin, timeout: Option<Duration>) -> Result<Wake, WaitError> {
        self.look(spin);
        // A deadline too far for the clock to count is no deadline.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if self.poll()? {
                return Ok(Wake::Ready);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Wake::TimedOut);
            }
            if !self.announce_sleep() {
                continue;
            }
            let slept = self.memory.sleep(ASLEEP, left);
            self.cancel_sleep();
            match slept {
                // Woken, or never asleep, or a signal, or late: the ring and the clock know.
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT) => {}
                Err(errno) => return Err(WaitError::Futex(errno)),
            }
        }
    }

    /// Whether an entry is ready. Looks at the peer's tail only when all known entries are
    /// consumed, and takes it over if it is at most a full ring ahead.
    fn poll(&mut self) -> Result<bool, Corrupt> {
        if self.corrupt {
            return Err(Corrupt);
        }
        if self.seen_tail == self.head {
            let tail = self.memory.tail().load(Ordering::Acquire);
            if tail.wrapping_sub(self.head) > self.memory.capacity() {
                self.corrupt = true;
                return Err(Corrupt);
            }
            self.seen_tail = tail;
        }
        Ok(self.seen_tail != self.head)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
