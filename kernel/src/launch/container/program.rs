//! The last steps before a container's program runs: its own view of processes, its rights, the filter.
//!
//! The calling process is process 1 of a process namespace of its own, with a copy of the container's mounts. It has the
//! rights of the first process until the filter is installed, and executes nothing of the image's before it has given
//! them back.
//!
//! What is mounted here is in the container's root, which the image has filled: its `/proc` may be a link. So no link is
//! followed on the way to where anything is mounted.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::setsid;
use ringfence_faults::{Act, Point};
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, NOT_EXECUTABLE, NOT_FOUND};
use ringfence_sentry::ready;
use ringfence_sentry::seccomp::listener;
use ringfence_sentry::signals::{self, Found};
use rustix::process::ioctl_tiocsctty;
use rustix::stdio::stdin;

use super::covering::{cover, mounted_below, named};
use super::nodes;
use super::profile::Statements;
use super::told::{PLACE, Told};
use crate::launch::mounts::{DEVICE, READ_ONLY, RESTRICTED, Tree, is_directory};
use crate::launch::search;

const NONE: Option<&str> = None;

/// Becomes the program. Returns only if that failed.
pub fn run(
    told: &Told,
    command: &[CString],
    found: &Found,
    listener: &Socket,
) -> Result<Infallible, Failure> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .attempt("the program's mounts")?;
    nodes::make_inert(told)?;
    umount2(PLACE, MntFlags::MNT_DETACH).attempt(PLACE)?;
    show_processes(told)?;
    setsid().attempt("setsid")?;
    if told.has_terminal {
        ioctl_tiocsctty(stdin()).attempt("the container's terminal")?;
    }
    if let Some(label) = &told.label {
        // It holds from the execution on (apparmor(7), libselinux).
        fs::write("/proc/self/attr/exec", label).attempt("the program's security label")?;
    }
    told.rights.give_back_early()?;
    enter_domain(told)?;
    signals::restore(found).attempt("the program's signals")?;
    enter_filter(told, listener)?;
    told.rights.give_back();
    let Some(name) = command.first() else {
        return Err(Failure::setup("no program given"));
    };
    search::execute(name, command).map_err(|refused| Failure {
        status: match refused.errno {
            Errno::ENOENT => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: format!("{}: {}", name.to_string_lossy(), refused.errno.desc()),
    })
}

/// Covers `/proc` with that of the program's processes, and hides and protects of it what the engine wants. What is mounted in the
/// container's is in the program's, too: the specification may have put something there, as lxcfs does, and NVIDIA's hooks do.
fn show_processes(told: &Told) -> Result<(), Failure> {
    let attributes = RESTRICTED | libc::MOUNT_ATTR_NOEXEC;
    let processes = Tree::new("proc", &[], attributes).attempt("the program's /proc")?;
    let mounted = mounted_below("/proc")?;
    let place = named("/proc").attempt("/proc")?;
    processes
        .attach_to(place.as_fd())
        .attempt("the program's /proc")?;
    for (path, tree) in mounted {
        cover(&path, |_| Ok(tree))?;
    }
    for path in &told.hidden {
        cover(path, hiding)?;
    }
    for path in &told.read_only {
        cover(path, |place| {
            Tree::copy_named(place)?.with_attributes(READ_ONLY)
        })?;
    }
    Ok(())
}

fn hiding(place: BorrowedFd<'_>) -> Result<Tree, Errno> {
    if is_directory(place)? {
        return Tree::empty_directory();
    }
    let null = named("/dev/null").map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    let status = nix::sys::stat::fstat(&null)?;
    let is_null = status.st_rdev == nix::sys::stat::makedev(1, 3)
        && status.st_mode & libc::S_IFMT == libc::S_IFCHR;
    match is_null {
        true => Tree::copy_named(null.as_fd())?.with_attributes(DEVICE),
        // The image has put something else there.
        false => Err(Errno::ENODEV),
    }
}

/// Enters a domain of Landlock's in which no ioctl is let to a device but the harmless ones.
fn enter_domain(told: &Told) -> Result<(), Failure> {
    let Some(harmless) = &told.harmless else {
        return Ok(());
    };
    let entered = Ruleset::default()
        .handle_access(AccessFs::IoctlDev)
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(rules_for(harmless)))
        // A set-user-ID program of the image's has its effect, unless the engine says otherwise.
        .and_then(|ruleset| ruleset.no_new_privs(false).restrict_self());
    entered.map(drop).attempt("Landlock")
}

/// A rule for each of these devices that there is. The image may have a link in the place of one, to where others are.
fn rules_for(
    harmless: &[String],
) -> impl Iterator<Item = Result<PathBeneath<OwnedFd>, RulesetError>> {
    let found = harmless.iter().filter_map(|path| named(path).ok());
    found.map(|device| Ok(PathBeneath::new(device, AccessFs::IoctlDev)))
}

/// Installs the filter, and waits until the sentry has all that it needs.
fn enter_filter(told: &Told, listener: &Socket) -> Result<(), Failure> {
    // A test leaves this out, to show that it would notice.
    let closed = match ringfence_faults::at(Point::Closed) {
        Some(Act::Drop) => &[][..],
        _ => &told.closed,
    };
    let statements = Statements::new(closed);
    let descriptor = statements.with_rules(listener::install_in_container)?;
    listener
        .send(0, descriptor.as_fd())
        .attempt("handing over the listener")?;
    match ready::wait(listener).attempt("waiting for the sentry")? {
        true => Ok(()),
        // It says why.
        false => Err(Failure::setup("the sentry has ended")),
    }
}
