//! Pinning: the one kind of request that has to be issued from the task's own address space.
//!
//! The driver pins pages of whoever calls it (class 0x71), so the task's thread itself must make the call, on the
//! command descriptor, with parameters that the server has validated. That is done so that no task can get at either:
//!
//! 1. The server validates the request and lends the command descriptor.
//! 2. Every other task of the sandbox is stopped, or, if it waits for an answer of the sentry's, kept waiting.
//! 3. The caller is given the descriptor under a fresh number, and its call returns into a stop.
//! 4. It is made to map a fresh private page. The validated parameters, not the task's own, are written there. Since
//!    the page is private and new, no other process has it either.
//! 5. It is made to issue the ioctl on the page. This notifies once more; the call is let through if the page still
//!    holds what was validated, which nobody can change any more while the thread waits.
//! 6. It is made to unmap the page and close the descriptor. Then the others go on, and, when the server has been told
//!    the outcome, the caller does.

use std::cell::Cell;
use std::os::fd::{AsFd, RawFd};
use std::sync::{Arc, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nvproxy_abi::plan::Plan;
use nvproxy_server::protocol::{ARGUMENT_RESULT, Kind, decode_result, encode_result};
use ringfence_faults::{Act, Point, at_task};

use super::descriptions::Description;
use super::marshalling::{
    Marshalled, Stopped as StoppedRequest, Target, length_of, status_of, submission, write_back,
};
use super::memory::{self, Write};
use super::observer::{Done, Known, heading};
use super::requests::Progress;
use super::server::ServerLink;
use super::times::{Phase, Times};
use super::tracee::{Caller, Held, Reaper, Stopped};
use super::{Reply, Sentry};
use crate::seccomp::listener::Notification;
use crate::warnings::warn_once;

/// A pin whose caller is about to issue its ioctl: what it must look like to be let through.
pub struct Expected {
    pub task: Pid,
    descriptor: RawFd,
    command: u32,
    page: u64,
    bytes: Vec<u8>,
}

impl Expected {
    /// Whether `notification` is the very call that was prepared, and its parameters are the validated ones.
    fn is_met_by(&self, notification: &Notification) -> bool {
        let [descriptor, command, page, ..] = notification.arguments;
        let mut bytes = vec![0; self.bytes.len()];
        descriptor as RawFd == self.descriptor
            && command as u32 == self.command
            && page == self.page
            && memory::read(self.task, page, &mut bytes).is_ok()
            && bytes == self.bytes
    }
}

/// Carries out a request that pins. The share in its `progress` makes it the only one until its caller goes on.
pub fn run(
    sentry: &Sentry,
    link: &ServerLink,
    notification: &Notification,
    target: Target,
    marshalled: Marshalled,
    mut progress: Progress,
    payload: &mut Vec<u8>,
) {
    let Target::Device(description) = target else {
        let stopped = StoppedRequest::Errno(Errno::ENOTTY);
        return sentry.stop(notification, target.node(), stopped, progress.times, None);
    };
    progress.times.end(Phase::Sentry);
    let begun = progress.begun;
    let pin = Pin {
        sentry,
        link,
        notification,
        description,
        marshalled,
        times: Cell::new(progress.times),
        progress,
    };
    let outcome = pin.carry_out(payload);
    let server = pin.description.handle;
    match outcome {
        Ok(()) => {}
        Err(Failed::BeforeAnswer(errno)) => {
            sentry.record_answer(begun, Err(errno), &[]);
            pin.end(Phase::Releasing);
            pin.note_failure(errno);
            sentry.listener.answer(notification, Err(errno));
        }
        // Killed, or it took away the memory that the answer was to be written to.
        Err(Failed::AfterAnswer(Errno::ESRCH | Errno::EFAULT)) => {}
        // That the server was lost was told.
        Err(Failed::AfterAnswer(_)) if sentry.server.link_of(server).is_err() => {}
        Err(Failed::AfterAnswer(errno)) => warn_once("a request that pins was not finished", errno),
    }
}

/// Where a pin failed: whether the notification still waits for an answer.
enum Failed {
    BeforeAnswer(Errno),
    AfterAnswer(Errno),
}

struct Pin<'a> {
    sentry: &'a Sentry,
    link: &'a ServerLink,
    notification: &'a Notification,
    description: Arc<Description>,
    marshalled: Marshalled,
    progress: Progress,
    /// The progress's, as they are by now.
    times: Cell<Times>,
}

