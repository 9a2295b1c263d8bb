//! The capabilities that the first process has lent, and that the program does not get.
//!
//! The idea: the first process needs rights over the container's own namespaces, to start the program in further ones and
//! to install a filter. The front adds them to each of the five sets in the specification. The program gets each set as
//! the specification had it. What is left when it executes follows from the kernel's rules (capabilities(7)), as without
//! a sandbox: so it would even if a profile kept the effective set from being changed here.

use caps::{CapSet, Capability, CapsHashSet};
use ringfence_sentry::failure::{Attempt, Failure};
use serde::{Deserialize, Serialize};

/// What is lent: to mount and to install a filter, to give rights back, to leave the root, over tasks, and to try what the
/// container's cgroup lets through.
pub const LENT: [Capability; 5] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETPCAP,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_MKNOD,
];

/// What is lent to the process that starts a further program: to enter its namespaces and to install a filter, to give rights back, and
/// to enter a directory as the low-level runtime would, which does so as root.
pub const LENT_FURTHER: [Capability; 4] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETPCAP,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_DAC_READ_SEARCH,
];

/// A program's sets of capabilities, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub permitted: Vec<String>,
    pub inheritable: Vec<String>,
    pub ambient: Vec<String>,
}

impl Rights {
    /// Gives back what no filter's installation needs. Before the filter: it may refuse some of these calls.
    pub fn give_back_early(&self) -> Result<(), Failure> {
        let bounding = set_of(&self.bounding);
        for capability in caps::all() {
            // One that the kernel does not know is in no set.
            if !bounding.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability).attempt("the bounding set")?;
            }
        }
        caps::clear(None, CapSet::Ambient).attempt("the ambient set")?;
        let inheritable = set_of(&self.inheritable);
        caps::set(None, CapSet::Inheritable, &inheritable).attempt("the inheritable set")?;
        for capability in set_of(&self.ambient) {
            // The kernel takes only what is inheritable, and runtimes pass over the rest.
            if inheritable.contains(&capability) {
                caps::raise(None, CapSet::Ambient, capability).attempt("the ambient set")?;
            }
        }
        Ok(())
    }

    /// Gives back the rest. If the filter does not let this process, the kernel does so when it executes the program.
    pub fn give_back(&self) {
        // Whoever is not root has fewer of them than the specification says, and the kernel gives nobody more.
        let own = caps::read(None, CapSet::Permitted).unwrap_or_default();
        let left = |names: &[String]| &set_of(names) & &own;
        let _ = caps::set(None, CapSet::Effective, &left(&self.effective));
        let _ = caps::set(None, CapSet::Permitted, &left(&self.permitted));
    }
}

impl Rights {
    /// Fails if the calling process could use a capability that the program does not get.
    pub fn expect_given_back(&self) -> Result<(), Failure> {
        let permitted = set_of(&self.permitted);
        let left = caps::read(None, CapSet::Permitted).attempt("the permitted set")?;
        match left.is_subset(&permitted) {
            true => Ok(()),
            false => Err(Failure::setup(
                "the container's seccomp profile forbids to give capabilities back (capset), so that no further program can be started \
                 in its sandbox: have the profile allow that, or have the container's own program start it",
            )),
        }
    }
}

/// The capabilities of these names that there are.
fn set_of(names: &[String]) -> CapsHashSet {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}
