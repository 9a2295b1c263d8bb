//! The container's first process: it becomes the sentry, and starts the program below it.
//!
//! It is process 1 of the container, which the low-level runtime has built for it, with all descriptors that the program is
//! to have. What it says before it is the sentry goes to the container's standard error, where the engine's user sees it.
//!
//! The sentry keeps the container's mount namespace, since engines enter that by the first process's. But its root is a
//! directory with nothing in it but a `/proc`.
//!
//! In that mount namespace the low-level runtime also executes what starts a further program (`further.rs`), by a path. What the path
//! leads through is the image's: a program of its with CAP_SYS_ADMIN can rename even what something is mounted on in another namespace. So
//! the executable has a name of 128 random bits there, which nobody in the container learns: whatever stands elsewhere is not executed.
//!
//! Nothing that the image has brought is trusted, and nothing of it was executed yet. What else the walls of the sandbox
//! rest on, the low-level runtime has made, or a hook has changed: so it is looked at here.
//!
//! `unsafe` is here because descriptors are handed over as bare numbers, and because all others are closed.

#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, chdir, chroot};
use ringfence_faults::{Act, Point, Role};
use ringfence_ipc::Socket;
use ringfence_sentry::entrance::Way;
use ringfence_sentry::failure::{Attempt, Failure, attempt_first};
use ringfence_sentry::liaison::SentryEnd;
use ringfence_sentry::signals::{self, Found};
use ringfence_sentry::system_calls::{add_mount_attributes, exit_at_once};
use ringfence_sentry::{Options, Sandbox, log, tracee, uvm_number};
use rustix::fs::{
    CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, mkdirat, openat, openat2,
};
use rustix::stdio::stdin;

use super::told::{self, PLACE, Told};
use super::{domain, program};
use crate::launch::descriptors;
use crate::launch::jobs::InitEnd;
use crate::launch::mounts::{READ_ONLY, RESTRICTED, Tree};
use crate::launch::namespaces::fork_with;
use crate::launch::{c_strings, title};
use crate::memory;

/// Where the sentry's root is mounted. Every kernel with terminals has this directory (proc_tty(5)).
const ROOT: &str = "/proc/tty";
/// The sentry's own root, below. Beside it is the executable, under a name that nobody can guess.
const OWN: &str = "sentry";
/// The minor number of /dev/nvidiactl.
const CONTROL_MINOR: u64 = 255;

/// A new name for the executable, in the container.
pub fn entrance() -> Result<PathBuf, Failure> {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Entrance) == Some(Act::Drop) {
        return Ok(Path::new(ROOT).join("ringfence"));
    }
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let count =
        rustix::rand::getrandom(&mut bytes, flags).attempt("a name that nobody can guess")?;
    match count == bytes.len() {
        true => Ok(Path::new(ROOT).join(format!("{:032x}", u128::from_ne_bytes(bytes)))),
        false => Err(Failure::setup(
            "a name that nobody can guess: too few bytes",
        )),
    }
}

