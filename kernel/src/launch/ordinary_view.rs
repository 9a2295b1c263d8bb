//! `/proc` and `/sys` as a user sees them who is not root, for a sandbox that root started.
//!
//! Of most of its own files the kernel asks only who owns them, and root owns nearly all. A sandbox that root started is
//! root to them, though it has no capability. So it is a rule and not a list of names that says what such a sandbox
//! reads of them: what every user may read.
//!
//! **`/sys`** is made anew of those parts that programs need ([`PARTS`]). Each is an overlay (overlayfs), because that
//! asks twice at each open: whether the task may, and whether whoever mounted the overlay may. It is mounted here as a
//! user to whom no file of the kernel's belongs. So the rule holds for every file, whatever its name, also for one that
//! comes later. The whole of `/sys` cannot be one overlay: a user namespace may not take a directory for a layer that has
//! mounts in it, which could hide something, and `/sys` mostly has.
//!
//! **`/proc`** has to be the real one, since processes come and go, and overlayfs does not take `/proc/sys`. There each file
//! is looked at once, now, and covered if not every user may read it; the others are read-only, modes included. Directories but those of [`SHOWN`] are covered as
//! a whole. What belongs to a process is not looked at: it shows the sandbox's own processes, and is their user's.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setfsgid, setfsuid, setgroups};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::system_calls::add_mount_attributes;

use super::mounts::{READ_ONLY, Tree, cover_with_memory, hide, protect};

/// What `/sys` has by the rule: the machine's processors, memory, devices and modules, which CUDA, NVML, NCCL, hwloc and lspci
/// read. None of it has mounts in it. They are few, because the kernel takes its time to end an overlay.
const PARTS: [&str; 4] = ["bus", "class", "devices", "module"];
/// What it has besides, as it is, since it tells root nothing more: links into `devices`; huge pages; and control groups,
/// which programs know by their kind of file system.
const AS_THEY_ARE: [&str; 5] = [
    "block",
    "dev",
    "fs/cgroup",
    "kernel/mm/hugepages",
    "kernel/mm/transparent_hugepage",
];
/// The directories of `/proc` that a sandbox has, but for those of processes.
const SHOWN: [&str; 5] = ["driver", "pressure", "sys", "sysvipc", "tty"];
/// Settings that each network namespace has for itself.
const OF_THE_NETWORK: &str = "/proc/sys/net";
/// The user and group to whom no file of the kernel's belongs: nobody, and the ids that the kernel shows for those that
/// have none in a namespace.
const NOBODY: u32 = 65534;

const EVERY_USER_READS: u32 = 0o004;
const EVERY_USER_ENTERS: u32 = 0o005;
const ANY_READS: u32 = 0o444;

/// Whether the kernel's files belong to the user that the calling process is.
pub fn is_needed() -> bool {
    // It belongs to the root of the first user namespace, by whatever number that one goes here.
    let owner = fs::metadata("/proc/sys").map(|directory| directory.uid());
    owner.is_ok_and(|owner| owner == geteuid().as_raw() && owner != NOBODY)
}

/// Leaves of both what every user may read, and nothing of `/proc` to be written. `/proc` must
/// be that of the sandbox, `/dev` too. If it does not have the caller's `network`, the settings of the network are its own.
pub fn take(network: bool) -> Result<(), Failure> {
    let proc = fs::metadata("/proc").attempt("/proc")?.dev();
    for entry in entries(Path::new("/proc"))? {
        let (path, status) = entry?;
        // What is of another file system is covered already.
        if status.is_symlink() || status.dev() != proc || is_process(&path) {
            continue;
        }
        if !status.is_dir() {
            restrict(&path, status.mode())?;
        } else if !SHOWN.iter().any(|shown| path.ends_with(shown)) {
            hide(&path)?;
        } else {
            protect(&path)?;
            cover_unreadable(&path, network)?;
        }
    }
    if Path::new("/sys").is_dir() {
        remake_sys()?;
    }
    Ok(())
}

/// What is in a directory of the kernel's, each with its path.
fn entries(
    directory: &Path,
) -> Result<impl Iterator<Item = Result<(PathBuf, Metadata), Failure>>, Failure> {
    let named = directory.to_owned();
    let entries = fs::read_dir(directory).attempt(directory.display())?;
    Ok(entries.filter_map(move |entry| {
        match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) {
            // Gone since.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            found => Some(found.attempt(named.display())),
        }
    }))
}

