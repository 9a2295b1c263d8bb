//! Lanes: what lets a task make prompt requests without the sentry (`ringfence run --fast`).
//!
//! The sentry opens a lane for a process that asks for one, and vouches in it for descriptions, each when the process
//! asks by a descriptor of its own. It identifies the descriptor as it does for a request. So a lane can name nothing that
//! its process could not make requests on anyway. What goes through the lane the sentry does not see.
//!
//! A process has one lane, and a new one takes the place of the one before: a program that the process executes knows
//! nothing of that. A lane ends with its process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;
use nvproxy_abi::lane::{ASK, LaneParameters, OPEN, PROTOCOL, SUBJECTS, VOUCH};
use nvproxy_abi::node::Node;
use nvproxy_server::protocol::{ARGUMENT_HANDLE, ARGUMENT_NODE, Kind};
use ringfence_ipc::Submission;
use zerocopy::{FromZeros, IntoBytes};

use super::descriptions::Identified;
use super::memory::{self, Write};
use super::procfs::process_of;
use super::receivers::Turn;
use super::server::ServerLink;
use super::{Continuation, Sentry};
use crate::seccomp::listener::Notification;
use crate::system_calls::pidfd_open_process;

/// The lanes of a sandbox.
pub struct Lanes {
    /// Whether tasks may have any.
    enabled: bool,
    open: Mutex<Vec<Lane>>,
    /// Tells of processes that have ended, by the names of their lanes.
    ended: Epoll,
    /// The name that the next lane gets.
    next: AtomicU64,
}

/// A lane that a server has opened.
struct Lane {
    name: u64,
    process: Pid,
    /// Registered in `ended`, and taken out of it when this is closed.
    pidfd: OwnedFd,
    /// Which of the sandbox's servers has it.
    server: u32,
}

impl Lanes {
    pub fn new(enabled: bool) -> Result<Lanes, Errno> {
        Ok(Lanes {
            enabled,
            open: Mutex::default(),
            ended: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            next: AtomicU64::new(1),
        })
    }

