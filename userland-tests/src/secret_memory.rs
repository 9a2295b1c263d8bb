//! Whether this kernel has memory that nobody reaches but by a mapping (memfd_secret(2)). What a pin promises against processes
//! outside of its sandbox rests on it, and docs/THREAT_MODEL.md says what is left without: a test of that asks here.
//!
//! `unsafe` is here for a system call that has no wrapper.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// What a sandbox with NVIDIA's driver says where there is none.
pub const WARNING: &str = " WARN this kernel has no memory that others cannot reach (memfd_secret";

/// Whether the kernel has it, and was started with it.
pub fn is_there() -> bool {
    // SAFETY: the flags are passed by value.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if file < 0 {
        return false;
    }
    // SAFETY: it was just made, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(file as RawFd) });
    true
}
