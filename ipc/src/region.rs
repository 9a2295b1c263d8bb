//! The shared region: sealed memory, its layout, and the only raw access to it.
//!
//! The idea: memory that two hostile processes share is safe to touch under two conditions. It
//! must stay there, which the seals on its size guarantee: a memfd that can neither shrink nor
//! grow, sealed against further seals, cannot be truncated into a `SIGBUS`. And it must never be
//! seen as plain Rust data: this module hands out slices of atomics only, all of them computed
//! from a [`Geometry`] that was validated and not from anything that the region contains.
//!
//! The layout, for a ring of n entries:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 384 | control block of the submission ring: head, tail and processor, sleep word, 128 bytes apart |
//! | 384 | 384 | control block of the completion ring |
//! | 4096 | 64 n | submissions |
//! | 4096 + 64 n | 64 n | completions |
//! | next page | `arena_bytes` | the arena |
//!
//! A page takes memory once it is touched, so an arena costs what is used of it.
//!
//! `unsafe` is here because what is in shared memory is reached by its address.

#![allow(unsafe_code)]

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    slice,
    sync::Arc,
    time::Duration,
};

use memmap2::{MmapOptions, MmapRaw};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
        statfs::{TMPFS_MAGIC, fstatfs},
    },
    unistd::ftruncate,
};
use static_assertions::{assert_impl_all, const_assert, const_assert_eq};

use crate::{
    futex,
    sync::{AtomicU32, AtomicU64, Slot},
};

/// The largest ring: 65536 entries, 4 MiB.
pub const MAX_RING_ENTRIES: u32 = 1 << 16;
/// The largest arena: 1 GiB.
pub const MAX_ARENA_BYTES: u32 = 1 << 30;

/// The unit of the layout and of the arena's size.
const PAGE: usize = 4096;

/// The seals that every region has.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_SEAL);

/// The size of a region's parts, from which its layout follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Entries of either ring: a power of two, at most [`MAX_RING_ENTRIES`].
    pub ring_entries: u32,
    /// Bytes of the arena: a multiple of 4096, at most [`MAX_ARENA_BYTES`]; 0 for none.
    pub arena_bytes: u32,
}

impl Geometry {
    /// Checks what the fields promise.
    pub fn validate(&self) -> Result<(), RegionError> {
        let entries = self.ring_entries;
        if !entries.is_power_of_two() || entries > MAX_RING_ENTRIES {
            return Err(RegionError::RingEntries(entries));
        }
        let bytes = self.arena_bytes;
        if !(bytes as usize).is_multiple_of(PAGE) || bytes > MAX_ARENA_BYTES {
            return Err(RegionError::ArenaBytes(bytes));
        }
        Ok(())
    }

    /// The bytes of one ring's slots.
    fn slots_bytes(&self) -> usize {
        self.ring_entries as usize * size_of::<Slot>()
    }

    /// Where the arena starts, in bytes from the start of the region: at a page.
    pub fn arena_offset(&self) -> usize {
        (PAGE + 2 * self.slots_bytes()).next_multiple_of(PAGE)
    }

    /// The size of the whole region in bytes.
    pub fn region_bytes(&self) -> usize {
        self.arena_offset() + self.arena_bytes as usize
    }
}

/// Why a region could not be made or was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// [`Geometry::ring_entries`] is no power of two or too large.
    #[error("a ring of {0} entries: must be a power of two, at most {MAX_RING_ENTRIES}")]
    RingEntries(u32),
    /// [`Geometry::arena_bytes`] is no multiple of 4096 or too large.
    #[error("an arena of {0} bytes: must be a multiple of {PAGE}, at most {MAX_ARENA_BYTES}")]
    ArenaBytes(u32),
    /// The descriptor is no memory file of the kind that memfd_create(2) makes.
    #[error("the shared region is not a memory file")]
    NotMemfd,
    /// The memory file lacks a seal; these are the bits of `F_GET_SEALS` that it has.
    #[error(
        "the shared region has seals {0:#x}, but must not shrink, grow or change seals ({SEALS:?})"
    )]
    Seals(i32),
    /// The memory file has another size than the geometry asks for.
    #[error("the shared region has {actual} bytes, but its geometry needs {expected}")]
    Size {
        /// What the geometry asks for, in bytes.
        expected: u64,
        /// What the file has, in bytes.
        actual: u64,
    },
    /// A system call failed.
    #[error("the shared region: {0} failed: {1}")]
    System(&'static str, Errno),
}