    /// Becomes readable when a process has ended that has a lane.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.0.as_fd()
    }

    fn keep(&self, lane: Lane) -> Result<(), Errno> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, lane.name);
        self.ended.add(&lane.pidfd, event)?;
        self.open().push(lane);
        Ok(())
    }

    /// Takes out the lanes that `is_over` says.
    fn take(&self, is_over: impl Fn(&Lane) -> bool) -> Vec<Lane> {
        self.open().extract_if(.., |lane| is_over(lane)).collect()
    }

    /// Takes out the lanes of processes that have ended.
    fn take_ended(&self) -> Vec<Lane> {
        let mut events = [EpollEvent::empty(); 16];
        let count = self.ended.wait(&mut events, EpollTimeout::ZERO);
        let events = events.get(..count.unwrap_or(0)).unwrap_or_default();
        self.take(|lane| events.iter().any(|event| event.data() == lane.name))
    }

    /// Which server has the lane called `name` of the process that `task` belongs to. Fails with `ESRCH` if there is none.
    fn server_of(&self, name: u64, task: Pid) -> Result<u32, Errno> {
        let process = process_of(task).ok_or(Errno::ESRCH)?;
        let open = self.open();
        let lane = open.iter().find(|lane| lane.name == name);
        let own = lane.filter(|lane| lane.process == process);
        own.map(|lane| lane.server).ok_or(Errno::ESRCH)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sentry {
    /// Answers an ioctl that is about lanes; false if it is not, or if tasks may have none.
    pub fn lane_request(&self, notification: &Notification, turn: &mut Turn<'_>) -> bool {
        let command = notification.arguments[1] as u32;
        if !self.lanes.enabled || !matches!(command, OPEN | VOUCH | ASK) {
            return false;
        }
        // The server may be busy, and others are not to wait for that.
        turn.pass_on();
        let outcome = match command {
            OPEN => self.open_lane(notification),
            VOUCH => self.vouch(notification),
            _ => self
                .lane_link(notification.arguments[2], notification.task)
                .map(|_| 0),
        };
        self.listener.answer(notification, outcome);
        true
    }

    fn open_lane(&self, notification: &Notification) -> Result<i64, Errno> {
        let (task, address) = (notification.task, notification.arguments[2]);
        let mut asked = LaneParameters::new_zeroed();
        memory::read(task, address, asked.as_mut_bytes())?;
        if asked.protocol != PROTOCOL {
            return Err(Errno::EPROTO);
        }
        let process = process_of(task).ok_or(Errno::ESRCH)?;
        self.listener.expect_waiting(notification)?;
        for lane in self.lanes.take(|lane| lane.process == process) {
            self.close_lane(&lane);
        }
        let link = self.server.link()?;
        let name = self.lanes.next.fetch_add(1, Ordering::Relaxed);
        let reply = self.call(&link, submission(Kind::LaneOpen, name), &[])?;
        reply.outcome?;
        let region = reply.descriptor.ok_or(Errno::EIO)?;
        let answer = LaneParameters::new(name, self.abi.version(), self.driver.capabilities);
        let kept = pidfd_open_process(process).and_then(|pidfd| {
            self.listener.expect_waiting(notification)?;
            self.lanes.keep(Lane {
                name,
                process,
                pidfd,
                server: link.server,
            })
        });
        if let Err(errno) = kept {
            self.end_lane(&link, name);
            return Err(errno);
        }
        // A lane that its process does not get to know is closed when the process asks for another, or ends.
        let bytes = answer.as_bytes();
        self.listener.expect_waiting(notification)?;
        memory::write(task, &[Write { address, bytes }])?;
        let number = self.listener.lend(notification, region.as_fd())?;
        Ok(number.into())
    }

    /// Lets the calling process's lane name the description behind a descriptor of its own.
    fn vouch(&self, notification: &Notification) -> Result<i64, Errno> {
        let (descriptor, lane) = (notification.arguments[0] as i32, notification.arguments[2]);
        let link = self.lane_link(lane, notification.task)?;
        let identified = self
            .descriptions
            .identify(notification.task, descriptor, false)?;
        self.listener.expect_waiting(notification)?;
        let description = match identified {
            Identified::Device(description) if description.node != Node::Uvm => description,
            Identified::Closed => return Err(Errno::EBADF),
            _ => return Err(Errno::ENOTTY),
        };
        if description.handle.server != link.server {
            return Err(Errno::EIO);
        }
        let mut submission = submission(Kind::LaneVouch, lane);
        submission.arguments[ARGUMENT_NODE] = description.node.to_wire();
        submission.arguments[ARGUMENT_HANDLE] = description.handle.number;
        let reply = self.call(&link, submission, &[])?;
        reply.outcome?;
        let subject = u32::try_from(reply.values[0]).unwrap_or(SUBJECTS);
        if subject >= SUBJECTS {
            return Err(Errno::ENOSPC);
        }
        Ok(subject.into())
    }

    /// The link with the server that has the lane called `name` of the process of `task`. Fails with `ESRCH` if there is no
    /// such lane, or its server was lost.
    fn lane_link(&self, name: u64, task: Pid) -> Result<ServerLink, Errno> {
        let server = self.lanes.server_of(name, task)?;
        let link = self.server.link().map_err(|_| Errno::ESRCH)?;
        if link.server == server {
            Ok(link)
        } else {
            Err(Errno::ESRCH)
        }
    }

    /// Closes the lanes of processes that have ended.
    pub fn close_lanes(&self) {
        for lane in self.lanes.take_ended() {
            self.close_lane(&lane);
        }
    }

    fn close_lane(&self, lane: &Lane) {
        // A server that was lost has closed all that it had.
        if let Ok(link) = self.server.link()
            && link.server == lane.server
        {
            self.end_lane(&link, lane.name);
        }
    }

    fn end_lane(&self, link: &ServerLink, name: u64) {
        let submission = submission(Kind::LaneClose, name);
        // It may have been closed when its server was replaced.
        let _ = link.submit(self, submission, &[], &[], Continuation::Nothing);
    }

    /// How many requests were made by lanes, as the server says; 0 if there is none.
    pub fn count_lane_requests(&self) -> u64 {
        let count = self
            .server
            .link()
            .and_then(|link| self.call(&link, submission(Kind::LaneCount, 0), &[]));
        count.map_or(0, |reply| reply.values[0])
    }

    /// Whether tasks may have lanes.
    pub fn has_lanes(&self) -> bool {
        self.lanes.enabled
    }
}

fn submission(kind: Kind, lane: u64) -> Submission {
    Submission {
        kind: kind as u16,
        target: lane,
        ..Submission::default()
    }
}
