//! What the sentry is left with: `/proc` of its process namespace, the calls of `confinement/policies/sentry.policy`,
//! and the one capability that it needs over tasks.
//!
//! There is no Landlock here: a process in a Landlock domain can trace only processes of the same domain (landlock(7)),
//! and tasks, which were started before, have one of their own.

use std::path::PathBuf;

use caps::Capability;
use ringfence_confinement::{Confinement, Kept, Table, policies};

use crate::arch::PAGE;
use crate::failure::{Attempt, Failure};

/// Over tasks that have made themselves untraceable: to read and write their memory, compare their descriptors, and hold
/// them. All tasks have the sentry's user, so nothing else is needed.
const CAPABILITIES: [Capability; 1] = [Capability::CAP_SYS_PTRACE];
/// Enough for a recording, which is kept in memory until the end.
const ADDRESS_SPACE: u64 = 32 << 30;
/// A witness for each description that tasks hold, of which the server has 65536 at most, and a second one for events.
pub const DESCRIPTORS: u64 = 1 << 18;

/// Confines this process, which must have one thread. In a container its root is as empty as it is to be already.
pub fn enter(is_in_container: bool) -> Result<(), Failure> {
    let own = [std::process::id()];
    let table = Table {
        name: "self",
        numbers: &own,
    };
    let program = policies::SENTRY
        .compile(&[table])
        .attempt("the sentry's filter")?;
    let paths = [PathBuf::from("/proc")];
    let kept = Kept {
        paths: &paths,
        // Since the launcher started it, in namespaces that init did not get.
        alone: true,
    };
    Confinement {
        kept: (!is_in_container).then_some(kept),
        landlock: false,
        capabilities: &CAPABILITIES,
        address_space: ADDRESS_SPACE,
        descriptors: DESCRIPTORS,
        // What it writes goes through pipes. The memory that it makes for a pin is a file of a page.
        file_size: PAGE,
        program: &program,
    }
    .enter()
    .attempt("the sentry's confinement")
}
