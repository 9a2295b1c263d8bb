//! A lane under loom: every interleaving and every memory order that the C11 model allows.
//!
//! As in `ring_model`, the lane's own code runs here on loom's atomics, and only the memory and the futex
//! are stand-ins. The futex is modelled as futex(2) describes it: sleepers wait in a queue by the word that
//! they sleep on, and the check of the word and going to sleep are one step with respect to a wake. Nothing
//! but a wake ends a sleep: there are no timeouts, so a wake that is lost is a deadlock, and loom reports it.
//!
//! Loom takes a sequentially consistent access for one that acquires and releases, which is less. So what
//! passes rests on fences alone.

use std::{collections::VecDeque, time::Duration};

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    lane::{Answer, Lane, LaneServer, Request, SLOTS, WORDS, Waited},
    look::Spin,
    sync::AtomicU64,
};

/// A lane's memory, as `region::Region` and `arena::Arena` have it.
#[derive(Clone)]
pub struct Arena {
    words: Arc<[AtomicU64; WORDS]>,
}

impl Arena {
    pub(crate) fn new(arena: Arena) -> Arena {
        arena
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        &*self.words
    }

    fn lane(&self) -> Lane<'_> {
        Lane::new(self.words()).unwrap()
    }
}

pub struct Region(Arena);

impl Region {
    pub(crate) fn arena(&self) -> Arena {
        self.0.clone()
    }
}

/// The kernel's part of it.
pub(crate) mod futex {
    use super::*;
    use loom::sync::{Condvar, Mutex};
    use nix::errno::Errno;

    /// A word's address, and what wakes one who sleeps on it.
    type Sleeper = (usize, std::sync::Arc<Condvar>);

    loom::lazy_static! {
        static ref QUEUE: Mutex<VecDeque<Sleeper>> = Mutex::new(VecDeque::new());
    }

    /// Makes the queue, so that its making orders nothing between threads that come later.
    pub(super) fn prepare() {
        drop(QUEUE.lock().unwrap());
    }

    pub(crate) fn wait_low(
        word: &AtomicU64,
        expected: u32,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        assert!(timeout.is_none_or(|timeout| timeout == FOR_EVER));
        let mut queue = QUEUE.lock().unwrap();
        if word.load(Relaxed) as u32 != expected {
            return Err(Errno::EAGAIN);
        }
        let woken = std::sync::Arc::new(Condvar::new());
        queue.push_back((address(word), woken.clone()));
        drop(woken.wait(queue).unwrap());
        Ok(())
    }

    pub(crate) fn wake_low(word: &AtomicU64) {
        let mut queue = QUEUE.lock().unwrap();
        let first = queue.iter().position(|(of, _)| *of == address(word));
        if let Some((_, sleeper)) = first.and_then(|first| queue.remove(first)) {
            sleeper.notify_one();
        }
    }

    fn address(word: &AtomicU64) -> usize {
        std::ptr::from_ref(word).addr()
    }
}

/// No model's time is ever over.
const FOR_EVER: Duration = Duration::MAX;

fn lane() -> (Arena, LaneServer) {
    futex::prepare();
    let arena = Arena {
        words: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))),
    };
    let server = LaneServer::new(&Region(arena.clone())).unwrap();
    (arena, server)
}

/// A thread that asks.
fn asker<T: 'static>(
    arena: &Arena,
    ask: impl FnOnce(Lane<'_>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let asking = arena.clone();
    thread::spawn(move || ask(asking.lane()))
}

/// Puts a request into a slot whose every word says which one it is.
fn post(lane: Lane<'_>, slot: usize, number: u32) {
    lane.payload(slot)
        .for_each(|word| word.store(number.into(), Relaxed));
    let request = Request {
        subject: number.into(),
        operation: number,
        length: number,
    };
    lane.post(slot, request);
}

/// The number of a request that was taken, which has to be whole.
fn number_of(arena: &Arena, slot: usize, request: Request) -> u32 {
    let Request {
        subject,
        operation: number,
        length,
    } = request;
    assert_eq!((subject, length), (number.into(), number), "a torn request");
    for word in arena.lane().payload(slot) {
        assert_eq!(word.load(Relaxed), number.into(), "another's payload");
    }
    number
}

/// What a request comes to.
fn answer_to(number: u32) -> i64 {
    -i64::from(number)
}

/// Answers one request, in its payload too; its number.
fn answer(server: &LaneServer, arena: &Arena, slot: usize, request: Request) -> u32 {
    let number = number_of(arena, slot, request);
    for word in arena.lane().payload(slot) {
        word.store(answer_to(number) as u64, Relaxed);
    }
    server.answer(slot, Answer::Done(answer_to(number)));
    number
}

/// What the server does while there is nothing to take. A model in which both ends sleep and more than one request is
/// made has no end, so most have one end that sleeps and one that looks.
type Idle = fn(&LaneServer);
const SLEEP: Idle = |server| server.sleep(|| false);
const LOOK: Idle = |_| thread::yield_now();

/// Waits for the next request and answers it.
fn serve_one(server: &mut LaneServer, arena: &Arena, idle: Idle) -> u32 {
    loop {
        match server.take() {
            Some((slot, request)) => return answer(server, arena, slot, request),
            None => idle(server),
        }
    }
}

