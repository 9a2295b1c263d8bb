//! What can be done to a file besides reading and writing it, by a descriptor that was inherited.
//!
//! `unsafe` is here for the calls themselves, of which some have no wrapper.

#![allow(unsafe_code)]

use std::ffi::{CString, c_long};
use std::fs;
use std::io::Read;
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;

use crate::Outcome;

/// FS_IOC_SETFLAGS of linux/fs.h.
const SET_FLAGS: c_long = 0x4008_6602;

/// What to change of the file that has this descriptor and can be reached by this path.
type Attempt = fn(RawFd, &CString, u32) -> c_long;

// SAFETY: of all calls: what is passed by pointer outlives them.
const ATTEMPTS: &[(&str, Attempt)] = &[
    ("fchmod", |number, _, mode| unsafe {
        libc::syscall(libc::SYS_fchmod, number, mode)
    }),
    ("chmod", |_, path, mode| unsafe {
        libc::syscall(libc::SYS_chmod, path.as_ptr(), mode)
    }),
    ("fchown", |number, _, _| unsafe {
        libc::syscall(libc::SYS_fchown, number, libc::getuid(), libc::getgid())
    }),
    ("futimens", |number, _, _| unsafe {
        libc::syscall(libc::SYS_utimensat, number, 0, 0, 0)
    }),
    ("utimensat", |_, path, _| unsafe {
        libc::syscall(libc::SYS_utimensat, libc::AT_FDCWD, path.as_ptr(), 0, 0)
    }),
    ("fsetxattr", |number, _, _| unsafe {
        let (name, value) = (c"user.ringfence", c"x");
        let (name, value) = (name.as_ptr(), value.as_ptr());
        libc::syscall(libc::SYS_fsetxattr, number, name, value, 1, 0)
    }),
    ("setxattr", |_, path, _| unsafe {
        let (name, value) = (c"user.ringfence", c"x");
        let (name, value) = (name.as_ptr(), value.as_ptr());
        libc::syscall(libc::SYS_setxattr, path.as_ptr(), name, value, 1, 0)
    }),
    ("FS_IOC_SETFLAGS", |number, _, _| unsafe {
        let flags: c_long = 0;
        libc::syscall(libc::SYS_ioctl, number, SET_FLAGS, &raw const flags)
    }),
    ("truncate", |_, path, _| unsafe {
        libc::syscall(libc::SYS_truncate, path.as_ptr(), 0)
    }),
];

/// Says what the descriptor's file is called, what can be read of it, and what came of each attempt to change it, a mode
/// to `mode` (octal).
pub fn scenario(arguments: &[String]) -> Outcome {
    let [number, mode] = arguments else {
        return Err("a descriptor and a mode".into());
    };
    let (number, mode) = (number.parse()?, u32::from_str_radix(mode, 8)?);
    let path = format!("/proc/self/fd/{number}");
    println!("{}", fs::read_link(&path)?.display());
    // SAFETY: it is inherited, and nothing closes it.
    let inherited = unsafe { BorrowedFd::borrow_raw(number) };
    let mut text = String::new();
    fs::File::from(inherited.try_clone_to_owned()?).read_to_string(&mut text)?;
    println!("{text:?}");
    let path = CString::new(path)?;
    for (name, attempt) in ATTEMPTS {
        let outcome = match Errno::result(attempt(number, &path, mode)) {
            Ok(_) => "ok".to_owned(),
            Err(errno) => format!("{errno:?}"),
        };
        println!("{name}: {outcome}");
    }
    Ok(())
}
