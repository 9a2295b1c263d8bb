//! Memory that a GPU reaches, and the places where tasks see it.
//!
//! The driver maps one allocation wherever it is asked to, and all mappings show the same pages. Memory files cannot:
//! a task maps the file behind the descriptor that it named in NV_ESC_RM_MAP_MEMORY, and two files share no pages. So an
//! allocation has its bytes where it was last mapped: a new mapping takes a copy from the earlier ones, newest last.
//! Mapping, unmapping and mapping again through another descriptor preserves the bytes, in the same process or in
//! another; what is written through an older mapping *after* a newer one of the same bytes was made is not seen there.
//! A mapping's file outlives its descriptor for as long as the allocation's bytes are in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use ringfence_ipc::locks::IgnorePoison;
use serde::{Deserialize, Serialize};

use super::backing::Backing;
use super::encoding::{Tabled, shared};
use super::error::Impossible;

/// The granularity of system memory and of mappings.
pub(super) const PAGE: u64 = 4 << 10;

/// The most bytes of one allocation of system memory, which stands for the host having no more.
const LARGEST_SYSTEM: u64 = 1 << 40;

/// The memory of one GPU.
#[derive(Debug)]
pub(super) struct VideoMemory {
    size: u64,
    used: AtomicU64,
}

impl Tabled for VideoMemory {
    const NAME: &str = "gpus";
}

impl VideoMemory {
    pub fn new(size: u64) -> Arc<VideoMemory> {
        Arc::new(VideoMemory {
            size,
            used: AtomicU64::new(0),
        })
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are not allocated.
    pub fn free(&self) -> u64 {
        self.size - self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&used| used <= self.size)
            });
        taken.is_ok()
    }
}

/// Where an allocation lies, which decides what it can be mapped through.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Place {
    /// Memory of the host: mapped through a description of `nvidiactl`.
    System,
    /// Memory of the task that was pinned: the driver maps it nowhere else (memMap_IMPL).
    Pinned,
    /// Memory of a GPU: mapped through a description of that GPU.
    Video(#[serde(with = "shared")] Arc<VideoMemory>),
    /// Registers of a GPU: likewise. They can be reached through the aperture of its memory instead of their own.
    Registers { through_memory: bool },
}

/// One allocation. Its GPU memory is given back when the last object that refers to it is gone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    place: Place,
    length: u64,
    /// Bytes that are not free because of it.
    taken: u64,
    /// The address by which mappings of the allocation are known (the physical one, to the driver).
    address: u64,
    mappings: Mutex<Vec<Mapped>>,
}

/// Bytes of an allocation that lie at the start of a description's file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapped {
    offset: u64,
    length: u64,
    #[serde(with = "shared")]
    backing: Arc<Backing>,
}

impl Tabled for Memory {
    const NAME: &str = "memories";
}

impl Memory {
    /// Allocates `length` bytes, whole pages, for which `taken` bytes of the place are used up; `None` if there are not as
    /// many left.
    pub fn allocate(place: Place, length: u64, taken: u64, address: u64) -> Option<Arc<Memory>> {
        let granted = match &place {
            Place::Video(video) => video.take(taken),
            _ => length <= LARGEST_SYSTEM,
        };
        if !granted {
            return None;
        }
        Some(Arc::new(Memory {
            place,
            length,
            taken,
            address,
            mappings: Mutex::default(),
        }))
    }

    /// Takes memory that was restored from its GPU, which every other allocation has taken from it before, and looks
    /// whether it can be what it is said to be. Memory that fails this must not be used.
    pub fn settle(&self) -> Result<(), Impossible> {
        let (length, taken) = (self.length, self.taken);
        if let Place::Video(video) = &self.place
            && !video.take(taken)
        {
            return Err(Impossible::NoRoom(taken));
        }
        if length > taken {
            return Err(Impossible::Taken { length, taken });
        }
        let mappings = self.mappings.lock().ignore_poison();
        let outside = mappings.iter().find(|mapped| {
            let end = mapped.offset.checked_add(mapped.length);
            end.is_none_or(|end| end > length)
        });
        match outside {
            Some(mapped) => Err(Impossible::Mapped {
                length,
                offset: mapped.offset,
            }),
            None => Ok(()),
        }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Bytes of the allocation, which is rounded up to whole pages.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    /// Makes `target` show the `length` bytes of the allocation at `offset`. The caller has checked the range.
    pub fn map(&self, target: &Arc<Backing>, offset: u64, length: u64) -> Result<(), Errno> {
        let end = offset + length;
        let mut mappings = self.mappings.lock().ignore_poison();
        target.set_length(length.next_multiple_of(PAGE))?;
        for mapped in mappings.iter() {
            let from = mapped.offset.max(offset);
            let to = (mapped.offset + mapped.length).min(end);
            if from < to {
                target.copy(
                    &mapped.backing,
                    from - mapped.offset,
                    from - offset,
                    to - from,
                )?;
            }
        }
        mappings.retain(|mapped| mapped.offset < offset || mapped.offset + mapped.length > end);
        mappings.push(Mapped {
            offset,
            length,
            backing: Arc::clone(target),
        });
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Place::Video(video) = &self.place {
            video.used.fetch_sub(self.taken, Ordering::Relaxed);
        }
    }
}
