//! Covering what is in a container's root by a mount.
//!
//! The image has filled the root, and what is there may be a link. So no link is followed on the way to where anything is
//! mounted.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::launch::mountinfo::{Mount, is_below};
use crate::launch::mounts::Tree;

/// Covers what is at this path, if there is anything, with what `with` makes for it.
pub fn cover(
    path: &Path,
    with: impl FnOnce(BorrowedFd<'_>) -> Result<Tree, Errno>,
) -> Result<(), Failure> {
    let place = match named(path) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        place => place.attempt(path.display())?,
    };
    with(place.as_fd())
        .and_then(|tree| tree.attach_to(place.as_fd()))
        .attempt(format_args!("covering {}", path.display()))
}

/// What is at this path, to name it, without a link on the way.
pub fn named(path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    let how = OFlags::PATH | OFlags::CLOEXEC;
    openat2(
        rustix::fs::CWD,
        path.as_ref(),
        how,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
}

/// Copies of what is mounted below a directory, each with the path at which it is.
pub fn mounted_below(directory: &str) -> Result<Vec<(PathBuf, Tree)>, Failure> {
    let list = fs::read("/proc/self/mountinfo").attempt("the container's mounts")?;
    let mounts = list.split(|byte| *byte == b'\n').filter_map(Mount::of);
    let mounts = mounts.filter(|mount| is_below(mount.point, directory.as_bytes()));
    let mounts: Vec<Mount<'_>> = mounts.collect();
    let all: BTreeSet<u64> = mounts.iter().map(|mount| mount.id).collect();
    // What is mounted in one of them is copied with it.
    let first = mounts.iter().filter(|mount| !all.contains(&mount.parent));
    let mut copies = Vec::new();
    for mount in first {
        let path = mount.path();
        // Another one may cover it.
        let Ok(place) = named(&path) else { continue };
        let copy = Tree::copy_named(place.as_fd()).attempt(path.display())?;
        copies.push((path, copy));
    }
    Ok(copies)
}
