//! Ranges of a GPU's virtual addresses and what is mapped there.

use std::collections::BTreeSet;

use nvproxy_abi::status::*;
use serde::{Deserialize, Serialize};

use super::error::Impossible;
use super::names::{Handle, Outcome};

/// One range (NV50_MEMORY_VIRTUAL).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VirtualMemory {
    base: u64,
    length: u64,
    mappings: Vec<DmaMapping>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DmaMapping {
    memory: Handle,
    address: u64,
    length: u64,
}

impl VirtualMemory {
    pub fn new(base: u64, length: u64) -> VirtualMemory {
        VirtualMemory {
            base,
            length,
            mappings: Vec::new(),
        }
    }

    /// Whether a restored range and what is mapped there lie in an address space.
    pub fn check(&self) -> Result<(), Impossible> {
        let end = |address: u64, length: u64| address.checked_add(length);
        let last = end(self.base, self.length);
        let inside = |mapping: &DmaMapping| {
            let end = end(mapping.address, mapping.length);
            mapping.address >= self.base && end.is_some() && end <= last
        };
        if last.is_none() || !self.mappings.iter().all(inside) {
            return Err(Impossible::Mappings(self.base));
        }
        Ok(())
    }

    /// The same range with nothing mapped.
    pub fn copied(&self) -> VirtualMemory {
        VirtualMemory::new(self.base, self.length)
    }

    /// Removes the mappings of memory that is freed.
    pub fn forget(&mut self, freed: &BTreeSet<Handle>) {
        self.mappings
            .retain(|mapping| !freed.contains(&mapping.memory));
    }

    fn overlaps(&self, address: u64, length: u64) -> bool {
        self.mappings.iter().any(|mapping| {
            mapping.address < address.saturating_add(length)
                && address < mapping.address + mapping.length
        })
    }

    /// Maps `length` bytes at `fixed`, or at the lowest free address.
    pub fn map(&mut self, memory: Handle, length: u64, fixed: Option<u64>) -> Outcome<u64> {
        let end = self.base.saturating_add(self.length);
        let fits = |address: u64| {
            address
                .checked_add(length)
                .is_some_and(|last| address >= self.base && last <= end)
        };
        let behind = self
            .mappings
            .iter()
            .map(|mapping| mapping.address + mapping.length);
        let address = match fixed {
            Some(address) => {
                Some(address).filter(|&address| fits(address) && !self.overlaps(address, length))
            }
            None => {
                let mut candidates: Vec<u64> = behind.chain([self.base]).collect();
                candidates.sort_unstable();
                candidates
                    .into_iter()
                    .find(|&address| fits(address) && !self.overlaps(address, length))
            }
        };
        let address = address.ok_or(if fixed.is_some() {
            NV_ERR_INVALID_OFFSET
        } else {
            NV_ERR_NO_MEMORY
        })?;
        self.mappings.push(DmaMapping {
            memory,
            address,
            length,
        });
        Ok(address)
    }

    pub fn unmap(&mut self, memory: Handle, address: u64) -> Outcome {
        let found = self
            .mappings
            .iter()
            .position(|mapping| mapping.memory == memory && mapping.address == address);
        self.mappings.remove(found.ok_or(NV_ERR_OBJECT_NOT_FOUND)?);
        Ok(())
    }
}
