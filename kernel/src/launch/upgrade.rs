//! `ringfence server-upgrade`, on the launcher's side: starts a server that takes the place of the one that serves.
//!
//! [`nvproxy_protocol::supervision`] has the course of it. Whatever goes wrong before the old server is told to end, it
//! serves on, and the new one is ended. An old server that was taken over gains nothing by what it says: that the new one
//! has the state, and that it serves, is the new one's word, and the old one is ended whatever it says, unless the driver
//! wants such processes kept.
//!
//! While the launcher waits for one of them it does all else that it has to do: a server that says nothing delays nobody.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nvproxy_protocol::supervision::{Message, receive, send};
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::{Socket, SocketError};
use ringfence_sentry::failure::Failure;

use super::servers::{Input, Server};
use super::supervision::Launcher;
use crate::driver::Kind;
use crate::sandboxes::Upgrade;

/// How long a new server may take until it could serve.
const PREPARATION: Duration = Duration::from_secs(10);
/// How long the old server may take to come to a halt and hand over; it gives up sooner by itself.
const HANDOVER: Duration = Duration::from_secs(40);
/// How long a new server may take to make a state that was sent its own.
const RESTORATION: Duration = Duration::from_secs(20);
/// How long a server that was replaced may take to end, and the new one to serve.
const DEPARTURE: Duration = Duration::from_secs(5);
/// At most as many messages are left of earlier handovers: one of each that the launcher gave up.
const MAXIMUM_LEFT: usize = 16;

/// What the two are called.
const OLD: &str = "the old server";
const NEW: &str = "the new server";

