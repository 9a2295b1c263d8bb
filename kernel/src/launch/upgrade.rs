//! `ringfence server-upgrade`, on the launcher's side: starts a server that takes the place of the one that serves.
//!
//! [`nvproxy_server::supervision`] has the course of it. Whatever goes wrong before the old server is told to end, it
//! serves on, and the new one is ended.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nvproxy_server::supervision::{
    ABORT, COMMIT, HAND_OVER, HANDED_OVER, KEEPING, Message, PREPARED, REFUSED, receive,
    receive_until, send,
};
use ringfence_ipc::{Socket, SocketError};

use super::servers::{Input, Server};
use super::supervision::Launcher;
use crate::sandboxes::Upgrade;

/// How long a new server may take until it could serve.
const PREPARATION: Duration = Duration::from_secs(10);
/// How long the old server may take to come to a halt and hand over; it gives up sooner by itself.
const HANDOVER: Duration = Duration::from_secs(40);
/// How long a server that was replaced may take to end.
const DEPARTURE: Duration = Duration::from_secs(5);

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
        if let Err(reason) = self.hand_over(old, &new, &to_new) {
            new.end();
            new.wait();
            // If it waits to be told to end, it is to go on. Only now, that nobody else can be told to.
            let _ = send(&old.supervision, ABORT, "", None);
            return Err(reason);
        }
        let told = self.liaison.succeeded(new.pidfd.as_fd());
        let told = told.and_then(|()| send(&old.supervision, COMMIT, "", None));
        // It ends at once, or says that it stays for the new one's sake; if neither, nothing waits for that.
        let stays = receive_until(&old.supervision, Instant::now() + DEPARTURE)
            .is_ok_and(|message| message.kind == KEEPING);
        if !stays {
            is_ready(&old.pidfd, DEPARTURE);
        }
        let upgrade = Upgrade {
            from: old.pid.as_raw(),
            to: new.pid.as_raw(),
            microseconds: started.elapsed().as_micros() as u64,
        };
        self.replaced.append(&mut self.servers);
        self.reap_servers();
        self.servers.push(new);
        told.map(|()| upgrade)
            .map_err(|error| failed("the old server, or the sandbox, has ended", &error))
    }

    /// Brings it so far that the new server has all that the old one has.
    fn hand_over(&self, old: &Server, new: &Server, to_new: &Socket) -> Result<(), String> {
        let answer = self.wait_for(new, PREPARATION, "the new server");
        match answer? {
            Message { kind: PREPARED, .. } => {}
            Message {
                kind: REFUSED,
                text,
                ..
            } => return Err(text),
            _ => return Err("the new server does not keep to the protocol".to_owned()),
        }
        // What is left of a handover that took too long.
        while is_ready(&old.supervision, Duration::ZERO) && receive(&old.supervision).is_ok() {}
        send(&old.supervision, HAND_OVER, "", Some(to_new.as_fd()))
            .map_err(|error| unheard("the old server", error))?;
        match self.wait_for(old, HANDOVER, "the old server")? {
            Message {
                kind: HANDED_OVER, ..
            } => Ok(()),
            Message {
                kind: REFUSED,
                text,
                ..
            } => Err(text),
            _ => Err("the old server does not keep to the protocol".to_owned()),
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
