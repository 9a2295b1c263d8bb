//! The two kinds of ring entries, exactly as they lie in shared memory.
//!
//! Both are one cache line, have no padding, and take any bit pattern, so reading one is a copy
//! and nothing about it is true until the reader has checked it. What `kind`, `code`, `target`
//! and the arguments mean is between the client and the server; this crate only moves them.

use static_assertions::const_assert_eq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::ring::Entry;

/// Set in [`Submission::flags`] or (widened) in [`Completion::flags`]: a descriptor travels on the
/// socket beside this entry, in a parcel whose tag is the entry's cookie.
pub const FLAG_DESCRIPTOR: u16 = 1 << 0;

/// A request from the client to the server.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Submission {
    /// Chosen by the client, returned in the completion.
    pub cookie: u64,
    /// The object that the request is about, in the server's naming.
    pub target: u64,
    /// The kind of request.
    pub kind: u16,
    /// [`FLAG_DESCRIPTOR`] and flags of the kind.
    pub flags: u16,
    /// The operation within its kind, such as an ioctl number.
    pub code: u32,
    /// Where the payload starts, in bytes from the start of the arena.
    pub payload_offset: u32,
    /// The length of the payload in bytes; 0 when there is none.
    pub payload_length: u32,
    /// Arguments of the kind.
    pub arguments: [u64; 4],
}

/// The server's answer to one [`Submission`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Completion {
    /// The cookie of the submission that this answers.
    pub cookie: u64,
    /// The result: 0 or more on success, a negated `errno` on failure.
    pub result: i64,
    /// [`FLAG_DESCRIPTOR`] and flags of the kind.
    pub flags: u32,
    /// How many bytes of the submission's payload range hold the answer.
    pub payload_length: u32,
    /// How long the driver took, in nanoseconds; 0 when it was not asked.
    pub driver_nanoseconds: u64,
    /// Values of the kind.
    pub values: [u64; 4],
}

const_assert_eq!(size_of::<Submission>(), 64);
const_assert_eq!(size_of::<Completion>(), 64);

impl Entry for Submission {
    fn to_words(self) -> [u64; 8] {
        transmute!(self)
    }

    fn from_words(words: [u64; 8]) -> Self {
        transmute!(words)
    }
}

impl Entry for Completion {
    fn to_words(self) -> [u64; 8] {
        transmute!(self)
    }

    fn from_words(words: [u64; 8]) -> Self {
        transmute!(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_wire_format_says() {
        let words = Submission {
            cookie: 1,
            target: 2,
            kind: 0x1111,
            flags: 0x2222,
            code: 0x3333_3333,
            payload_offset: 0x4444_4444,
            payload_length: 0x5555_5555,
            arguments: [5, 6, 7, 8],
        }
        .to_words();
        assert_eq!(
            words,
            [
                1,
                2,
                0x3333_3333_2222_1111,
                0x5555_5555_4444_4444,
                5,
                6,
                7,
                8
            ]
        );

        let words = Completion {
            cookie: 1,
            result: -1,
            flags: 0x1111_1111,
            payload_length: 0x2222_2222,
            driver_nanoseconds: 4,
            values: [5, 6, 7, 8],
        }
        .to_words();
        assert_eq!(words, [1, u64::MAX, 0x2222_2222_1111_1111, 4, 5, 6, 7, 8]);
    }
}
