//! Taking in a descriptor that a hostile process sent.
//!
//! The idea: the control buffer has room for exactly one descriptor, to the byte. Whatever the
//! sender attached, the kernel then installs at most one, drops the rest and sets `MSG_CTRUNC`
//! (unix(7), `scm_detach_fds` in net/core/scm.c). That one is owned before anything is judged, so
//! no message can leak a descriptor into this process. Common wrappers of recvmsg(2) give up on a
//! truncated control message and lose what was installed; hence this one.
//!
//! `unsafe` is here because the call is made by hand.

#![allow(unsafe_code)]

use std::{
    mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use nix::errno::Errno;
use static_assertions::const_assert_eq;

/// A control message with one descriptor, as cmsg(3) lays it out.
#[repr(C)]
struct OneDescriptor {
    header: libc::cmsghdr,
    descriptor: libc::c_int,
}

/// Up to the end of the descriptor and not further: the padding after it has room for another.
const CONTROL_BYTES: usize = mem::offset_of!(OneDescriptor, descriptor) + size_of::<libc::c_int>();

const_assert_eq!(
    CONTROL_BYTES,
    // SAFETY: CMSG_LEN only computes.
    unsafe { libc::CMSG_LEN(size_of::<libc::c_int>() as u32) } as usize
);

/// What one recvmsg(2) returned.
pub(crate) struct Received {
    /// How many bytes of the buffer were filled.
    pub(crate) length: usize,
    /// The descriptor that came along, close-on-exec.
    pub(crate) descriptor: Option<OwnedFd>,
    /// The message was longer than the buffer.
    pub(crate) data_truncated: bool,
    /// More was attached than one descriptor, or it could not be installed.
    pub(crate) control_truncated: bool,
}

/// Receives one message into `buffer` and at most one descriptor with it. Errors as recvmsg(2) has
/// them; a length of 0 without a descriptor is the end of the connection or an empty message.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> Result<Received, Errno> {
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = OneDescriptor {
        header: libc::cmsghdr {
            cmsg_len: 0,
            cmsg_level: 0,
            cmsg_type: 0,
        },
        descriptor: -1,
    };
    // SAFETY: msghdr is a C struct of integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(&mut control).cast();
    message.msg_controllen = CONTROL_BYTES;

    // SAFETY: the message names one live buffer and a live control buffer with their lengths; the
    // kernel writes no further and keeps no pointer.
    let result = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut message,
            flags | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let length = usize::try_from(result).map_err(|_| Errno::last())?;

    let arrived = message.msg_controllen >= CONTROL_BYTES
        && control.header.cmsg_level == libc::SOL_SOCKET
        && control.header.cmsg_type == libc::SCM_RIGHTS
        && control.header.cmsg_len == CONTROL_BYTES
        && control.descriptor >= 0;
    // SAFETY: the kernel says that it installed this descriptor for this very call, so that
    // nobody else owns it.
    let descriptor = arrived.then(|| unsafe { OwnedFd::from_raw_fd(control.descriptor) });
    Ok(Received {
        length,
        descriptor,
        data_truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        control_truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}
