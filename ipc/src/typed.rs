//! Messages with a type: what two processes say to one another over a [`Socket`].
//!
//! The idea: a message is a value of an enum, and one message of the socket, with at most one descriptor. Whoever receives
//! one takes it out of the socket once, reads that copy to its end, and has either a value or an error: a message that is too
//! long, that has something left over, or that comes without its descriptor or with one too many is none. So whoever acts
//! on a message looks at a value that the type permits, and at nothing that the other side can still change.
//!
//! Most messages are binary: the number of the variant, then its fields, in the format of postcard
//! (<https://postcard.jamesmunns.com>). A variant keeps its number for as long as there may be somebody of another release
//! at the other end: new ones are added last. What a command says to a launcher that was started long ago is JSON, in which
//! a variant has a name.
//!
//! A process that may take no memory reads and writes a message by [`read()`] and [`write()`], into a buffer of its own.

use std::io::Cursor;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::MsgFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::socket::{Socket, SocketError};

/// How messages of a type are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Between the processes of one sandbox.
    Binary,
    /// Between processes that may be of very different releases.
    Json,
}

/// What can be said over one socket in one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// What the longest message takes, in bytes. A longer one is neither sent nor received.
    const MAXIMUM_BYTES: usize;
    const FORMAT: Format = Format::Binary;

    /// Whether a descriptor comes with this message.
    fn has_descriptor(&self) -> bool {
        false
    }
}

/// Writes a message to the beginning of `buffer`, and returns what was written. Takes no memory, if the message is binary.
pub fn write<'buffer, M: Message>(
    message: &M,
    buffer: &'buffer mut [u8],
) -> Result<&'buffer [u8], SocketError> {
    let length = match M::FORMAT {
        Format::Binary => postcard::to_slice(message, buffer)
            .map_err(|_| SocketError::TooLong)?
            .len(),
        Format::Json => {
            let mut cursor = Cursor::new(&mut *buffer);
            serde_json::to_writer(&mut cursor, message).map_err(|_| SocketError::TooLong)?;
            cursor.position() as usize
        }
    };
    buffer.get(..length).ok_or(SocketError::TooLong)
}

/// Reads the message that these bytes are. Takes no memory but what the message itself consists of, if it is binary.
pub fn read<M: Message>(bytes: &[u8]) -> Result<M, SocketError> {
    match M::FORMAT {
        Format::Binary => match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(SocketError::Malformed("something follows it".to_owned())),
            Err(error) => Err(SocketError::Malformed(error.to_string())),
        },
        Format::Json => {
            serde_json::from_slice(bytes).map_err(|error| SocketError::Malformed(error.to_string()))
        }
    }
}

/// As much of `text` as has `longest` bytes, in whole characters.
pub fn shortened(text: &str, longest: usize) -> &str {
    let longest = longest.min(text.len());
    let mut ends = (0..=longest).rev();
    let end = ends.find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

impl Socket {
    /// Sends a message, and the descriptor that comes with it. It waits, fails and never signals as [`Socket::send`] does.
    pub fn say<M: Message>(
        &self,
        message: &M,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), SocketError> {
        check_descriptor(message, descriptor.is_some())?;
        let mut buffer = vec![0; M::MAXIMUM_BYTES];
        self.send_message(write(message, &mut buffer)?, descriptor)
    }

    /// Waits for a message. After an error other than [`SocketError::WouldBlock`] the peer is hostile, broken, gone, or of a
    /// release that knows other messages; the next one can be received all the same.
    pub fn hear<M: Message>(&self) -> Result<(M, Option<OwnedFd>), SocketError> {
        self.hear_message(MsgFlags::empty())
    }

    /// Receives the message that has come, and fails with [`SocketError::WouldBlock`] if there is none.
    pub fn hear_at_once<M: Message>(&self) -> Result<(M, Option<OwnedFd>), SocketError> {
        self.hear_message(MsgFlags::MSG_DONTWAIT)
    }

    /// As [`Socket::hear`], at most until `deadline`; then it fails with [`SocketError::WouldBlock`].
    pub fn hear_until<M: Message>(
        &self,
        deadline: Instant,
    ) -> Result<(M, Option<OwnedFd>), SocketError> {
        loop {
            if !self.wait_readable(deadline)? {
                return Err(SocketError::WouldBlock);
            }
            match self.hear_at_once() {
                Err(SocketError::WouldBlock) => {}
                heard => return heard,
            }
        }
    }

    fn hear_message<M: Message>(
        &self,
        flags: MsgFlags,
    ) -> Result<(M, Option<OwnedFd>), SocketError> {
        let mut buffer = vec![0; M::MAXIMUM_BYTES];
        let (length, descriptor) = self.receive_message(&mut buffer, flags)?;
        let message = read(buffer.get(..length).unwrap_or_default())?;
        check_descriptor(&message, descriptor.is_some())?;
        Ok((message, descriptor))
    }
}

fn check_descriptor(message: &impl Message, has_one: bool) -> Result<(), SocketError> {
    match (message.has_descriptor(), has_one) {
        (true, false) => Err(SocketError::NoDescriptor),
        (false, true) => Err(SocketError::UnwantedDescriptor),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
