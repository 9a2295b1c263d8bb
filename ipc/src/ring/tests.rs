//! The rings of one process, and what a hostile peer can do to them.

use super::*;
use crate::look::stay_here;
use crate::{Geometry, Region, Submission};

const ENTRIES: u32 = 4;

/// The ends of one ring, and the memory as a hostile peer sees it.
fn ring() -> (Producer<Submission>, Consumer<Submission>, RingMemory) {
    let geometry = Geometry {
        ring_entries: ENTRIES,
        arena_bytes: 0,
    };
    let region = Region::create(geometry).unwrap();
    let memory = || region.submissions();
    (Producer::new(memory()), Consumer::new(memory()), memory())
}

fn numbered(cookie: u64) -> Submission {
    Submission {
        cookie,
        arguments: [cookie, !cookie, 0, u64::MAX],
        ..Submission::default()
    }
}

fn set(index: &crate::sync::AtomicU32, value: u32) {
    index.store(value, Ordering::SeqCst);
}

/// Of a ring that holds the entries 1 to 3: a fourth fills it, and all come out in order.
fn expect_room_for_one(producer: &mut Producer<Submission>, consumer: &mut Consumer<Submission>) {
    assert_eq!(producer.push(&numbered(4)), Ok(()));
    assert_eq!(producer.push(&numbered(9)), Err(PushError::Full));
    for cookie in 1..=4 {
        assert_eq!(consumer.pop(), Ok(Some(numbered(cookie))));
    }
    assert_eq!(consumer.pop(), Ok(None));
}

#[test]
fn a_full_ring_refuses_and_goes_on_when_there_is_room() {
    let (mut producer, mut consumer, _) = ring();
    for cookie in 0..u64::from(ENTRIES) {
        assert_eq!(producer.push(&numbered(cookie)), Ok(()));
    }
    assert_eq!(producer.push(&numbered(9)), Err(PushError::Full));
    assert_eq!(consumer.pop(), Ok(Some(numbered(0))));
    expect_room_for_one(&mut producer, &mut consumer);
}

#[test]
fn an_end_goes_on_where_another_stood() {
    let (mut producer, mut consumer, memory) = ring();
    for cookie in 0..3 {
        producer.push(&numbered(cookie)).unwrap();
    }
    assert_eq!(consumer.pop(), Ok(Some(numbered(0))));
    producer.stage(&numbered(3)).unwrap();
    let position = consumer.position();
    assert_eq!(position, Position { own: 1, peer: 3 });
    let mut consumer = Consumer::resume(memory.clone(), position).unwrap();
    // What was staged counts as published.
    let position = producer.position();
    assert_eq!(position, Position { own: 4, peer: 0 });
    let mut producer = Producer::resume(memory, position).unwrap();
    expect_room_for_one(&mut producer, &mut consumer);
}

#[test]
fn an_end_cannot_stand_further_from_the_peer_than_a_ring_is_long() {
    let (_, _, memory) = ring();
    let memory = || memory.clone();
    for (own, peer, is_possible) in [
        (0, 0, true),
        (ENTRIES, 0, true),
        (1, u32::MAX, true),
        (ENTRIES + 1, 0, false),
        (0, 1, false),
        (u32::MAX, 0, false),
    ] {
        let ahead = Position { own, peer };
        let producer = Producer::<Submission>::resume(memory(), ahead);
        assert_eq!(producer.is_some(), is_possible, "{ahead:?}");
        let behind = Position {
            own: peer,
            peer: own,
        };
        let consumer = Consumer::<Submission>::resume(memory(), behind);
        assert_eq!(consumer.is_some(), is_possible, "{behind:?}");
    }
    // A peer that announces what cannot be, while an end is handed over, makes the ring corrupt as ever.
    let mut consumer =
        Consumer::<Submission>::resume(memory(), Position { own: 1, peer: 1 }).unwrap();
    assert_eq!(consumer.pop(), Err(Corrupt));
}

#[test]
fn staged_entries_are_hidden_until_published() {
    let (mut producer, mut consumer, _) = ring();
    for cookie in 0..u64::from(ENTRIES) {
        assert_eq!(producer.stage(&numbered(cookie)), Ok(()));
    }
    assert_eq!(producer.stage(&numbered(9)), Err(PushError::Full));
    assert!(!consumer.is_ready());
    assert_eq!(consumer.pop(), Ok(None));
    producer.publish();
    assert!(consumer.is_ready());
    for cookie in 0..u64::from(ENTRIES) {
        assert_eq!(consumer.pop(), Ok(Some(numbered(cookie))));
    }
    assert_eq!(consumer.pop(), Ok(None));
}

