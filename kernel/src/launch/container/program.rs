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
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::setsid;
use ringfence_confinement::{Policy, Verdict, install};
use ringfence_faults::{Act, Point};
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, NOT_EXECUTABLE, NOT_FOUND};
use ringfence_sentry::ready;
use ringfence_sentry::seccomp::listener;
use ringfence_sentry::signals::{self, Found};
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, fstatfs, openat};
use rustix::process::ioctl_tiocsctty;
use rustix::stdio::stdin;

use super::covering::{cover, mounted_below, named};
use super::profile::{Closed, Statements};
use super::told::{PLACE, Told};
use super::{domain, nodes};
use crate::launch::mounts::{DEVICE, READ_ONLY, RESTRICTED, Tree, is_directory};
use crate::launch::search;

const NONE: Option<&str> = None;
/// Becomes the program. Returns only if that failed.
pub fn run(
    told: &Told,
    command: &[CString],
    found: &Found,
    rules: Option<&OwnedFd>,
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
    let processes = named("/proc").attempt("/proc")?;
    take_label(processes.as_fd(), told.label.as_deref())?;
    drop(processes);
    told.rights.give_back_early()?;
    if let Some(rules) = rules {
        domain::enter(rules.as_fd())?;
    }
    signals::restore(found).attempt("the program's signals")?;
    let (soft, hard) = told.descriptors;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).attempt("the limit of descriptors")?;
    enter_filter(&told.closed, listener)?;
    told.rights.give_back();
    execute(command)
}

/// Has AppArmor or SELinux give the program this label as it is executed (apparmor(7), libselinux). `processes` is `/proc`. Where both may
/// be there, AppArmor has a file of its own (Documentation/admin-guide/LSM/index.rst).
pub fn take_label(processes: BorrowedFd<'_>, label: Option<&str>) -> Result<(), Failure> {
    const DOING: &str = "the program's security label";
    let Some(label) = label else {
        return Ok(());
    };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let open = |path: &str| openat(processes, path, flags, Mode::empty());
    let own = match label.starts_with("exec ") {
        true => open("self/attr/apparmor/exec").ok(),
        false => None,
    };
    let file = own
        .map_or_else(|| open("self/attr/exec"), Ok)
        .attempt(DOING)?;
    fs::File::from(file)
        .write_all(label.as_bytes())
        .attempt(DOING)
}

/// Executes the program. Returns only if that failed.
pub fn execute(command: &[CString]) -> Result<Infallible, Failure> {
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

/// Has `/proc` be that of the program's processes, and hides and protects of it what the engine wants. What is mounted in the
/// container's is in the program's, too: the specification may have put something there, as lxcfs does, and NVIDIA's hooks do. The
/// container's own, by which the sentry could be reached, is gone: whoever may take mounts away would find it below.
fn show_processes(told: &Told) -> Result<(), Failure> {
    let attributes = RESTRICTED | libc::MOUNT_ATTR_NOEXEC;
    let processes = Tree::new("proc", &[], attributes).attempt("the program's /proc")?;
    let mounted = mounted_below("/proc")?;
    let place = without_other_processes().attempt("the container's /proc")?;
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

/// The directory `/proc`, with nothing mounted there that shows processes. Its place has no link in it (`seat.rs`).
fn without_other_processes() -> Result<OwnedFd, Errno> {
    loop {
        let place = named("/proc").map_err(errno)?;
        let found = fstatfs(&place).map_err(errno)?;
        // A test leaves it there, to show that it would notice.
        let is_left = ringfence_faults::at(Point::Outer) == Some(Act::Drop);
        if found.f_type != PROC_SUPER_MAGIC || is_left {
            return Ok(place);
        }
        drop(place);
        umount2("/proc", MntFlags::MNT_DETACH)?;
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn hiding(place: BorrowedFd<'_>) -> Result<Tree, Errno> {
    if is_directory(place)? {
        return Tree::empty_directory();
    }
    let null = named("/dev/null").map_err(errno)?;
    let status = nix::sys::stat::fstat(&null)?;
    let is_null = status.st_rdev == nix::sys::stat::makedev(1, 3)
        && status.st_mode & libc::S_IFMT == libc::S_IFCHR;
    match is_null {
        true => Tree::copy_named(null.as_fd())?.with_attributes(DEVICE),
        // The image has put something else there.
        false => Err(Errno::ENODEV),
    }
}

/// Installs the filter, waits until the sentry has all that it needs, and closes what was opened in the engine's profile.
pub fn enter_filter(closed: &[Closed], listener: &Socket) -> Result<(), Failure> {
    // For the test of what holds without the filter.
    if ringfence_faults::is_unfiltered() {
        return Ok(());
    }
    let descriptor = listener::install_in_container()?;
    listener
        .send(0, descriptor.as_fd())
        .attempt("handing over the listener")?;
    match ready::wait(listener).attempt("waiting for the sentry")? {
        true => close(closed),
        // It says why.
        false => Err(Failure::setup("the sentry has ended")),
    }
}

/// Closes for this process, and what it starts, what was opened in the engine's profile: by a filter of its own, since the kernel takes
/// what is stricter of two, and as the last step, since what is closed may be anything.
fn close(closed: &[Closed]) -> Result<(), Failure> {
    // A test leaves this out, to show that it would notice.
    let is_left_out = ringfence_faults::at(Point::Closed) == Some(Act::Drop);
    if closed.is_empty() || is_left_out {
        return Ok(());
    }
    let program = Statements::new(closed).with_rules(|rules| {
        let policy = Policy {
            default: Verdict::Allow,
            // The filter before this one lets none through.
            foreign: Verdict::Allow,
            tables: &[],
            rules,
        };
        policy.compile(&[])
    });
    let program = program.attempt("the engine's seccomp profile")?;
    install(&program).attempt("the engine's seccomp profile")
}