/// Waits until there is an answer, which has to be the request's, or there will be none.
fn wait(lane: Lane<'_>, slot: usize, number: u32) -> Waited {
    let waited = lane.wait(slot, Spin::NONE, FOR_EVER);
    match waited {
        Waited::Answered(answer) => check(lane, slot, number, answer),
        Waited::Closed => {}
        Waited::TimedOut => panic!("the end of a wait for ever"),
    }
    waited
}

fn check(lane: Lane<'_>, slot: usize, number: u32, answer: Answer) {
    let expected = answer_to(number);
    assert_eq!(answer, Answer::Done(expected), "another's answer");
    for word in lane.payload(slot) {
        assert_eq!(word.load(Relaxed), expected as u64, "another's payload");
    }
}

#[test]
fn no_wake_is_lost_where_both_ends_sleep() {
    loom::model(|| {
        let (arena, mut server) = lane();
        let asker = asker(&arena, |lane| {
            post(lane, 1, 7);
            let waited = wait(lane, 1, 7);
            assert!(matches!(waited, Waited::Answered(_)));
        });
        assert_eq!(serve_one(&mut server, &arena, SLEEP), 7);
        assert_eq!(server.take(), None);
        asker.join().unwrap();
    });
}

#[test]
fn a_slot_that_is_used_again_gets_the_answer_to_its_new_request() {
    loom::model(|| {
        let (arena, mut server) = lane();
        let asker = asker(&arena, |lane| {
            for number in 1..=2 {
                post(lane, 0, number);
                let waited = wait(lane, 0, number);
                assert!(matches!(waited, Waited::Answered(_)));
            }
        });
        for number in 1..=2 {
            assert_eq!(serve_one(&mut server, &arena, LOOK), number);
        }
        assert_eq!(server.take(), None);
        asker.join().unwrap();
    });
}

#[test]
fn two_who_ask_at_once_wake_the_server_and_are_answered_in_their_own_slots() {
    // Every interleaving of three threads takes too long, so those with few preemptions.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let (arena, mut server) = lane();
        let askers =
            [0, 1].map(|slot| asker(&arena, move |lane| post(lane, slot, slot as u32 + 1)));
        let mut served = [0; SLOTS].map(|_: u32| serve_one(&mut server, &arena, SLEEP));
        served.sort_unstable();
        assert_eq!(served, [1, 2]);
        assert_eq!(server.take(), None);
        for (slot, asker) in askers.into_iter().enumerate() {
            asker.join().unwrap();
            let answer = arena.lane().answer(slot).expect("an answer");
            check(arena.lane(), slot, slot as u32 + 1, answer);
        }
    });
}

#[test]
fn a_request_is_either_begun_or_taken_back() {
    loom::model(|| {
        let (arena, mut server) = lane();
        let asker = asker(&arena, |lane| {
            post(lane, 0, 1);
            lane.withdraw(0)
        });
        let taken = server.take();
        if let Some((slot, request)) = taken {
            assert_eq!((slot, number_of(&arena, slot, request)), (0, 1));
        }
        // What was looked for too early is still there, unless it was taken back.
        let is_withdrawn = asker.join().unwrap();
        assert_eq!(taken.is_none(), is_withdrawn);
        assert_eq!(server.take(), None);
    });
}

#[test]
fn what_is_asked_in_place_of_a_request_taken_back_is_not_confused_with_it() {
    loom::model(|| {
        let (arena, mut server) = lane();
        let asker = asker(&arena, |lane| {
            post(lane, 0, 1);
            let number = if lane.withdraw(0) {
                post(lane, 0, 2);
                2
            } else {
                1
            };
            assert!(matches!(wait(lane, 0, number), Waited::Answered(_)));
            number
        });
        let served = serve_one(&mut server, &arena, LOOK);
        assert_eq!(server.take(), None);
        assert_eq!(asker.join().unwrap(), served);
    });
}

#[test]
fn closing_wakes_who_waits_and_tells_what_was_begun_from_what_was_not() {
    loom::model(|| {
        let (arena, mut server) = lane();
        let asker = asker(&arena, |lane| {
            post(lane, 0, 1);
            if wait(lane, 0, 1) == Waited::Closed && !lane.withdraw(0) {
                // It was begun, and so answered before the lane was closed.
                check(lane, 0, 1, lane.answer(0).expect("an answer"));
            }
        });
        if let Some((slot, request)) = server.take() {
            answer(&server, &arena, slot, request);
        }
        server.close();
        asker.join().unwrap();
    });
}

#[test]
fn a_server_that_sleeps_is_woken_for_requests_and_for_its_end() {
    loom::model(|| {
        let (arena, mut server) = lane();
        let is_ended = Arc::new(AtomicBool::new(false));
        let (ending, woken) = (is_ended.clone(), arena.clone());
        let ender = thread::spawn(move || {
            post(woken.lane(), 0, 1);
            // No more than the wake's own fence orders this.
            ending.store(true, Relaxed);
            LaneServer::wake(&woken);
        });
        while !is_ended.load(Relaxed) {
            match server.take() {
                Some((slot, request)) => drop(answer(&server, &arena, slot, request)),
                None => server.sleep(|| is_ended.load(Relaxed)),
            }
        }
        ender.join().unwrap();
    });
}
