//! What a driver does wrong because a test asks for it; in ordinary builds, the driver itself.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nvproxy_abi::node::Node;
use ringfence_faults::{Act, GARBAGE, Point, at};

use crate::backend::{Backend, Call, DeviceFile, OpenFlags, Opened};

/// Issues a request.
pub fn ioctl(file: &dyn DeviceFile, call: Call<'_>) -> Result<i32, Errno> {
    let outcome = match at(Point::Call) {
        Some(Act::Errno(errno)) => Err(Errno::from_raw(errno)),
        Some(Act::Value(value)) => Ok(value as i32),
        Some(Act::Garbage) => {
            call.payload.fill(GARBAGE);
            Ok(0)
        }
        _ => file.ioctl(call),
    };
    at(Point::Called);
    outcome
}

/// A descriptor in the place of what a driver has made: of no memory, and no device's.
pub fn no_dma_buf() -> Option<OwnedFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC)
        .ok()
        .map(OwnedFd::from)
}

/// Opens a node.
pub fn open(backend: &dyn Backend, node: Node, flags: OpenFlags) -> Result<Opened, Errno> {
    match at(Point::Open) {
        Some(Act::Errno(errno)) => Err(Errno::from_raw(errno)),
        _ => backend.open(node, flags),
    }
}
