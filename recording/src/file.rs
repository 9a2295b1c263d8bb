//! A recording as bytes.
//!
//! ```text
//! "RNGFREC\0"   the kind of file
//! u32           the format's version, from OLDEST_FORMAT to FORMAT
//! u64           the length of the body
//! body          compressed (raw deflate)
//! u32           CRC-32 of everything before
//! ```
//!
//! All numbers of the frame are little-endian. The body is made of [`codec`](crate::codec)'s numbers and strings: first
//! the header's fields, then the number of events and each event, begun by its kind. A reader believes none of it: what it
//! takes in memory is bounded by [`MAXIMUM_BODY`] and [`MAXIMUM_FOOTPRINT`], and every index is checked.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

/// The version of the format that is written.
pub const FORMAT: u32 = 2;
/// The oldest that is read. It does not say which of the firmware's commands the program might ask: the listed ones.
pub const OLDEST_FORMAT: u32 = 1;
/// The most bytes of a body before it is compressed.
pub const MAXIMUM_BODY: usize = 512 << 20;
/// The most bytes that the events take in memory, as [`Event::footprint`](crate::Event::footprint) counts them. They can
/// take many times what they have in a body.
pub const MAXIMUM_FOOTPRINT: usize = 512 << 20;
/// The most words of a command line. Linux allows 6 MiB for all of them, of which each takes 9 bytes at least (execve(2)).
const MAXIMUM_WORDS: usize = 1 << 20;
/// The most threads and descriptions of a recording: what a replay makes at most.
const MAXIMUM_THREADS: usize = 1 << 14;
const MAXIMUM_DESCRIPTIONS: u32 = 1 << 20;

const MAGIC: &[u8; 8] = b"RNGFREC\0";
const BODY_AT: usize = 20;
const CHECKSUM_BYTES: usize = 4;

// How an event begins.
const OPEN: u64 = 1;
const REQUEST: u64 = 2;
const CLOSE: u64 = 3;

/// Why bytes are no recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    NotARecording,
    /// It has a version that is none of those from [`OLDEST_FORMAT`] to [`FORMAT`].
    OtherFormat(u32),
    Truncated {
        bytes: u64,
        expected: u64,
    },
    Altered,
    /// Its checksum is right and its content is not: whoever wrote it did not keep to the format.
    Malformed(&'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NotARecording => write!(
                formatter,
                "not a recording: make one with ringfence record --out FILE -- CMD"
            ),
            ReadError::OtherFormat(version) => write!(
                formatter,
                "a recording of format {version}, and this release reads formats {OLDEST_FORMAT} to {FORMAT}: record it again, or use the \
                 release that made it"
            ),
            ReadError::Truncated { bytes, expected } => write!(
                formatter,
                "truncated: it has {bytes} bytes of at least {expected}: copy it again"
            ),
            ReadError::Altered => write!(
                formatter,
                "altered since it was recorded: its checksum is wrong: copy it again"
            ),
            ReadError::Malformed(what) => {
                write!(formatter, "not a valid recording ({what}): record it again")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// There is more to store than a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = MAXIMUM_FOOTPRINT >> 20;
        write!(
            formatter,
            "more than a recording holds, which is {megabytes} MiB of requests, {MAXIMUM_DESCRIPTIONS} opens and \
             {MAXIMUM_THREADS} threads: record a shorter run"
        )
    }
}

impl std::error::Error for TooLarge {}
