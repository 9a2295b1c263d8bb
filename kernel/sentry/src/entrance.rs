//! How a further program gets into a container's sandbox, while the sentry supervises it (`exec`).
//!
//! The idea: whoever starts the program is outside of what the container's tasks see and reach, and has all that makes it one of them
//! before it has a process among them. The front of the container runtime connects to a socket that is on the host. What it gets by
//! that is answered at once: the namespaces of the program's, as they were made, and the Landlock domain's rules. It hands the
//! connection to a process of ours that the low-level runtime puts beside the sentry. That enters the namespaces and the domain,
//! installs the filter, sends its listener, and waits until it may begin. Only then it makes the process that executes the program.
//!
//! It may not begin while tasks are held for a pin: the program would be a task that nobody holds. Before it begins it is a process
//! of the sentry's namespace, as all tasks are, and found by whoever holds those.
//!
//! Peers are trusted, as the front is; but what they send is a listener or nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_ipc::{Socket, SocketError};
use rustix::net::{SocketFlags, accept_with};

use super::Sentry;
use super::receivers::Receivers;
use crate::ready;
use crate::warnings::warn_once;

/// Programs that are on their way in at a time. Further ones wait for one of these to be in.
const MAXIMUM: usize = 64;

/// What is handed to who enters, by the tag of its parcel, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The rules of the program's Landlock domain, if it is in one (landlock_create_ruleset(2)).
    Domain = 1,
    /// Its mount namespace.
    Mounts,
    /// Its process namespace.
    Processes,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Domain, Part::Mounts, Part::Processes];
}

/// What the sentry has to let programs in.
pub struct Way {
    /// A socket that listens, which nobody in the container reaches.
    pub door: OwnedFd,
    pub mounts: OwnedFd,
    pub processes: OwnedFd,
    pub domain: Option<OwnedFd>,
}

impl Way {
    /// All that it consists of.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let Way {
            door,
            mounts,
            processes,
            domain,
        } = self;
        let all = [Some(door), Some(mounts), Some(processes), domain.as_ref()];
        all.into_iter().flatten().map(AsFd::as_fd)
    }

    fn parts(&self) -> impl Iterator<Item = (Part, BorrowedFd<'_>)> {
        let parts = [
            (Part::Domain, self.domain.as_ref()),
            (Part::Mounts, Some(&self.mounts)),
            (Part::Processes, Some(&self.processes)),
        ];
        let parts = parts.into_iter();
        parts.filter_map(|(part, descriptor)| Some((part, descriptor?.as_fd())))
    }
}

/// Those who are on their way in, and who stand in for programs that are in.
pub struct Entrance {
    way: Way,
    entering: Vec<Entering>,
    /// By their pidfds.
    stand_ins: Vec<OwnedFd>,
}

/// Who is on his way in.
struct Entering {
    socket: Socket,
    /// Its pidfd, if it has sent that.
    process: Option<OwnedFd>,
}

impl Entering {
    /// Takes what it has sent. `None` if there is nothing yet.
    fn next(&mut self) -> Option<Result<OwnedFd, SocketError>> {
        loop {
            match self.socket.receive_announced() {
                Ok((tag, process)) if tag == Sent::Process as u64 => self.process = Some(process),
                Ok((_, listener)) => return Some(Ok(listener)),
                Err(SocketError::WouldBlock) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What who enters sends, by the tag of its parcel, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A descriptor of itself (pidfd_open(2)).
    Process = 1,
    /// The listener of the filter that it has installed.
    Listener = 0,
}

impl Entrance {
    pub fn new(way: Way) -> Entrance {
        Entrance {
            way,
            entering: Vec::new(),
            stand_ins: Vec::new(),
        }
    }

    /// What has to be attended to when it can be read.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let has_room = self.entering.len() < MAXIMUM;
        let door = has_room.then(|| self.way.door.as_fd());
        let entering = self.entering.iter().map(|entering| entering.socket.as_fd());
        let stand_ins = self.stand_ins.iter().map(AsFd::as_fd);
        door.into_iter().chain(entering).chain(stand_ins)
    }

    /// Attends to whoever has knocked, or sent a listener. Waits for nobody.
    pub fn attend(&mut self, sentry: &Arc<Sentry>) {
        for mut entering in std::mem::take(&mut self.entering) {
            match entering.next() {
                Some(Ok(listener)) => {
                    self.stand_ins.extend(entering.process);
                    let_in(sentry, listener, entering.socket);
                }
                None => self.entering.push(entering),
                // It has ended, or sent what is no listener.
                Some(Err(_)) => {}
            }
        }
        let before = self.stand_ins.len();
        self.stand_ins.retain(|process| !has_ended(process));
        if self.stand_ins.len() < before {
            sentry.pins.end_orphans();
        }
        while self.entering.len() < MAXIMUM
            && let Ok(socket) = self.admit()
        {
            self.entering.push(Entering {
                socket,
                process: None,
            });
        }
    }

    /// Hands what is needed to whoever has knocked.
    fn admit(&self) -> rustix::io::Result<Socket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = Socket::from(accept_with(&self.way.door, flags)?);
        for (part, descriptor) in self.way.parts() {
            // If it is gone already, its end is seen next.
            let _ = socket.send(part as u64, descriptor);
        }
        Ok(socket)
    }
}

/// Whether a process has ended, and its children have got another parent.
fn has_ended(process: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
}

/// Takes over the listener of a program, and lets that begin, through `socket`, when somebody is there to receive its calls. If nobody
/// can be, it is told so by the socket's end.
fn let_in(sentry: &Arc<Sentry>, descriptor: OwnedFd, socket: Socket) {
    // If the launcher has gone, this process is about to go as well.
    let _ = sentry.server.liaison().hold(descriptor.as_fd());
    let number = sentry.listener.add(descriptor);
    let receivers = Arc::new(Receivers::of(number));
    let begin = move |sentry: &Sentry| {
        sentry.pins.while_none_holds(|| ready::say(&socket));
    };
    if let Err(error) = sentry.add_receiver_after(&receivers, begin) {
        sentry.listener.remove(number);
        warn_once("no further program can be let in", error);
    }
}