/// A sealed and mapped region, and the descriptor to share it by. The mapping lives for as long as
/// this or any endpoint made from it.
pub struct Region {
    mapping: Arc<Mapping>,
    descriptor: OwnedFd,
}

impl Region {
    /// Makes a region, zeroed and sealed.
    pub fn create(geometry: Geometry) -> Result<Self, RegionError> {
        Self::map(Self::make_memory(geometry)?, geometry)
    }

    /// Makes the memory file of a region, for another process to [attach](Self::attach).
    pub fn make_memory(geometry: Geometry) -> Result<OwnedFd, RegionError> {
        geometry.validate()?;
        let descriptor = memfd_create(
            c"ringfence-ipc",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )
        .map_err(|errno| RegionError::System("memfd_create", errno))?;
        let bytes = i64::try_from(geometry.region_bytes())
            .map_err(|_| RegionError::System("ftruncate", Errno::EFBIG))?;
        ftruncate(&descriptor, bytes).map_err(|errno| RegionError::System("ftruncate", errno))?;
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SEALS))
            .map_err(|errno| RegionError::System("fcntl(F_ADD_SEALS)", errno))?;
        Ok(descriptor)
    }

    /// Maps a region that the peer made, if it is a memory file with all three seals and exactly
    /// the size that the geometry asks for. On an error the descriptor is closed.
    pub fn attach(descriptor: OwnedFd, geometry: Geometry) -> Result<Self, RegionError> {
        geometry.validate()?;
        // Only shmem and hugetlbfs know seals, and only a memfd can have these. Huge pages are
        // refused: they come from a pool, which the peer can exhaust for a SIGBUS here.
        let seals = fcntl(&descriptor, FcntlArg::F_GET_SEALS).map_err(|_| RegionError::NotMemfd)?;
        let file_system =
            fstatfs(&descriptor).map_err(|errno| RegionError::System("fstatfs", errno))?;
        if file_system.filesystem_type() != TMPFS_MAGIC {
            return Err(RegionError::NotMemfd);
        }
        if !SealFlag::from_bits_retain(seals).contains(SEALS) {
            return Err(RegionError::Seals(seals));
        }
        // The size is final, because the seals were there before it was read.
        let status = fstat(&descriptor).map_err(|errno| RegionError::System("fstat", errno))?;
        let actual = u64::try_from(status.st_size).unwrap_or(0);
        let expected = geometry.region_bytes() as u64;
        if actual != expected {
            return Err(RegionError::Size { expected, actual });
        }
        Self::map(descriptor, geometry)
    }

    fn map(descriptor: OwnedFd, geometry: Geometry) -> Result<Self, RegionError> {
        let memory = MmapOptions::new()
            .len(geometry.region_bytes())
            .map_raw(descriptor.as_raw_fd())
            .map_err(|error| {
                let errno = error
                    .raw_os_error()
                    .map_or(Errno::UnknownErrno, Errno::from_raw);
                RegionError::System("mmap", errno)
            })?;
        let mapping = Arc::new(Mapping { memory, geometry });
        Ok(Self {
            mapping,
            descriptor,
        })
    }

    /// The geometry that the region was made or attached with.
    pub fn geometry(&self) -> Geometry {
        self.mapping.geometry
    }

    pub(crate) fn submissions(&self) -> RingMemory {
        RingMemory {
            mapping: Arc::clone(&self.mapping),
            ring: Ring::Submissions,
        }
    }

    pub(crate) fn completions(&self) -> RingMemory {
        RingMemory {
            mapping: Arc::clone(&self.mapping),
            ring: Ring::Completions,
        }
    }

    pub(crate) fn arena(&self) -> ArenaMemory {
        ArenaMemory {
            mapping: Arc::clone(&self.mapping),
        }
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A word with two cache lines of its own: the processor fetches lines in pairs.
#[repr(C, align(128))]
struct Line(AtomicU32);

/// What a producer writes and its consumer looks at, together.
#[repr(C, align(128))]
struct Published {
    /// Entries ever published.
    tail: AtomicU32,
    /// See [`RingMemory::processor`].
    processor: AtomicU64,
}

/// The words by which the two ends of one ring know of each other.
#[repr(C)]
struct Control {
    /// Entries ever consumed; written by the consumer.
    head: Line,
    /// Written by the producer.
    published: Published,
    /// The sleep word; set by the consumer, cleared by both.
    sleeping: Line,
}

const_assert_eq!(size_of::<Control>(), 384);
const_assert!(2 * size_of::<Control>() <= PAGE);
const_assert_eq!(size_of::<Slot>(), 64);

/// The mapped memory: as long as its geometry says, and resizable by nobody.
///
/// Every reference made here stays within the mapping, because each offset follows from the
/// validated geometry that also gave the mapping its length. Every reference is to atomics, for
/// which any bytes are a value and a change by another process is no data race.
struct Mapping {
    memory: MmapRaw,
    geometry: Geometry,
}

// The ends of a channel may live on different threads.
assert_impl_all!(Mapping: Send, Sync);

impl Mapping {
    fn control(&self, ring: Ring) -> &Control {
        let offset = ring.position() * size_of::<Control>();
        // SAFETY: both control blocks lie in the first page, which every geometry has, at
        // multiples of their alignment. Control is made of atomics, see above.
        unsafe { &*self.memory.as_ptr().add(offset).cast::<Control>() }
    }

    /// The place of an entry; the index wraps with the ring.
    fn slot(&self, ring: Ring, index: u32) -> &Slot {
        let index = index & (self.geometry.ring_entries - 1);
        let slots = PAGE + ring.position() * self.geometry.slots_bytes();
        let offset = slots + index as usize * size_of::<Slot>();
        // SAFETY: the mask keeps the index below the power of two that `ring_entries` is, so the
        // slot lies in its ring, at a multiple of 64. Slots are made of atomics, see above.
        unsafe { &*self.memory.as_ptr().add(offset).cast::<Slot>() }
    }

    fn arena(&self) -> &[AtomicU64] {
        let offset = self.geometry.arena_offset();
        let words = self.geometry.arena_bytes as usize / size_of::<AtomicU64>();
        // SAFETY: the arena starts on a page and ends with the mapping. Words are atomics, see
        // above.
        unsafe {
            let start = self.memory.as_ptr().add(offset).cast::<AtomicU64>();
            slice::from_raw_parts(start, words)
        }
    }
}

/// Which of the region's two rings.
#[derive(Clone, Copy)]
enum Ring {
    Submissions,
    Completions,
}

impl Ring {
    fn position(self) -> usize {
        match self {
            Self::Submissions => 0,
            Self::Completions => 1,
        }
    }
}

/// The shared memory of one ring, as its ends see it.
#[derive(Clone)]
pub(crate) struct RingMemory {
    mapping: Arc<Mapping>,
    ring: Ring,
}

impl RingMemory {
    pub(crate) fn capacity(&self) -> u32 {
        self.mapping.geometry.ring_entries
    }

    pub(crate) fn head(&self) -> &AtomicU32 {
        &self.mapping.control(self.ring).head.0
    }

    pub(crate) fn tail(&self) -> &AtomicU32 {
        &self.mapping.control(self.ring).published.tail
    }

    /// Where the producer was when it published last, as `look` notes it.
    pub(crate) fn processor(&self) -> &AtomicU64 {
        &self.mapping.control(self.ring).published.processor
    }

    pub(crate) fn sleeping(&self) -> &AtomicU32 {
        &self.mapping.control(self.ring).sleeping.0
    }

    /// The place of the entry that has this index; the index wraps with the ring.
    pub(crate) fn slot(&self, index: u32) -> &Slot {
        self.mapping.slot(self.ring, index)
    }

    /// Sleeps while the sleep word is `expected`; errors as futex(2) has them.
    pub(crate) fn sleep(&self, expected: u32, timeout: Option<Duration>) -> Result<(), Errno> {
        futex::wait(self.sleeping(), expected, timeout)
    }

    /// Wakes whoever sleeps on the sleep word.
    pub(crate) fn wake_sleeper(&self) {
        futex::wake(self.sleeping());
    }
}

/// The arena's shared memory.
#[derive(Clone)]
pub(crate) struct ArenaMemory {
    mapping: Arc<Mapping>,
}

impl ArenaMemory {
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.mapping.arena()
    }
}

#[cfg(test)]
mod tests;
