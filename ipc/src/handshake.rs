//! How two processes come to share a region, or learn why not.
//!
//! The idea: one question, one answer. The client makes the region, because the memory is charged
//! to whom it serves, and offers it with its geometry; the server accepts, or refuses with a
//! reason. Both messages begin with the same two words, a magic number and the protocol's
//! version, in every version there will ever be: whatever else changes, two processes can tell
//! each other which versions they speak.
//!
//! Neither side believes the other: a server checks the region as [`Region::attach`] says, and a
//! client shows a server's reason for a refusal only after it was cut and cleaned.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use ringfence_faults::Point;
use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    channel::{ClientChannel, ServerChannel},
    region::{Geometry, Region, RegionError},
    socket::{Socket, SocketError},
    typed::shortened,
};

/// The version of the region's layout, the entries' layout and these messages. Two processes work
/// together only if they have the same.
pub const PROTOCOL_VERSION: u32 = 1;

/// How long either side waits for the other's message. On a machine where many others want the processors, as much as ten
/// seconds was seen.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest reason that a refusal carries, in bytes.
pub const MAX_REASON_BYTES: usize = 256;

/// "ringfenc", as the bytes lie in memory.
const MAGIC: u64 = u64::from_le_bytes(*b"ringfenc");

/// The longest message of any version that is read at all.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The client's question.
const HELLO: u32 = 1;
/// The server's answer: the channel is open.
const ACCEPTED: u32 = 2;
/// The server's answer: there is no channel. The rest of the message is the reason, in UTF-8.
const REFUSED: u32 = 3;

/// What every message of every version begins with. Only `magic` and `version` mean the same in
/// all of them.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Prefix {
    magic: u64,
    version: u32,
    /// [`HELLO`], [`ACCEPTED`] or [`REFUSED`].
    kind: u32,
}

/// The client's message; the region's descriptor travels with it.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Hello {
    prefix: Prefix,
    ring_entries: u32,
    arena_bytes: u32,
}

const_assert_eq!(size_of::<Prefix>(), 16);
const_assert_eq!(size_of::<Hello>(), 24);

/// Why there is no channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer closed its end, most likely by dying.
    #[error("the peer went away during the handshake")]
    PeerClosed,
    /// The peer said nothing for [`TIMEOUT`].
    #[error("the peer did not answer the handshake for {TIMEOUT:?}")]
    TimedOut,
    /// The peer speaks another version of the protocol.
    #[error(
        "the peer speaks version {theirs} of the channel protocol, this process version {ours}: both must come from the \
         same release"
    )]
    Version {
        /// This side's version.
        ours: u32,
        /// The peer's version.
        theirs: u32,
    },
    /// The peer's message is none of this protocol; what is wrong with it.
    #[error("the peer's handshake is malformed: {0}")]
    Malformed(&'static str),
    /// The server refused, for this reason; what a client gets.
    #[error("the server refused the channel: {0}")]
    Refused(String),
    /// This server could not start, for this reason, which the client was told.
    #[error("the server could not start: {0}")]
    NotReady(String),
    /// The region could not be made or was not acceptable.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The socket failed.
    #[error(transparent)]
    Socket(SocketError),
}

impl From<SocketError> for HandshakeError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed => Self::PeerClosed,
            error => Self::Socket(error),
        }
    }
}

/// The client's side: makes a region of this geometry and offers it to the server.
pub fn offer(socket: Socket, geometry: Geometry) -> Result<ClientChannel, HandshakeError> {
    offer_region(socket, Region::create(geometry)?)
}

/// The same, with a region that was made before.
pub fn offer_region(socket: Socket, region: Region) -> Result<ClientChannel, HandshakeError> {
    socket.prepare()?;
    let geometry = region.geometry();
    let hello = Hello {
        prefix: prefix(HELLO),
        ring_entries: geometry.ring_entries,
        arena_bytes: geometry.arena_bytes,
    };
    match socket.send_message(hello.as_bytes(), Some(region.as_fd())) {
        // A server that could not start has refused before it was asked.
        Ok(()) | Err(SocketError::Closed) => {}
        Err(error) => return Err(error.into()),
    }

    let mut buffer = [0; MAX_MESSAGE_BYTES];
    let message = receive(&socket, &mut buffer, Instant::now() + TIMEOUT)?;
    if message.descriptor.is_some() {
        return Err(HandshakeError::Malformed("an answer with a descriptor"));
    }
    match message.kind {
        ACCEPTED => Ok(ClientChannel::new(&region, socket)),
        REFUSED => Err(HandshakeError::Refused(presentable(message.rest))),
        _ => Err(HandshakeError::Malformed("neither accepted nor refused")),
    }
}

