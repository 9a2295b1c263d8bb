//! What stands behind the descriptor that a task holds: a memory file, which a task maps as it would map a device.
//!
//! Every simulated description has a file of its own. The task's descriptor is a second open file description of it,
//! made through `/proc/self/fd`, so that its inode tells which description is meant and its last close is the task's.
//! A task can do to the file what one can do to any memory file, truncating it included, so the simulator never maps
//! one: it reads and writes them with system calls, which fail where a mapping would fault.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{Whence, lseek};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use super::encoding::{Tabled, descriptor};
use nvproxy_server::locks;

/// Where a process finds its descriptors.
const PATH: &str = "/proc/self/fd";
/// The byte that is locked on a task's description: above what anybody locks for a reason.
const MARK: u64 = 1 << 61;
/// How many bytes are copied at a time.
const COPY_BYTES: usize = 64 << 10;

/// Which file a descriptor is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub fn of(descriptor: BorrowedFd<'_>) -> Result<Inode, Errno> {
        let FileStat { st_dev, st_ino, .. } = fstat(descriptor)?;
        Ok(Inode {
            device: st_dev,
            number: st_ino,
        })
    }
}

/// The directory `/proc/self/fd`, opened once, so that a process which later gives up its file system can still open
/// its descriptors anew. It is a mount of its own, from which `..` does not lead to the rest of `/proc`.
pub struct OwnDescriptors(OwnedFd);

impl OwnDescriptors {
    pub fn open() -> Result<OwnDescriptors, Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        match open_tree(CWD, PATH, flags) {
            Ok(directory) => Ok(OwnDescriptors(directory)),
            // Whoever may not mount, as who runs a test, is not about to give anything up.
            Err(rustix::io::Errno::PERM) => {
                let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
                open(PATH, flags, Mode::empty()).map(OwnDescriptors)
            }
            Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
        }
    }

    /// A new open file description of the file behind `descriptor`.
    fn reopen(&self, descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let name = descriptor.as_raw_fd().to_string();
        openat(
            self.0.as_fd(),
            name.as_str(),
            OFlag::O_RDWR | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    }
}

/// An empty memory file. The name appears in `/proc/PID/fd`.
pub fn memory_file(name: &str) -> Result<OwnedFd, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
}

/// The memory file of one description.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backing {
    #[serde(with = "descriptor")]
    file: File,
    inode: Inode,
}

impl Tabled for Backing {
    const NAME: &str = "backings";
}

impl Backing {
    /// Makes an empty file. The second of the pair is the description for the task.
    pub fn create(name: &str, own: &OwnDescriptors) -> Result<(Backing, OwnedFd), Errno> {
        let file = memory_file(name)?;
        let granted = own.reopen(file.as_fd())?;
        let inode = Inode::of(file.as_fd())?;
        Ok((
            Backing {
                file: file.into(),
                inode,
            },
            granted,
        ))
    }

    /// Whether the descriptor is of the file that it is said to be of, which a restored one may not be.
    pub fn is_itself(&self) -> bool {
        Inode::of(self.file.as_fd()) == Ok(self.inode)
    }

    pub fn inode(&self) -> Inode {
        self.inode
    }

    /// Locks the task's description of the file for as long as it lasts.
    pub fn mark(&self, granted: BorrowedFd<'_>) -> Result<(), Errno> {
        locks::lock(granted, MARK)
    }

    /// Whether that description is gone.
    pub fn has_lost_its_mark(&self) -> bool {
        locks::is_in_the_way(self.file.as_fd(), MARK) == Ok(false)
    }

    /// Makes the file `bytes` long; new bytes are zeros and take no memory until they are written.
    pub fn set_length(&self, bytes: u64) -> Result<(), Errno> {
        self.file.set_len(bytes).map_err(errno)
    }

    /// From now on a shared, writable mapping of the file fails with EPERM.
    pub fn refuse_writable_mappings(&self) -> Result<(), Errno> {
        fcntl(
            self.file.as_fd(),
            FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE),
        )
        .map(drop)
    }

    /// Copies `length` bytes at `from` of `source` to `to` of this file. Holes are skipped: they are holes or zeros
    /// here already, since a file is filled once, before a task can have mapped it for the first time.
    pub fn copy(&self, source: &Backing, from: u64, to: u64, length: u64) -> Result<(), Errno> {
        let end = from.saturating_add(length);
        let mut at = from;
        while at < end {
            let Some((start, stop)) = source.next_data(at)? else {
                break;
            };
            self.copy_data(
                source,
                start,
                to + (start - from),
                stop.min(end).saturating_sub(start),
            )?;
            at = stop;
        }
        Ok(())
    }

    /// The first run of bytes at or after `at` that is not a hole.
    fn next_data(&self, at: u64) -> Result<Option<(u64, u64)>, Errno> {
        let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        let start = match lseek(self.file.as_fd(), at, Whence::SeekData) {
            Err(Errno::ENXIO) => return Ok(None),
            found => found?,
        };
        let stop = lseek(self.file.as_fd(), start, Whence::SeekHole)?;
        Ok(Some((start as u64, stop as u64)))
    }

    fn copy_data(
        &self,
        source: &Backing,
        mut from: u64,
        mut to: u64,
        mut length: u64,
    ) -> Result<(), Errno> {
        let mut buffer = vec![0; COPY_BYTES];
        while length > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(length).unwrap_or(usize::MAX));
            let read = source
                .file
                .read_at(&mut buffer[..want], from)
                .map_err(errno)?;
            if read == 0 {
                break; // The task has truncated the file meanwhile.
            }
            self.file.write_all_at(&buffer[..read], to).map_err(errno)?;
            (from, to, length) = (from + read as u64, to + read as u64, length - read as u64);
        }
        Ok(())
    }
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
