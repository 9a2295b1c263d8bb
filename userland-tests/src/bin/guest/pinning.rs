//! Memory of the program's own, and pinning it.
//!
//! `unsafe` is here for a mapping.

#![allow(unsafe_code)]

use std::time::Instant;

use nix::errno::Errno;
use nvproxy_abi::number::NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
use nvproxy_abi::status::{NV_ERR_INSERT_DUPLICATE_NAME, NV_ERR_OBJECT_NOT_FOUND};
use nvproxy_sim::structs::frontend::nv_ioctl_nvos02_parameters_with_fd;
use ringfence::guest::{Error, Result};
use zerocopy::FromZeros;

use crate::gpu::{DEVICE, Gpu, LIMIT, MEMORY};

/// Bytes of [`Pages`].
pub const LENGTH: usize = 64 << 10;

/// Memory to be pinned.
pub struct Pages(*mut u8);

// SAFETY: it is an address and nothing more.
unsafe impl Sync for Pages {}

impl Pages {
    /// Fresh ones, private or shared.
    pub fn new(sharing: libc::c_int) -> Result<Pages> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            sharing | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(Errno::last().into());
        }
        Ok(Pages(address.cast()))
    }

    /// Where they lie.
    pub fn address(&self) -> *mut u8 {
        self.0
    }
}

/// Pins the pages as `memory`.
pub fn pin(gpu: &Gpu, memory: u32, pages: &Pages) -> Result<()> {
    patiently(|| pin_at_once(gpu, memory, pages))
}

/// Pins once more as long as the others could not be stopped in time (README.md, Known limits), which is so of any pin now and
/// then where others keep the processors.
pub fn patiently(mut pin: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match pin() {
            Err(Error::Errno(Errno::EAGAIN)) if Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

/// Tries once to pin the pages as `memory`.
pub fn pin_at_once(gpu: &Gpu, memory: u32, pages: &Pages) -> Result<()> {
    gpu.client.pin(&gpu.node, DEVICE, memory, pages.0, LENGTH)
}

/// Pins, sees that the object is there, and frees it.
pub fn pin_and_free(gpu: &Gpu, memory: u32, pages: &Pages) -> Result<()> {
    pin(gpu, memory, pages)?;
    match pin(gpu, memory, pages) {
        Err(Error::Status(NV_ERR_INSERT_DUPLICATE_NAME)) => gpu.free(memory),
        Ok(()) => Err(Error::Status(NV_ERR_OBJECT_NOT_FOUND)),
        failed => failed,
    }
}

/// Pins memory of this process, and frees it.
pub fn pin_once(gpu: &Gpu, memory: u32) -> Result<()> {
    pin_and_free(gpu, memory, &Pages::new(libc::MAP_PRIVATE)?)
}

/// The request that pins as `MEMORY`, up to this limit.
pub fn request(gpu: &Gpu, pages: &Pages, limit: u64) -> nv_ioctl_nvos02_parameters_with_fd {
    let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    request.params.hRoot = gpu.client.root;
    request.params.hObjectParent = DEVICE;
    request.params.hObjectNew = MEMORY;
    request.params.hClass = NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
    // As libcuda pins (kernel/src/guest.rs).
    request.params.flags = 0x4000_0000 | 1 << 12 | 1 << 4;
    request.params.pMemory = pages.address() as u64;
    request.params.limit = limit;
    request.fd = -1;
    request
}