/// Runs `command` in the sandbox; the status is the program's.
pub fn start(number: RawFd, command: &[OsString]) -> Result<u8, Failure> {
    ringfence_faults::act_as(Role::Sentry);
    prctl::set_dumpable(false).attempt("prctl")?;
    // SAFETY: the front has put them there for this process, and nothing was opened since.
    let [told, liaison, job, flag, messages, door] = unsafe { told::take(number) }?;
    let told: Told = told::read(told)?;
    log::write_for_container(&told.name);
    let driver = told.driver.driver()?;
    title::prepare(&told.name);
    if told.has_terminal {
        leave_terminal()?;
    }
    let found = signals::block()?;
    expect_no_devices(&told)?;
    // What the image's links have led mounts to, in the container's, is not there.
    let processes = Tree::new("proc", &[], RESTRICTED | libc::MOUNT_ATTR_NOEXEC)
        .attempt("the first process's /proc")?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let load = openat(&processes, "loadavg", flags, Mode::empty()).attempt("/proc/loadavg")?;
    let numbers = tracee::Numbers::of(load.into());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let executable = openat(&processes, "self/exe", flags, Mode::empty()).attempt("self/exe")?;
    drop(processes);
    let uvm = uvm_number(&driver);
    let (listener, task_listener) = Socket::pair().attempt("socketpair")?;
    let (report, task_report) = Socket::pair().attempt("socketpair")?;
    let rules = domain::rules(told.harmless.as_deref(), &told.majors)?;
    let ends = [task_listener, task_report];
    let program = start_program(&told, command, &found, rules.as_ref(), ends)?;
    let door = Socket::from(door);
    // runc has it wait.
    door.set_nonblocking(true).attempt("the way in")?;
    let way = way(program, door.into(), rules);
    title::take(title::SENTRY);
    let liaison = SentryEnd::from(liaison);
    InitEnd::from_descriptors(job, flag).hand_over_this_process()?;
    let needed = [
        listener.as_fd(),
        report.as_fd(),
        liaison.as_fd(),
        numbers.as_fd(),
    ];
    let needed = needed
        .into_iter()
        .chain(way.iter().flat_map(Way::descriptors));
    let needed: Vec<RawFd> = needed.map(|descriptor| descriptor.as_raw_fd()).collect();
    leave_root(&told.entrance, executable)?;
    memory::raise_limit_of_files()?;
    // Last, so that the engine's user sees what went wrong until here.
    let_go(messages, &told.name, &needed)?;
    let options = Options {
        driver: &driver,
        command,
        stats: false,
        on_server_exit: told.on_server_exit,
        record: None,
        trace: None,
    };
    let sandbox = Sandbox {
        init: program,
        is_container: true,
        uvm,
        listener,
        report,
        liaison,
        numbers,
        way,
    };
    ringfence_sentry::run(&options, sandbox)
}

/// Gives up the terminal that the engine has given this process, which leads its session: the program is to have it.
pub fn leave_terminal() -> Result<(), Failure> {
    // The kernel hangs up for whoever leads the session.
    // SAFETY: neither action installs a handler.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.attempt("the action of a signal")?;
    // SAFETY: the call takes no pointer.
    let left = unsafe { libc::ioctl(stdin().as_raw_fd(), libc::TIOCNOTTY) };
    nix::errno::Errno::result(left).attempt("leaving the container's terminal")?;
    // SAFETY: as above.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }.attempt("the action of a signal")?;
    Ok(())
}

fn start_program(
    told: &Told,
    command: &[OsString],
    found: &Found,
    rules: Option<&OwnedFd>,
    [listener, report]: [Socket; 2],
) -> Result<Pid, Failure> {
    let command: Vec<CString> = c_strings(command)?;
    let own = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    let start = || fork_with(own);
    match attempt_first("starting the program", start)? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            ringfence_faults::act_as(Role::Program);
            let failure = match program::run(told, &command, found, rules, &listener) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            log::print(&format!("ringfence: {failure}\n"));
            failure.tell(&report);
            exit_at_once(i32::from(failure.status))
        }
    }
}

/// How further programs get to where this one is. `None` if it has ended already, which the sentry is about to see.
fn way(program: Pid, door: OwnedFd, domain: Option<OwnedFd>) -> Option<Way> {
    let namespace = |kind: &str| {
        let opened = fs::File::open(format!("/proc/{program}/ns/{kind}"));
        opened.ok().map(OwnedFd::from)
    };
    Some(Way {
        door,
        mounts: namespace("mnt")?,
        processes: namespace("pid")?,
        domain,
    })
}

/// Closes all that the program is to have, and writes messages to where the launcher copies from.
fn let_go(messages: OwnedFd, name: &str, needed: &[RawFd]) -> Result<(), Failure> {
    for number in 0..3 {
        // SAFETY: whoever owns the number writes to it and expects nothing else of it.
        unsafe { descriptors::put_in_place(&messages, number) }?;
    }
    log::stderr_is_log_of(name);
    let kept = needed.iter().copied().chain(0..3).collect();
    // It is closed with the rest.
    std::mem::forget(messages);
    // SAFETY: this process uses nothing else from here on.
    unsafe { descriptors::close_all_but(kept) }
}