impl Pin<'_> {
    /// A phase is over.
    fn end(&self, phase: Phase) {
        let mut times = self.times.get();
        times.end(phase);
        self.times.set(times);
    }

    fn carry_out(&self, payload: &mut Vec<u8>) -> Result<(), Failed> {
        let task = self.notification.task;
        let lent = self.ask(Kind::PinBegin, payload, None).and_then(|reply| {
            reply.outcome?;
            reply.descriptor.ok_or(Errno::EIO)
        });
        self.end(Phase::Lending);
        let lent = lent.map_err(Failed::BeforeAnswer)?;
        at_task(Point::PinLent, task.as_raw());
        let listener = &self.sentry.listener;
        let reaper = Reaper::default();
        // A test leaves this out, to show that it would notice.
        let is_to_hold = at_task(Point::Hold, task.as_raw()) != Some(Act::Drop);
        let held = is_to_hold
            .then(|| Held::all_but(task, self.sentry.init, listener, &reaper))
            .transpose()
            .map_err(Failed::BeforeAnswer)?;
        at_task(Point::PinHeld, task.as_raw());
        let caller = Caller::seize(task, &reaper).map_err(Failed::BeforeAnswer)?;
        let number = listener.lend(self.notification, lent.as_fd());
        drop(lent);
        listener.answer(self.notification, number.map(i64::from));
        let mut stopped = caller.stopped().map_err(Failed::AfterAnswer)?;
        at_task(Point::PinStopped, task.as_raw());
        let issued = number.and_then(|number| {
            let issued = self.issue(&mut stopped, number, payload);
            match stopped.call(libc::SYS_close, [number as u64, 0, 0, 0, 0, 0]) {
                Ok(0) => issued,
                // Killed: its descriptors are closed with it.
                Err(Errno::ESRCH) => Err(Errno::ESRCH),
                _ => {
                    // It must not go on with the command descriptor, and whoever shares its table must not either.
                    let _ = kill(task, Signal::SIGKILL);
                    Err(Errno::EIO)
                }
            }
        });
        at_task(Point::PinClosed, task.as_raw());
        drop(held);
        self.end(Phase::Releasing);
        let finished = issued.and_then(|issued| {
            let reply = self.ask(Kind::PinFinish, payload, Some(issued))?;
            let mut times = self.times.get();
            times.answered(reply.driver);
            self.times.set(times);
            if reply.outcome.is_ok() {
                write_back(task, &self.marshalled.parts, &reply.payload)?;
            }
            Ok(reply)
        });
        // Once the caller goes on it may end the sandbox.
        match &finished {
            Ok(reply) => self.note(reply),
            Err(errno) => {
                self.sentry
                    .record_answer(self.progress.begun, Err(*errno), &[]);
                self.end(Phase::WritingBack);
                self.note_failure(*errno);
            }
        }
        stopped.result = encode_result(
            finished
                .as_ref()
                .map_err(|errno| *errno)
                .and_then(|reply| reply.outcome),
        );
        finished.map(drop).map_err(Failed::AfterAnswer)
    }

    /// Puts the answer into the recording, the statistics and the trace.
    fn note(&self, reply: &Reply) {
        self.sentry
            .record_answer(self.progress.begun, reply.outcome, &reply.payload);
        self.end(Phase::WritingBack);
        let plan = &self.marshalled.plan;
        let done = Done {
            kind: heading(plan.family),
            name: plan.request.name,
            node: self.description.node,
            payload: length_of(&self.marshalled.parts),
            outcome: reply.outcome.map(i64::from),
            status: status_of(plan, &reply.payload),
        };
        let task = self.notification.task;
        self.sentry.observer.done(task, self.times.get(), done);
    }

    /// Puts a failure that is not the driver's into the trace.
    fn note_failure(&self, errno: Errno) {
        let plan = &self.marshalled.plan;
        let known = Known::Named {
            kind: heading(plan.family),
            name: plan.request.name,
        };
        let (task, times) = (self.notification.task, self.times.get());
        let answer = (Err(errno), None);
        self.sentry
            .observer
            .stopped(task, times, self.description.node, known, answer);
    }

    /// Has the caller issue the ioctl on a page of its own; `payload` then holds what the driver left there.
    fn issue(
        &self,
        stopped: &mut Stopped<'_>,
        number: RawFd,
        payload: &mut [u8],
    ) -> Result<Result<i32, Errno>, Errno> {
        let length = payload.len() as u64;
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let page = stopped.call(libc::SYS_mmap, [0, length, protection, flags, u64::MAX, 0])?;
        let page = u64::try_from(page).map_err(|_| Errno::ENOMEM)?;
        let issued = self.issue_at(stopped, number, page, payload);
        stopped.call(libc::SYS_munmap, [page, length, 0, 0, 0, 0])?;
        issued
    }

    fn issue_at(
        &self,
        stopped: &mut Stopped<'_>,
        number: RawFd,
        page: u64,
        payload: &mut [u8],
    ) -> Result<Result<i32, Errno>, Errno> {
        let task = self.notification.task;
        let command = self.notification.arguments[1] as u32;
        let originals = relocate(&self.marshalled.plan, page, payload);
        memory::write(
            task,
            &[Write {
                address: page,
                bytes: payload,
            }],
        )?;
        let expected = Expected {
            task,
            descriptor: number,
            command,
            page,
            bytes: payload.to_vec(),
        };
        self.sentry.expect_pin(expected);
        at_task(Point::PinPrepared, task.as_raw());
        self.end(Phase::Holding);
        let result = stopped.call(
            libc::SYS_ioctl,
            [number as u64, u64::from(command), page, 0, 0, 0],
        );
        self.end(Phase::Calling);
        self.sentry.end_pin(task);
        at_task(Point::PinIssued, task.as_raw());
        let result = result?;
        memory::read(task, page, payload)?;
        for (at, address) in originals {
            put_address(payload, at, address);
        }
        Ok(decode_result(result))
    }

    /// Sends the request to the server, at one of the two moments of a pin that it is asked.
    fn ask(
        &self,
        kind: Kind,
        payload: &mut Vec<u8>,
        issued: Option<Result<i32, Errno>>,
    ) -> Result<Reply, Errno> {
        let command = self.notification.arguments[1] as u32;
        let target = Target::Device(Arc::clone(&self.description));
        let length = payload.len();
        let mut submission = submission(kind, &target, command, &self.marshalled.handles, payload);
        if let Some(issued) = issued {
            submission.arguments[ARGUMENT_RESULT] = encode_result(issued) as u64;
        }
        let reply = self.sentry.call(self.link, submission, payload);
        payload.truncate(length);
        reply
    }
}

