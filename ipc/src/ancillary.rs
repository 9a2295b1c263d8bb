//! Taking in a descriptor that a hostile process sent.
//!
//! The idea: the control buffer has room for exactly one descriptor, to the byte. Whatever the
//! sender attached, the kernel then installs at most one, drops the rest and sets `MSG_CTRUNC`
//! (unix(7), `scm_detach_fds` in net/core/scm.c). That one is owned before anything is judged, so
//! no message can leak a descriptor into this process. It is rustix's recvmsg(2) because nix's gives
//! up on a truncated control message and loses what was installed.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// Up to the end of the descriptor and not further: the padding after it has room for another
/// (cmsg(3)).
const CONTROL_BYTES: usize = size_of::<libc::cmsghdr>() + size_of::<RawFd>();

/// Room for a control message with one descriptor.
#[repr(C)]
struct Control {
    /// At the start of the room, so that none of it is lost to alignment.
    aligned: [libc::cmsghdr; 0],
    room: [MaybeUninit<u8>; CONTROL_BYTES],
}

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
    flags: MsgFlags,
) -> Result<Received, Errno> {
    let mut control = Control {
        aligned: [],
        room: [MaybeUninit::uninit(); CONTROL_BYTES],
    };
    let mut ancillary = RecvAncillaryBuffer::new(&mut control.room);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::from_bits_retain(flags.bits() as u32) | RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(Received {
        length: received.bytes,
        descriptor,
        data_truncated: received.flags.contains(ReturnFlags::TRUNC),
        control_truncated: received.flags.contains(ReturnFlags::CTRUNC),
    })
}
