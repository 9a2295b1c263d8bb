//! One ioctl of a task, from its arrival to its return.
//!
//! On arrival the request is marshalled and submitted. When the answer comes it is written back, as the driver itself
//! would have done, and the task goes on. What the tables do not know is answered here, as the driver would answer it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::{Fetch, Plan};
use nvproxy_abi::table::Family;
use nvproxy_abi::{refusal, words};
use nvproxy_protocol::requests::{ARGUMENT_ISSUER, Issuer, Kind, MAXIMUM_DESCRIPTORS, number_of};
use ringfence_faults::{Act, Point, at, at_task};
use ringfence_recording::Reached;
use smallvec::SmallVec;

use super::descriptions::{Description, Identified};
use super::link::Answer;
use super::marshalling::{
    Marshalled, Stopped, Target, length_of, marshal, status_of, submission, write_back,
};
use super::memory::{self, Write};
use super::observer::{Done, Known, heading};
use super::progress::Progress;
use super::receivers::Turn;
use super::recorder::Begun;
use super::server::ServerLink;
use super::shares::{Needs, Share};
use super::times::{Phase, Times};
use super::{Continuation, Sentry, foreign, pins, procfs};
use crate::seccomp::listener::Notification;
use crate::warnings::warn_once;

/// A request that the server has: what is needed to finish it.
pub struct Issued {
    pub notification: Notification,
    pub plan: Plan,
    pub parts: SmallVec<[Fetch; 4]>,
    /// What it was made on, if the server keeps it.
    pub target: Option<Arc<Description>>,
    pub progress: Progress,
}

impl Sentry {
    /// Handles an ioctl that the filter stopped. `share` is what it has waited for, if it has.
    pub fn ioctl(
        &self,
        notification: Notification,
        times: Times,
        share: Share,
        turn: &mut Turn<'_>,
        payload: &mut Vec<u8>,
    ) {
        at_task(Point::Received, notification.task.as_raw());
        let descriptor = notification.arguments[0] as i32;
        let command = notification.arguments[1] as u32;
        let identified = self.descriptions.identify(
            notification.task,
            descriptor,
            words::is_read_by_uvm(command),
        );
        let target = match identified {
            Ok(Identified::Device(description)) => Target::Device(description),
            Ok(Identified::Uvm(copy)) => Target::Uvm(copy),
            Ok(Identified::Closed) => {
                return self.listener.answer(&notification, Err(Errno::EBADF));
            }
            Ok(Identified::Foreign(copy)) => {
                return foreign::answer(self, &notification, &copy, turn);
            }
            Err(errno) => return self.listener.answer(&notification, Err(errno)),
        };
        let link = match self.link_of(&target) {
            Ok(link) => link,
            Err(errno) => {
                let stopped = Stopped::Errno(errno);
                return self.stop(&notification, target.node(), stopped, times, None);
            }
        };
        let mut marshalled = marshal(
            self.abi,
            &self.descriptions,
            notification.task,
            link.server,
            &target,
            command,
            notification.arguments[2],
            payload,
        );
        if let Ok(request) = &mut marshalled {
            match self.issuer_of(notification.task, &request.plan) {
                Ok(issuer) => request.issuer = issuer,
                Err(errno) => marshalled = Err(Stopped::Errno(errno)),
            }
        }
        // What was read, of its memory, its descriptors and its user, was the task's if it has waited all the time.
        if let Err(errno) = self.listener.expect_waiting(&notification) {
            return self.listener.answer(&notification, Err(errno));
        }
        let needs = marshalled.as_ref().map_or(Needs::default(), |marshalled| {
            Needs::of(&marshalled.plan, payload.len())
        });
        let since = self.pins.looks();
        let Some(share) = self.shares.take(&notification, needs, times, share, since) else {
            return;
        };
        let recorder = self.recorder.as_ref();
        let begun = recorder.and_then(|recorder| {
            recorder.request(
                &self.descriptions,
                notification.task,
                &target,
                command,
                payload,
            )
        });
        let progress = Progress {
            times,
            begun,
            share,
        };
        match marshalled {
            Ok(marshalled) if marshalled.plan.pins() => {
                self.pins.begin(pins::Job {
                    link,
                    notification,
                    target,
                    marshalled,
                    progress,
                    payload: std::mem::take(payload),
                });
            }
            Ok(marshalled) => {
                self.submit(&link, notification, target, marshalled, progress, payload)
            }
            Err(stopped) => {
                let Progress { times, begun, .. } = progress;
                self.stop(&notification, target.node(), stopped, times, begun)
            }
        }
    }

    /// The link with the server that issues requests on `target`. Fails with `EIO` if it was lost.
    fn link_of(&self, target: &Target) -> Result<ServerLink, Errno> {
        match target {
            Target::Device(description) => self.server.link_of(description.handle),
            Target::Uvm(_) => self.server.link(),
        }
    }

    /// Who makes a request, if the sandbox can have several users and the server tells clients apart by them. To the server a request
    /// of nobody's would be one of a sandbox with one user. So one of whom nobody knows fails.
    fn issuer_of(&self, task: Pid, plan: &Plan) -> Result<Option<Issuer>, Errno> {
        let names_any = plan.family == Family::Uvm && plan.names_clients();
        // The driver does not look whose memory it exports.
        let exports = plan.result_at().is_some();
        let is_told = self.is_container && (plan.makes_client() || names_any || exports);
        if !is_told {
            return Ok(None);
        }
        let issuer = procfs::issuer(task).filter(|_| at(Point::Issuer) != Some(Act::Drop));
        issuer.map(Some).ok_or(Errno::EIO)
    }

