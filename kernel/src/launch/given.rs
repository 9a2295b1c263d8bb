//! Files and devices that the caller left open: what the program may do to them besides reading and writing.
//!
//! Whoever has a descriptor of a file can change the file's permissions, times and attributes, if the user may: also of one
//! that was opened to be read, as by `<FILE` in a shell. The kernel asks for the mount on which it was opened, which is the
//! host's. So what was given to be read is opened anew, on a mount that is read-only, and put in its place; and what every
//! sandbox has, as the null device, is the sandbox's own. What was given to be written is the program's in all of this.
//!
//! A file in memory (memfd_create(2), or what processes share without a name) is on no mount that can be read only, and Landlock
//! does not cover it: whoever has it to be read can open it anew to write. So one is refused unless it is sealed.
//!
//! Descriptors that are opened neither to be read nor to be written are refused before, in `descriptors.rs`.
//! Pipes are dealt with in `inputs.rs`. Sockets cannot be opened anew. Other files without a name are left as they are: their
//! content is kept by Landlock, and what they are like matters to nobody else.
//!
//! `unsafe` is here because descriptors are put in the place of others, which are inherited as bare numbers.

#![allow(unsafe_code)]

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode, fstat, major, stat};
use nix::unistd::{AccessFlags, Whence, faccessat, geteuid, lseek};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{ResolveFlags, openat2};

use super::mounts::{READ_ONLY, Tree};
use super::{descriptors, devices, inherited};

/// How the kernel calls files in memory that are on a mount of its own: of memfd_create(2), of shared mappings without a file, and
/// of System V's shared memory (`shmem_kernel_file_setup` and its callers, mm/shmem.c and ipc/shm.c).
const IN_MEMORY: [&[u8]; 3] = [b"/memfd:", b"/dev/zero (deleted)", b"/SYSV"];

/// What `/dev/null` and its like are to the kernel (devices.txt: memory devices).
const MEMORY_DEVICES: u64 = 1;

/// Opens anew, on a mount that is read-only, what was given to be read: the standard streams and `others`. The calling
/// process sees the host's files, `/proc` included, in a mount namespace of its own. Fails if the program could change a file
/// that cannot be opened so.
pub fn protect_files(others: &[OwnedFd]) -> Result<(), Failure> {
    let mut host = None;
    for descriptor in inherited(others) {
        let Some(file) = GivenToRead::look(descriptor) else {
            continue;
        };
        if is_left_out() {
            continue;
        }
        if file.status.st_nlink == 0 {
            file.refuse_memory()?;
            continue;
        }
        // One copy of the whole tree, so that files keep their names in /proc/self/fd, as far as their mount has them.
        let host = match &mut host {
            Some(host) => host,
            None => host.insert(
                Tree::copy(Path::new("/"))
                    .and_then(|tree| tree.with_attributes(READ_ONLY))
                    .attempt("a copy of the file system to read inherited files from")?,
            ),
        };
        match file.open_in(host) {
            // SAFETY: nothing reads the description by another number, or counts on it.
            Ok(anew) => unsafe { descriptors::put_in_place(&anew, descriptor.as_raw_fd()) }?,
            Err(_) if !file.can_be_changed() => {}
            Err(reason) => return Err(file.refused(reason)),
        }
    }
    Ok(())
}

/// Puts the sandbox's own devices, whose mounts are read-only, in the place of the host's.
pub fn replace_devices(others: &[OwnedFd]) -> Result<(), Failure> {
    for descriptor in inherited(others) {
        // There may be none of that number.
        let Ok(given) = fstat(descriptor) else {
            continue;
        };
        let is_memory =
            given.st_mode & libc::S_IFMT == libc::S_IFCHR && major(given.st_rdev) == MEMORY_DEVICES;
        if !is_memory || is_left_out() {
            continue;
        }
        let own = devices::harmless_paths().into_iter().find(|path| {
            stat(path.as_str()).is_ok_and(|own| {
                own.st_mode & libc::S_IFMT == libc::S_IFCHR && own.st_rdev == given.st_rdev
            })
        });
        let Some(path) = own else {
            continue;
        };
        let number = descriptor.as_raw_fd();
        let flags = fcntl(descriptor, FcntlArg::F_GETFL).map(kept_flags);
        let own = flags.and_then(|flags| open(path.as_str(), flags, Mode::empty()));
        let own = own.attempt(format_args!("descriptor {number}: {path} of the sandbox"))?;
        // SAFETY: nothing reads the description by another number, or counts on it.
        unsafe { descriptors::put_in_place(&own, number) }?;
    }
    Ok(())
}

