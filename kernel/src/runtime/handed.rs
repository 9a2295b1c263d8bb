//! What the low-level runtime hands over to a process of the container's, behind the descriptors that the engine does
//! (`--preserve-fds`).
//!
//! `unsafe` is here because those have fixed numbers.

#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use ringfence_sentry::failure::{Attempt, Failure};

use super::command_line::CommandLine;
use crate::launch::descriptors;

/// How many descriptors from 3 on the low-level runtime hands over by itself, before those of `--preserve-fds`
/// (sd_listen_fds(3)).
pub fn listening() -> usize {
    let listening = std::env::var("LISTEN_FDS").ok();
    let listening = listening.and_then(|count| count.parse::<u16>().ok());
    listening.unwrap_or(0).into()
}

/// How many descriptors the engine hands over by `--preserve-fds`.
pub fn preserved(line: &CommandLine) -> Result<usize, Failure> {
    let given = line.preserve_fds.as_deref().unwrap_or("0".as_ref());
    let given = given.to_str().and_then(|given| given.parse::<u16>().ok());
    given
        .map(usize::from)
        .ok_or_else(|| Failure::setup("--preserve-fds: no number"))
}

/// Puts what is handed over under its numbers.
pub fn hand_over(handed: Vec<OwnedFd>, first: RawFd) -> Result<(), Failure> {
    // First out of the way of these numbers.
    let above = first + handed.len() as RawFd;
    let moved = handed
        .iter()
        .map(|descriptor| fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(above)).attempt("fcntl"));
    let moved = moved.collect::<Result<Vec<RawFd>, Failure>>()?;
    drop(handed);
    for (from, to) in moved.into_iter().zip(first..) {
        // SAFETY: nothing in this process reads what has these numbers, and the copy is nobody else's.
        let from = unsafe { OwnedFd::from_raw_fd(from) };
        // SAFETY: as above.
        unsafe { descriptors::put_in_place(&from, to) }?;
        // SAFETY: it was just put there.
        let to = unsafe { BorrowedFd::borrow_raw(to) };
        fcntl(to, FcntlArg::F_SETFD(FdFlag::empty())).attempt("fcntl")?;
    }
    Ok(())
}
