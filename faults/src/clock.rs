//! A time of day that jumps.
//!
//! The executable's own `clock_gettime` stands before libc's wherever Rust code asks for the time. It asks the kernel,
//! and adds to the time of day what a rule for [`Point::Clock`] says: forward and back again, in turns. Clocks that
//! cannot be set are left alone, as the kernel leaves them.
//!
//! `unsafe` is here because the function replaces one of libc's.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

use crate::{Act, Point};

static AHEAD: AtomicBool = AtomicBool::new(false);

/// clock_gettime(2).
///
/// # Safety
///
/// `time` points to a `timespec` that may be written, or is what the kernel refuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the kernel checks the address itself.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if result == 0
        && clock == libc::CLOCK_REALTIME
        && let Some(Act::Value(seconds)) = crate::at(Point::Clock)
    {
        let sign = match AHEAD.fetch_xor(true, Ordering::Relaxed) {
            true => -1,
            false => 1,
        };
        // SAFETY: the kernel has just written there.
        unsafe { (*time).tv_sec += sign * seconds as libc::time_t };
    }
    result as libc::c_int
}
