//! Opening device nodes: what a task gets for one.

use std::sync::Arc;

use nix::errno::Errno;
use nvproxy_protocol::requests::{ARGUMENT_NODE, Kind, OPEN_NONBLOCKING, VALUE_HANDLE};
use ringfence_ipc::Submission;

use super::descriptions::{Description, Handle};
use super::link::Answer;
use super::nodes::Room;
use super::observer::{Done, Known};
use super::recognition::DeviceOpen;
use super::recorder::Begun;
use super::shares::{Needs, Share};
use super::times::{Phase, Times};
use super::{Continuation, Sentry};
use crate::seccomp::listener::Notification;

impl Sentry {
    pub(super) fn open(
        &self,
        notification: Notification,
        open: DeviceOpen,
        mut times: Times,
        share: Share,
    ) {
        // The first open of a GPU can take the driver seconds.
        let Some(share) = self
            .shares
            .take(&notification, Needs::THREAD, times, share, 0)
        else {
            return;
        };
        let mut submission = Submission {
            kind: Kind::Open as u16,
            ..Submission::default()
        };
        if open.flags & libc::O_NONBLOCK != 0 {
            submission.code = OPEN_NONBLOCKING;
        }
        submission.arguments[ARGUMENT_NODE] = open.node.to_wire();
        let recorder = self.recorder.as_ref();
        let begun = recorder.map(|recorder| recorder.open(notification.task, open));
        times.end(Phase::Sentry);
        let room = self.nodes.take(notification.task);
        let linked = room.and_then(|room| Ok((room, self.server.link()?)));
        let submitted = linked.and_then(|(room, link)| {
            let continuation = Continuation::Open(notification, open, times, begun, share, room);
            link.submit(self, submission, &[], &[], continuation)
        });
        if let Err(errno) = submitted {
            let (task, node) = (notification.task, open.node);
            let known = Known::Named {
                kind: "open",
                name: node.shown(),
            };
            self.observer
                .stopped(task, times, node, known, (Err(errno), None));
            self.listener.answer(&notification, Err(errno));
        }
    }

    /// Gives a task the description that the server opened for it.
    pub(super) fn finish_open(
        &self,
        notification: &Notification,
        open: DeviceOpen,
        mut times: Times,
        (begun, room): (Option<Begun>, Room),
        answer: Answer<'_>,
    ) {
        times.answered(answer.driver);
        let close_on_exec = open.flags & libc::O_CLOEXEC != 0;
        let opened = answer
            .outcome
            .and_then(|_| answer.descriptor.ok_or(Errno::EIO));
        let handle = Handle {
            server: answer.server,
            number: answer.values[VALUE_HANDLE],
        };
        if opened.is_err() && handle.number != 0 {
            // It was opened, and the descriptor did not get here.
            self.abandon(handle);
        }
        // Once the task goes on it may end the sandbox.
        times.end(Phase::WritingBack);
        let done = Done {
            kind: "open",
            name: open.node.shown(),
            id: 0,
            node: open.node,
            payload: 0,
            outcome: opened.as_ref().map(|_| 0).map_err(|errno| *errno),
            status: None,
        };
        self.observer.done(notification.task, times, done);
        if let (Some(recorder), Some(begun)) = (&self.recorder, begun) {
            let opened = opened.as_ref().map(|granted| (handle, granted));
            recorder.opened(begun, opened.map_err(|errno| *errno));
        }
        let granted = match opened {
            Ok(granted) => granted,
            Err(errno) => return self.listener.answer(notification, Err(errno)),
        };
        let description = Arc::new(Description {
            handle,
            node: open.node,
            room: Some(room),
        });
        let give = || {
            // UVM's own description is not kept by the server, and has no handle.
            let is_kept = handle.number != 0;
            if is_kept {
                self.register(&granted, &description)
                    .inspect_err(|_| self.abandon(description.handle))?;
            }
            let number = self.listener.give(notification, granted, close_on_exec)?;
            if is_kept {
                self.descriptions.expect(number, &description);
            }
            Ok(())
        };
        // A task that was killed meanwhile has no use for an answer; its description closes here, unheld.
        if let Err(errno) = give()
            && errno != Errno::ENOENT
        {
            self.listener.answer(notification, Err(errno));
        }
    }
}
