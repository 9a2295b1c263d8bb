//! The rings under loom: every interleaving and every memory order that the C11 model allows.
//!
//! The rings' own code runs here on loom's atomics. Only the memory is a stand-in, and the futex,
//! which is modelled as futex(2) describes it: the check of the word and going to sleep are one
//! step with respect to a wake, which takes the same lock. A sleeper that nobody wakes is a
//! deadlock, and loom reports it. The models wait without a timeout, so that nothing but a wake
//! ends a sleep.
//!
//! One thing loom cannot show: that a load is not carried out after a later store. That an entry
//! is copied out before `head` frees its place rests on the release store of `head` alone.

use std::time::Duration;

use loom::{
    sync::{Arc, Condvar, Mutex},
    thread,
};
use nix::errno::Errno;

use crate::{
    look::Spin,
    ring::{Consumer, Entry, Producer, PushError, Wake},
    sync::{AtomicU32, AtomicU64, ENTRY_WORDS, Ordering, Slot},
};

/// A ring's memory, as `region::RingMemory` has it.
#[derive(Clone)]
pub(crate) struct RingMemory {
    shared: Arc<Shared>,
}

struct Shared {
    head: AtomicU32,
    tail: AtomicU32,
    processor: AtomicU64,
    sleeping: AtomicU32,
    slots: Vec<Slot>,
    /// The kernel's queue of sleepers and the lock that guards it.
    futex: Mutex<()>,
    woken: Condvar,
}

impl RingMemory {
    fn new(capacity: usize) -> Self {
        let slot = || std::array::from_fn(|_| AtomicU64::new(0));
        let shared = Shared {
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
            processor: AtomicU64::new(0),
            sleeping: AtomicU32::new(0),
            slots: (0..capacity).map(|_| slot()).collect(),
            futex: Mutex::new(()),
            woken: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.shared.slots.len() as u32
    }

    pub(crate) fn head(&self) -> &AtomicU32 {
        &self.shared.head
    }

    pub(crate) fn tail(&self) -> &AtomicU32 {
        &self.shared.tail
    }

    pub(crate) fn processor(&self) -> &AtomicU64 {
        &self.shared.processor
    }

    pub(crate) fn sleeping(&self) -> &AtomicU32 {
        &self.shared.sleeping
    }

    pub(crate) fn slot(&self, index: u32) -> &Slot {
        &self.shared.slots[index as usize % self.shared.slots.len()]
    }

    pub(crate) fn sleep(&self, expected: u32, timeout: Option<Duration>) -> Result<(), Errno> {
        assert_eq!(timeout, None);
        let queue = self.shared.futex.lock().unwrap();
        if self.sleeping().load(Ordering::Relaxed) != expected {
            return Err(Errno::EAGAIN);
        }
        drop(self.shared.woken.wait(queue).unwrap());
        Ok(())
    }

    pub(crate) fn wake_sleeper(&self) {
        let _queue = self.shared.futex.lock().unwrap();
        self.shared.woken.notify_one();
    }
}

/// An entry whose words must match: a torn or stale one does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered(u64);

impl Entry for Numbered {
    fn to_words(self) -> [u64; ENTRY_WORDS] {
        [self.0, !self.0]
    }

    fn from_words([number, check]: [u64; ENTRY_WORDS]) -> Self {
        assert_eq!(check, !number, "a torn entry");
        Self(number)
    }
}

fn ring(capacity: usize) -> (Producer<Numbered>, Consumer<Numbered>) {
    let memory = RingMemory::new(capacity);
    (Producer::new(memory.clone()), Consumer::new(memory))
}

/// Pushes, and lets the consumer run when the ring is full.
fn push(producer: &mut Producer<Numbered>, number: u64) {
    loop {
        match producer.push(&Numbered(number)) {
            Ok(()) => return,
            Err(PushError::Full) => thread::yield_now(),
            Err(PushError::Corrupt) => panic!("an honest peer was taken for a hostile one"),
        }
    }
}

/// Pops, and lets the producer run when the ring is empty.
fn pop(consumer: &mut Consumer<Numbered>) -> u64 {
    loop {
        match consumer
            .pop()
            .expect("an honest peer was taken for a hostile one")
        {
            Some(Numbered(number)) => return number,
            None => thread::yield_now(),
        }
    }
}

#[test]
fn entries_arrive_whole_in_order_and_are_not_overwritten_while_read() {
    loom::model(|| {
        // Three entries through two slots: the first slot is used twice.
        let (mut producer, mut consumer) = ring(2);
        let writer = thread::spawn(move || {
            for number in 1..=3 {
                push(&mut producer, number);
            }
        });
        for number in 1..=3 {
            assert_eq!(pop(&mut consumer), number);
        }
        assert_eq!(consumer.pop(), Ok(None));
        writer.join().unwrap();
    });
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let writer = thread::spawn(move || {
            producer.stage(&Numbered(1)).unwrap();
            producer.stage(&Numbered(2)).unwrap();
            producer.publish();
        });
        if let Some(first) = consumer.pop().unwrap() {
            assert_eq!(first, Numbered(1));
            assert_eq!(consumer.pop(), Ok(Some(Numbered(2))));
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_sleeper_is_woken_for_every_entry() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let writer = thread::spawn(move || {
            for number in 1..=2 {
                producer.push(&Numbered(number)).unwrap();
                producer.ring();
            }
        });
        for number in 1..=2 {
            assert_eq!(consumer.wait(Spin::NONE, None), Ok(Wake::Ready));
            assert_eq!(consumer.pop(), Ok(Some(Numbered(number))));
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_wake_made_elsewhere_serves_as_well() {
    loom::model(|| {
        // As the server has it: the announcement is taken here, the wake is made by io_uring.
        let memory = RingMemory::new(2);
        let mut producer = Producer::new(memory.clone());
        let mut consumer = Consumer::new(memory.clone());
        let writer = thread::spawn(move || {
            producer.stage(&Numbered(1)).unwrap();
            producer.stage(&Numbered(2)).unwrap();
            producer.publish();
            if producer.needs_ring() {
                memory.wake_sleeper();
            }
        });
        assert_eq!(consumer.wait(Spin::NONE, None), Ok(Wake::Ready));
        assert_eq!(consumer.pop(), Ok(Some(Numbered(1))));
        assert_eq!(consumer.pop(), Ok(Some(Numbered(2))));
        writer.join().unwrap();
    });
}

#[test]
fn a_sleep_taken_back_loses_no_later_wake() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring(2);
        let writer = thread::spawn(move || {
            producer.push(&Numbered(1)).unwrap();
            producer.ring();
        });
        // Something else than the doorbell wakes the consumer once, then it sleeps in earnest.
        if consumer.announce_sleep() {
            consumer.cancel_sleep();
        }
        assert_eq!(consumer.wait(Spin::NONE, None), Ok(Wake::Ready));
        assert_eq!(consumer.pop(), Ok(Some(Numbered(1))));
        writer.join().unwrap();
    });
}
