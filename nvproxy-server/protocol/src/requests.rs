//! What sentry and server say to one another over the rings: the kinds of submission, and how each uses the fields of
//! a descriptor.
//!
//! | kind | `target` | `code` | `arguments` | payload | descriptor | completion |
//! |---|---|---|---|---|---|---|
//! | [`Kind::Open`] | – | [`OPEN_NONBLOCKING`] or 0 | node | – | – | [`VALUE_HANDLE`]; the granted description |
//! | [`Kind::Ioctl`] | handle, or 0 | ioctl command | node, handle count, descriptor count, issuer | request, handles | the target, if `target` is 0; what a field names that is of a description which the task holds | `result`; payload; perhaps the event descriptor, or what the driver has made |
//! | [`Kind::PinBegin`] | handle | ioctl command | node, handle count | request, handles | – | the command descriptor, lent |
//! | [`Kind::PinFinish`] | handle | ioctl command | node, handle count, –, result | request, handles | – | `result`; payload |
//! | [`Kind::Close`] | handle | – | – | – | – | – |
//!
//! A *request* in a payload is laid out as [`nvproxy_abi::plan`] says. The handles that follow it, 8 bytes each in
//! native order, belong to the request's descriptor fields of role `Command` that hold a non-negative number, in the
//! order of the plan. `result` is what the system call returns:
//! a non-negative value or a negated errno. If the driver was asked, the completion says when, in [`VALUE_ASKED`], and
//! how long it took.

use std::num::NonZeroU32;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// What a submission asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    Open = 1,
    Ioctl = 2,
    PinBegin = 3,
    PinFinish = 4,
    Close = 5,
}

impl Kind {
    /// The kind that a descriptor's `kind` field means, if any.
    pub fn from_wire(value: u16) -> Option<Kind> {
        Some(match value {
            1 => Kind::Open,
            2 => Kind::Ioctl,
            3 => Kind::PinBegin,
            4 => Kind::PinFinish,
            5 => Kind::Close,
            _ => return None,
        })
    }
}

/// In `code` of [`Kind::Open`]: the task opened with `O_NONBLOCK`.
pub const OPEN_NONBLOCKING: u32 = 1;

/// `arguments` index: the node that the request is made on, as `Node::to_wire` gives it.
pub const ARGUMENT_NODE: usize = 0;
/// `arguments` index: how many handles follow the request in the payload.
pub const ARGUMENT_HANDLES: usize = 1;
/// `arguments` index: how many descriptors travel on the socket beside the submission, at most
/// [`MAXIMUM_DESCRIPTORS`].
pub const ARGUMENT_DESCRIPTORS: usize = 2;
/// `arguments` index: what the task's own ioctl returned ([`Kind::PinFinish`]), encoded by [`encode_result`].
pub const ARGUMENT_RESULT: usize = 3;

/// `arguments` index: the task that makes the request, encoded by [`Issuer::encode`], where a sandbox has several users and the
/// request makes a client, is UVM's and names one, or has the driver make a descriptor ([`Kind::Ioctl`]).
pub const ARGUMENT_ISSUER: usize = 3;

/// `values` index: the handle of what was opened, or 0 if the server keeps nothing of it ([`Kind::Open`]).
pub const VALUE_HANDLE: usize = 0;
/// `values` index: when the driver was asked, as [`crate::clock::now`] gives it; 0 if it was not.
pub const VALUE_ASKED: usize = 1;

/// Descriptors that travel with one submission: its target, and what one field of it names.
pub const MAXIMUM_DESCRIPTORS: usize = 2;

/// How many descriptions one sandbox may hold open at once.
pub const MAXIMUM_HANDLES: usize = 1 << 16;

/// In the place of a handle: the task's number names no description of the driver's. The driver is given
/// [`UNUSED_NUMBER`], and answers as it answers that.
pub const CLOSED_DESCRIPTOR: u64 = 0;
/// A descriptor number that no process uses: far beyond what the kernel allows (`fs.nr_open`).
pub const UNUSED_NUMBER: i32 = i32::MAX;

/// The number of an error, which is never 0: that would be success. One that has no name is `EIO` to whoever is told of it;
/// drivers know such, and so do seccomp filters.
pub fn number_of(errno: Errno) -> i32 {
    match errno {
        Errno::UnknownErrno => Errno::EIO as i32,
        errno => errno as i32,
    }
}

/// The error that has this number. One that is not known here is `EIO`.
pub fn errno_of(number: i32) -> Errno {
    match Errno::from_raw(number) {
        Errno::UnknownErrno => Errno::EIO,
        errno => errno,
    }
}

/// A system call's outcome as one signed number: the value, or the negated errno.
pub fn encode_result(outcome: Result<i32, Errno>) -> i64 {
    match outcome {
        Ok(value) => i64::from(value),
        Err(errno) => -i64::from(number_of(errno)),
    }
}

/// The inverse of [`encode_result`]. Numbers that are no system call's outcome mean `EIO`.
pub fn decode_result(result: i64) -> Result<i32, Errno> {
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        Ok(value) if value > -4096 => Err(errno_of(-value)),
        _ => Err(Errno::EIO),
    }
}

/// Who makes a request, by the numbers that the sentry sees: what the driver would tell the sandbox's clients apart by, if each task
/// had made its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The effective user.
    pub user: u32,
    pub process: NonZeroU32,
}

impl Issuer {
    /// As one number; 0 if nobody is told.
    pub fn encode(issuer: Option<Issuer>) -> u64 {
        issuer.map_or(0, |Issuer { user, process }| {
            u64::from(user) << 32 | u64::from(process.get())
        })
    }

    /// The inverse of [`Issuer::encode`].
    pub fn decode(told: u64) -> Option<Issuer> {
        let process = NonZeroU32::new(told as u32)?;
        let user = (told >> 32) as u32;
        Some(Issuer { user, process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_told_as_they_are() {
        for (user, process) in [(0, 1), (1000, 4_194_304), (u32::MAX - 1, u32::MAX)] {
            let process = NonZeroU32::new(process).expect("a number");
            let issuer = Some(Issuer { user, process });
            assert_eq!(Issuer::decode(Issuer::encode(issuer)), issuer);
        }
        assert_eq!(Issuer::decode(Issuer::encode(None)), None);
    }

    #[test]
    fn no_error_is_told_as_success() {
        for number in 1..4096 {
            let told = encode_result(Err(Errno::from_raw(number)));
            assert!((-4095..0).contains(&told), "{number}");
            assert!(decode_result(-i64::from(number)).is_err(), "{number}");
        }
        let unnamed = 134;
        assert_eq!(decode_result(-unnamed), Err(Errno::EIO));
        assert_eq!(decode_result(encode_result(Ok(7))), Ok(7));
    }
}
