//! The parts of a validated request: the ioctl's argument and the buffers that it points to.
//!
//! The planner has laid them out one after another in the payload; a buffer is found by the pointer field that leads
//! to it. Nothing here trusts the layout: a part that does not lie in the payload reads as absent.

use std::os::fd::OwnedFd;

use nvproxy_abi::plan::Segment;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use nvproxy_server::backend::{Call, Made};

/// A range of bytes of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    offset: usize,
    length: usize,
}

impl Part {
    /// Bytes of the part.
    pub fn length(self) -> usize {
        self.length
    }

    /// The `length` bytes that start `offset` bytes into this part.
    pub fn field(self, offset: usize, length: usize) -> Option<Part> {
        let end = offset.checked_add(length)?;
        (end <= self.length).then_some(Part {
            offset: self.offset + offset,
            length,
        })
    }
}

/// A request's payload and where its parts lie.
pub(super) struct Buffers<'a> {
    payload: &'a mut [u8],
    segments: &'a [Segment],
    made: Option<Made<'a>>,
}

impl<'a> Buffers<'a> {
    pub fn new(call: Call<'a>) -> Buffers<'a> {
        Buffers {
            payload: call.payload,
            segments: call.segments,
            made: call.made,
        }
    }

    /// Gives the program a descriptor. Without a place for it, it is closed.
    pub fn make(&mut self, descriptor: OwnedFd) {
        if let Some(made) = &mut self.made {
            *made.descriptor = Some(descriptor);
        }
    }

    /// The ioctl's argument.
    pub fn argument(&self) -> Part {
        self.segments.first().map_or(
            Part {
                offset: 0,
                length: 0,
            },
            |segment| part(*segment),
        )
    }

    /// What the 8-byte pointer at byte `field` of `within` points to; `None` for a null pointer.
    pub fn pointed_to(&self, within: Part, field: usize) -> Option<Part> {
        let at = u32::try_from(within.offset.checked_add(field)?).ok()?;
        self.segments
            .iter()
            .find(|segment| segment.pointer_at == Some(at))
            .map(|segment| part(*segment))
    }

    /// Reads a structure from the start of `part`, which may be longer; `None` if it is shorter.
    pub fn get<T: FromBytes>(&self, part: Part) -> Option<T> {
        T::read_from_prefix(self.bytes(part)?)
            .ok()
            .map(|(value, _)| value)
    }

    /// Writes a structure to the start of `part`. Does nothing if `part` is too short, which `get` of the same part
    /// has ruled out before.
    pub fn put<T: IntoBytes + Immutable>(&mut self, part: Part, value: &T) {
        if let Some(bytes) = self.bytes_mut(part) {
            // The error says that the bytes are too few; there is nothing to be written then.
            let _ = value.write_to_prefix(bytes);
        }
    }

    /// Writes as much of `text` as fits with a terminating zero, and zeros the rest of `part`.
    pub fn put_text(&mut self, part: Part, text: &str) {
        if let Some(bytes) = self.bytes_mut(part) {
            bytes.fill(0);
            let room = bytes.len().saturating_sub(1);
            for (to, from) in bytes.iter_mut().take(room).zip(text.bytes()) {
                *to = from;
            }
        }
    }

    /// The bytes of `part`.
    pub fn bytes(&self, part: Part) -> Option<&[u8]> {
        self.payload
            .get(part.offset..part.offset.checked_add(part.length)?)
    }

    fn bytes_mut(&mut self, part: Part) -> Option<&mut [u8]> {
        self.payload
            .get_mut(part.offset..part.offset.checked_add(part.length)?)
    }
}

fn part(segment: Segment) -> Part {
    Part {
        offset: segment.offset as usize,
        length: segment.length as usize,
    }
}
