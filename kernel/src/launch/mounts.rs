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
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat2, statx,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

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

/// A file or directory with all that is mounted below it, attached nowhere yet.
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

    /// What is mounted at `path` itself, to be moved elsewhere.
    pub fn at(path: &Path) -> Result<Tree, Errno> {
        let opened = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC);
        opened.map(Tree).map_err(errno)
    }

    /// A new file system of this kind, with these options and, of its mount, `attributes` (`MOUNT_ATTR_*`).
    pub fn new(kind: &str, options: &[(&str, &str)], attributes: u64) -> Result<Tree, Errno> {
        let make = || {
            let made = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(made.as_fd(), "source", kind)?;
            for (name, value) in options {
                fsconfig_set_string(made.as_fd(), *name, *value)?;
            }
            fsconfig_create(made.as_fd())?;
            let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
            fsmount(made.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        make().map(Tree).map_err(errno)
    }

    /// A directory that lives in memory; `options` are those of tmpfs(5).
    pub fn in_memory(options: &[(&str, &str)], attributes: u64) -> Result<Tree, Errno> {
        Tree::new("tmpfs", options, attributes)
    }

    /// A directory with nothing in it, to cover another.
    pub fn empty_directory() -> Result<Tree, Errno> {
        let options = [("size", "4k"), ("nr_inodes", "1"), ("mode", "555")];
        Tree::in_memory(&options, READ_ONLY | libc::MOUNT_ATTR_NOEXEC)
    }

    /// The null device, to cover a file.
    pub fn null_device(null: BorrowedFd<'_>) -> Result<Tree, Errno> {
        Tree::copy_named(null)?.with_attributes(DEVICE)
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

/// A directory, to name it. A link on the way would lead elsewhere by the time that something is mounted there.
pub fn directory_at(from: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(from, path, how, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// What a mount is known by, and what a descriptor names on it.
pub struct MountOf {
    /// Its number, as in /proc/PID/mountinfo.
    pub id: u64,
    /// Whether the descriptor names its root.
    pub is_root: bool,
    pub is_directory: bool,
}

/// Which mount a descriptor is on.
pub fn mount_of(descriptor: BorrowedFd<'_>) -> rustix::io::Result<MountOf> {
    let wanted = StatxFlags::MNT_ID | StatxFlags::TYPE;
    let found = statx(descriptor, "", AtFlags::EMPTY_PATH, wanted)?;
    Ok(MountOf {
        id: found.stx_mnt_id,
        is_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        is_directory: FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory,
    })
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
        return Tree::empty_directory()
            .and_then(|empty| empty.attach(path))
            .attempt(format_args!("hiding {}", path.display()));
    }
    Tree::copy(Path::new("/dev/null"))
        .and_then(|null| null.with_attributes(DEVICE))
        .and_then(|null| null.attach(path))
        .attempt(format_args!("hiding {}", path.display()))
}
