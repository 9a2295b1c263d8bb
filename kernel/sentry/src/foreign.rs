//! The driver's words on descriptors that are not the driver's.
//!
//! The filter stops a word by its number and its size, and knows nothing of the descriptor. To let such a call run after
//! having looked at the descriptor would let a second thread put one of the driver's in its place. So every such call is
//! answered here, on a duplicate of the exact description that was looked at: `ENOTTY`, as by any file that does not
//! know a word, but for the few words that mean something to other files as well. They are a fixed list, each for
//! certain kinds of files only: none that could keep the sentry waiting, like a terminal or a file that another process
//! serves (FUSE). And none is carried out by an ioctl, whose words would have to be in the sentry's own filter: there
//! they would serve a sentry that was taken over to reach the driver.
//!
//! What else has a word of the driver's needs a device that no sandbox opens (TUN, KVM, video), or an administrator. The
//! file layer's own words that are stopped are on the list.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl};
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::unistd::{Whence, lseek};
use ringfence_faults::{Act, Point, at_task};

use super::receivers::Turn;
use super::{Sentry, memory};
use crate::seccomp::listener::{Listener, Notification};

/// A word, as the file layer of the kernel understands it (`file_ioctl`, fs/ioctl.c), for regular files.
struct Word {
    word: u32,
    answer: fn(&Listener, &Notification, &OwnedFd, &FileStat) -> Result<i64, Errno>,
}

/// `FIBMAP` and `FS_IOC_UNRESVSP64` of linux/fs.h and linux/falloc.h.
static REGULAR: &[Word] = &[
    Word {
        word: 1,
        answer: |_, _, _, _| Err(Errno::EPERM), // It takes CAP_SYS_RAWIO, which no task has.
    },
    Word {
        word: 0x4030_582b,
        answer: punch_hole,
    },
];

/// File systems in the kernel itself, whose regular files answer.
pub const LOCAL: [FsType; 5] = [
    statfs::BTRFS_SUPER_MAGIC,
    statfs::EXT4_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::XFS_SUPER_MAGIC,
];
/// Of linux/magic.h.
const F2FS_SUPER_MAGIC: FsType = FsType(0xf2f5_2010);

/// Answers a call on a descriptor that is not the driver's, of which `copy` is a duplicate.
pub fn answer(sentry: &Sentry, notification: &Notification, copy: &OwnedFd, turn: &mut Turn<'_>) {
    // For the test of what comes of letting it run.
    if at_task(Point::Foreign, notification.task.as_raw()) == Some(Act::Drop) {
        return sentry.listener.let_run(notification);
    }
    let outcome = outcome(&sentry.listener, notification, copy, turn);
    sentry.listener.answer(notification, outcome);
}

fn outcome(
    listener: &Listener,
    notification: &Notification,
    copy: &OwnedFd,
    turn: &mut Turn<'_>,
) -> Result<i64, Errno> {
    // A descriptor that names a file without having opened it (open(2)).
    if fcntl(copy, FcntlArg::F_GETFL)? & libc::O_PATH != 0 {
        return Err(Errno::EBADF);
    }
    let word = notification.arguments[1] as u32;
    let known = REGULAR.iter().find(|known| known.word == word);
    let known = known.ok_or(Errno::ENOTTY)?;
    let status = fstat(copy)?;
    if status.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(Errno::ENOTTY);
    }
    // It may take as long as it takes the file system.
    turn.pass_on();
    (known.answer)(listener, notification, copy, &status)
}

/// Frees a part of a file, as `ioctl_preallocate` (fs/ioctl.c) has it done.
fn punch_hole(
    listener: &Listener,
    notification: &Notification,
    copy: &OwnedFd,
    status: &FileStat,
) -> Result<i64, Errno> {
    let kind = fstatfs(copy)?.filesystem_type();
    if !LOCAL.contains(&kind) {
        return Err(Errno::ENOTTY);
    }
    // struct space_resv: where from (2 bytes at 2), which byte (8 at 8) and how many (8 at 16).
    let mut range = [0u8; 48];
    memory::read(notification.task, notification.arguments[2], &mut range)?;
    // Both the file and what is to be done with it were the task's if it has waited all the time.
    listener.expect_waiting(notification)?;
    let ([_, _, low, high, ..], [start, length, ..]) = (range, range[8..].as_chunks().0) else {
        return Err(Errno::EFAULT);
    };
    let (start, length) = (i64::from_ne_bytes(*start), i64::from_ne_bytes(*length));
    let from = match i32::from(i16::from_ne_bytes([low, high])) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => lseek(copy, 0, Whence::SeekCur)?,
        libc::SEEK_END => status.st_size,
        _ => return Err(Errno::EINVAL),
    };
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(copy, flags, from.wrapping_add(start), length)?;
    Ok(0)
}
