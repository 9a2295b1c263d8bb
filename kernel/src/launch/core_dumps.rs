//! Core dumps: of a process that crashes in a sandbox nobody outside is told.
//!
//! If the name of core files begins with `|` (kernel.core_pattern), the kernel starts the program that follows for each process
//! that crashes: as root, in the namespaces of the host and outside of the sandbox's cgroup, with the memory of what has crashed and a
//! name that this has given itself. The limit of core files keeps it from that only if it is 1, by which the kernel knows those programs
//! themselves (`do_coredump`, fs/coredump.c, Linux 6.12; `coredump_pipe`, 6.18). No core is as small, so none is written to a
//! file either. So the launcher has that limit and with it all that it starts, and the filter of tasks keeps them from changing it.

use std::fs;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::Failure;

/// The limit of core files, in bytes, with which no crash is told to anybody.
const UNTOLD: u64 = 1;
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Sets the limit, for this process and for all that it starts. Fails with a sentence if crashes are told to somebody all the same.
pub fn forbid() -> Result<(), Failure> {
    // For the test of what holds without it.
    if ringfence_faults::at(Point::Crash) == Some(Act::Drop) {
        return Ok(());
    }
    let limited = setrlimit(Resource::RLIMIT_CORE, UNTOLD, UNTOLD);
    // Who may not read it cannot tell; it is readable to everybody.
    let pattern = fs::read_to_string(PATTERN).unwrap_or_default();
    match obstacle(pattern.trim_end(), limited) {
        None => Ok(()),
        Some(reason) => Err(Failure::setup(reason)),
    }
}

/// What keeps the limit from helping.
fn obstacle(pattern: &str, limited: Result<(), Errno>) -> Option<String> {
    match (pattern.as_bytes().first(), limited) {
        // Linux 6.16 and later, of which none asks for the limit (`coredump_socket`).
        (Some(b'@'), _) => Some(format!(
            "whatever the limit of core files, the kernel tells {pattern} of a crash"
        )),
        (Some(b'|'), Err(errno)) => Some(format!(
            "the limit of core files cannot be set to {UNTOLD} ({errno}), and with another the kernel runs {pattern} at a crash"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_limit_does_not_keep_from_a_crash_is_said() {
        let refused = Err(Errno::EPERM);
        for (pattern, limited) in [
            ("core", Ok(())),
            ("core", refused),
            ("/var/%e", refused),
            ("", refused),
            ("|/bin/handler %e", Ok(())),
        ] {
            assert_eq!(obstacle(pattern, limited), None, "{pattern}");
        }
        for (pattern, limited) in [
            ("@/run/socket", Ok(())),
            ("@@/run/socket", refused),
            ("|/bin/handler %e", refused),
        ] {
            let reason = obstacle(pattern, limited).expect("a reason");
            assert!(reason.contains(pattern), "{reason}");
        }
    }
}
