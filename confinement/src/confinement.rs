//! The steps by which a process locks itself in, in the only order in which they work: each takes away what an earlier
//! one needed.

use caps::Capability;
use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
    path_beneath_rules,
};
use libc::sock_filter;

use crate::root::{self, Kept};
use crate::{Error, install, rights};

/// What is left to a process.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// What it can still reach. `None` changes nothing: for who may not open anything anyway.
    pub kept: Option<Kept<'a>>,
    /// Whether Landlock forbids every other file, and TCP, once more, and what it has no other wall against: to send to names
    /// of other domains' sockets, by a socket that it was given. It also forbids to trace processes that are not
    /// in the same domain (landlock(7)), so it is not for who has to. Where the kernel has no Landlock, nothing is
    /// forbidden by it.
    pub landlock: bool,
    /// Capabilities in its user namespace that it keeps.
    pub capabilities: &'a [Capability],
    /// Bytes of address space. Reserved addresses count as well as used ones.
    pub address_space: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Bytes up to which it may write a file, be it on a disk or in memory, or lengthen one.
    pub file_size: u64,
    /// The filter of its system calls, from [`crate::Policy::compile`].
    pub program: &'a [sock_filter],
}

impl Confinement<'_> {
    /// Confines the calling process for good. It must have one thread, `CAP_SETPCAP` in its user namespace, and
    /// `CAP_SYS_ADMIN` if its file system changes. If it fails the process is to end: it may be confined in part.
    ///
    /// Afterwards it cannot be traced but by who has `CAP_SYS_PTRACE`, and leaves no core file.
    pub fn enter(&self) -> Result<(), Error> {
        if let Some(kept) = self.kept {
            root::replace(&kept)?;
        }
        rights::limit(self.address_space, self.descriptors, self.file_size)?;
        rights::refuse_executable_memory()?;
        rights::keep(self.capabilities)?;
        // After capabilities have changed, which may undo it.
        nix::sys::prctl::set_dumpable(false).map_err(Error::Dumpable)?;
        if self.landlock {
            self.forbid_files().map_err(Error::Landlock)?;
        }
        install(self.program).map_err(Error::Filter)
    }

    fn forbid_files(&self) -> Result<(), landlock::RulesetError> {
        let known = ABI::V6;
        let paths = self.kept.map_or(&[][..], |kept| kept.paths);
        let kept = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        Ruleset::default()
            .handle_access(AccessFs::from_all(known))?
            .handle_access(AccessNet::from_all(known))?
            .scope(Scope::from_all(known))?
            .create()?
            .add_rules(path_beneath_rules(paths, kept))?
            .restrict_self()
            .map(drop)
    }
}
