//! Task memory: read once when a request arrives, written once when it is done.
//!
//! A task is named by its number. The sentry lives in a process namespace that holds nothing but the tasks and init, so a
//! number that outlived its task cannot lead out of the sandbox. That it leads to another task of it is noticed by the
//! callers, who ask whether the task still waits: see [`crate::seccomp::listener::Listener::expect_waiting`].

use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use smallvec::SmallVec;

/// Fills `buffer` from `address` of `task`. Fails with `EFAULT` if not all of it can be read.
pub fn read(task: Pid, address: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let length = buffer.len();
    let remote = [RemoteIoVec {
        base: address as usize,
        len: length,
    }];
    match process_vm_readv(task, &mut [IoSliceMut::new(buffer)], &remote) {
        Ok(read) if read == length => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(errno) => Err(errno),
    }
}

/// Bytes that are read beyond what was asked for, where more will be.
const AHEAD: usize = 512;
const PAGE: usize = 4096;

/// What was read of a task's memory beyond what was asked for.
///
/// A request often points to parameters that its maker has on the stack, right above the request: a third of those of a CUDA
/// program on an H200 lie within 512 bytes, and nearly all others more than 4 KiB away. Those are read along, which spares a further
/// call. What was read so is as old as the request itself. It is never of a further page, which may be one that
/// somebody has to fetch first (userfaultfd(2), FUSE).
pub struct Ahead {
    task: Pid,
    /// Where what was read begins.
    from: u64,
    length: usize,
    bytes: [u8; AHEAD],
}

impl Ahead {
    /// Nothing yet.
    pub fn of(task: Pid) -> Ahead {
        Ahead {
            task,
            from: 0,
            length: 0,
            bytes: [0; AHEAD],
        }
    }

    /// As [`read`]. Reads further if there is `more` to come, and takes from what was read so before.
    pub fn read(&mut self, address: u64, buffer: &mut [u8], more: bool) -> Result<(), Errno> {
        if let Some(known) = self.known(address, buffer.len()) {
            buffer.copy_from_slice(known);
            return Ok(());
        }
        if !more {
            return read(self.task, address, buffer);
        }
        let length = buffer.len();
        let end = address.saturating_add(length as u64);
        let rest_of_the_page = (end as usize).wrapping_neg() % PAGE;
        // Each element is read whole or not at all, up to the first that is not.
        let remote = [
            RemoteIoVec {
                base: address as usize,
                len: length,
            },
            RemoteIoVec {
                base: end as usize,
                len: AHEAD.min(rest_of_the_page),
            },
        ];
        let mut local = [IoSliceMut::new(buffer), IoSliceMut::new(&mut self.bytes)];
        let read = process_vm_readv(self.task, &mut local, &remote)?;
        let further = read.checked_sub(length).ok_or(Errno::EFAULT)?;
        (self.from, self.length) = (end, further.min(AHEAD));
        Ok(())
    }

    fn known(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(self.from)?).ok()?;
        let known = self.bytes.get(..self.length)?;
        known.get(start..start.checked_add(length)?)
    }
}

/// Reads up to `buffer.len()` bytes and returns how many there are before the first page that cannot be read.
pub fn read_some(task: Pid, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    // The kernel stops at an element that it cannot read whole, so each page gets its own.
    let mut remote: SmallVec<[RemoteIoVec; 4]> = SmallVec::new();
    let mut base = address as usize;
    let end = base.saturating_add(buffer.len());
    while base < end {
        let next = ((base / PAGE + 1) * PAGE).min(end);
        remote.push(RemoteIoVec {
            base,
            len: next - base,
        });
        base = next;
    }
    process_vm_readv(task, &mut [IoSliceMut::new(buffer)], &remote)
}

/// A part of a task's memory and what is to be written there.
pub struct Write<'a> {
    pub address: u64,
    pub bytes: &'a [u8],
}

/// Writes all `parts` to the memory of `task`. Fails with `EFAULT` if not all of it can be written.
pub fn write(task: Pid, parts: &[Write<'_>]) -> Result<(), Errno> {
    let local: SmallVec<[IoSlice<'_>; 4]> =
        parts.iter().map(|part| IoSlice::new(part.bytes)).collect();
    let remote: SmallVec<[RemoteIoVec; 4]> = parts
        .iter()
        .map(|part| RemoteIoVec {
            base: part.address as usize,
            len: part.bytes.len(),
        })
        .collect();
    let length: usize = parts.iter().map(|part| part.bytes.len()).sum();
    if length == 0 {
        return Ok(());
    }
    match process_vm_writev(task, &local, &remote) {
        Ok(written) if written == length => Ok(()),
        Ok(_) => Err(Errno::EFAULT),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 16;

    /// Reads the first bytes of `memory`, changes the rest, and reads `count` bytes from `at` on.
    fn then(more: bool, at: usize, count: usize) -> Vec<u8> {
        let mut memory = vec![1u8; 2 * PAGE];
        let start = memory.as_ptr().align_offset(PAGE) + PAGE / 2;
        let address = memory.as_ptr() as u64 + start as u64;
        let mut ahead = Ahead::of(Pid::this());
        ahead.read(address, &mut [0; LENGTH], more).expect("memory");
        memory.fill(2);
        let mut read = vec![0; count];
        let from = address + at as u64;
        ahead.read(from, &mut read, false).expect("memory");
        assert_eq!(memory, [2; 2 * PAGE]);
        read
    }

    #[test]
    fn what_lies_close_behind_is_read_along_where_more_is_to_come() {
        assert_eq!(then(true, LENGTH, AHEAD), [1; AHEAD]);
        assert_eq!(then(true, LENGTH + 8, 4), [1; 4]);
        assert_eq!(then(false, LENGTH, 4), [2; 4]);
    }

    #[test]
    fn what_was_not_read_along_whole_is_read_now() {
        assert_eq!(then(true, 0, LENGTH + 4), [2; LENGTH + 4]);
        assert_eq!(then(true, LENGTH - 1, 4), [2; 4]);
        assert_eq!(then(true, LENGTH + 1, AHEAD), [2; AHEAD]);
    }

    #[test]
    fn nothing_is_read_along_of_a_further_page() {
        let memory = vec![1u8; 3 * PAGE];
        let page = memory.as_ptr() as u64 + memory.as_ptr().align_offset(PAGE) as u64;
        let mut ahead = Ahead::of(Pid::this());
        for (before, along) in [(LENGTH, 0), (LENGTH + 8, 8), (LENGTH + AHEAD + 8, AHEAD)] {
            let address = page + PAGE as u64 - before as u64;
            ahead.read(address, &mut [0; LENGTH], true).expect("memory");
            assert_eq!(ahead.length, along);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_read() {
        let mut ahead = Ahead::of(Pid::this());
        for (address, more) in [(0, false), (0, true), (u64::MAX - 4, true)] {
            let read = ahead.read(address, &mut [0; LENGTH], more);
            assert_eq!(read, Err(Errno::EFAULT));
        }
    }
}
