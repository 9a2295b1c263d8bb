//! Memory of the host that tasks can have mapped, which counts for as long as they can.
//!
//! The driver keeps the pages of such memory, whoever frees the object, until the last mapping is gone
//! (`nv_alloc_release`, kernel-open/nvidia/nv.c, 580.142; `nvidia_vma_release`, nv-mmap.c). A mapping holds the description
//! that it was made through. So the idea: what a description was made to show (NV_ESC_RM_MAP_MEMORY) has one more reference, until
//! that description is gone, which the backend tells of descriptions that it has marked.
//!
//! What a program pins can be such a mapping, and the pin then holds the same pages (`os_lock_user_pages`,
//! kernel-open/nvidia/os-mlock.c). It is not looked which pages a pin holds. So what was shown when something was pinned
//! goes on counting until that is freed, too.
//!
//! Nobody is told of that moment; it is looked for where it can matter, as for address spaces of UVM, and when there are
//! twice as many as were left the last time.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use ringfence_faults::{Act, Point, at};

use super::{Allocation, Content, Handle, Key, Ledger, Pool};

/// Most descriptions of which it is known that they show something. What others show counts until the sandbox ends. PyTorch
/// was recorded to have some thirty for each process.
pub const MAXIMUM_SHOWN: usize = 1 << 12;

/// How many there are before it is looked which are gone.
const FEW: usize = 64;

/// Most that is shown no longer and that pins may hold. What is more counts until the sandbox ends.
const MAXIMUM_PINNED: usize = MAXIMUM_SHOWN;

/// What a description shows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Showing {
    content: Content,
    /// The earliest moment of a pin that can hold it.
    since: u64,
}

/// What is shown no longer, and what was pinned from one moment to another may hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MayBePinned {
    content: Content,
    since: u64,
    until: u64,
}

/// When something was pinned that has not been freed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pinned {
    /// Grows with everything that is pinned or shown.
    moment: u64,
    by_key: BTreeMap<Key, u64>,
    #[serde(skip)]
    moments: BTreeSet<u64>,
}

impl Pinned {
    /// Finds out what was not written for another server.
    pub fn restore(&mut self) {
        self.moments = self.by_key.values().copied().collect();
    }

    /// The driver keeps pages of a task from now on, as long as `key` is referred to.
    pub fn begin(&mut self, key: Key) {
        self.moment = self.moment.saturating_add(1);
        self.by_key.insert(key, self.moment);
        self.moments.insert(self.moment);
    }

    /// Nothing refers to `key` any more.
    pub fn end(&mut self, key: Key) {
        if let Some(moment) = self.by_key.remove(&key) {
            self.moments.remove(&moment);
        }
    }

    fn holds_some(&self, since: u64, until: u64) -> bool {
        since <= until
            && self.moments.range(since..=until).next().is_some()
            && at(Point::Kept) != Some(Act::Drop)
    }
}

/// What descriptions show, by their marks.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    by_mark: BTreeMap<u64, Showing>,
    pinned: Vec<MayBePinned>,
    /// How many were left when it was looked last.
    #[serde(skip)]
    left: usize,
    /// Bytes that count for good, since nobody can tell when they are gone.
    pub for_good: u64,
}

impl Shown {
    pub fn is_empty(&self) -> bool {
        self.by_mark.is_empty() && self.pinned.is_empty() && self.for_good == 0
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
                let since = self.moment_of_showing();
                self.shown.by_mark.insert(mark, Showing { content, since });
            }
            _ => self.keep_for_good(content),
        }
    }

    /// A description that showed something is gone.
    pub fn end_shown(&mut self, mark: u64) {
        let Some(Showing { content, since }) = self.shown.by_mark.remove(&mark) else {
            return;
        };
        let until = self.pinned.moment;
        if !self.pinned.holds_some(since, until) {
            self.release(content);
        } else if self.shown.pinned.len() < MAXIMUM_PINNED {
            self.shown.pinned.push(MayBePinned {
                content,
                since,
                until,
            });
        } else {
            self.keep_for_good(content);
        }
    }

    /// Gives back what no pin can hold any more. Whether there was anything.
    pub fn release_unpinned(&mut self) -> bool {
        let pinned = &self.pinned;
        let is_free = |held: &mut MayBePinned| !pinned.holds_some(held.since, held.until);
        let free: Vec<MayBePinned> = self.shown.pinned.extract_if(.., is_free).collect();
        let any = !free.is_empty();
        for MayBePinned { content, .. } in free {
            self.release(content);
        }
        any
    }

    /// The moment of what is shown now: that of the first pin which is under way, as nobody knows when its pages are taken.
    fn moment_of_showing(&mut self) -> u64 {
        self.pinned.moment = self.pinned.moment.saturating_add(1);
        let under_way = self
            .pins_under_way()
            .filter_map(|key| self.pinned.by_key.get(&key));
        under_way.min().copied().unwrap_or(self.pinned.moment)
    }

    /// Gives references back to what counts until the sandbox ends, whoever else refers to it.
    pub fn keep_for_good(&mut self, content: Content) {
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
