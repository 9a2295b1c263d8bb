//! An address space of unified memory: the ranges that were made in it by ioctl, and the GPUs that take part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nvproxy_abi::status::*;
use serde::{Deserialize, Serialize};

use super::encoding::shared;
use super::error::Impossible;
use super::memory::Memory;
use super::names::{Handle, Outcome};

/// What UVM_INITIALIZE makes of a description (uvm_va_space_t).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressSpace {
    pub flags: u64,
    /// UVM_MM_INITIALIZE has been asked for it.
    pub has_mm: bool,
    /// By base address.
    pub ranges: BTreeMap<u64, Range>,
    pub groups: BTreeSet<u64>,
    pub groups_made: u64,
    /// The GPUs that are registered, by instance.
    pub gpus: BTreeMap<usize, RegisteredGpu>,
    /// Pairs of GPUs, the lower instance first.
    pub peers: BTreeSet<(usize, usize)>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegisteredGpu {
    /// The GPU's address space that this one is tied to.
    pub has_address_space: bool,
    /// Client and channel.
    pub channels: BTreeSet<(Handle, Handle)>,
}

/// A range of addresses made by ioctl.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    pub length: u64,
    pub kind: RangeKind,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RangeKind {
    /// Allocations mapped by GPUs, which they keep alive.
    External(Vec<External>),
    SemaphorePool,
    DynamicParallelism,
    /// What channels need mapped; goes with the last of them.
    Channels(BTreeSet<(Handle, Handle)>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct External {
    pub base: u64,
    pub length: u64,
    pub gpu: usize,
    /// Only kept: the allocation lives for as long as it is mapped.
    #[serde(with = "shared")]
    pub _memory: Arc<Memory>,
}

/// Unmaps what a GPU has mapped in `base..base + length`. Mappings of which only a part lies there are cut
/// (uvm_unmap_external_in_range, kernel-open/nvidia-uvm/uvm_map_external.c).
pub fn unmap(mapped: &mut Vec<External>, gpu: usize, base: u64, length: u64) {
    let end = base.saturating_add(length);
    let cut = std::mem::take(mapped).into_iter().flat_map(|external| {
        let last = external.base.saturating_add(external.length);
        let left = if external.gpu == gpu {
            [
                (external.base, last.min(base)),
                (external.base.max(end), last),
            ]
        } else {
            [(external.base, last), (0, 0)]
        };
        left.into_iter()
            .filter(|(from, to)| from < to)
            .map(move |(from, to)| External {
                base: from,
                length: to - from,
                gpu: external.gpu,
                _memory: Arc::clone(&external._memory),
            })
    });
    *mapped = cut.collect();
}

impl AddressSpace {
    /// Whether what was restored lies in an address space and is of GPUs that there are, of which there are `gpus`.
    pub fn check(&self, gpus: usize) -> Result<(), Impossible> {
        let mut end = 0;
        for (base, range) in &self.ranges {
            let external: &[External] = match &range.kind {
                RangeKind::External(mapped) => mapped,
                _ => &[],
            };
            let last = base.checked_add(range.length);
            let inside = external.iter().all(|external| {
                let end = external.base.checked_add(external.length);
                external.base >= *base && end.is_some() && end <= last && external.gpu < gpus
            });
            if *base < end || last.is_none() || !inside {
                return Err(Impossible::Range(*base));
            }
            end = last.unwrap_or(end);
        }
        match self.gpus.keys().find(|gpu| **gpu >= gpus) {
            Some(gpu) => Err(Impossible::NoGpu(*gpu)),
            None => Ok(()),
        }
    }

    /// Whether a range made by ioctl has an address in `base..base + length`.
    pub fn collides(&self, base: u64, length: u64) -> bool {
        let before = self.ranges.range(..base.saturating_add(length)).next_back();
        before.is_some_and(|(start, range)| start + range.length > base)
    }

    pub fn add(&mut self, base: u64, length: u64, kind: RangeKind) -> Outcome {
        if self.collides(base, length) {
            return Err(NV_ERR_UVM_ADDRESS_IN_USE);
        }
        self.ranges.insert(base, Range { length, kind });
        Ok(())
    }

    /// Adds a channel to what needs `base..base + length`, which several channels of one group share.
    pub fn add_channel(&mut self, base: u64, length: u64, channel: (Handle, Handle)) -> Outcome {
        if let Some(range) = self.ranges.get_mut(&base)
            && range.length == length
            && let RangeKind::Channels(channels) = &mut range.kind
        {
            channels.insert(channel);
            return Ok(());
        }
        self.add(base, length, RangeKind::Channels(BTreeSet::from([channel])))
    }

    /// The external allocations of the range that holds all of `base..base + length`.
    pub fn external(&mut self, base: u64, length: u64) -> Outcome<&mut Vec<External>> {
        let found = self.ranges.range_mut(..=base).next_back();
        let (start, range) = found.ok_or(NV_ERR_INVALID_ADDRESS)?;
        match &mut range.kind {
            RangeKind::External(mapped) if base + length <= start + range.length => Ok(mapped),
            _ => Err(NV_ERR_INVALID_ADDRESS),
        }
    }

    /// A registered GPU that is tied to an address space of its own.
    pub fn tied(&mut self, gpu: Option<usize>) -> Outcome<&mut RegisteredGpu> {
        let found = gpu
            .and_then(|gpu| self.gpus.get_mut(&gpu))
            .filter(|gpu| gpu.has_address_space);
        found.ok_or(NV_ERR_INVALID_DEVICE)
    }

    /// Unties a GPU: its channels and what it has mapped go.
    pub fn untie(&mut self, gpu: usize) {
        if let Some(registered) = self.gpus.get_mut(&gpu) {
            registered.has_address_space = false;
            for channel in std::mem::take(&mut registered.channels) {
                self.forget_channel(channel);
            }
        }
        for range in self.ranges.values_mut() {
            if let RangeKind::External(mapped) = &mut range.kind {
                mapped.retain(|external| external.gpu != gpu);
            }
        }
    }

    pub fn forget_channel(&mut self, channel: (Handle, Handle)) {
        self.ranges.retain(|_, range| match &mut range.kind {
            RangeKind::Channels(channels) => {
                channels.remove(&channel);
                !channels.is_empty()
            }
            _ => true,
        });
    }
}
