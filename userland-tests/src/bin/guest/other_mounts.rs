//! Ways to another mount namespace that no `/proc` shows: by the number that the kernel has given it, or by a handle of it.
//!
//! The idea: the first namespaces of a machine have small numbers, and the first mount namespace has a known inode
//! (`MNT_NS_INIT_INO` of linux/nsfs.h). So a program tries numbers, and says whether it sees a mount point that its own namespace does not have.
//!
//! `unsafe` is here for system calls that have no wrapper.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::Outcome;

const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;

/// The numbers that are tried.
const NUMBERS: std::ops::Range<u64> = 1..0x1_0000;

/// `struct mnt_id_req` of linux/mount.h.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
    namespace: u64,
}

/// `LSMT_ROOT` and `STATMOUNT_MNT_POINT`.
const ALL_MOUNTS: u64 = u64::MAX;
const POINT: u64 = 0x10;

impl Request {
    fn new(namespace: u64, mount: u64, parameter: u64) -> Request {
        Request {
            size: size_of::<Request>() as u32,
            spare: 0,
            mount,
            parameter,
            namespace,
        }
    }
}

/// The numbers of a namespace's mounts.
fn list(namespace: u64) -> Result<Vec<u64>, Errno> {
    let request = Request::new(namespace, ALL_MOUNTS, 0);
    let mut mounts = vec![0_u64; 1024];
    // SAFETY: the kernel reads the request, and writes at most as many numbers as are said.
    let count = unsafe {
        libc::syscall(
            SYS_LISTMOUNT,
            &raw const request,
            mounts.as_mut_ptr(),
            mounts.len(),
            0,
        )
    };
    mounts.truncate(Errno::result(count)? as usize);
    Ok(mounts)
}

/// `struct statmount`: where the mount point's place among the strings stands, and where the strings begin.
const PLACE: std::ops::Range<usize> = 108..112;
const STRINGS: usize = 512;

fn is_mounted_at(namespace: u64, mount: u64, point: &str) -> bool {
    let request = Request::new(namespace, mount, POINT);
    let mut found = vec![0_u8; 8192];
    // SAFETY: the kernel reads the request, and writes at most as many bytes as are said.
    let result = unsafe {
        libc::syscall(
            SYS_STATMOUNT,
            &raw const request,
            found.as_mut_ptr(),
            found.len(),
            0,
        )
    };
    let place = found[PLACE].try_into().map_or(0, u32::from_ne_bytes);
    let text = found.get(STRINGS + place as usize..).unwrap_or_default();
    let text = CStr::from_bytes_until_nul(text).unwrap_or_default();
    result == 0 && text.to_bytes() == point.as_bytes()
}

fn is_listed(point: &str) -> Result<bool, Errno> {
    for namespace in NUMBERS {
        match list(namespace) {
            Ok(mounts)
                if mounts
                    .iter()
                    .any(|mount| is_mounted_at(namespace, *mount, point)) =>
            {
                return Ok(true);
            }
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// `struct file_handle` with what linux/nsfs.h has in one.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    namespace: u64,
    of_kind: u32,
    inode: u32,
}

/// `FD_NSFS_ROOT`, `FILEID_NSFS` and `MNT_NS_INIT_INO`.
const OF_NAMESPACES: libc::c_int = -10003;
const NAMESPACE: i32 = 0xf1;
const FIRST: u32 = 0xefff_fff8;

fn open(namespace: u64) -> Result<OwnedFd, Errno> {
    let mut handle = Handle {
        bytes: 16,
        kind: NAMESPACE,
        namespace,
        of_kind: libc::CLONE_NEWNS as u32,
        inode: FIRST,
    };
    // SAFETY: the kernel reads the handle, whose length it says.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            OF_NAMESPACES,
            &raw mut handle,
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    let opened = Errno::result(opened)?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(opened as libc::c_int) })
}

/// Whether the point is there for who has entered the machine's first mount namespace.
fn is_entered(point: &str) -> Result<bool, Errno> {
    for namespace in NUMBERS {
        match open(namespace) {
            Ok(found) => {
                setns(found, CloneFlags::CLONE_NEWNS)?;
                return Ok(Path::new(point).exists());
            }
            Err(Errno::ESTALE) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// Says by which of them a mount point is seen.
pub fn look(arguments: &[String]) -> Outcome {
    let [point] = arguments else {
        return Err("a mount point".into());
    };
    if Path::new(point).exists() {
        return Err(format!("{point} is in its own namespace").into());
    }
    let say = |way: &str, found: Result<bool, Errno>| match found {
        Ok(true) => println!("{way}: seen"),
        Ok(false) => println!("{way}: not seen"),
        Err(errno) => println!("{way}: {errno:?}"),
    };
    say("listmount", is_listed(point));
    say("open_by_handle_at", is_entered(point));
    Ok(())
}
