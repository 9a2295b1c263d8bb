//! Which of the standard streams the caller has left closed.
//!
//! Rust's runtime opens the null device in the place of those before `main`, so that no file that is opened later gets their
//! numbers. So it is looked at before that, and a program gets them closed, as it would without a sandbox: a program that
//! writes there is told so.
//!
//! `unsafe` is here because the C library is to call a function before `main`, and because a bare number is closed.

#![allow(unsafe_code)]

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use ringfence_faults::{Act, Point};

const STREAMS: [RawFd; 3] = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];

static IS_CLOSED: [AtomicBool; STREAMS.len()] = [const { AtomicBool::new(false) }; STREAMS.len()];

// The C library calls what is named in this section before Rust's runtime begins.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for (stream, is_closed) in STREAMS.iter().zip(&IS_CLOSED) {
        // SAFETY: the call takes no pointer, and changes nothing.
        let flags = unsafe { libc::fcntl(*stream, libc::F_GETFD) };
        is_closed.store(flags == -1, Ordering::Relaxed);
    }
}

/// Closes what was closed before this process began, in one that is about to execute the program.
///
/// # Safety
///
/// Nothing in this process uses the standard streams any more.
pub unsafe fn close_again() {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Streams) == Some(Act::Drop) {
        return;
    }
    for (stream, is_closed) in STREAMS.iter().zip(&IS_CLOSED) {
        if is_closed.load(Ordering::Relaxed) {
            // SAFETY: as the caller promises.
            unsafe { libc::close(*stream) };
        }
    }
}
