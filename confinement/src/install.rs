//! Handing a program to the kernel (seccomp(2)).
//!
//! The calling thread must not be able to gain privileges any more (`no_new_privs`), or the kernel refuses with
//! `EACCES`. A filter is inherited by every thread and process that is started later, and by what these execute.
//!
//! `unsafe` is here because neither nix nor rustix has seccomp(2), which takes a pointer.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libc::{sock_filter, sock_fprog};
use nix::errno::Errno;

/// Puts the calling thread under `program`. The threads that exist already stay as they are.
pub fn install(program: &[sock_filter]) -> Result<(), Errno> {
    seccomp(program, 0).map(drop)
}

/// As [`install`], and returns the descriptor through which the calls arrive that the program says to notify of. While a
/// call waits for its answer, only a fatal signal interrupts it (Linux 5.19).
pub fn install_with_listener(program: &[sock_filter]) -> Result<OwnedFd, Errno> {
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let descriptor = seccomp(program, flags)?;
    // SAFETY: the kernel just made this descriptor for the caller, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

fn seccomp(program: &[sock_filter], flags: libc::c_ulong) -> Result<libc::c_long, Errno> {
    let filter = sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which outlives the call, and does not write to it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    Errno::result(result)
}
