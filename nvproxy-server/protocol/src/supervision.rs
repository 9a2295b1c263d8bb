//! What the launcher and the servers of a sandbox say to one another, and one server to the next.
//!
//! A server can be replaced by another while programs run, so that nobody notices but the launcher:
//!
//! | from | to | message | with |
//! |---|---|---|---|
//! | new server | launcher | [`Prepared`](Message::Prepared): it is confined, and could serve; or [`Refused`](Message::Refused) and why | |
//! | launcher | old server | [`HandOver`](Message::HandOver) | the socket to the new one |
//! | old server | new server | [`State`](Message::State): how many descriptors follow | the saved state, as a file; then the descriptors |
//! | old server | launcher | [`HandedOver`](Message::HandedOver), or [`Refused`](Message::Refused) and why | |
//! | new server | launcher | [`Restored`](Message::Restored), or [`Refused`](Message::Refused) and why | |
//! | launcher | sentry | the new server's pidfd | |
//! | launcher | old server | [`Commit`](Message::Commit), or [`Abort`](Message::Abort) | |
//! | old server | launcher | [`Keeping`](Message::Keeping), if it does not end at once | |
//! | launcher | new server | [`Go`](Message::Go): it is to serve from now on | |
//! | new server | launcher | [`Serving`](Message::Serving) | |
//!
//! The old server takes no request from the moment when it begins to save. When it is told [`Commit`](Message::Commit) it ends, unless the driver
//! wants the process that made a client for some requests: then it stays to issue these for the new one, and nothing else
//! (`Backend::keep` of the server). If anything fails before, it goes on as if nothing had happened, and the new one, which
//! is never told to go, ends. So at any moment at most one of them serves.
//!
//! The old server may have been taken over, and be replaced for that. So nothing that matters rests on its word: the
//! launcher ends it unless the driver is of the kind that wants it kept, and hears of the new one itself what that has and
//! that it serves. The new one is confined before it reads the state, has from the launcher all that a launcher says, and
//! believes of the rest what it can check. The ledger is what it cannot: what the sandbox has so far is the old one's word.
//!
//! A server that does not keep to this is a failed replacement, or a lost server.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use ringfence_faults::{Act, CONTROLS, Point, at};
use ringfence_ipc::typed::shortened;
use ringfence_ipc::{Socket, SocketError};
use serde::{Deserialize, Serialize};

/// The longest reason, in bytes.
const MAXIMUM_REASON: usize = 1024;

/// What one of them says to another. The two may be of different releases: new variants are added last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Prepared,
    /// With the socket to the new server.
    HandOver,
    /// With the saved state. So many descriptors follow as parcels, numbered from 0.
    State {
        descriptors: u64,
    },
    Restored,
    /// Why not; see [`refused`].
    Refused(String),
    HandedOver,
    Commit,
    Abort,
    Go,
    Keeping,
    Serving,
}

impl ringfence_ipc::Message for Message {
    const MAXIMUM_BYTES: usize = 8 + MAXIMUM_REASON;

    fn has_descriptor(&self) -> bool {
        matches!(self, Message::HandOver | Message::State { .. })
    }
}

/// That it is refused, for this reason. A long one is cut.
pub fn refused(reason: impl fmt::Display) -> Message {
    Message::Refused(shortened(&reason.to_string(), MAXIMUM_REASON).to_owned())
}

/// Sends a message.
pub fn send(
    socket: &Socket,
    message: &Message,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), SocketError> {
    match at(Point::Say) {
        // A test has it say something else.
        Some(Act::Garbage) => socket.say(&refused(CONTROLS), None),
        _ => socket.say(message, descriptor),
    }
}

/// Waits for a message. Fails with [`SocketError::Closed`] if the other side is gone.
pub fn receive(socket: &Socket) -> Result<(Message, Option<OwnedFd>), SocketError> {
    socket.hear()
}

/// As [`receive`], at most until `deadline`; then it fails with [`SocketError::WouldBlock`].
pub fn receive_until(
    socket: &Socket,
    deadline: Instant,
) -> Result<(Message, Option<OwnedFd>), SocketError> {
    socket.hear_until(deadline)
}
