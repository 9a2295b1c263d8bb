//! Which of the tasks' descriptions of UVM a request came on, and whether one is still open.
//!
//! The server keeps no reference to these, so that their last close is the task's. The idea: before a description is
//! granted, one byte is locked on it that is locked on no other, with a lock that belongs to the open file description
//! (F_OFD_SETLK, fcntl(2)). Such a lock lasts as long as the description, wherever it goes; it is in everybody's way but
//! its own. So a mark that is in the way of a description of the server's own is of one that is still open, and if it is
//! not in the way of a descriptor that came with a request, that is the one.
//!
//! The task's filter refuses F_OFD_SETLK, by which a task could take a mark away. The other kind of lock, that of a process,
//! does not undo it. It can be in the way of a new mark, also from another sandbox, since the node is the same: what cannot
//! be marked is granted all the same, and counts as open for as long as the sandbox lives.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Most descriptions that are marked at a time. Telling which of them a request came on takes a system call for each, and
/// each of those looks at the marks of all sandboxes.
const MAXIMUM_MARKS: usize = 256;
/// How many bytes are tried.
const TRIES: usize = 8;
/// Where the marks lie: above what anybody locks for a reason, below what a file can have, and apart from what the
/// server calls other descriptions.
const MARKS: std::ops::Range<u64> = 1 << 61..1 << 62;

/// The marks of one sandbox.
#[derive(Default)]
pub struct Marks {
    /// A description of the server's own.
    reference: OnceLock<OwnedFd>,
    marked: Mutex<BTreeSet<u64>>,
}

impl Marks {
    /// Marks that others have made, which are still there.
    pub fn restored(marked: BTreeSet<u64>) -> Marks {
        Marks {
            reference: OnceLock::new(),
            marked: Mutex::new(marked),
        }
    }

    /// What [`Marks::restored`] needs.
    pub fn marked(&self) -> BTreeSet<u64> {
        self.lock().clone()
    }

    /// Marks a description that nobody else has yet. `open` opens another of the same node.
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
        for _ in 0..TRIES {
            let mark = MARKS.start + RandomState::new().hash_one(()) % (MARKS.end - MARKS.start);
            match fcntl(description, FcntlArg::F_OFD_SETLK(&lock_of(mark))) {
                Ok(_) => {
                    marked.insert(mark);
                    return Ok(());
                }
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
        let Ok(reference) = self.reference(open) else {
            return Vec::new();
        };
        let ended = marks
            .iter()
            .filter(|mark| MARKS.contains(mark) && is_in_the_way(reference, **mark) == Ok(false));
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
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock_of(mark: u64) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: mark as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

/// Whether a description's lock on `mark` is in the way of another one's. A lock of a process there is not what was asked
/// for: the mark that kept it away is gone.
fn is_in_the_way(of: impl AsFd, mark: u64) -> Result<bool, Errno> {
    let mut lock = lock_of(mark);
    fcntl(of, FcntlArg::F_OFD_GETLK(&mut lock))?;
    // The number of a description's lock, where that of a process would be (fcntl(2)).
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid == -1)
}

#[cfg(test)]
mod tests;