/// The server's side: takes the region that the client offers. `ready` is the outcome of the
/// server's own start; a failure is told to the client as the reason of a refusal, and so is
/// everything that is wrong with the offer.
pub fn accept(
    socket: Socket,
    ready: Result<(), &dyn fmt::Display>,
) -> Result<ServerChannel, HandshakeError> {
    accept_until(socket, ready, Instant::now() + TIMEOUT)
}

fn accept_until(
    socket: Socket,
    ready: Result<(), &dyn fmt::Display>,
    deadline: Instant,
) -> Result<ServerChannel, HandshakeError> {
    socket.prepare()?;
    let outcome = receive_offer(&socket, deadline).and_then(|region| match ready {
        Ok(()) => Ok(region),
        Err(error) => Err(HandshakeError::NotReady(error.to_string())),
    });
    match outcome {
        Ok(region) => {
            socket.send_message(prefix(ACCEPTED).as_bytes(), None)?;
            Ok(ServerChannel::new(region, socket))
        }
        Err(error) => {
            let reason = match &error {
                HandshakeError::NotReady(reason) => reason.clone(),
                error => error.to_string(),
            };
            send_refusal(&socket, &reason);
            Err(error)
        }
    }
}

/// Refuses whatever the client offers, for a server that could not start. Nothing that the client says is looked at, so that
/// a process may do this that is not confined.
pub fn refuse(socket: &Socket, reason: &dyn fmt::Display) {
    // What comes from now on the client cannot send. What has come must not be there when this end is closed: that would take
    // the refusal from the client (ECONNRESET).
    let _ = shutdown(socket.as_fd().as_raw_fd(), Shutdown::Read);
    while let Ok(1..) = recv(socket.as_fd().as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {}
    send_refusal(socket, &reason.to_string());
}

fn send_refusal(socket: &Socket, reason: &str) {
    let mut message = prefix(REFUSED).as_bytes().to_vec();
    message.extend_from_slice(shortened(reason, MAX_REASON_BYTES).as_bytes());
    // It is a courtesy: nobody is left to tell that it could not be sent.
    let _ = socket.send_message(&message, None);
}

/// Receives a client's offer and attaches the region.
fn receive_offer(socket: &Socket, deadline: Instant) -> Result<Region, HandshakeError> {
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    let message = receive(socket, &mut buffer, deadline)?;
    if message.kind != HELLO {
        return Err(HandshakeError::Malformed("not an offer"));
    }
    let hello = Hello::read_from_bytes(message.whole)
        .map_err(|_| HandshakeError::Malformed("an offer of the wrong size"))?;
    let descriptor = message.descriptor.ok_or(SocketError::NoDescriptor)?;
    let geometry = Geometry {
        ring_entries: hello.ring_entries,
        arena_bytes: hello.arena_bytes,
    };
    Ok(Region::attach(descriptor, geometry)?)
}

/// A message of this version, of any kind.
struct Message<'buffer> {
    kind: u32,
    whole: &'buffer [u8],
    /// What follows the prefix.
    rest: &'buffer [u8],
    descriptor: Option<OwnedFd>,
}

/// Receives one message and checks what all messages have in common.
fn receive<'buffer>(
    socket: &Socket,
    buffer: &'buffer mut [u8],
    deadline: Instant,
) -> Result<Message<'buffer>, HandshakeError> {
    let (length, descriptor) = loop {
        if !socket.wait_readable(deadline)? {
            return Err(HandshakeError::TimedOut);
        }
        match socket.receive_message(buffer, MsgFlags::MSG_DONTWAIT) {
            Err(SocketError::WouldBlock) => {}
            received => break received?,
        }
    };
    let whole = buffer.get(..length).unwrap_or_default();
    let (prefix, rest) = Prefix::read_from_prefix(whole)
        .map_err(|_| HandshakeError::Malformed("too short for any version"))?;
    if prefix.magic != MAGIC {
        return Err(HandshakeError::Malformed("not of this protocol"));
    }
    if prefix.version != PROTOCOL_VERSION {
        return Err(HandshakeError::Version {
            ours: PROTOCOL_VERSION,
            theirs: prefix.version,
        });
    }
    Ok(Message {
        kind: prefix.kind,
        whole,
        rest,
        descriptor,
    })
}

fn prefix(kind: u32) -> Prefix {
    Prefix {
        magic: MAGIC,
        version: ringfence_faults::number(Point::Version, PROTOCOL_VERSION),
        kind,
    }
}

/// A peer's reason as it can be shown: short, UTF-8, and without control characters, which could
/// drive a terminal.
fn presentable(reason: &[u8]) -> String {
    let reason = reason.get(..MAX_REASON_BYTES).unwrap_or(reason);
    String::from_utf8_lossy(reason)
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
