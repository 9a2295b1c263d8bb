//! Memory of the host that tasks can have mapped, which counts for as long as they can.
//!
//! The driver keeps the pages of such memory, whoever frees the object, until the last mapping is gone
//! (`nv_alloc_release`, kernel-open/nvidia/nv.c, 580.142; `nvidia_vma_release`, nv-mmap.c). A mapping holds the description
//! that it was made through. So the idea: what a description was made to show (NV_ESC_RM_MAP_MEMORY) has one more reference, until
//! that description is gone, which the host tells of descriptions that it has marked.
//!
//! Nobody is told of that moment; it is looked for where it can matter, as for address spaces of UVM, and when there are
//! twice as many as were left the last time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::accounts::{Allocation, Handle, Ledger, Pool};
use super::content::Content;

/// Most descriptions of which it is known that they show something. What others show counts until the sandbox ends. PyTorch
/// was recorded to have some thirty for each process.
pub const MAXIMUM_SHOWN: usize = 1 << 12;

/// How many there are before it is looked which are gone.
const FEW: usize = 64;

/// What descriptions show, by their marks.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    by_mark: BTreeMap<u64, Content>,
    /// How many were left when it was looked last.
    #[serde(skip)]
    left: usize,
    /// Bytes that count for good, since nobody can tell when they are gone.
    pub for_good: u64,
}

impl Shown {
    pub fn is_empty(&self) -> bool {
        self.by_mark.is_empty() && self.for_good == 0
    }

    pub fn marks(&self) -> impl Iterator<Item = u64> {
        self.by_mark.keys().copied()
    }
}

impl Ledger {
    /// Bytes of the host's memory that the sandbox has, but for records.
    #[cfg(test)]
    pub fn charged_to_host(&self) -> u64 {
        self.charged_to_host
    }

    /// What an object has of the host's memory, with references of its own, if it has any.
    pub fn host_memory_of(&mut self, client: Handle, object: Handle) -> Option<Content> {
        let content = self.copy_of(client, object)?;
        self.of_the_host(content)
    }

    /// What `content` has of the host's memory, with the references that it had.
    fn of_the_host(&mut self, content: Content) -> Option<Content> {
        let is_the_hosts = |key: &usize| {
            let allocation = self.allocations.get(*key);
            allocation.is_some_and(|allocation| allocation.pool == Pool::Host)
        };
        let (hosts, others): (Vec<usize>, Vec<usize>) =
            content.memory.iter().partition(|key| is_the_hosts(key));
        let gpu = content.gpu;
        self.release(Content {
            gpu,
            memory: others,
        });
        (!hosts.is_empty()).then_some(Content { gpu, memory: hosts })
    }

    /// Whether it should be looked which descriptions are gone before one is added that shows something.
    pub fn should_look_for_ended(&self) -> bool {
        let count = self.shown.by_mark.len();
        count >= MAXIMUM_SHOWN || count >= FEW.max(2 * self.shown.left)
    }

    /// It was looked.
    pub fn looked_for_ended(&mut self) {
        self.shown.left = self.shown.by_mark.len();
    }

    /// The description with this mark shows `content` from now on. Without a mark nobody can tell how long.
    pub fn show(&mut self, mark: Option<u64>, content: &Content) {
        let content = self.referred(Content {
            gpu: content.gpu,
            memory: content.memory.clone(),
        });
        match mark {
            Some(mark)
                if self.shown.by_mark.len() < MAXIMUM_SHOWN
                    && !self.shown.by_mark.contains_key(&mark) =>
            {
                self.shown.by_mark.insert(mark, content);
            }
            _ => self.keep_for_good(content),
        }
    }

    /// A description that showed something is gone.
    pub fn end_shown(&mut self, mark: u64) {
        if let Some(content) = self.shown.by_mark.remove(&mark) {
            self.release(content);
        }
    }

    /// Gives references back to what counts until the sandbox ends, whoever else refers to it.
    fn keep_for_good(&mut self, content: Content) {
        for key in &content.memory {
            if let Some(Allocation { bytes, .. }) = self.allocations.get_mut(*key) {
                // Once, however often it is shown: the bytes are moved.
                let bytes = std::mem::take(bytes);
                self.shown.for_good = self.shown.for_good.saturating_add(bytes);
            }
        }
        self.release(content);
    }
}

#[cfg(test)]
mod tests;
