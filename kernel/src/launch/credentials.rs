//! What a task may do to the rest of the system: nothing that takes a privilege, no ioctl on a device but the harmless
//! ones, no writing but where the sandbox can be written, and no signal or connection by an abstract name out of it.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use caps::CapSet;
use landlock::{
    ABI, AccessFs, AddRuleError, AddRulesError, BitFlags, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};

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

/// Enters a Landlock domain, which has three purposes.
///
/// Devices opened from now on accept ioctl only below `harmless`. A description of one of the driver's nodes that a
/// task opens past the sentry, through /proc/self/fd say, is of no use to it.
///
/// Only what lies below `writable` can be written. The sandbox's mounts see to that by themselves, but some of the
/// descriptors that a program inherits are of the host's mounts (`given.rs`): without this, a program that was given a
/// named pipe or a device to read could open it anew through /proc/self/fd, to write. Those of `inherited` that were opened to be
/// written stay so.
///
/// A file can be emptied while it is opened to be read. But for a domain that forbids that, the kernel looks at every
/// directory above each file that is opened, to read it too, which nearly doubles what opening takes; so it is forbidden
/// only to programs that have inherited what they could do it to.
///
/// Signals reach processes of this domain only, and so do connections to abstract sockets, which would otherwise be those
/// of the caller for a program that has the caller's network.
///
/// Older kernels have less of this, as the table in `confinement/src/linux.rs` says, and those without Landlock nothing at all; the
/// sandbox is then held by its other walls, which `ringfence doctor` says.
pub fn enter_domain(
    harmless: &[String],
    writable: &[PathBuf],
    inherited: &[BorrowedFd<'_>],
) -> Result<(), Failure> {
    let mut writing: BitFlags<AccessFs> = AccessFs::from_write(ABI::V5) & !AccessFs::IoctlDev;
    if !inherited
        .iter()
        .any(|descriptor| leads_to_a_file(*descriptor))
    {
        writing &= !AccessFs::Truncate;
    }
    let to_files = writing & AccessFs::from_file(ABI::V5);
    let mut ruleset = Ruleset::default()
        .handle_access(writing | AccessFs::IoctlDev)
        .and_then(|ruleset| match ringfence_faults::at(Point::Scope) {
            Some(Act::Drop) => Ok(ruleset),
            _ => ruleset.scope(Scope::Signal | Scope::AbstractUnixSocket),
        })
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(harmless, AccessFs::IoctlDev)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(writable, writing)))
        .attempt("Landlock")?;
    for descriptor in inherited
        .iter()
        .filter(|descriptor| is_written(**descriptor))
    {
        let added = (&mut ruleset).add_rule(PathBeneath::new(descriptor, to_files));
        match added.map(drop) {
            Err(error) if has_no_path(&error) => {}
            added => added.attempt("Landlock")?,
        }
    }
    ruleset.restrict_self().map(drop).attempt("Landlock")
}

/// Whether a file of the host that is not to be written can be opened through it: it is one itself, or a directory. What
/// cannot be told counts as one.
fn leads_to_a_file(descriptor: BorrowedFd<'_>) -> bool {
    fstat(descriptor).map_or(true, |status| {
        match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => true,
            SFlag::S_IFREG => !is_written(descriptor),
            _ => false,
        }
    })
}

/// Whether it was opened to be written.
fn is_written(descriptor: BorrowedFd<'_>) -> bool {
    let flags = fcntl(descriptor, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE != OFlag::O_RDONLY)
}

/// Whether a rule was refused because it is about a pipe, a socket or a file in memory. Domains do not concern these:
/// a program can open them anew as it likes.
fn has_no_path(error: &RulesetError) -> bool {
    let RulesetError::AddRules(AddRulesError::Fs(AddRuleError::AddRuleCall { source, .. })) = error
    else {
        return false;
    };
    source.raw_os_error() == Some(libc::EBADFD)
}
