//! Namespaces: a view of the system that a sandbox can change without changing the system.
//!
//! `unsafe` is here because clone(2) is called as fork(2), which the library cannot do into namespaces.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getegid, geteuid, setgroups, setresgid, setresuid};
use ringfence_confinement::{install_with_listener, policies};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure, SETUP, attempt_first};
use ringfence_sentry::log;
use ringfence_sentry::seccomp::listener::SUPERVISED;
use ringfence_sentry::system_calls::exit_at_once;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::children;
use super::grants::Identity;
use super::mounts::{RESTRICTED, Tree};

const NONE: Option<&str> = None;
/// What the sentry, init and each server have to themselves. Made with the process, because to change the mount namespace later is
/// to leave one, and to leave one as the last takes the kernel long.
pub const OF_ONE_PROCESS: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Forks the calling process, as [`fork_with`] does. The child lives in a user namespace of its own, and in the
/// further namespaces of `also`; it has all rights in them, and none outside. It is who the caller is, with the same
/// user and group ids as outside (all of them if the caller may map them, else its own), unless it is to have another
/// `identity`: see [`IdMaps`]. A child that cannot become that says why on stderr, and ends.
///
/// The child ends when the calling process does, whether it runs by then or somebody has stopped it: to ask the kernel for
/// that is the first thing that it does.
pub fn fork_into_user_namespace(
    also: CloneFlags,
    identity: Option<Identity>,
) -> Result<ForkResult, Failure> {
    let maps = IdMaps::new(identity)?;
    let (mut mapped, mut map) = std::io::pipe().attempt("pipe")?;
    let parent = pidfd_open(getpid(), PidfdFlags::empty()).attempt("pidfd_open")?;
    let flags = CloneFlags::CLONE_NEWUSER | also;
    let start = || Ok::<_, Infallible>(fork_with(flags));
    match attempt_first("starting a process", start)?.map_err(|errno| refused(errno, flags))? {
        ForkResult::Child => {
            drop(map);
            let is_bound = end_with(parent.as_fd());
            if is_bound.is_err() || mapped.read_exact(&mut [0]).is_err() {
                // The parent failed, and says so.
                exit_at_once(i32::from(SETUP));
            }
            let assume = |identity| {
                assume(identity)?;
                // A process that becomes another user is bound no more (prctl(2)).
                end_with(parent.as_fd()).attempt("prctl")
            };
            if let Err(failure) = maps.assume.map_or(Ok(()), assume) {
                // Not to the caller, who would take itself for the parent.
                log::print_last(&log::failing(&failure), log::UNTAKEN);
                exit_at_once(i32::from(SETUP));
            }
            Ok(ForkResult::Child)
        }
        ForkResult::Parent { child } => {
            drop(mapped);
            // A test has it wait here.
            ringfence_faults::at(Point::Ids);
            let written = maps
                .write(child)
                .and_then(|()| map.write_all(&[0]).attempt("pipe"));
            drop(map);
            if written.is_err() {
                children::abandon(child);
            }
            written.map(|()| ForkResult::Parent { child })
        }
    }
}

/// Has the kernel kill the calling process when its parent ends, or fails if that has ended. (In a process namespace of its own a
/// process is not told its parent's number.)
fn end_with(parent: BorrowedFd<'_>) -> Result<(), Errno> {
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Born) == Some(Act::Drop) {
        return Ok(());
    }
    set_pdeathsig(Signal::SIGKILL)?;
    // If it ended before, the kernel has nothing to do any more.
    let mut ended = [PollFd::new(parent, PollFlags::POLLIN)];
    match poll(&mut ended, PollTimeout::ZERO)? {
        0 => Ok(()),
        _ => Err(Errno::ESRCH),
    }
}

/// fork(2), with these flags of clone(2): new namespaces for the child, or what it shares with its parent, which must
/// not be memory. The calling process must have one thread, or others that hold no lock and take no memory.
pub(crate) fn fork_with(flags: CloneFlags) -> Result<ForkResult, Errno> {
    let flags = flags.difference(CloneFlags::CLONE_VM).bits() | libc::SIGCHLD;
    // SAFETY: without a stack and without shared memory this is fork: the child goes on on a copy of this stack as if nothing
    // had happened, since no other thread of its parent's was in the middle of anything that concerns it.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    Ok(match Errno::result(result)? {
        0 => ForkResult::Child,
        child => ForkResult::Parent {
            child: Pid::from_raw(child as i32),
        },
    })
}

/// What to write to a process's uid_map and gid_map (user_namespaces(7)).
///
/// Every process of a sandbox is the same user to the kernel, whatever its id is called inside: the server opens for tasks what
/// their user may open, and where NVIDIA's driver is told to look at users, it lets only who made a client pin memory for it
/// (`rmclientValidate_IMPL`, src/nvidia/src/kernel/rmapi/client.c, 580.142). So root becomes another user before anything else is
/// started, and an ordinary user stays who that is under another name.
struct IdMaps {
    users: String,
    groups: String,
    /// Without the right to map groups a process has to give up setgroups first.
    deny_setgroups: bool,
    /// Who the process has to become.
    assume: Option<Identity>,
}

