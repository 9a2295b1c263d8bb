//! What the launcher and the servers of a sandbox say to one another, and one server to the next.
//!
//! A server can be replaced by another while programs run, so that nobody notices but the launcher:
//!
//! | from | to | message | with |
//! |---|---|---|---|
//! | new server | launcher | [`PREPARED`]: it is confined, and could serve; or [`REFUSED`] and why | |
//! | launcher | old server | [`HAND_OVER`] | the socket to the new one |
//! | old server | new server | [`STATE`]: how many descriptors follow | the saved state, as a file; then the descriptors |
//! | old server | launcher | [`HANDED_OVER`], or [`REFUSED`] and why | |
//! | new server | launcher | [`RESTORED`], or [`REFUSED`] and why | |
//! | launcher | sentry | the new server's pidfd | |
//! | launcher | old server | [`COMMIT`], or [`ABORT`] | |
//! | old server | launcher | [`KEEPING`], if it does not end at once | |
//! | launcher | new server | [`GO`]: it is to serve from now on | |
//! | new server | launcher | [`SERVING`] | |
//!
//! The old server takes no request from the moment when it begins to save. When it is told [`COMMIT`] it ends, unless the driver
//! wants the process that made a client for some requests: then it stays to issue these for the new one, and nothing else
//! (`Host::keep` of the server). If anything fails before, it goes on as if nothing had happened, and the new one, which
//! is never told to go, ends. So at any moment at most one of them serves.
//!
//! The old server may have been taken over, and be replaced for that. So nothing that matters rests on its word: the
//! launcher ends it unless the driver is of the kind that wants it kept, and hears of the new one itself what that has and
//! that it serves. The new one is confined before it reads the state, has from the launcher all that a launcher says, and
//! believes of the rest what it can check. The ledger is what it cannot: what the sandbox has so far is the old one's word.
//!
//! A message is one byte, which says its kind, and text. A server that does not keep to this is a failed replacement, or a
//! lost server.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::MsgFlags;
use ringfence_faults::{Act, CONTROLS, Point, at};
use ringfence_ipc::{Socket, SocketError};

pub const PREPARED: u8 = 1;
pub const HAND_OVER: u8 = 2;
pub const STATE: u8 = 3;
pub const RESTORED: u8 = 4;
pub const REFUSED: u8 = 5;
pub const HANDED_OVER: u8 = 6;
pub const COMMIT: u8 = 7;
pub const ABORT: u8 = 8;
pub const GO: u8 = 9;
pub const KEEPING: u8 = 10;
pub const SERVING: u8 = 11;

/// The longest text of a message, in bytes.
const MAXIMUM_TEXT: usize = 1024;

/// A message.
#[derive(Debug)]
pub struct Message {
    pub kind: u8,
    pub text: String,
    pub descriptor: Option<OwnedFd>,
}

/// Sends a message; text that is too long is cut.
pub fn send(
    socket: &Socket,
    kind: u8,
    text: &str,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), SocketError> {
    let (kind, text) = match at(Point::Say) {
        Some(Act::Garbage) => (REFUSED, CONTROLS),
        _ => (kind, text),
    };
    let mut bytes = vec![kind];
    bytes.extend(text.bytes().take(MAXIMUM_TEXT));
    socket.send_message(&bytes, descriptor)
}

/// Waits for a message. Fails with [`SocketError::Closed`] if the other side is gone.
pub fn receive(socket: &Socket) -> Result<Message, SocketError> {
    let mut bytes = [0; MAXIMUM_TEXT + 1];
    let (length, descriptor) = socket.receive_message(&mut bytes, MsgFlags::empty())?;
    let (kind, text) = bytes
        .get(..length)
        .and_then(<[u8]>::split_first)
        .ok_or(SocketError::WrongSize)?;
    Ok(Message {
        kind: *kind,
        text: String::from_utf8_lossy(text).into_owned(),
        descriptor,
    })
}

/// As [`receive`], at most until `deadline`; then it fails with [`SocketError::WouldBlock`].
pub fn receive_until(socket: &Socket, deadline: Instant) -> Result<Message, SocketError> {
    if socket.wait_readable(deadline)? {
        receive(socket)
    } else {
        Err(SocketError::WouldBlock)
    }
}
