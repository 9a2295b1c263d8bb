//! Shadow bundles: a directory for each container with GPUs, in which the low-level runtime finds the shadow.
//!
//! The idea: a bundle is the launcher's, which removes it when the container is gone. Whoever holds the lock of its directory
//! (flock(2)) is that launcher, or the front that is about to fork it. So one whose lock can be had was left by a launcher that
//! was killed, and anybody may remove it. A lock on the directory above keeps a bundle that was just made, and is not locked
//! yet, from being taken for such a one.
//!
//! The directories are root's, or those of the user whose runtime this is. Others may pass through them: crun runs hooks in a bundle as
//! the container's root, who can be another user. So they are not below the directory of doors. What is in a bundle others cannot read.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

use super::caller;

/// The file in a bundle that has the specification.
pub const SPECIFICATION: &str = "config.json";

/// Where what this user's runtime keeps until the machine is started anew is.
pub fn runtime_directory() -> PathBuf {
    let of_user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match caller::is_root() {
        true => "/run".into(),
        false => of_user.unwrap_or_else(|| "/tmp".into()),
    }
}

fn all() -> PathBuf {
    runtime_directory().join("ringfence-containers")
}

/// Whether a container of this name may be in a sandbox. If not, none is.
pub fn may_exist(name: Option<&OsStr>) -> bool {
    let Some(name) = name else {
        return false;
    };
    let all = fs::read_dir(all()).into_iter().flatten().flatten();
    let mut names = all.map(|entry| entry.file_name());
    names.any(|found| found.as_bytes().starts_with(name.as_bytes()))
}

/// Writes a container's bundle. Returns its directory, and the lock of that: it is held as long as the descriptor is open
/// anywhere.
pub fn write(name: &str, text: &str) -> Result<(PathBuf, OwnedFd), Failure> {
    let all = all();
    let make = |path: &Path| {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o711).create(path);
        made.attempt(path.display())
    };
    make(&all)?;
    let above = directory(&all).attempt(all.display())?;
    expect_own(&above, &all)?;
    flock(&above, FlockOperation::LockExclusive).attempt(all.display())?;
    remove_left(&all);
    let place = all.join(format!("{name}.{}", std::process::id()));
    make(&place)?;
    let lock = directory(&place).attempt(place.display())?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).attempt(place.display())?;
    drop(above);
    write_file(&place.join(SPECIFICATION), text.as_bytes())?;
    Ok((place, lock))
}

/// Writes a new file in a bundle, which others cannot read.
pub fn write_file(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(content));
    written.attempt(path.display())
}

/// Fails if another user has made the directory above bundles, as anybody can where it is in `/tmp`.
fn expect_own(directory: &OwnedFd, path: &Path) -> Result<(), Failure> {
    let status = fstat(directory).attempt(path.display())?;
    let are_others_let = status.st_mode & 0o022 != 0;
    match status.st_uid == geteuid().as_raw() && !are_others_let {
        true => Ok(()),
        false => Err(Failure::setup(format!(
            "{}: it belongs to user {}, or others may write it (mode {:04o}): remove it, or set XDG_RUNTIME_DIR to a directory of your own",
            path.display(),
            status.st_uid,
            status.st_mode & 0o7777,
        ))),
    }
}

/// Removes the bundles that launchers have left which were killed. What cannot be removed the next one may.
pub fn tidy() {
    let all = all();
    if fs::read_dir(&all).is_ok_and(|mut entries| entries.next().is_some())
        && let Ok(above) = directory(&all)
        && flock(&above, FlockOperation::LockExclusive).is_ok()
    {
        remove_left(&all);
    }
}

fn remove_left(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let place = entry.path();
        let Ok(lock) = directory(&place) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(&place);
        }
    }
}

fn directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, how, Mode::empty())
}