impl IdMaps {
    fn new(wanted: Option<Identity>) -> Result<IdMaps, Failure> {
        let (user, group) = (geteuid(), getegid());
        let own = Identity { user, group };
        let inside = wanted.unwrap_or(own);
        if !user.is_root() {
            return Ok(IdMaps {
                users: format!("{} {user} 1", inside.user),
                groups: format!("{} {group} 1", inside.group),
                deny_setgroups: true,
                assume: None,
            });
        }
        let (users, groups) = if inside.user.is_root() {
            let users = identity_map("/proc/self/uid_map")?;
            (users, identity_map("/proc/self/gid_map")?)
        } else {
            let Identity { user, group } = inside;
            (format!("{user} {user} 1"), format!("{group} {group} 1"))
        };
        Ok(IdMaps {
            users,
            groups,
            deny_setgroups: false,
            assume: wanted,
        })
    }

    fn write(&self, process: Pid) -> Result<(), Failure> {
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::write(&path, text).attempt(format_args!("mapping ids: {file}"))
        };
        if self.deny_setgroups {
            write("setgroups", "deny")?;
        }
        write("uid_map", &self.users)?;
        write("gid_map", &self.groups)
    }
}

/// Becomes another user, for good.
fn assume(identity: Identity) -> Result<(), Failure> {
    let Identity { user, group } = identity;
    setgroups(&[group])
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user))
        .attempt(format_args!("--uid {user}:{group}"))
}

/// The caller's ids, each mapped to itself, in the form of /proc/PID/uid_map (user_namespaces(7)).
fn identity_map(path: &str) -> Result<String, Failure> {
    let own = fs::read_to_string(path).attempt(path)?;
    let mut map = String::new();
    for line in own.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [inside, _, count] = fields[..] {
            map.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    Ok(map)
}

/// Kinds of namespaces of which the kernel lets a user make only so many (namespaces(7)).
const LIMITED: [(CloneFlags, &str); 6] = [
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWNS, "mount"),
    (CloneFlags::CLONE_NEWPID, "process"),
    (CloneFlags::CLONE_NEWIPC, "IPC"),
    (CloneFlags::CLONE_NEWUTS, "UTS"),
    (CloneFlags::CLONE_NEWNET, "network"),
];

/// Why a process could not be started in namespaces of these kinds, and what to do.
pub fn refused(errno: Errno, flags: CloneFlags) -> Failure {
    Failure::setup(match errno {
        Errno::EPERM if is_supervised() => format!("the seccomp filter: {SUPERVISED}"),
        Errno::EPERM | Errno::EACCES | Errno::EINVAL => {
            format!("user namespaces cannot be created here: {errno}")
        }
        Errno::ENOSPC => format!("another {} namespace: {errno}", used_up(flags)),
        _ => format!("starting a process: {errno}"),
    })
}

/// Whether the calling process is in a sandbox as Ringfence's own. That is tried in a child. The kernel says EBUSY of a second
/// listener, and of nothing else (seccomp(2)).
fn is_supervised() -> bool {
    let is_busy = || {
        let program = policies::INIT.compile(&[]).ok()?;
        set_no_new_privs().ok()?;
        Some(install_with_listener(&program).err()? == Errno::EBUSY)
    };
    match fork_with(CloneFlags::empty()) {
        // The policy lets it end.
        Ok(ForkResult::Child) => exit_at_once(i32::from(is_busy() == Some(true))),
        Ok(ForkResult::Parent { child }) => {
            waitpid(child, None) == Ok(WaitStatus::Exited(child, 1))
        }
        Err(_) => false,
    }
}

/// Of these kinds of namespaces the one of which no other can be made, found by trying each.
fn used_up(flags: CloneFlags) -> &'static str {
    let mut kinds = LIMITED.iter().filter(|(kind, _)| flags.contains(*kind));
    let fails = |kind: CloneFlags| match fork_with(kind | flags & CloneFlags::CLONE_NEWUSER) {
        Ok(ForkResult::Child) => exit_at_once(0),
        Ok(ForkResult::Parent { child }) => {
            children::abandon(child);
            false
        }
        Err(_) => true,
    };
    let found = kinds.find(|(kind, _)| fails(*kind));
    // One may have become free since.
    found.map_or("user", |(_, name)| name)
}

/// Cuts the mount namespace off from the one it was copied from.
pub fn isolate_mounts() -> Result<(), Failure> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .attempt("making mounts private")
}

/// Mounts the process namespace's own view of processes over `/proc`.
pub fn mount_proc() -> Result<(), Failure> {
    mount_proc_with(MsFlags::empty(), NONE)
}

/// The same to be read only, and without what the kernel says of anything else than processes (proc(5), `subset=pid`).
pub fn mount_processes() -> Result<(), Failure> {
    mount_proc_with(MsFlags::MS_RDONLY, Some("subset=pid"))
}

/// The process namespace's own view of processes, attached nowhere. The calling process must see a `/proc`.
pub fn processes() -> Result<Tree, Failure> {
    let attributes = RESTRICTED | libc::MOUNT_ATTR_NOEXEC;
    let made = Tree::new("proc", &[], attributes).map_err(with_remedy_for_proc);
    made.attempt(MOUNTING)
}

fn mount_proc_with(further: MsFlags, options: Option<&str>) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | further;
    let mounted = mount(Some("proc"), "/proc", Some("proc"), flags, options);
    mounted.map_err(with_remedy_for_proc).attempt(MOUNTING)
}

const MOUNTING: &str = "mounting /proc";

fn with_remedy_for_proc(errno: Errno) -> String {
    format!(
        "{errno}; in a container, /proc must not be masked (docker run --security-opt systempaths=unconfined)"
    )
}
