//! Locks that belong to an open file description (F_OFD_SETLK, fcntl(2)), by which it is told whether one is still there.
//!
//! The idea: such a lock lasts as long as its description does, and so as long as anything refers to that: a descriptor,
//! wherever it went, or a mapping that was made through one. It is in everybody's way but its own. Who has another
//! description of the same file sees whether it is there. Callers make sure that whoever has the description cannot unlock.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Locks the byte at `at`. Fails with `EAGAIN` or `EACCES` if a lock is there that is not this description's.
pub fn lock(description: impl AsFd, at: u64) -> Result<(), Errno> {
    fcntl(description, FcntlArg::F_OFD_SETLK(&lock_of(at))).map(drop)
}

/// Whether a description's lock on the byte at `at` is in the way of another one's. A lock of a process there is not what was
/// asked for: the one that kept it away is gone.
pub fn is_in_the_way(of: impl AsFd, at: u64) -> Result<bool, Errno> {
    let mut lock = lock_of(at);
    fcntl(of, FcntlArg::F_OFD_GETLK(&mut lock))?;
    // The number of a description's lock, where that of a process would be (fcntl(2)).
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid == -1)
}

/// A lock for writing on one byte.
pub fn lock_of(at: u64) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}
