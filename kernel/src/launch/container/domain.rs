//! The Landlock domain of a container's program: no ioctl is let to a device but the harmless ones, and no process outside is
//! traced or has its memory opened.
//!
//! The latter is so of any domain (security/landlock/task.c in Linux). It is what stands between the sentry and a program with
//! CAP_SYS_PTRACE that somebody in the sentry's process namespace hands a descriptor of his `/proc`. A program that may mount has
//! a domain for that alone: one with rules about files would keep it from mounting.
//!
//! The rules name files, and are made while nothing of the image's has run: later its programs could have something else under the
//! names. The sentry keeps them for programs that are started later, each of which enters a domain of its own by them.
//!
//! `unsafe` is here because the library in use enters a domain by rules alone that the process has made itself.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use landlock::{
    AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope,
};
use nix::errno::Errno;
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::fs::{Dir, Mode, OFlags, fstatfs, openat};

use super::covering::named;
use crate::launch::mounts::is_directory;

/// Of the file system with terminals (linux/magic.h).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// The rules, by which ioctls are let to what lies at or below the `harmless` paths (landlock_create_ruleset(2)), but to nothing with
/// one of the driver's `majors`. Without paths they are about no file. `None` if this kernel's Landlock knows nothing of what they
/// are about.
pub fn rules(harmless: Option<&[String]>, majors: &[u32]) -> Result<Option<OwnedFd>, Failure> {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Domain) == Some(Act::Drop) {
        return Ok(None);
    }
    let rules = match harmless {
        Some(harmless) => about_devices(harmless, majors),
        // Of all that rules can be about, this is what a program that may mount misses least.
        None => Ruleset::default()
            .scope(Scope::AbstractUnixSocket)
            .and_then(|ruleset| ruleset.create()),
    };
    rules.map(Option::from).attempt("Landlock")
}

fn about_devices(harmless: &[String], majors: &[u32]) -> Result<RulesetCreated, RulesetError> {
    let rules = harmless
        .iter()
        .flat_map(|path| harmless_at(path, majors))
        .map(|place| Ok::<_, RulesetError>(PathBeneath::new(place, AccessFs::IoctlDev)));
    Ruleset::default()
        .handle_access(AccessFs::IoctlDev)
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(rules))
}

/// What is at this path and beneath it, as far as no ioctl on it can be one of the driver's: the image decides where a link
/// leads, and what is in a directory.
fn harmless_at(path: &str, majors: &[u32]) -> Vec<OwnedFd> {
    // A test takes whatever there is.
    if ringfence_faults::at(Point::Harmless) == Some(Act::Drop) {
        let opened = File::open(path).ok();
        return opened.into_iter().map(OwnedFd::from).collect();
    }
    let Ok(place) = named(path) else {
        return Vec::new();
    };
    let is_of_terminals = || fstatfs(&place).is_ok_and(|found| found.f_type == DEVPTS_SUPER_MAGIC);
    match is_directory(place.as_fd()) {
        Ok(true) if !is_of_terminals() => devices_in(place.as_fd(), majors),
        Ok(true) => vec![place],
        _ if is_harmless(&place, majors) => vec![place],
        _ => Vec::new(),
    }
}

/// The devices that a directory has now, but for the driver's.
fn devices_in(directory: BorrowedFd<'_>, majors: &[u32]) -> Vec<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(directory, ".", flags, Mode::empty());
    let entries = opened.and_then(Dir::new);
    let entries = entries.into_iter().flatten().flatten();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    entries
        .filter_map(|entry| openat(directory, entry.file_name(), flags, Mode::empty()).ok())
        .filter(|place| is_harmless(place, majors))
        .collect()
}

/// Whether this is a device, and none of the driver's.
fn is_harmless(place: &OwnedFd, majors: &[u32]) -> bool {
    nix::sys::stat::fstat(place).is_ok_and(|status| {
        let is_device = matches!(status.st_mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
        is_device && !majors.contains(&libc::major(status.st_rdev))
    })
}

/// Enters a domain by these rules (landlock_restrict_self(2)). It takes `CAP_SYS_ADMIN` in the user namespace, or no_new_privs: a
/// set-user-ID program of the image's has its effect, unless the engine says otherwise.
pub fn enter(rules: BorrowedFd<'_>) -> Result<(), Failure> {
    const FLAGS: libc::c_int = 0;
    // SAFETY: the call takes no pointer.
    let entered =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), FLAGS) };
    Errno::result(entered).map(drop).attempt("Landlock")
}
