//! A file system with next to nothing in it.
//!
//! The process gets a mount namespace of its own whose root is an empty tmpfs that nobody can write to. What it is to
//! reach still is bound there, under the path that it has now; the old root is detached. What was opened before stays
//! open.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root};

use crate::Error;

/// Where the new root is put together, in the new namespace: a directory that every system has, and in which nothing
/// lies that a process keeps.
const BUILDING_SITE: &str = "/tmp";
const NONE: Option<&str> = None;
/// Files and directories that are kept have empty files and directories to be bound on; this is room for them.
const SIZE: &str = "mode=755,size=64k";

/// What a process can still reach of the file system.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// Files and directories, as absolute paths. Those that do not exist are left out.
    pub paths: &'a [PathBuf],
    /// Whether the process is alone in its mount, IPC and UTS namespaces already. To leave a mount namespace as the last
    /// one takes the kernel long (it waits for RCU).
    pub alone: bool,
}

/// Leaves the calling process, which must have one thread and `CAP_SYS_ADMIN` in its user namespace, nothing but the
/// files and directories that are `kept`. IPC and host names become its own, too.
pub(crate) fn replace(kept: &Kept<'_>) -> Result<(), Error> {
    if !kept.alone {
        let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(own).map_err(Error::Namespaces)?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).map_err(Error::PrivateMounts)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        BUILDING_SITE,
        Some("tmpfs"),
        flags,
        Some(SIZE),
    )
    .map_err(|source| Error::EmptyRoot {
        site: BUILDING_SITE,
        source,
    })?;
    kept.paths.iter().try_for_each(|path| keep(path))?;
    let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, BUILDING_SITE, NONE, read_only, NONE).map_err(Error::ReadOnlyRoot)?;
    // The old root ends up on top of the new one, from where it is taken away (pivot_root(2)).
    chdir(BUILDING_SITE)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .map_err(Error::ChangeRoot)
}

fn keep(path: &Path) -> Result<(), Error> {
    let Ok(status) = fs::metadata(path) else {
        return Ok(());
    };
    let kept = || path.to_owned();
    let inside = path.strip_prefix("/");
    let inside = inside.map_err(|source| Error::NotAbsolute {
        path: kept(),
        source,
    })?;
    let target = Path::new(BUILDING_SITE).join(inside);
    let made = if status.is_dir() {
        fs::create_dir_all(&target)
    } else {
        let directory = target.parent().unwrap_or(&target);
        fs::create_dir_all(directory).and_then(|()| fs::File::create(&target).map(drop))
    };
    made.map_err(|source| Error::Place {
        path: kept(),
        source,
    })?;
    let bound = mount(Some(path), &target, NONE, MsFlags::MS_BIND, NONE);
    bound.map_err(|source| Error::Bind {
        path: kept(),
        source,
    })
}
