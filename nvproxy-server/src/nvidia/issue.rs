//! The one place where a request reaches the kernel.
//!
//! The pointer fields of a request hold the task's addresses. For the length of the call each is replaced by the
//! address, in this process, of the buffer that it stands for; the task's address is then put back, so that the
//! program finds its own structs as it left them. The plan says where the fields and the buffers lie.
//!
//! `unsafe` is here because the kernel follows the addresses in a request.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use smallvec::SmallVec;

use crate::backend::Call;

/// How requests reach the kernel: [`ioctl`], or what stands for it in a test.
pub type Issue = fn(&OwnedFd, Call<'_>) -> Result<i32, Errno>;

/// Issues `call` on `descriptor`.
///
/// Every segment, and every pointer field, must lie inside the payload: the plan's validation has seen to that, and
/// it is checked again here (`EFAULT`), because a mistake would let the driver write to memory of this process.
pub fn ioctl(descriptor: &OwnedFd, call: Call<'_>) -> Result<i32, Errno> {
    let Call {
        request,
        payload,
        segments,
        descriptors: _,
    } = call;
    let inside = |at: u32, length: u32| {
        (at as usize)
            .checked_add(length as usize)
            .is_some_and(|end| end <= payload.len())
    };
    if !segments.iter().all(|segment| {
        inside(segment.offset, segment.length) && segment.pointer_at.is_none_or(|at| inside(at, 8))
    }) {
        return Err(Errno::EFAULT);
    }

    let base = payload.as_mut_ptr() as u64;
    let mut originals: SmallVec<[(usize, [u8; 8]); 4]> = SmallVec::new();
    for segment in segments {
        let Some(at) = segment.pointer_at else {
            continue;
        };
        let field = &mut payload[at as usize..at as usize + 8];
        let mut original = [0; 8];
        original.copy_from_slice(field);
        originals.push((at as usize, original));
        let address = base.wrapping_add(u64::from(segment.offset));
        field.copy_from_slice(&address.to_ne_bytes());
    }

    // SAFETY: the argument and every buffer that a pointer field of it names lie inside `payload`, which is borrowed
    // exclusively for the length of the call; the driver's tables say that the driver follows no other field as a
    // pointer and reads and writes no more than the segments' lengths.
    let result = unsafe {
        libc::ioctl(
            descriptor.as_raw_fd(),
            libc::Ioctl::from(request),
            payload.as_mut_ptr(),
        )
    };
    let outcome = Errno::result(result);

    for (at, original) in originals {
        payload[at..at + 8].copy_from_slice(&original);
    }
    outcome
}
