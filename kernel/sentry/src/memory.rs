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

/// Reads up to `buffer.len()` bytes and returns how many there are before the first page that cannot be read.
pub fn read_some(task: Pid, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    // The kernel stops at an element that it cannot read whole, so each page gets its own.
    const PAGE: usize = 4096;
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
