//! One request: planned, put into the lane, waited for, and written back.
//!
//! A program sees a system call from before or from after, never from the middle: its signal handlers run when the call is
//! done, and a child that one of them forks has either made the call or not. So signals are blocked meanwhile. Only while
//! a thread sleeps for an answer that takes long they are let through, because they may be to end the program.
//!
//! Until it is posted nothing has happened, and whatever is out of the ordinary ends with "take the trap". Afterwards it is
//! the trap's again only if the server says that nothing was done, or if the request can be taken back. One that a server
//! had that is gone has the outcome that the sentry gives such a request.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nvproxy_abi::lane::{ASK, VOUCH};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::{NV_IOCTL_MAGIC, parts};
use nvproxy_abi::plan::{MAXIMUM_SEGMENTS, Planner, Step};
use ringfence_ipc::Spin;
use ringfence_ipc::lane::{Answer, Lane, Request, Waited};

use crate::descriptors::Known;
use crate::memory::{Memory, Place};
use crate::registration::register;
use crate::state::{Slot, State};
use crate::system::{self, SignalsBlocked};

/// How long to sleep for an answer before asking whether there will be one.
const PATIENCE: Duration = Duration::from_millis(100);

/// What an ioctl returns: a value, or a negated errno.
pub type Returned = i64;

/// Makes the request by the lane; `None` if it is to be made by the system call. `memory` is what is known of the
/// program's.
pub fn attempt(descriptor: i32, command: u32, argument: u64, memory: Memory) -> Option<Returned> {
    let (kind, _, _) = parts(command);
    if kind != NV_IOCTL_MAGIC {
        return None;
    }
    let state = State::get()?;
    if !state.has_lane() && state.is_reluctant() {
        state.overcome_reluctance();
        return None;
    }
    if !state.is_own() {
        return None;
    }
    let signals = SignalsBlocked::new();
    if !state.has_lane() {
        register(state);
    }
    let mut slot = state.claim()?;
    if slot.lane()?.is_closed() {
        slot.end_lane();
        return None;
    }
    let marshalled = Marshalled::new(&mut slot, command, argument, memory)?;
    let subject = subject(&slot, descriptor)?;
    let returned = marshalled.exchange(&mut slot, &signals, subject, command);
    if returned.is_none() {
        // It may be that the descriptor was closed in a way that is not noticed here, and means nothing any more.
        state.descriptors.forget(descriptor);
    }
    returned
}

/// A request whose payload lies in its slot's staging.
struct Marshalled {
    /// Bytes of the payload.
    length: usize,
    parts: [Option<Part>; MAXIMUM_SEGMENTS],
}

/// A part of a payload.
#[derive(Clone, Copy)]
struct Part {
    /// Where it starts in the payload, at a multiple of 8.
    offset: usize,
    /// Where it came from.
    place: Place,
}

impl Marshalled {
    /// Copies a request and what it points to; `None` if it is not one for a lane.
    fn new(slot: &mut Slot, command: u32, argument: u64, mut memory: Memory) -> Option<Marshalled> {
        // Which of the nodes with these requests it is, is the server's to know.
        let mut planner = Planner::new(slot.tables(), Node::Control, command, argument).ok()?;
        let mut parts = [None; MAXIMUM_SEGMENTS];
        let mut free = parts.iter_mut();
        let staging = slot.staging();
        let mut length = 0;
        while let Step::Fetch(fetch) = planner.step(staging.get(..length)?).ok()? {
            let (offset, wanted) = (fetch.offset as usize, fetch.length as usize);
            length = offset.checked_add(wanted)?.next_multiple_of(8);
            let (bytes, padding) = staging
                .get_mut(offset..length)?
                .split_at_mut_checked(wanted)?;
            padding.fill(0);
            let place = memory.read(fetch.address, bytes)?;
            *free.next()? = Some(Part { offset, place });
        }
        let plan = planner.finish();
        let is_plain =
            !plan.pins() && !plan.may_block() && !plan.makes_event() && plan.descriptors.is_empty();
        is_plain.then_some(Marshalled { length, parts })
    }

    /// Makes the request, and waits for what comes of it; `None` if nothing does.
    fn exchange(
        &self,
        slot: &mut Slot,
        signals: &SignalsBlocked,
        subject: u32,
        command: u32,
    ) -> Option<Returned> {
        let number = slot.number;
        let (lane, staging) = slot.lane_and_staging()?;
        let (words, _) = staging.get(..self.length)?.as_chunks::<8>();
        for (place, word) in lane.payload(number).zip(words) {
            place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
        let request = Request {
            subject: subject.into(),
            operation: command,
            length: self.length as u32,
        };
        let lane = slot.lane()?;
        lane.post(number, request);
        let returned = wait(slot, lane, signals)?;
        if returned >= 0 {
            self.write_back(number, lane);
        }
        Some(returned)
    }

    /// Writes the answer to where the request came from.
    fn write_back(&self, slot: usize, lane: Lane<'_>) {
        for part in self.parts.iter().flatten() {
            let words = lane.payload(slot).skip(part.offset / 8);
            for (index, word) in words.take(part.place.words()).enumerate() {
                part.place
                    .write_word(index, word.load(Ordering::Relaxed).to_ne_bytes());
            }
        }
    }
}

/// Waits for the answer to what was posted.
fn wait(slot: &Slot, lane: Lane<'_>, signals: &SignalsBlocked) -> Option<Returned> {
    const LOST: Returned = -(libc::EIO as Returned);
    loop {
        match lane.look(slot.number, slot.spin()) {
            Waited::Answered(Answer::Done(returned)) => return Some(returned),
            Waited::Answered(Answer::Refused) => return None,
            Waited::TimedOut => {}
            Waited::Closed => break,
        }
        signals.except_in(|| lane.sleep(slot.number, PATIENCE));
        if !slot.is_held() {
            // This is a child that a signal handler has forked. What is under way is the parent's, and it has yet to make
            // the call.
            return None;
        }
        let waited = lane.look(slot.number, Spin::NONE);
        if waited == Waited::TimedOut && system::ioctl(-1, ASK, slot.lane_name()) < 0 {
            break;
        }
    }
    slot.end_lane();
    if lane.withdraw(slot.number) {
        return None;
    }
    // It was begun. If it was done, there is an answer by now.
    match lane.answer(slot.number) {
        Some(Answer::Done(returned)) => Some(returned),
        Some(Answer::Refused) => None,
        None => Some(LOST),
    }
}

/// What `descriptor` is called in the lane; `None` if it is nothing that the lane can name.
fn subject(slot: &Slot, descriptor: i32) -> Option<u32> {
    let lane = slot.lane_number();
    let descriptors = &slot.state.descriptors;
    match descriptors.look_up(descriptor, lane) {
        Known::Subject(subject) => Some(subject),
        Known::Trap => None,
        Known::Nothing(unknown) => {
            let answer = system::ioctl(descriptor, VOUCH, slot.lane_name());
            let subject = u32::try_from(answer).ok();
            match i32::try_from(-answer) {
                Ok(libc::ESRCH) => slot.end_lane(),
                Ok(libc::ENOTTY) => descriptors.note(descriptor, unknown, lane, None),
                _ if subject.is_some() => descriptors.note(descriptor, unknown, lane, subject),
                _ => {}
            }
            subject
        }
    }
}
