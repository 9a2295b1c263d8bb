//! Which needs build on which. Where one is missing, those that build on it are not tried: each would only say the same again.

use super::report::{Finding, Outcome};

/// The process file system of this process, with which nearly everything is tried.
pub const PROC: &str = "/proc";
/// Nothing around this process that keeps it from supervising others.
pub const OUTSIDE: &str = "a place outside of sandboxes";
const USERS: &str = "user namespaces";
const NOTIFICATION: &str = "seccomp notification";
const DESCRIPTORS: &str = "pidfd_getfd";

/// A need, and what it builds on. That builds on what stands before it in its turn.
const BUILDS_ON: [(&str, &str); 26] = [
    (OUTSIDE, PROC),
    (USERS, OUTSIDE),
    ("process namespaces and /proc", USERS),
    ("mounts and mount_setattr", USERS),
    ("a file system of its own", USERS),
    ("network namespaces", USERS),
    (NOTIFICATION, OUTSIDE),
    ("seccomp descriptor injection", NOTIFICATION),
    ("kcmp", OUTSIDE),
    (DESCRIPTORS, OUTSIDE),
    ("pidfd of a thread", DESCRIPTORS),
    ("process_vm_readv, _writev", OUTSIDE),
    ("ptrace", OUTSIDE),
    ("ptrace of dispatched calls", "ptrace"),
    ("io_uring with futexes", OUTSIDE),
    ("secret memory", OUTSIDE),
    ("locked memory", OUTSIDE),
    ("inotify", OUTSIDE),
    ("Landlock", OUTSIDE),
    ("Landlock TRUNCATE", OUTSIDE),
    ("Landlock CONNECT_TCP", OUTSIDE),
    ("Landlock IOCTL_DEV", OUTSIDE),
    ("Landlock scopes", OUTSIDE),
    ("core dumps", OUTSIDE),
    ("self-confinement", USERS),
    (WHOLE, USERS),
];
/// The last need, which builds on all others.
const WHOLE: &str = "a sandbox";

/// The need that is missing, and on which the one called `name` builds.
pub fn cause<'a>(name: &str, findings: &'a [Finding]) -> Option<&'a Finding> {
    let is_missing = |finding: &&Finding| finding.outcome == Outcome::Missing;
    if name == WHOLE {
        return findings.iter().find(is_missing);
    }
    let (_, below) = BUILDS_ON.iter().find(|(above, _)| *above == name)?;
    let found = findings.iter().find(|finding| finding.name == *below);
    found.filter(is_missing).or_else(|| cause(below, findings))
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;

    /// So the search ends.
    #[test]
    fn what_is_built_on_is_tried_before() {
        let place = |name: &str| checks::ALL.iter().position(|check| check.name() == name);
        for (name, below) in BUILDS_ON {
            let (above, below) = (place(name).expect(name), place(below).expect(below));
            assert!(below < above, "{name}");
        }
    }

    #[test]
    fn the_cause_is_what_is_missing_itself() {
        let finding = |name: &str, outcome| Finding::plain(name, outcome, "");
        let named =
            |name: &str, findings: &[Finding]| cause(name, findings).map(|it| it.name.clone());
        let missing = [
            finding(PROC, Outcome::Ok),
            finding(OUTSIDE, Outcome::Missing),
        ];
        for name in [
            USERS,
            "network namespaces",
            "seccomp descriptor injection",
            WHOLE,
        ] {
            assert_eq!(named(name, &missing).as_deref(), Some(OUTSIDE), "{name}");
        }
        assert_eq!(named("sealed memory files", &missing), None);
        let weak = [finding("ptrace", Outcome::Weakness)];
        assert_eq!(named(WHOLE, &weak), None);
    }
}
