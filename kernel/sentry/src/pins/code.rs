//! The instructions by which the threads that make calls for a pin make them.
//!
//! They lie in a file in memory, made once, whose seals let nobody write to it or to a mapping of it. A shared mapping of such
//! a file is none of those that the kernel writes to on a debugger's behalf, by `/proc/PID/mem` or process_vm_writev(2):
//! those have to be private, or writable (check_vma_flags in mm/gup.c). And what it writes on behalf of a task that ends takes
//! a writable page. So whoever maps it executes what is in it.
//!
//! `unsafe` is here for the mappings of a test.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::pwrite;

use crate::arch::{INSTRUCTIONS, PAGE, SEQUENCE, SEQUENCE_AT};

/// A file of a page with one that makes a call, and those that do all that a helper does for a request.
pub(super) struct Code(OwnedFd);

impl Code {
    /// Fails as memfd_create(2) does.
    pub fn new() -> Result<Code, Errno> {
        make()
            .map(Code)
            .map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn make() -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // It cannot be executed as a program, and so is let be made whatever vm.memfd_noexec says (Linux 6.3).
    let file = match memfd_create(c"instruction", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => memfd_create(c"instruction", flags),
        made => made,
    }?;
    pwrite(&file, &INSTRUCTIONS, 0)?;
    pwrite(&file, &SEQUENCE, SEQUENCE_AT as u64)?;
    ftruncate(&file, PAGE)?;
    // What is sealed against future writes can be mapped to be shared, what is sealed against all of them can not before
    // Linux 6.7.
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect};

    use super::*;

    const LENGTH: NonZeroUsize = NonZeroUsize::new(PAGE as usize).unwrap();

    /// Whoever is given the file can only map it.
    #[test]
    fn nobody_can_write_to_it() {
        let code = Code::new().expect("a file");
        assert_eq!(pwrite(code.file(), &[0], 0), Err(rustix::io::Errno::PERM));
        let read = ProtFlags::PROT_READ | ProtFlags::PROT_EXEC;
        let written = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let map = |protection| {
            // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
            unsafe {
                mmap(
                    None,
                    LENGTH,
                    protection,
                    MapFlags::MAP_SHARED,
                    code.file(),
                    0,
                )
            }
        };
        assert_eq!(map(written).err(), Some(Errno::EPERM));
        let page = map(read).expect("a mapping");
        // SAFETY: nothing borrows from the mapping.
        let changed = unsafe { mprotect(page, LENGTH.get(), written) };
        assert_eq!(changed, Err(Errno::EACCES));
        let mut memory = std::fs::OpenOptions::new();
        let memory = memory.write(true).open("/proc/self/mem").expect("memory");
        let written = std::os::unix::fs::FileExt::write_at(&memory, &[0], page.as_ptr() as u64);
        let error = written.expect_err("a refusal");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
}
