//! The memory in which the driver finds the parameters of a pin.
//!
//! It is of memfd_secret(2), and mapped by the thread that issues the request and by the sentry. The kernel
//! lets nobody reach it but by a mapping: not by `/proc/PID/mem`, process_vm_writev(2) or ptrace(2), also not whoever had a
//! file of them open before, and is in no sandbox or in another one, where nobody is held. The driver's own copying is that
//! of the thread, and works as ever. It is used again only when it was seen to be unmapped: a program may keep what it was
//! made to map.
//!
//! Where the kernel has no such memory, it is private memory of the task's.
//!
//! `unsafe` is here for a mapping, and for reading and writing it.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{Pid, ftruncate};
use ringfence_faults::{Act, Point, at_task};
use ringfence_ipc::locks::IgnorePoison;

use crate::arch::{PAGE, RESULT_AT};
use crate::memory::{self, Write};
use crate::system_calls::memfd_secret;
use crate::warnings::warn_once;

const LENGTH: NonZeroUsize = NonZeroUsize::new(PAGE as usize).unwrap();

/// Memory that nobody else reaches, and the sentry's mapping of it.
pub(super) struct Secret {
    file: OwnedFd,
    page: NonNull<libc::c_void>,
}

// SAFETY: it is an address of this process, where only raw memory is.
unsafe impl Send for Secret {}
// SAFETY: the thread that carries out a pin writes, and those that read in the meantime do so while it waits for them.
unsafe impl Sync for Secret {}

impl Secret {
    /// What no call returns.
    const NO_RESULT: i64 = i64::MIN;

    /// Fails with `ENOMEM` if this process may not lock as much memory (`RLIMIT_MEMLOCK`).
    pub fn new() -> Result<Secret, Errno> {
        let file = memfd_secret()?;
        ftruncate(&file, PAGE as i64)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let page = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, &file, 0) };
        let page = page.map_err(|errno| match errno {
            Errno::EAGAIN => Errno::ENOMEM,
            errno => errno,
        })?;
        let secret = Secret { file, page };
        secret.expect_memory()?;
        Ok(secret)
    }

    /// Has the kernel write to it. Where there is no memory, that fails, and a write of this process's own would be its end.
    fn expect_memory(&self) -> Result<(), Errno> {
        // SAFETY: the kernel writes as many bytes as the page has at least.
        let written = unsafe { libc::getrandom(self.page.as_ptr(), 8, 0) };
        match Errno::result(written) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::ENOMEM),
        }
    }

    /// Fails with `E2BIG` if there is not as much room before the result.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > RESULT_AT {
            return Err(Errno::E2BIG);
        }
        // SAFETY: the page is mapped as long as this lives, and long enough.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.page.as_ptr().cast(), bytes.len());
        }
        Ok(())
    }

    /// The result that the helper has left; `None` if it has left none.
    pub fn result(&self) -> Option<i64> {
        let result = self.result_at();
        // SAFETY: the page is mapped as long as this lives, and the result lies in it.
        let result = unsafe { result.read_volatile() };
        (result != Secret::NO_RESULT).then_some(result)
    }

    /// From now on there is none.
    pub fn clear_result(&self) {
        // SAFETY: as above.
        unsafe { self.result_at().write_volatile(Secret::NO_RESULT) };
    }

    fn result_at(&self) -> *mut i64 {
        self.page.as_ptr().wrapping_byte_add(RESULT_AT).cast()
    }

    fn read(&self, bytes: &mut [u8]) -> Result<(), Errno> {
        if bytes.len() > RESULT_AT {
            return Err(Errno::E2BIG);
        }
        let from = self.page.as_ptr().cast_const().cast();
        // SAFETY: the page is mapped as long as this lives, and long enough.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping.
        let _ = unsafe { munmap(self.page, LENGTH.get()) };
    }
}

/// Where the parameters of a pin lie.
pub(super) enum Parameters {
    Secret(Secret),
    /// Memory of the task's, where the kernel has no other.
    Private,
}

impl Parameters {
    /// What is to be mapped; `None` if that is new private memory.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Parameters::Secret(secret) => Some(secret.file.as_fd()),
            Parameters::Private => None,
        }
    }

    /// Once `thread` has mapped it at `page`. A page is all that there is: `E2BIG`.
    pub fn write(&self, thread: Pid, page: u64, bytes: &[u8]) -> Result<(), Errno> {
        let address = page;
        match self {
            Parameters::Secret(secret) => secret.write(bytes),
            Parameters::Private => memory::write(thread, &[Write { address, bytes }]),
        }
    }

    /// The same.
    pub fn read(&self, thread: Pid, page: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        match self {
            Parameters::Secret(secret) => secret.read(bytes),
            Parameters::Private => memory::read(thread, page, bytes),
        }
    }
}

/// Where the memory of the next pin comes from. To make it takes a while, so it is made before somebody waits for it.
pub(super) struct Supply {
    /// Whether the kernel has no memory that nobody else reaches.
    is_missing: bool,
    next: Mutex<Option<Secret>>,
}

impl Supply {
    /// Finds out what the kernel has, before a program has a say in it.
    pub fn new() -> Supply {
        let supply = Supply {
            is_missing: memfd_secret().is_err(),
            next: Mutex::default(),
        };
        supply.stock();
        supply
    }

    /// Makes the memory of the next pin.
    pub fn stock(&self) {
        let mut next = self.next.lock().ignore_poison();
        if !self.is_missing && next.is_none() {
            // Who needs it is told.
            *next = Secret::new().ok();
        }
    }

    /// Takes back what a pin had, which no process has mapped any more.
    pub fn put_back(&self, parameters: Arc<Parameters>) {
        // Who answers the call of a pin may have it for a moment still.
        if let Some(Parameters::Secret(secret)) = Arc::into_inner(parameters) {
            *self.next.lock().ignore_poison() = Some(secret);
        }
    }

    /// For a pin of `task`.
    pub fn take(&self, task: Pid) -> Result<Parameters, Errno> {
        // A test has it as where the kernel has none, to show that it would notice.
        let is_left_out = at_task(Point::PinSecret, task.as_raw()) == Some(Act::Drop);
        if self.is_missing || is_left_out {
            return Ok(Parameters::Private);
        }
        let next = self.next.lock().ignore_poison().take();
        let secret = next.map_or_else(Secret::new, Ok).inspect_err(|errno| {
            warn_once(
                "no memory for what a pin asks of the driver; raise the limit of locked memory (ulimit -l)",
                errno,
            );
        })?;
        Ok(Parameters::Secret(secret))
    }
}