    fn submit(
        &self,
        link: &ServerLink,
        notification: Notification,
        target: Target,
        marshalled: Marshalled,
        mut progress: Progress,
        payload: &mut Vec<u8>,
    ) {
        let command = notification.arguments[1] as u32;
        let handles = &marshalled.handles;
        let mut submission = submission(Kind::Ioctl, &target, command, handles, payload);
        submission.arguments[ARGUMENT_ISSUER] = Issuer::encode(marshalled.issuer);
        let Marshalled {
            plan,
            parts,
            carried,
            ..
        } = marshalled;
        let node = target.node();
        let known = Known::Named {
            kind: heading(plan.family),
            name: plan.request.name,
        };
        let mut descriptors: SmallVec<[OwnedFd; MAXIMUM_DESCRIPTORS]> = SmallVec::new();
        let target = match target {
            Target::Device(description) => Some(description),
            Target::Uvm(copy) => {
                descriptors.push(copy);
                None
            }
        };
        descriptors.extend(carried);
        progress.times.end(Phase::Sentry);
        let times = progress.times;
        let issued = Issued {
            notification,
            plan,
            parts,
            target,
            progress,
        };
        if let Err(errno) = link.submit(
            self,
            submission,
            payload,
            &descriptors,
            Continuation::Request(issued),
        ) {
            let task = notification.task;
            self.observer
                .stopped(task, times, node, known, (Err(errno), None));
            self.listener.answer(&notification, Err(errno));
        }
    }

    /// Finishes a request that the server answered.
    pub fn finish_request(&self, issued: Issued, answer: Answer<'_>) {
        at_task(Point::Answered, issued.notification.task.as_raw());
        let Issued {
            notification,
            plan,
            parts,
            target,
            progress,
        } = issued;
        let Progress {
            mut times,
            begun,
            share,
        } = progress;
        times.answered(answer.driver);
        self.record_answer(begun, answer.outcome, answer.payload);
        let Answer {
            outcome,
            payload,
            descriptor,
            ..
        } = answer;
        let mut status = status_of(&plan, payload);
        let (made, event) = match plan.result_at() {
            Some(_) => (descriptor, None),
            None => (None, descriptor),
        };
        let outcome = outcome.and_then(|value| {
            self.listener.expect_waiting(&notification)?;
            let told = self.give_made(&notification, &plan, payload, made)?;
            status = status_of(&plan, &told);
            write_back(notification.task, &parts, &told)?;
            Ok(i64::from(value))
        });
        if let (Some(event), Some(target)) = (&event, &target) {
            self.install_event_descriptor(&notification, event, target);
        }
        times.end(Phase::WritingBack);
        let done = Done {
            kind: heading(plan.family),
            name: plan.request.name,
            id: plan.id,
            node: target.map_or(Node::Uvm, |target| target.node),
            payload: length_of(&parts),
            outcome,
            status,
        };
        self.observer.done(notification.task, times, done);
        drop(share);
        self.listener.answer(&notification, outcome);
    }

    /// From now on the task polls the event descriptor, under the number that it registered events on.
    fn install_event_descriptor(
        &self,
        notification: &Notification,
        event: &OwnedFd,
        target: &Arc<Description>,
    ) {
        use std::os::fd::AsFd;
        let number = notification.arguments[0] as i32;
        // If this is not the task's, since it was killed, then the descriptor will find none to be put in.
        let close_on_exec = procfs::is_close_on_exec(notification.task, number);
        let installed = self.register(event, target).and_then(|()| {
            self.listener
                .replace_descriptor(notification, event.as_fd(), close_on_exec, number)
        });
        if let Err(errno) = installed
            && errno != Errno::ENOENT
        {
            warn_once("an event descriptor could not be given to a task", errno);
        }
    }

    /// Records, if this is recorded, what the server answered.
    pub fn record_answer(&self, begun: Option<Begun>, outcome: Result<i32, Errno>, payload: &[u8]) {
        if let (Some(recorder), Some(begun)) = (&self.recorder, begun) {
            recorder.answered(begun, outcome, payload);
        }
    }

    /// Answers a request that was made on `node` and is not passed on.
    pub fn stop(
        &self,
        notification: &Notification,
        node: Node,
        stopped: Stopped,
        mut times: Times,
        begun: Option<Begun>,
    ) {
        let command = Known::Command(notification.arguments[1] as u32);
        let (answer, reached, known) = match stopped {
            Stopped::Errno(errno) => (refusal::Answer::Errno(number_of(errno)), None, command),
            Stopped::Unreadable(answer) => (answer, Some(Reached::Unreadable), command),
            Stopped::Refused(refusal) => {
                self.observer.refused(&refusal);
                let known = Known::Refused(refusal.what);
                (refusal.answer, Some(Reached::Refused), known)
            }
        };
        if let (Some(recorder), Some(begun), Some(reached)) = (&self.recorder, begun, reached) {
            match answer {
                refusal::Answer::Errno(errno) => {
                    recorder.stopped(begun, reached, Err(Errno::from_raw(errno)), None);
                }
                refusal::Answer::Status { at, status } => {
                    recorder.stopped(begun, reached, Ok(0), Some((at, status)));
                }
            }
        }
        let task = notification.task;
        let (outcome, status) = match answer {
            refusal::Answer::Errno(errno) => (Err(Errno::from_raw(errno)), None),
            refusal::Answer::Status { at, status } => {
                let address = notification.arguments[2].wrapping_add(u64::from(at));
                let bytes = &status.to_ne_bytes();
                let written = self
                    .listener
                    .expect_waiting(notification)
                    .and_then(|()| memory::write(task, &[Write { address, bytes }]));
                (written.map(|()| 0), Some(status))
            }
        };
        times.end(Phase::Sentry);
        self.observer
            .stopped(task, times, node, known, (outcome, status));
        self.listener.answer(notification, outcome);
    }
}