fn is_process(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

/// Restricts a file at the first level of `/proc`. Root changes the mode even of one that nobody writes, and the kernel
/// keeps it for all.
fn restrict(path: &Path, mode: u32) -> Result<(), Failure> {
    if mode & EVERY_USER_READS == 0 {
        hide(path)
    } else {
        protect(path)
    }
}

/// Covers what is below `directory` and can be read, but not by every user.
fn cover_unreadable(directory: &Path, network: bool) -> Result<(), Failure> {
    for entry in entries(directory)? {
        let (path, status) = entry?;
        let mode = status.mode();
        if !status.is_dir() {
            if mode & ANY_READS != 0 && mode & EVERY_USER_READS == 0 {
                hide(&path)?;
            }
        } else if mode & EVERY_USER_ENTERS != EVERY_USER_ENTERS {
            hide(&path)?;
        } else if network || path != Path::new(OF_THE_NETWORK) {
            cover_unreadable(&path, network)?;
        }
    }
    Ok(())
}

/// Covers `/sys` with one that has the parts alone.
fn remake_sys() -> Result<(), Failure> {
    let sys = Path::new("/sys");
    // Held, because they are about to be covered.
    let parts = PARTS.map(|part| (sys.join(part), directory(&sys.join(part)).ok()));
    let others = AS_THEY_ARE.map(|part| (sys.join(part), Tree::copy(&sys.join(part)).ok()));
    cover_with_memory(sys, MsFlags::MS_NOEXEC, "mode=755,size=64k")?;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    for (target, part) in &others {
        if let Some(part) = part {
            builder.create(target).attempt(target.display())?;
            part.attach(target).attempt(target.display())?;
        }
    }
    for (target, _) in &parts {
        builder.create(target).attempt(target.display())?;
    }
    let shown = as_nobody(|| {
        let mut there = parts
            .iter()
            .filter_map(|(target, part)| Some((target, part.as_ref()?)));
        there.try_for_each(|(target, part)| overlay(target, part))
    })?;
    if let Err(errno) = shown {
        tracing::warn!(
            "the sandbox has not all of /sys, since root's takes overlayfs ({errno}): load the module overlay, leave nothing \
             mounted below /sys/devices, run it where user and group {NOBODY} exist, or run it as an ordinary user"
        );
    }
    let made = File::open(sys).attempt("/sys")?;
    add_mount_attributes(made.as_fd(), READ_ONLY).attempt("making /sys read-only")
}

/// The directory at `path`, to be named only.
fn directory(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path)
}

/// Covers the directory `target`, which is empty, with an overlay of what is in `below`. It takes two layers if nothing is
/// to be written; what `target` has is the other.
fn overlay(target: &Path, below: &File) -> Result<(), Errno> {
    let layers = format!(
        "lowerdir={}:/proc/self/fd/{}",
        target.display(),
        below.as_raw_fd()
    );
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        flags,
        Some(layers.as_str()),
    )
}

/// Does `action` as nobody where files are concerned: the calling process has nobody's user and group, no other groups, and
/// none of the capabilities by which permissions are passed over (setfsuid(2), capabilities(7)). The outer result is
/// that of becoming who it was again. The calling process must have one thread.
fn as_nobody<T>(action: impl FnOnce() -> Result<T, Errno>) -> Result<Result<T, Errno>, Failure> {
    let (user, group) = (geteuid(), getegid());
    let groups = getgroups().attempt("getgroups")?;
    // A change of users takes both along.
    let (signal, dumpable) = (prctl::get_pdeathsig(), prctl::get_dumpable());
    let (signal, dumpable) = (signal.attempt("prctl")?, dumpable.attempt("prctl")?);
    // In a user namespace of few users nothing can be given up, and so nothing is to be had back.
    if let Err(errno) = setgroups(&[]) {
        return Ok(Err(errno));
    }
    let done =
        become_for_files(Uid::from_raw(NOBODY), Gid::from_raw(NOBODY)).and_then(|()| action());
    become_for_files(user, group)
        .and_then(|()| setgroups(&groups))
        .and_then(|()| prctl::set_pdeathsig(signal))
        .and_then(|()| prctl::set_dumpable(dumpable))
        .attempt("setfsuid")?;
    Ok(done)
}

/// Neither call says whether it failed; a second one tells whose files are seen now.
fn become_for_files(user: Uid, group: Gid) -> Result<(), Errno> {
    setfsgid(group);
    setfsuid(user);
    if setfsgid(group) == group && setfsuid(user) == user {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}