#[test]
fn indices_wrap_with_the_integer() {
    let (mut producer, mut consumer, memory) = ring();
    // Both ends as they are after 2^32 - 2 entries.
    let index = u32::MAX - 1;
    (producer.staged, producer.published, producer.seen_head) = (index, index, index);
    (consumer.head, consumer.seen_tail) = (index, index);
    set(memory.head(), index);
    set(memory.tail(), index);
    for round in 0..3 {
        for cookie in 0..u64::from(ENTRIES) {
            assert_eq!(producer.push(&numbered(round + cookie)), Ok(()));
        }
        assert_eq!(producer.push(&numbered(9)), Err(PushError::Full));
        for cookie in 0..u64::from(ENTRIES) {
            assert_eq!(consumer.pop(), Ok(Some(numbered(round + cookie))));
        }
        assert_eq!(consumer.pop(), Ok(None));
    }
    assert_eq!(memory.tail().load(Ordering::SeqCst), 3 * ENTRIES - 2);
}

#[test]
fn a_consumer_refuses_a_tail_that_nobody_can_have_reached() {
    for tail in [ENTRIES + 1, 1 << 31, u32::MAX] {
        let (_, mut consumer, memory) = ring();
        set(memory.tail(), tail);
        assert!(consumer.is_ready());
        assert!(!consumer.announce_sleep());
        assert_eq!(consumer.pop(), Err(Corrupt), "tail {tail}");
        // The ring stays corrupt, whatever the peer announces later.
        set(memory.tail(), 1);
        assert_eq!(consumer.pop(), Err(Corrupt));
        assert_eq!(consumer.wait(Spin::NONE, None), Err(WaitError::Corrupt));
        set(memory.tail(), 0);
        assert!(consumer.is_ready());
        assert!(!consumer.announce_sleep());
    }
}

#[test]
fn a_consumer_takes_any_tail_that_a_full_ring_explains() {
    let (_, mut consumer, memory) = ring();
    set(memory.tail(), ENTRIES);
    for _ in 0..ENTRIES {
        assert_eq!(consumer.pop(), Ok(Some(Submission::default())));
    }
    assert_eq!(consumer.pop(), Ok(None));
}

#[test]
fn a_tail_that_goes_back_is_refused() {
    let (mut producer, mut consumer, memory) = ring();
    producer.push(&numbered(0)).unwrap();
    assert_eq!(consumer.pop(), Ok(Some(numbered(0))));
    set(memory.tail(), 0);
    assert_eq!(consumer.pop(), Err(Corrupt));
}

#[test]
fn a_tail_taken_back_does_not_hide_entries_that_were_seen() {
    let (mut producer, mut consumer, memory) = ring();
    producer.push(&numbered(0)).unwrap();
    producer.push(&numbered(1)).unwrap();
    assert_eq!(consumer.pop(), Ok(Some(numbered(0))));
    set(memory.tail(), 1);
    assert!(consumer.is_ready());
    assert!(!consumer.announce_sleep());
    assert_eq!(consumer.pop(), Ok(Some(numbered(1))));
    assert_eq!(consumer.pop(), Err(Corrupt));
}

#[test]
fn a_producer_refuses_a_head_that_nobody_can_have_reached() {
    for head in [ENTRIES + 1, 1 << 31, u32::MAX] {
        let (mut producer, _, memory) = ring();
        for cookie in 0..u64::from(ENTRIES) {
            producer.push(&numbered(cookie)).unwrap();
        }
        set(memory.head(), head);
        assert_eq!(
            producer.push(&numbered(9)),
            Err(PushError::Corrupt),
            "head {head}"
        );
        set(memory.head(), 1);
        assert_eq!(producer.push(&numbered(9)), Err(PushError::Corrupt));
        assert_eq!(producer.stage(&numbered(9)), Err(PushError::Corrupt));
    }
}

#[test]
fn a_head_beyond_what_is_published_or_going_back_is_refused() {
    let (mut producer, _, memory) = ring();
    producer.push(&numbered(0)).unwrap();
    for cookie in 1..u64::from(ENTRIES) {
        producer.stage(&numbered(cookie)).unwrap();
    }
    // Two are consumed, says the peer, but it has seen one.
    set(memory.head(), 2);
    assert_eq!(producer.stage(&numbered(9)), Err(PushError::Corrupt));

    let (mut producer, _, memory) = ring();
    for cookie in 0..u64::from(ENTRIES) {
        producer.push(&numbered(cookie)).unwrap();
    }
    set(memory.head(), 1);
    assert_eq!(producer.push(&numbered(4)), Ok(()));
    set(memory.head(), 0);
    assert_eq!(producer.push(&numbered(9)), Err(PushError::Corrupt));
}