/// Why a server was not replaced. What a server itself gives as the reason is [`Error::Refused`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing serves.
    #[error("it has no server: the last one ended unexpectedly")]
    NoServer,
    /// The two got no way to each other.
    #[error("socketpair: {0}")]
    Pair(#[source] SocketError),
    /// The launcher failed in what it does anyway.
    #[error("{}", .0.message)]
    Launcher(Failure),
    /// This one is gone.
    #[error("{0} ended before it was ready")]
    Ended(&'static str),
    /// This one lets messages lie.
    #[error("{0} takes no messages")]
    TakesNone(&'static str),
    /// This one has said something else than it can say now.
    #[error("{0} does not keep to the protocol")]
    Protocol(&'static str),
    /// Nothing can be said to this one, or heard of it.
    #[error("{0}: {1}")]
    Socket(&'static str, #[source] SocketError),
    /// This one has said nothing for so long.
    #[error("{0} did not answer for {1:?}")]
    Silent(&'static str, Duration),
    /// One of them could not do its part, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The sandbox has ended meanwhile.
    #[error("it has ended")]
    SandboxEnded,
    /// There is no server any more.
    #[error("the old server was ended, and the new one does not serve: {0}")]
    NotServing(#[source] Box<Error>),
}

impl Launcher<'_> {
    /// Replaces the server that serves by one of this executable. If it fails the old one serves on, unless the error says
    /// otherwise.
    pub fn upgrade(&mut self, executable: BorrowedFd<'_>) -> Result<Upgrade, Error> {
        self.is_upgrading = true;
        let upgraded = self.replace_server(executable);
        self.is_upgrading = false;
        upgraded
    }

    fn replace_server(&mut self, executable: BorrowedFd<'_>) -> Result<Upgrade, Error> {
        let started = Instant::now();
        self.reap_servers();
        let Some(old) = self.servers.last().map(Rc::clone) else {
            return Err(Error::NoServer);
        };
        let (to_new, to_old) = Socket::pair().map_err(Error::Pair)?;
        let new = self
            .starter
            .start(Some(executable), Input::Predecessor(&to_old))
            .map_err(Error::Launcher)?;
        let new = Rc::new(new);
        // The new one has it now: that it ends has to show at the other end.
        drop(to_old);
        if let Err(error) = self.hand_over(&old, &new, to_new) {
            new.end();
            new.wait();
            // If it waits to be told to end, it is to go on. Only now, that nobody else can be told to.
            let _ = send(&old.supervision, &Message::Abort, None);
            return Err(error);
        }
        self.replaced.append(&mut self.servers);
        self.servers.push(Rc::clone(&new));
        self.retire(&old);
        let serves = send(&new.supervision, &Message::Go, None)
            .map_err(|error| unheard(NEW, error))
            .and_then(|()| self.expect(&new, Message::Serving, DEPARTURE, NEW));
        if serves.is_err() {
            // The sentry sees that it ends, as it sees the end of any server.
            new.end();
        }
        let upgrade = Upgrade {
            from: old.pid.as_raw(),
            to: new.pid.as_raw(),
            microseconds: started.elapsed().as_micros() as u64,
        };
        self.reap_servers();
        serves
            .map(|()| upgrade)
            .map_err(|error| Error::NotServing(Box::new(error)))
    }

    /// Brings it so far that the new server has all that the old one has, and the sentry knows.
    fn hand_over(&mut self, old: &Rc<Server>, new: &Server, to_new: Socket) -> Result<(), Error> {
        self.expect(new, Message::Prepared, PREPARATION, NEW)?;
        for _ in 0..MAXIMUM_LEFT {
            if !is_ready(&old.supervision, Duration::ZERO) {
                break;
            }
            // Whatever it is, and if it is no message.
            let _ = receive(&old.supervision);
        }
        send(&old.supervision, &Message::HandOver, Some(to_new.as_fd()))
            .map_err(|error| unheard(OLD, error))?;
        // The old one has it now: that it is done has to show at the other end.
        drop(to_new);
        self.expect(old, Message::HandedOver, HANDOVER, OLD)?;
        self.expect(new, Message::Restored, RESTORATION, NEW)?;
        // It may have been lost since, and another started in its place.
        if !self
            .servers
            .last()
            .is_some_and(|last| Rc::ptr_eq(last, old))
        {
            return Err(Error::Ended(OLD));
        }
        self.liaison
            .succeeded(new.pidfd.as_fd())
            .map_err(|error| unheard("the sandbox", error))
    }

    /// Has the old server end, or stay for the new one's sake and do nothing else. Where the driver wants nobody kept, it is
    /// ended whatever it says.
    fn retire(&mut self, old: &Server) {
        // One that has ended needs not be told.
        let _ = send(&old.supervision, &Message::Commit, None);
        let may_stay = self.starter.options.driver.kind == Kind::Host;
        let stays = (may_stay || at(Point::Departure) == Some(Act::Drop))
            && self.expect(old, Message::Keeping, DEPARTURE, OLD).is_ok();
        if !stays {
            old.end();
            let _ = self.wait_until_ready(old.pidfd.as_fd(), DEPARTURE);
        }
    }

    /// Waits for a server to say this and nothing else.
    fn expect(
        &mut self,
        server: &Server,
        expected: Message,
        limit: Duration,
        who: &'static str,
    ) -> Result<(), Error> {
        if !self.wait_until_ready(server.supervision.as_fd(), limit)? {
            return Err(Error::Silent(who, limit));
        }
        match receive(&server.supervision) {
            Ok((message, _)) if message == expected => Ok(()),
            Ok((Message::Refused(reason), _)) => Err(Error::Refused(reason)),
            Ok(_) => Err(Error::Protocol(who)),
            Err(error) => Err(unheard(who, error)),
        }
    }

    /// Waits until there is something to read, and does meanwhile all else that there is to do; whether there is.
    fn wait_until_ready(
        &mut self,
        descriptor: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if is_ready(&descriptor, Duration::ZERO) {
                return Ok(true);
            }
            if self.has_ended() {
                return Err(Error::SandboxEnded);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.attend(Some(left), Some(descriptor))
                .map_err(Error::Launcher)?;
        }
    }
}

/// Why nothing could be said to a server, or heard of it.
fn unheard(who: &'static str, error: SocketError) -> Error {
    match error {
        SocketError::Closed => Error::Ended(who),
        SocketError::WouldBlock => Error::TakesNone(who),
        SocketError::Malformed(_) => Error::Protocol(who),
        error => Error::Socket(who, error),
    }
}

/// Waits until there is something to read, at most for `limit`; whether there is.
fn is_ready(descriptor: &impl AsFd, limit: Duration) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut polled, timeout), Ok(1))
}
