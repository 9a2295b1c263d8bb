//! The sandbox's network: an interface that leads back to itself, and no other.
//!
//! `unsafe` is here for an ioctl that no library in use wraps.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use ringfence_sentry::failure::{Attempt, Failure};

/// The name that the kernel gives the loopback interface of every network namespace.
const LOOPBACK: &[u8] = b"lo";

/// Brings up the loopback interface of the calling process's network namespace, in which it must have all rights
/// (netdevice(7)). Programs expect to reach themselves at 127.0.0.1.
pub fn bring_up_loopback() -> Result<(), Failure> {
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .and_then(|socket| {
        // SAFETY: the request outlives the call, which reads it.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
        Errno::result(result).map(drop)
    })
    .attempt("the loopback interface")
}
