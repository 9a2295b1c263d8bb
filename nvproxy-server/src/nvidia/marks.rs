//! Which of the tasks' descriptions of UVM a request came on, and whether one is still open; and whether one is, of those of
//! `nvidiactl` through which tasks can have mapped memory.
//!
//! The server keeps no reference to these, so that their last close is the task's. The idea: before a description of UVM is
//! granted, or when one of `nvidiactl` was made to show memory, one byte is locked on it that is locked on no other
//! ([`crate::locks`]). So a mark that is in the way of a description of the server's own is of one that is still open, and if
//! it is not in the way of a descriptor that came with a request, that is the one.
//!
//! The task's filter refuses F_OFD_SETLK, by which a task could take a mark away. The other kind of lock, that of a process,
//! does not undo it. It can be in the way of a new mark, also from another sandbox, since the node is the same: what cannot
//! be marked is granted all the same, and counts as open for as long as the sandbox lives.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock};

use nix::errno::Errno;
use ringfence_ipc::locks::IgnorePoison;

use crate::locks::{is_in_the_way, lock};

/// Most descriptions that are marked at a time. Telling which of them a request came on takes a system call for each, and
/// each of those looks at the marks of all sandboxes.
const MAXIMUM_MARKS: usize = 256;
/// How many bytes are tried.
const TRIES: usize = 8;
/// Where the marks lie: above what anybody locks for a reason, below what a file can have, and apart from what the
/// server calls other descriptions. Names tell of which node a marked description is.
const OF_UVM: Range<u64> = 1 << 61..1 << 62;
const OF_CONTROL: Range<u64> = 1 << 60..1 << 61;

/// The marks of one sandbox on the descriptions of one node.
pub struct Marks {
    place: Range<u64>,
    /// A description of the server's own.
    reference: OnceLock<OwnedFd>,
    marked: Mutex<BTreeSet<u64>>,
}

impl Marks {
    /// Marks on descriptions of `nvidia-uvm`, with those that others have made, which are still there.
    pub fn of_uvm(marked: BTreeSet<u64>) -> Marks {
        Marks {
            place: OF_UVM,
            reference: OnceLock::new(),
            marked: Mutex::new(marked),
        }
    }

    /// Marks on descriptions of `nvidiactl`. Whoever asks for them keeps their names.
    pub fn of_control() -> Marks {
        Marks {
            place: OF_CONTROL,
            reference: OnceLock::new(),
            marked: Mutex::default(),
        }
    }

    /// What [`Marks::of_uvm`] needs.
    pub fn marked(&self) -> BTreeSet<u64> {
        self.lock().clone()
    }

    /// Marks a description that nobody else has yet, so that it can be told from the others. `open` opens another of the same node.
    pub fn mark(
        &self,
        description: BorrowedFd<'_>,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<(), Errno> {
        let reference = self.reference(open)?;
        let mut marked = self.lock();
        if marked.len() >= MAXIMUM_MARKS {
            marked.retain(|mark| is_in_the_way(reference, *mark) != Ok(false));
        }
        if marked.len() >= MAXIMUM_MARKS {
            return Err(Errno::ENOLCK);
        }
        marked.insert(self.place(description)?);
        Ok(())
    }

    /// Puts a mark on a description, which may have others, and returns its name.
    pub fn place(&self, description: BorrowedFd<'_>) -> Result<u64, Errno> {
        let Range { start, end } = self.place.clone();
        for _ in 0..TRIES {
            let mark = start + RandomState::new().hash_one(()) % (end - start);
            match lock(description, mark) {
                Ok(()) => return Ok(mark),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EAGAIN)
    }

    /// The mark of a description that is held while it is looked for.
    pub fn of(&self, description: BorrowedFd<'_>) -> Option<u64> {
        let reference = self.reference.get()?;
        let marked = self.lock();
        let mut marks = marked.iter();
        let own = marks.find(|mark| {
            is_in_the_way(description, **mark) == Ok(false)
                && is_in_the_way(reference, **mark) == Ok(true)
        });
        own.copied()
    }

    /// Which of `marks` are of descriptions that are gone.
    pub fn ended(&self, marks: &[u64], open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Vec<u64> {
        let of_this_node = marks.iter().filter(|mark| self.place.contains(mark));
        let of_this_node: Vec<&u64> = of_this_node.collect();
        // Nothing is opened for nothing.
        if of_this_node.is_empty() {
            return Vec::new();
        }
        let Ok(reference) = self.reference(open) else {
            return Vec::new();
        };
        let ended = of_this_node
            .into_iter()
            .filter(|mark| is_in_the_way(reference, **mark) == Ok(false));
        ended.copied().collect()
    }

    fn reference(&self, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<&OwnedFd, Errno> {
        if let Some(reference) = self.reference.get() {
            return Ok(reference);
        }
        let opened = open()?;
        Ok(self.reference.get_or_init(|| opened))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.marked.lock().ignore_poison()
    }
}

#[cfg(test)]
mod tests;
