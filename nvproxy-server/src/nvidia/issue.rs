//! The one place where a request reaches the kernel.
//!
//! The pointer fields of a request hold the task's addresses. For the length of the call each is replaced by the
//! address, in this process, of the buffer that it stands for; the task's address is then put back, so that the
//! program finds its own structs as it left them. The plan says where the fields and the buffers lie.
//!
//! Where the driver makes a descriptor for the program, it puts it into this process's table and its number into the request.
//! It is taken from there before anybody else sees the number.
//!
//! `unsafe` is here because the kernel follows the addresses in a request, and because of that number.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use smallvec::SmallVec;

use crate::backend::{Call, Made};

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
        made,
    } = call;
    // Only where nothing is named the driver makes something.
    let made = made.filter(|made| number_at(payload, made.at).is_some_and(|named| named < 0));
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
    if let (Ok(_), Some(Made { at, descriptor })) = (outcome, made)
        && let Some(number) = number_at(payload, at).filter(|number| *number >= 0)
    {
        // SAFETY: nothing was named here when the request was issued, so the number is the driver's. It has made the
        // descriptor for this request (by the tables), and nobody else in this process was told of it.
        *descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
    }
    outcome
}

/// The number of a descriptor at `at`.
fn number_at(payload: &[u8], at: usize) -> Option<i32> {
    let bytes = payload.get(at..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::IntoRawFd;

    use super::*;

    /// FIONREAD writes a number into its argument, as the driver writes that of a descriptor: how many bytes wait in a pipe.
    #[test]
    fn what_the_kernel_makes_is_taken_where_nothing_was_named() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let reader = OwnedFd::from(reader);
        let number = File::open("/dev/null").expect("a file").into_raw_fd();
        let bytes = vec![0; number as usize];
        writer.write_all(&bytes).expect("room in the pipe");
        let ask = |request, named: i32| {
            let mut payload = [named, 0].map(i32::to_ne_bytes).concat();
            let mut descriptor = None;
            let outcome = ioctl(
                &reader,
                Call {
                    request,
                    payload: &mut payload,
                    segments: &[],
                    descriptors: &[],
                    made: Some(Made {
                        at: 0,
                        descriptor: &mut descriptor,
                    }),
                },
            );
            (outcome, descriptor.map(IntoRawFd::into_raw_fd))
        };
        let fionread = libc::FIONREAD as u32;
        assert_eq!(ask(fionread, number), (Ok(0), None));
        assert_eq!(ask(fionread, 0), (Ok(0), None));
        let no_request = 0x4600;
        assert_eq!(ask(no_request, -1), (Err(Errno::ENOTTY), None));
        assert_eq!(ask(fionread, -1), (Ok(0), Some(number)));
    }
}