/// Lets the pointers in `payload` point to where their buffers will lie at `page`; returns what stood there.
fn relocate(plan: &Plan, page: u64, payload: &mut [u8]) -> Vec<(usize, u64)> {
    let mut originals = Vec::new();
    for segment in &plan.segments {
        let Some(at) = segment.pointer_at else {
            continue;
        };
        let original = put_address(payload, at as usize, page + u64::from(segment.offset));
        originals.extend(original.map(|original| (at as usize, original)));
    }
    originals
}

fn put_address(payload: &mut [u8], at: usize, address: u64) -> Option<u64> {
    let field = payload.get_mut(at..)?.first_chunk_mut::<8>()?;
    Some(u64::from_ne_bytes(std::mem::replace(
        field,
        address.to_ne_bytes(),
    )))
}

impl Sentry {
    fn expect_pin(&self, expected: Expected) {
        self.expected_pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(expected);
    }

    fn end_pin(&self, task: Pid) {
        self.expected_pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|expected| expected.task != task);
    }

    /// Whether `notification` is the ioctl of a pin under way, which only the sentry can have caused. Answers it.
    pub fn is_pin(&self, notification: &Notification) -> bool {
        let expected = self
            .expected_pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(expected) = expected
            .iter()
            .find(|expected| expected.task == notification.task)
        else {
            return false;
        };
        if expected.is_met_by(notification) {
            at_task(Point::PinChecked, expected.task.as_raw());
            self.listener.let_run(notification);
        } else {
            self.listener.answer(notification, Err(Errno::EPERM));
        }
        true
    }
}
