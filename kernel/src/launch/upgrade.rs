//! `ringfence server-upgrade`, on the launcher's side: starts a server that takes the place of the one that serves.
//!
//! [`nvproxy_server::supervision`] has the course of it. Whatever goes wrong before the old server is told to end, it
//! serves on, and the new one is ended. An old server that was taken over gains nothing by what it says: that the new one
//! has the state, and that it serves, is the new one's word, and the old one is ended whatever it says, unless the driver
//! wants such processes kept.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nvproxy_server::process::Kind;
use nvproxy_server::supervision::{
    ABORT, COMMIT, GO, HAND_OVER, HANDED_OVER, KEEPING, Message, PREPARED, REFUSED, RESTORED,
    SERVING, receive, send,
};
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::{Socket, SocketError};

use super::servers::{Input, Server};
use super::supervision::Launcher;
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

impl Launcher<'_> {
    /// Replaces the server that serves by one of this executable. Fails with a sentence for the user; then the old one
    /// serves on.
    pub fn upgrade(&mut self, executable: BorrowedFd<'_>) -> Result<Upgrade, String> {
        let started = Instant::now();
        self.reap_servers();
        let Some(old) = self.servers.last() else {
            return Err("it has no server: the last one ended unexpectedly".to_owned());
        };
        let failed = |doing: &str, error: &dyn std::fmt::Display| format!("{doing}: {error}");
        let (to_new, to_old) = Socket::pair().map_err(|error| failed("socketpair", &error))?;
        let new = self
            .starter
            .start(Some(executable), Input::Predecessor(&to_old))
            .map_err(|failure| failure.message)?;
        // The new one has it now: that it ends has to show at the other end.
        drop(to_old);
        if let Err(reason) = self.hand_over(old, &new, to_new) {
            new.end();
            new.wait();
            // If it waits to be told to end, it is to go on. Only now, that nobody else can be told to.
            let _ = send(&old.supervision, ABORT, "", None);
            return Err(reason);
        }
        self.retire(old);
        let serves = send(&new.supervision, GO, "", None)
            .map_err(|error| unheard("the new server", error))
            .and_then(|()| self.expect(&new, SERVING, DEPARTURE, "the new server"));
        if serves.is_err() {
            // The sentry sees that it ends, as it sees the end of any server.
            new.end();
        }
        let upgrade = Upgrade {
            from: old.pid.as_raw(),
            to: new.pid.as_raw(),
            microseconds: started.elapsed().as_micros() as u64,
        };
        self.replaced.append(&mut self.servers);
        self.reap_servers();
        self.servers.push(new);
        serves.map(|()| upgrade).map_err(|reason| {
            format!("the old server was ended, and the new one does not serve: {reason}")
        })
    }

    /// Brings it so far that the new server has all that the old one has, and the sentry knows.
    fn hand_over(&self, old: &Server, new: &Server, to_new: Socket) -> Result<(), String> {
        self.expect(new, PREPARED, PREPARATION, "the new server")?;
        for _ in 0..MAXIMUM_LEFT {
            if !is_ready(&old.supervision, Duration::ZERO) || receive(&old.supervision).is_err() {
                break;
            }
        }
        send(&old.supervision, HAND_OVER, "", Some(to_new.as_fd()))
            .map_err(|error| unheard("the old server", error))?;
        // The old one has it now: that it is done has to show at the other end.
        drop(to_new);
        self.expect(old, HANDED_OVER, HANDOVER, "the old server")?;
        self.expect(new, RESTORED, RESTORATION, "the new server")?;
        self.liaison
            .succeeded(new.pidfd.as_fd())
            .map_err(|error| format!("the sandbox has ended: {error}"))
    }

    /// Has the old server end, or stay for the new one's sake and do nothing else. Where the driver wants nobody kept, it is
    /// ended whatever it says.
    fn retire(&self, old: &Server) {
        // One that has ended needs not be told.
        let _ = send(&old.supervision, COMMIT, "", None);
        let may_stay = self.starter.options.driver.kind == Kind::Host;
        let stays = (may_stay || at(Point::Departure) == Some(Act::Drop))
            && self
                .expect(old, KEEPING, DEPARTURE, "the old server")
                .is_ok();
        if !stays {
            old.end();
            is_ready(&old.pidfd, DEPARTURE);
        }
    }

    /// Waits for a server to say this and nothing else.
    fn expect(&self, server: &Server, kind: u8, limit: Duration, who: &str) -> Result<(), String> {
        match self.wait_for(server, limit, who)? {
            message if message.kind == kind => Ok(()),
            Message {
                kind: REFUSED,
                text,
                ..
            } => Err(text),
            _ => Err(format!("{who} does not keep to the protocol")),
        }
    }

    /// Waits for a server's message, and passes signals on meanwhile.
    fn wait_for(&self, server: &Server, limit: Duration, who: &str) -> Result<Message, String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{who} did not answer for {limit:?}"));
            }
            let mut polled = [server.supervision.as_fd(), self.signals.as_fd()]
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            // At most a minute.
            let timeout = PollTimeout::from(left.as_millis().min(60_000) as u16);
            match poll(&mut polled, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("poll: {errno}")),
            }
            let [answered, signalled] = polled.map(|polled| polled.any().unwrap_or(false));
            if signalled {
                self.signals
                    .forward(self.sentry)
                    .map_err(|failure| failure.message)?;
            }
            if answered {
                return receive(&server.supervision).map_err(|error| unheard(who, error));
            }
        }
    }
}

/// Why nothing could be said to a server, or heard of it.
fn unheard(who: &str, error: SocketError) -> String {
    match error {
        SocketError::Closed => format!("{who} ended before it was ready"),
        error => format!("{who}: {error}"),
    }
}

/// Waits until there is something to read, at most for `limit`; whether there is.
fn is_ready(descriptor: &impl AsFd, limit: Duration) -> bool {
    let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    matches!(poll(&mut polled, timeout), Ok(1))
}
