//! The sandbox's network: an interface that leads back to itself, and no other, also to who looks in `/sys`.
//!
//! `unsafe` is here for an ioctl that no library in use wraps.

#![allow(unsafe_code)]

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use ringfence_sentry::failure::{Attempt, Failure};

use super::mounts::Tree;

const SYS: &str = "/sys";
/// What is mounted in `/sys` and is to stay there.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The name that the kernel gives the loopback interface of every network namespace.
const LOOPBACK: &[u8] = b"lo";

/// Brings up the loopback interface of the calling process's network namespace, in which it must have all rights
/// (netdevice(7)). Programs expect to reach themselves at 127.0.0.1.
pub fn bring_up_loopback() -> Result<(), Failure> {
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(LOOPBACK) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .and_then(|socket| {
        // SAFETY: the request outlives the call, which reads it.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
        Errno::result(result).map(drop)
    })
    .attempt("the loopback interface")
}

/// Covers `/sys`, if there is one, with another that shows the interfaces of the calling process's network namespace, in which
/// it must have all rights, instead of those of the namespace where it was mounted; all else in it is the same. The kernel lets a
/// process do so that sees the whole of one, and so in no container that has parts of it covered. The result is
/// whether no others are shown.
pub fn cover_sys() -> Result<bool, Failure> {
    // In another root there may be none, or a link, behind which nothing is placed.
    if !fs::symlink_metadata(SYS).is_ok_and(|sys| sys.is_dir()) {
        return Ok(true);
    }
    let groups = Tree::copy(Path::new(CONTROL_GROUPS)).ok();
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("sysfs"), SYS, Some("sysfs"), flags, None::<&str>) {
        tracing::debug!("no {SYS} for this network: {errno}");
        return Ok(false);
    }
    if let Some(groups) = groups {
        groups
            .attach(Path::new(CONTROL_GROUPS))
            .attempt(CONTROL_GROUPS)?;
    }
    Ok(true)
}