#[test]
fn neither_end_reads_its_own_index_back() {
    let (mut producer, mut consumer, memory) = ring();
    producer.push(&numbered(0)).unwrap();
    set(memory.head(), 77);
    assert_eq!(consumer.pop(), Ok(Some(numbered(0))));
    assert_eq!(memory.head().load(Ordering::SeqCst), 1);
    set(memory.tail(), 77);
    producer.push(&numbered(1)).unwrap();
    assert_eq!(memory.tail().load(Ordering::SeqCst), 2);
    assert_eq!(consumer.pop(), Ok(Some(numbered(1))));
}

#[test]
fn one_announcement_needs_one_ring() {
    let (mut producer, mut consumer, memory) = ring();
    assert!(!producer.needs_ring());
    assert!(consumer.announce_sleep());
    assert_eq!(memory.sleeping().load(Ordering::SeqCst), ASLEEP);
    producer.push(&numbered(0)).unwrap();
    assert!(producer.needs_ring());
    assert!(!producer.needs_ring());
    // With an entry ready, sleep is not announced.
    assert!(!consumer.announce_sleep());
    assert!(!producer.needs_ring());
    assert_eq!(consumer.pop(), Ok(Some(numbered(0))));
    assert!(consumer.announce_sleep());
    consumer.cancel_sleep();
    assert!(!producer.needs_ring());
}

#[test]
fn the_sleep_word_is_what_a_producer_wakes() {
    let (_, consumer, memory) = ring();
    let (address, expected) = consumer.sleep_word();
    assert_eq!(address, memory.sleeping().as_ptr().cast_const());
    let _ = consumer.announce_sleep();
    assert_eq!(memory.sleeping().load(Ordering::SeqCst), expected);
}

#[test]
fn waiting_ends_with_the_timeout_or_at_once() {
    let (mut producer, mut consumer, memory) = ring();
    let short = Some(Duration::from_millis(1));
    let spin = Spin {
        duration: Duration::from_micros(3),
    };
    assert_eq!(consumer.wait(spin, short), Ok(Wake::TimedOut));
    assert_eq!(
        consumer.wait(spin, Some(Duration::ZERO)),
        Ok(Wake::TimedOut)
    );
    // Nobody announces a sleep that ended.
    assert_eq!(memory.sleeping().load(Ordering::SeqCst), AWAKE);
    producer.push(&numbered(0)).unwrap();
    assert_eq!(
        consumer.wait(Spin::NONE, Some(Duration::ZERO)),
        Ok(Wake::Ready)
    );
    assert_eq!(
        consumer.wait(Spin::NONE, Some(Duration::MAX)),
        Ok(Wake::Ready)
    );
}

#[test]
fn a_consumer_on_its_producers_processor_mostly_does_not_look_for_long() {
    let (mut producer, mut consumer, memory) = ring();
    let for_ever = Spin {
        duration: Duration::MAX,
    };
    let here = stay_here() as u64;
    producer.push(&numbered(0)).unwrap();
    assert_eq!(memory.processor().load(Ordering::SeqCst), here + 1);
    consumer.pop().unwrap().unwrap();
    for _ in 1..32 {
        // It would not return before there is another entry, and nobody makes one.
        assert!(!consumer.look(for_ever));
    }
    // The next is a trial; and wherever else the producer says that it is, it is waited for.
    for said in [here + 1, 0, here + 2] {
        memory.processor().store(said, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| consumer.look(for_ever));
            producer.stage(&numbered(1)).unwrap();
            set(memory.tail(), producer.staged);
            assert!(looking.join().unwrap());
        });
        consumer.pop().unwrap().unwrap();
    }
}

#[test]
fn a_peer_that_wakes_without_cause_does_not_end_a_wait() {
    let (_, mut consumer, memory) = ring();
    std::thread::scope(|scope| {
        let waiter =
            scope.spawn(move || consumer.wait(Spin::NONE, Some(Duration::from_millis(50))));
        while !waiter.is_finished() {
            set(memory.sleeping(), 7);
            memory.wake_sleeper();
        }
        assert_eq!(waiter.join().unwrap(), Ok(Wake::TimedOut));
    });
}
