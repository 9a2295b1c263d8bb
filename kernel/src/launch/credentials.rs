//! What a task may do to the rest of the system: nothing that takes a privilege, and no ioctl on a device but the
//! harmless ones.

use caps::CapSet;
use landlock::{AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, path_beneath_rules};

use crate::failure::{Attempt, Failure};

/// Gives up every capability, for good: neither a set-user-ID program nor root's own ids bring one back.
pub fn drop_capabilities() -> Result<(), Failure> {
    // The bounding set first: changing it takes a capability.
    for set in [
        CapSet::Bounding,
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).attempt("dropping capabilities")?;
    }
    nix::sys::prctl::set_no_new_privs().attempt("no_new_privs")
}

/// Enters a Landlock domain in which devices opened from now on accept ioctl only below `harmless`. A description of
/// one of the driver's nodes that a task opens past the sentry, through /proc/self/fd say, is of no use to it.
///
/// Kernels before Linux 6.10 cannot withhold ioctl, and those without Landlock nothing at all; the sandbox is then held
/// by its other walls, which `ringfence doctor` says.
pub fn withhold_device_ioctls(harmless: &[&str]) -> Result<(), Failure> {
    Ruleset::default()
        .handle_access(AccessFs::IoctlDev)
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(harmless, AccessFs::IoctlDev)))
        .and_then(|ruleset| ruleset.restrict_self())
        .map(drop)
        .attempt("Landlock")
}
