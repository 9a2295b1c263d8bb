//! Namespaces: a view of the system that a sandbox can change without changing the system.

use std::fs;
use std::io::{Read, Write};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getegid, geteuid};

use crate::failure::{Attempt, Failure};

const NONE: Option<&str> = None;

/// Moves the calling process, which must have one thread, into a user namespace of its own with the same user and group
/// ids as outside (all of them if it may map them, else its own), and into the further namespaces of `also`.
pub fn enter_user_namespace(also: CloneFlags) -> Result<(), Failure> {
    if geteuid().is_root() {
        return enter_with_all_ids(also);
    }
    let (user, group) = (geteuid(), getegid());
    unshare_with_remedy(also)?;
    // Without the right to map groups a process has to give up setgroups first (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").attempt("/proc/self/setgroups")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1")).attempt("/proc/self/uid_map")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1")).attempt("/proc/self/gid_map")
}

/// Mapping other ids than one's own takes a right that is lost on entering, so a child that stays outside does it.
fn enter_with_all_ids(also: CloneFlags) -> Result<(), Failure> {
    let users = identity_map("/proc/self/uid_map")?;
    let groups = identity_map("/proc/self/gid_map")?;
    let (mut entered, mut enter) = std::io::pipe().attempt("pipe")?;
    let process = Pid::this();
    // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
    match unsafe { fork() }.attempt("fork")? {
        ForkResult::Child => {
            drop(enter);
            let mut byte = [0];
            let written = entered.read_exact(&mut byte).is_ok()
                && fs::write(format!("/proc/{process}/uid_map"), users).is_ok()
                && fs::write(format!("/proc/{process}/gid_map"), groups).is_ok();
            std::process::exit(i32::from(!written));
        }
        ForkResult::Parent { child } => {
            let unshared = unshare_with_remedy(also);
            if unshared.is_ok() {
                enter.write_all(&[0]).attempt("pipe")?;
            }
            drop(enter);
            let mapped = waitpid(child, None).attempt("waitpid")?;
            unshared?;
            match mapped {
                nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
                _ => Err(Failure::setup(
                    "the ids of the user namespace could not be mapped",
                )),
            }
        }
    }
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

fn unshare_with_remedy(also: CloneFlags) -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWUSER | also).map_err(|errno| {
        let remedy = match errno {
            Errno::EPERM | Errno::EACCES => {
                "allow them (sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0; \
                 in a container, a seccomp profile that permits unshare)"
            }
            Errno::ENOSPC => "raise sysctl user.max_user_namespaces",
            _ => "use a kernel with CONFIG_USER_NS",
        };
        Failure::setup(format!("user namespaces cannot be created here ({errno}): {remedy}"))
    })
}

/// Cuts the mount namespace off from the one it was copied from.
pub fn isolate_mounts() -> Result<(), Failure> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .attempt("making mounts private")
}

/// Mounts the process namespace's own view of processes over `/proc`.
pub fn mount_proc() -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE).map_err(|errno| {
        Failure::setup(format!(
            "mounting /proc: {errno}; in a container, /proc must not be masked (docker run --security-opt systempaths=unconfined)"
        ))
    })
}