/// For the tests of what happens without this.
fn is_left_out() -> bool {
    ringfence_faults::at(Point::Given) == Some(Act::Drop)
}

/// Of the flags of an open file those that its like is to be opened with.
fn kept_flags(flags: libc::c_int) -> OFlag {
    let kept = OFlag::O_ACCMODE | OFlag::O_NONBLOCK | OFlag::O_DIRECT;
    (OFlag::from_bits_retain(flags) & kept) | OFlag::O_CLOEXEC
}

/// A file that was opened to be read.
struct GivenToRead<'a> {
    descriptor: BorrowedFd<'a>,
    status: FileStat,
    flags: OFlag,
}

impl<'a> GivenToRead<'a> {
    /// `None` if it is something else, or nothing.
    fn look(descriptor: BorrowedFd<'a>) -> Option<GivenToRead<'a>> {
        let status = fstat(descriptor).ok()?;
        let flags = kept_flags(fcntl(descriptor, FcntlArg::F_GETFL).ok()?);
        let is = status.st_mode & libc::S_IFMT == libc::S_IFREG
            && flags & OFlag::O_ACCMODE == OFlag::O_RDONLY;
        is.then_some(GivenToRead {
            descriptor,
            status,
            flags,
        })
    }

    /// Opens the same file below `host`, at the same place of it.
    fn open_in(&self, host: &Tree) -> Result<OwnedFd, Errno> {
        let path = fs::read_link(self.link()).map_err(|error| errno(&error))?;
        // First so that it is not opened yet: by now it could be anything, a named pipe that waits for a writer say.
        let found = openat2(
            host,
            path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        );
        let found = found.map_err(|error| Errno::from_raw(error.raw_os_error()))?;
        let status = fstat(&found)?;
        if (status.st_dev, status.st_ino) != (self.status.st_dev, self.status.st_ino) {
            return Err(Errno::ESTALE);
        }
        let anew = format!("/proc/self/fd/{}", found.as_raw_fd());
        let anew = open(anew.as_str(), self.flags, Mode::empty())?;
        // A file of the kernel's may have no places.
        if let Ok(place) = lseek(self.descriptor, 0, Whence::SeekCur) {
            lseek(&anew, place, Whence::SeekSet)?;
        }
        Ok(anew)
    }

    /// Whether the user could change it. (One who is asked for with `--uid` is the caller of this.)
    fn can_be_changed(&self) -> bool {
        let flags = AtFlags::AT_EMPTY_PATH | AtFlags::AT_EACCESS;
        self.status.st_uid == geteuid().as_raw()
            || faccessat(self.descriptor, "", AccessFlags::W_OK, flags).is_ok()
    }

    /// Fails if this is a file in memory that the program could write.
    fn refuse_memory(&self) -> Result<(), Failure> {
        let path = fs::read_link(self.link()).unwrap_or_default();
        let name = path.as_os_str().as_bytes();
        let is_memory = IN_MEMORY.iter().any(|kind| name.starts_with(kind));
        if !is_memory || is_sealed(self.descriptor) || !self.can_be_changed() {
            return Ok(());
        }
        Err(Failure::setup(format!(
            "descriptor {} is of a file in memory that the program could write, though it was opened to be read: seal it against \
             writing, growing and shrinking (F_ADD_SEALS), or hand over what is in it through a pipe: {}",
            self.descriptor.as_raw_fd(),
            path.display(),
        )))
    }

    fn refused(&self, reason: Errno) -> Failure {
        let path = fs::read_link(self.link()).unwrap_or_default();
        Failure::setup(format!(
            "descriptor {} is of a file whose permissions and times the program could change, since it cannot be opened anew \
             to be read only: {}: {}: hand it over through a pipe, as with cat FILE | ringfence run ...",
            self.descriptor.as_raw_fd(),
            path.display(),
            reason.desc()
        ))
    }

    fn link(&self) -> String {
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd())
    }
}

/// Whether nobody can change what is in a file in memory.
fn is_sealed(memory: BorrowedFd<'_>) -> bool {
    let against = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    let seals = fcntl(memory, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    seals.is_ok_and(|seals| seals.contains(against))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
