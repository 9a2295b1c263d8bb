//! What a process may do beyond its own: capabilities, and limits.
//!
//! `unsafe` is here because no library in use wraps one of these calls.

#![allow(unsafe_code)]

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Error;

/// Lets a process that this one is about to execute hold `capabilities`, which an ordinary user loses on that occasion
/// (capabilities(7)).
pub fn pass_on(capabilities: &[Capability]) -> Result<(), Error> {
    let wanted: CapsHashSet = capabilities.iter().copied().collect();
    let pass_on = || {
        let mut inheritable = caps::read(None, CapSet::Inheritable)?;
        inheritable.extend(&wanted);
        caps::set(None, CapSet::Inheritable, &inheritable)?;
        for capability in &wanted {
            caps::raise(None, CapSet::Ambient, *capability)?;
        }
        Ok::<(), caps::errors::CapsError>(())
    };
    pass_on().map_err(Error::PassCapabilitiesOn)
}

/// Gives up every capability but `kept`, and the means to get any back: `CAP_SETPCAP` is needed for that.
pub(crate) fn keep(kept: &[Capability]) -> Result<(), Error> {
    let kept: CapsHashSet = kept.iter().copied().collect();
    // The bounding set first: changing it takes a capability.
    let keep = || {
        for set in [CapSet::Bounding, CapSet::Ambient, CapSet::Inheritable] {
            caps::clear(None, set)?;
        }
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    keep().map_err(Error::DropCapabilities)?;
    nix::sys::prctl::set_no_new_privs().map_err(Error::NoNewPrivileges)
}

/// Limits the address space to `bytes`, descriptors to numbers below `descriptors`, and files that are written to `file_size`
/// bytes, unless they are limited further already; and forbids core files.
pub(crate) fn limit(bytes: u64, descriptors: u64, file_size: u64) -> Result<(), Error> {
    for (resource, most) in [
        (Resource::RLIMIT_AS, bytes),
        (Resource::RLIMIT_NOFILE, descriptors),
        (Resource::RLIMIT_FSIZE, file_size),
        (Resource::RLIMIT_CORE, 0),
    ] {
        getrlimit(resource)
            .map(|(_, hard)| hard.min(most))
            .and_then(|limit| setrlimit(resource, limit, limit))
            .map_err(|errno| Error::Limit(resource, errno))?;
    }
    Ok(())
}

/// From now on no memory of this process becomes executable (PR_SET_MDWE(2const)). A kernel that cannot do that (before Linux
/// 6.3) leaves it to the filter, which lets through no call that would make any executable: `Feature::RefusedExecution` of
/// the table in `linux.rs`.
pub(crate) fn refuse_executable_memory() -> Result<(), Error> {
    // SAFETY: the arguments are numbers.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_MDWE,
            libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN),
            0 as libc::c_ulong,
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    match Errno::result(result) {
        Err(Errno::EINVAL) => Ok(()),
        result => result.map(drop).map_err(Error::ExecutableMemory),
    }
}
