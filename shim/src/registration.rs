//! How a process comes to have a lane: it asks the sentry, by an ioctl that only the sentry knows.
//!
//! That happens at its first request, and again when the lane was closed. Where there is no sentry, or it gives no lanes,
//! the process does not ask again.
//!
//! `unsafe` is here because the lane's memory is mapped.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;

use nvproxy_abi::Abi;
use nvproxy_abi::lane::{LaneParameters, OPEN, PROTOCOL};
use ringfence_ipc::lane::{GEOMETRY, WORDS};
use zerocopy::FromZeros;

use crate::state::{AllSlots, NEVER, State};
use crate::system;

/// Requests that take the trap before another lane is asked for, when there was none to be had.
const PAUSE: u32 = 256;

/// Sees to it that the process has a lane, if that is possible now.
pub fn register(state: &'static State) {
    // Somebody makes a request by the lane that is over, or registers at this moment.
    let Some(all) = state.claim_all() else { return };
    if state.has_lane() {
        return;
    }
    all.forget_lane();
    if let Err(pause) = open(&all) {
        all.be_reluctant(pause);
    }
}

/// Asks for a lane and takes it up; else how many requests are to take the trap first.
fn open(all: &AllSlots) -> Result<(), u32> {
    let mut parameters = LaneParameters::new_zeroed();
    parameters.protocol = PROTOCOL;
    let address = &raw mut parameters as usize;
    // SAFETY: the sentry reads and writes the parameters, which outlive the call. Where there is none, no file has the
    // descriptor -1.
    let region = unsafe {
        let arguments = [usize::MAX, OPEN as usize, address, 0, 0, 0];
        system::call(libc::SYS_ioctl, arguments)
    };
    let region = usize::try_from(region).map_err(|_| pause_after(-region))?;
    let mapped = map(region);
    // SAFETY: the sentry made this descriptor for this library, and nothing else uses it.
    unsafe { system::call(libc::SYS_close, [region, 0, 0, 0, 0, 0]) };
    let words = mapped.ok_or(PAUSE)?;
    let tables = Abi::new(&parameters.version(), parameters.capabilities());
    let Ok(tables) = tables else {
        // The two were built of different tables.
        return Err(NEVER);
    };
    // SAFETY: they were mapped just now, for this.
    unsafe { all.take_up(words, parameters.lane, tables) };
    Ok(())
}

/// How long to do without a lane, after an errno of the sentry's, or of a kernel that has none.
fn pause_after(errno: isize) -> u32 {
    match i32::try_from(errno) {
        Ok(libc::EBADF | libc::ENOTTY | libc::EINVAL | libc::EPROTO | libc::ENOSYS) => NEVER,
        _ => PAUSE,
    }
}

/// Maps the part of the region in which the lane lies.
fn map(region: usize) -> Option<*mut AtomicU64> {
    let length = WORDS * size_of::<AtomicU64>();
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let shared = libc::MAP_SHARED as usize;
    let offset = GEOMETRY.arena_offset();
    // SAFETY: a new mapping at a place of the kernel's choice disturbs nothing. The file cannot shrink, because the server
    // has sealed it.
    let mapped = unsafe {
        let arguments = [0, length, protection, shared, region, offset];
        system::call(libc::SYS_mmap, arguments)
    };
    usize::try_from(mapped)
        .ok()
        .map(|address| address as *mut AtomicU64)
}
