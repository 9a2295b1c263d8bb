//! The Landlock domain of a container's program: no ioctl is let to a device but the harmless ones.
//!
//! The rules name files, and are made while nothing of the image's has run: later its programs could have something else under the
//! names. The sentry keeps them for programs that are started later, each of which enters a domain of its own by them.
//!
//! `unsafe` is here because the library in use enters a domain by rules alone that the process has made itself.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use landlock::{AccessFs, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError};
use nix::errno::Errno;
use ringfence_sentry::failure::{Attempt, Failure};

use super::covering::named;

/// The rules, by which ioctls are let to what lies at or below these paths (landlock_create_ruleset(2)). `None` if this kernel's Landlock
/// knows nothing of ioctls.
pub fn rules(harmless: &[String]) -> Result<Option<OwnedFd>, Failure> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::IoctlDev)
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(rules_for(harmless)));
    rules.map(Option::from).attempt("Landlock")
}

/// A rule for each of these devices that there is. The image may have a link in the place of one, to where others are.
fn rules_for(
    harmless: &[String],
) -> impl Iterator<Item = Result<PathBeneath<OwnedFd>, RulesetError>> {
    let found = harmless.iter().filter_map(|path| named(path).ok());
    found.map(|device| Ok(PathBeneath::new(device, AccessFs::IoctlDev)))
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
