//! What a task may do to the rest of the system: nothing that takes a privilege, no ioctl on a device but the harmless
//! ones, and no writing but where the sandbox can be written.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use caps::CapSet;
use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    path_beneath_rules,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

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

/// Enters a Landlock domain, which has two purposes.
///
/// Devices opened from now on accept ioctl only below `harmless`. A description of one of the driver's nodes that a
/// task opens past the sentry, through /proc/self/fd say, is of no use to it.
///
/// Only what lies below `writable` can be written. The sandbox's mounts see to that by themselves, but the descriptors
/// that a program inherits are of the host's mounts: without this, a program that was given a file to read could open
/// it anew through /proc/self/fd, to write. Those of `inherited` that were opened to be written stay so.
///
/// Kernels before Linux 6.10 cannot withhold ioctl, and those without Landlock nothing at all; the sandbox is then held
/// by its other walls, which `ringfence doctor` says.
pub fn enter_domain(
    harmless: &[String],
    writable: &[PathBuf],
    inherited: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let writing: BitFlags<AccessFs> = AccessFs::from_write(ABI::V5) & !AccessFs::IoctlDev;
    let to_files = writing & AccessFs::from_file(ABI::V5);
    let inherited = inherited
        .iter()
        .filter(|descriptor| is_written(**descriptor));
    Ruleset::default()
        .handle_access(writing | AccessFs::IoctlDev)
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(harmless, AccessFs::IoctlDev)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(writable, writing)))
        .and_then(|mut ruleset| {
            for descriptor in inherited {
                (&mut ruleset).add_rule(PathBeneath::new(descriptor, to_files))?;
            }
            ruleset.restrict_self()
        })
        .map(drop)
        .attempt("Landlock")
}

/// Whether this is a file or a terminal, opened to be written. There are no rules about what has no path, such as a
/// pipe, and a program can open that anew whatever the rules are.
fn is_written(descriptor: BorrowedFd<'_>) -> bool {
    let flags = fcntl(descriptor, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    let written = flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE != OFlag::O_RDONLY);
    let kind =
        fstat(descriptor).map(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT);
    written && kind.is_ok_and(|kind| kind == SFlag::S_IFREG || kind == SFlag::S_IFCHR)
}
