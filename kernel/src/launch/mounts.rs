//! Parts of the mount tree that are taken in one place and put in another (open_tree(2), move_mount(2)).
//!
//! What is to be seen in the sandbox is taken while the host's file system is still in sight, and put where it belongs
//! once that is covered. A part that was taken is a copy: what is restricted on it is restricted nowhere else.
//!
//! The calling process lives in a mount namespace of its own and may mount in it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::system_calls::add_mount_attributes;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// What no mount in a sandbox allows: programs that change who one is, and devices. The devices that a program may
/// open are mounts of their own.
pub const RESTRICTED: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// The same, and nothing can be written, created or removed.
pub const READ_ONLY: u64 = RESTRICTED | libc::MOUNT_ATTR_RDONLY;
/// What the mount of a device is: who owns the device may write to it, and not change the permissions that it has on
/// the host.
pub const DEVICE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_RDONLY;

/// With all that is mounted below.
const COPIED: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE
    .union(OpenTreeFlags::OPEN_TREE_CLOEXEC)
    .union(OpenTreeFlags::AT_RECURSIVE);

/// A file or directory with all that is mounted below it, attached nowhere.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// A copy of what is at `path`.
    pub fn copy(path: &Path) -> Result<Tree, Errno> {
        open_tree(CWD, path, COPIED).map(Tree).map_err(errno)
    }

    /// A copy of what this descriptor names.
    pub fn copy_named(named: BorrowedFd<'_>) -> Result<Tree, Errno> {
        let flags = COPIED | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(named, "", flags).map(Tree).map_err(errno)
    }

    /// The same, with `attributes` (`MOUNT_ATTR_*`) on every mount of it.
    pub fn with_attributes(self, attributes: u64) -> Result<Tree, Errno> {
        add_mount_attributes(self.0.as_fd(), attributes)?;
        Ok(self)
    }

    /// Whether it is a directory. Whatever else it is can be attached to a file only.
    pub fn is_directory(&self) -> Result<bool, Errno> {
        is_directory(self.as_fd())
    }

    /// Covers `target` with it.
    pub fn attach(&self, target: &Path) -> Result<(), Errno> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
        move_mount(self.0.as_fd(), "", CWD, target, flags).map_err(errno)
    }

    /// Covers what this descriptor names with it.
    pub fn attach_to(&self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(self.0.as_fd(), "", target, "", flags).map_err(errno)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether this descriptor names a directory.
pub fn is_directory(named: BorrowedFd<'_>) -> Result<bool, Errno> {
    let status = nix::sys::stat::fstat(named)?;
    Ok(status.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Makes the whole file system read-only, every mount of it.
pub fn forbid_writing() -> Result<(), Failure> {
    let root = File::open("/").attempt("/")?;
    add_mount_attributes(root.as_fd(), READ_ONLY).attempt("making the file system read-only")
}

/// Covers the directory `path` with an empty one that lives in memory and as long as the sandbox; `options` are those
/// of tmpfs(5).
pub fn cover_with_memory(path: &Path, flags: MsFlags, options: &str) -> Result<(), Failure> {
    let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
        .attempt(format_args!("mounting {}", path.display()))
}

/// Makes what is at `path` read-only, if there is anything.
pub fn protect(path: &Path) -> Result<(), Failure> {
    let tree = match Tree::copy(path) {
        Err(Errno::ENOENT) => return Ok(()),
        tree => tree,
    };
    tree.and_then(|tree| tree.with_attributes(READ_ONLY))
        .and_then(|tree| tree.attach(path))
        .attempt(format_args!("making {} read-only", path.display()))
}

/// Covers what is at `path`, if there is anything, with an empty directory or with the null device.
pub fn hide(path: &Path) -> Result<(), Failure> {
    let hidden = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).attempt(path.display()),
    };
    if hidden.is_dir() {
        let options = "size=4k,nr_inodes=1,mode=555";
        return cover_with_memory(path, MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC, options);
    }
    Tree::copy(Path::new("/dev/null"))
        .and_then(|null| null.with_attributes(DEVICE))
        .and_then(|null| null.attach(path))
        .attempt(format_args!("hiding {}", path.display()))
}
