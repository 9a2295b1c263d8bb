//! A file system with next to nothing in it.
//!
//! The process gets a mount namespace of its own whose root is an empty tmpfs that nobody can write to. What it is to
//! reach still is bound there, under the path that it has now; the old root is detached. What was opened before stays
//! open.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

use crate::Kept;

/// Where the new root is put together, in the new namespace: a directory that every system has, and in which nothing
/// lies that a process keeps.
const BUILDING_SITE: &str = "/tmp";
const NONE: Option<&str> = None;
/// Files and directories that are kept have empty files and directories to be bound on; this is room for them.
const SIZE: &str = "mode=755,size=64k";

/// Leaves the calling process, which must have one thread and `CAP_SYS_ADMIN` in its user namespace, nothing but the
/// files and directories that are `kept`. IPC and host names become its own, too. Fails with a sentence.
pub(crate) fn replace(kept: &Kept<'_>) -> Result<(), String> {
    if !kept.alone {
        let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(own).map_err(|errno| format!("namespaces: {errno}"))?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE)
        .map_err(|errno| format!("making mounts private: {errno}"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        BUILDING_SITE,
        Some("tmpfs"),
        flags,
        Some(SIZE),
    )
    .map_err(|errno| format!("mounting an empty root on {BUILDING_SITE}: {errno}"))?;
    for path in kept.paths {
        keep(path).map_err(|reason| format!("keeping {}: {reason}", path.display()))?;
    }
    let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, BUILDING_SITE, NONE, read_only, NONE)
        .map_err(|errno| format!("making the root read-only: {errno}"))?;
    // The old root ends up on top of the new one, from where it is taken away (pivot_root(2)).
    chdir(BUILDING_SITE)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .map_err(|errno| format!("changing the root: {errno}: the root file system must be a mount that pivot_root(2) accepts"))
}

fn keep(path: &Path) -> Result<(), String> {
    let Ok(status) = fs::metadata(path) else {
        return Ok(());
    };
    let inside = path.strip_prefix("/").map_err(|error| error.to_string())?;
    let target = Path::new(BUILDING_SITE).join(inside);
    let made = if status.is_dir() {
        fs::create_dir_all(&target)
    } else {
        let directory = target.parent().unwrap_or(&target);
        fs::create_dir_all(directory).and_then(|()| fs::File::create(&target).map(drop))
    };
    made.map_err(|error| error.to_string())?;
    mount(Some(path), &target, NONE, MsFlags::MS_BIND, NONE).map_err(|errno| errno.to_string())
}
