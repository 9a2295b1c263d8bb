//! Both ends in one process, on threads: who asks and who answers, who sleeps and who is woken, and what a request comes
//! to that was not begun.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::look::stay_here;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A region, its server's end, and the memory that who asks sees.
fn pair() -> (LaneServer, Arena) {
    let region = Region::create(GEOMETRY).expect("a region");
    let server = LaneServer::new(&region).expect("a lane");
    let arena = server.arena.clone();
    (server, arena)
}

fn lane(arena: &Arena) -> Lane<'_> {
    Lane::new(arena.words()).expect("a lane")
}

fn request(subject: u64) -> Request {
    Request {
        subject,
        operation: 7,
        length: 24,
    }
}

#[test]
fn a_request_is_taken_once_and_answered_in_its_slot() {
    let (mut server, arena) = pair();
    let lane = lane(&arena);
    assert_eq!(server.take(), None);
    lane.post(3, request(30));
    lane.post(1, request(10));
    assert!(server.is_ready());
    assert_eq!(server.take(), Some((1, request(10))));
    assert_eq!(server.take(), Some((3, request(30))));
    assert_eq!(server.take(), None);
    assert_eq!((lane.answer(1), lane.answer(3)), (None, None));
    server.answer(3, Answer::Done(-5));
    server.answer(1, Answer::Refused);
    assert_eq!(lane.answer(1), Some(Answer::Refused));
    assert_eq!(lane.answer(3), Some(Answer::Done(-5)));
}

#[test]
fn payloads_lie_where_the_server_is_told() {
    let (server, arena) = pair();
    for slot in [0, 1, SLOTS - 1] {
        let last = lane(&arena).payload(slot).last().expect("a word");
        last.store(slot as u64 + 1, Relaxed);
        let mut bytes = [0; 8];
        let offset = LaneServer::payload_offset(slot) + SLOT_BYTES as u32 - 8;
        server.arena().read(offset, &mut bytes).expect("inside");
        assert_eq!(u64::from_ne_bytes(bytes), slot as u64 + 1);
    }
}

#[test]
fn no_slot_is_passed_over() {
    let (mut server, arena) = pair();
    let lane = lane(&arena);
    let mut taken = Vec::new();
    for slot in 0..4 {
        lane.post(slot, request(0));
    }
    for _ in 0..8 {
        let (slot, _) = server.take().expect("a request");
        taken.push(slot);
        lane.post(slot, request(0));
    }
    assert_eq!(taken, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn what_was_not_begun_can_be_taken_back_and_is_then_not_done() {
    let (mut server, arena) = pair();
    let lane = lane(&arena);
    lane.post(0, request(1));
    assert!(lane.withdraw(0));
    assert_eq!(server.take(), None);
    lane.post(0, request(2));
    assert_eq!(server.take(), Some((0, request(2))));
    assert!(!lane.withdraw(0));
}

#[test]
fn bits_beyond_the_slots_are_no_requests() {
    let (mut server, arena) = pair();
    lane(&arena).word(POSTED).store(u64::MAX << SLOTS, Relaxed);
    assert!(!server.is_ready());
    assert_eq!(server.take(), None);
}

#[test]
fn threads_that_sleep_are_woken() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 2000;
    let (mut server, arena) = pair();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let over = &over;
        let answering = scope.spawn(move || {
            while !over.load(SeqCst) {
                match server.take() {
                    Some((slot, request)) => {
                        server.answer(slot, Answer::Done(request.subject as i64 + 1));
                    }
                    None => server.sleep(|| over.load(SeqCst)),
                }
            }
        });
        let asking: Vec<_> = (0..THREADS)
            .map(|slot| {
                let arena = arena.clone();
                scope.spawn(move || {
                    let lane = lane(&arena);
                    for round in 0..ROUNDS {
                        lane.post(slot, request(round));
                        let waited = lane.wait(slot, Spin::NONE, PATIENCE);
                        let expected = Answer::Done(round as i64 + 1);
                        assert_eq!(waited, Waited::Answered(expected));
                    }
                })
            })
            .collect();
        for thread in asking {
            thread.join().expect("every answer");
        }
        over.store(true, SeqCst);
        LaneServer::wake(&arena);
        answering.join().expect("the end");
    });
}

#[test]
fn sides_on_one_processor_mostly_do_not_look_for_long() {
    let for_ever = Spin {
        duration: Duration::MAX,
    };
    let (mut server, arena) = pair();
    let lane = lane(&arena);
    stay_here();
    lane.post(0, request(0));
    assert!(server.look(for_ever, || false));
    server.take().expect("a request");
    // Neither would return before there is something, and nobody makes it.
    assert!(!server.look(for_ever, || false));
    server.answer(0, Answer::Done(1));
    lane.post(0, request(1));
    assert_eq!(lane.look(0, for_ever), Waited::TimedOut);
}

#[test]
fn a_closed_lane_wakes_who_waits_and_says_what_was_begun() {
    let (mut server, arena) = pair();
    let lane = lane(&arena);
    lane.post(0, request(0));
    lane.post(1, request(1));
    assert_eq!(server.take(), Some((0, request(0))));
    let sleeper = arena.clone();
    let waiting = thread::spawn(move || {
        let lane = Lane::new(sleeper.words()).expect("a lane");
        (lane.wait(1, Spin::NONE, PATIENCE), lane.withdraw(1))
    });
    while lane.of_slot(1, STATE).load(SeqCst) != ASLEEP {
        thread::yield_now();
    }
    server.answer(0, Answer::Done(0));
    server.close();
    assert_eq!(waiting.join().expect("woken"), (Waited::Closed, true));
    let waited = lane.wait(0, Spin::NONE, PATIENCE);
    assert_eq!(waited, Waited::Answered(Answer::Done(0)));
}

#[test]
fn a_wait_ends_when_its_time_is_over_and_can_be_taken_up_again() {
    let (mut server, arena) = pair();
    let lane = lane(&arena);
    lane.post(5, request(0));
    let short = Duration::from_millis(1);
    assert_eq!(lane.wait(5, Spin::NONE, short), Waited::TimedOut);
    assert_eq!(lane.wait(5, Spin::NONE, short), Waited::TimedOut);
    let (slot, _) = server.take().expect("a request");
    server.answer(slot, Answer::Done(1));
    let waited = lane.wait(5, Spin::NONE, PATIENCE);
    assert_eq!(waited, Waited::Answered(Answer::Done(1)));
}