/// Leaves this process a root with nothing in it but the processes of the container.
///
/// The root is mounted on a directory of the kernel's own, which nobody can remove: where a directory is removed that
/// something is mounted on in another namespace, the kernel takes the mount away (rmdir(2)), and a sentry that sees no processes
/// would hold none.
fn leave_root(entrance: &Path, executable: OwnedFd) -> Result<(), Failure> {
    // First, since the kernel lets nobody in a user namespace mount a second one while the first is covered in part.
    let attributes = READ_ONLY | libc::MOUNT_ATTR_NOEXEC;
    let seen = Tree::new("proc", &[("subset", "pid")], attributes).attempt("the sentry's /proc")?;
    let options = [("size", "64k"), ("mode", "755")];
    let attributes = RESTRICTED | libc::MOUNT_ATTR_NOEXEC;
    let root = Tree::in_memory(&options, attributes).attempt("the sentry's root")?;
    let executable = Tree::copy_named(executable.as_fd()).attempt("the executable")?;
    // What is mounted there is not to be seen among the program's mounts.
    const NONE: Option<&str> = None;
    mount(NONE, "/proc", NONE, MsFlags::MS_PRIVATE, NONE).attempt("the container's /proc")?;
    root.attach(Path::new(ROOT)).attempt("the sentry's root")?;
    fs::File::create(entrance).attempt("the executable's place")?;
    executable
        .attach(entrance)
        .attempt("the executable's place")?;
    let own = Path::new(ROOT).join(OWN);
    let processes = own.join("proc");
    // By a call that every architecture has, and that an engine's profile has been opened for (`profile.rs`).
    for directory in [&own, &processes] {
        mkdirat(CWD, directory, Mode::from_raw_mode(0o755)).attempt(directory.display())?;
    }
    seen.attach(&processes).attempt("the sentry's /proc")?;
    let root = fs::File::open(ROOT).attempt(ROOT)?;
    add_mount_attributes(root.as_fd(), READ_ONLY).attempt("the sentry's root")?;
    chdir(&own)
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .attempt("the sentry's root")
}

/// The directory `/proc`. Fails if that is anything else than the kernel's: an image can have something there, and the specification
/// no mount.
pub fn expect_processes() -> Result<OwnedFd, Failure> {
    let how = (
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    );
    let place = openat2(CWD, "/proc", how.0, how.1, how.2).attempt("the container's /proc")?;
    let found = fstatfs(&place).attempt("the container's /proc")?;
    match found.f_type == PROC_SUPER_MAGIC {
        true => Ok(place),
        false => Err(Failure::setup(
            "the container's /proc is not the kernel's: have the specification mount it",
        )),
    }
}

/// Fails if the container's cgroup lets a node of the driver's be opened, as NVIDIA's older hook has it, and no domain of
/// Landlock's keeps ioctls from it.
fn expect_no_devices(told: &Told) -> Result<(), Failure> {
    let Some(major) = told.forbidden_major else {
        return Ok(());
    };
    let node = Path::new(PLACE).join("probe");
    let device = nix::sys::stat::makedev(major.into(), CONTROL_MINOR);
    let mode = nix::sys::stat::Mode::S_IRUSR;
    let made = nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, device);
    let made = made.map_err(std::io::Error::from);
    let opened = made.and_then(|()| fs::File::open(&node));
    let _ = fs::remove_file(&node);
    match opened {
        // By the cgroup; a driver that is not there would say otherwise (open(2)).
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        _ => Err(Failure::setup(
            "the container's cgroup lets it open NVIDIA's nodes, and so go around the sandbox: where a hook of NVIDIA's has done \
             that, set no-cgroups = true in /etc/nvidia-container-runtime/config.toml",
        )),
    }
}
