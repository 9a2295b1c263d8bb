//! What the server is left with: the sandbox's device nodes, the calls of `confinement/policies/server.policy`, and no
//! capability.
//!
//! A server that a hostile sentry has taken over can issue what the tables allow, as it could before. It cannot read a
//! file, reach the network or another process, or run anything else.

use std::collections::BTreeSet;
use std::path::PathBuf;

use caps::Capability;
use nvproxy_abi::Abi;
use nvproxy_abi::table::Family;
use ringfence_confinement::{Confinement, Kept, Problem, Table, policies};

use nvproxy_protocol::requests::MAXIMUM_HANDLES;

/// The capabilities that a server needs in order to give up all that it has. Its parent passes them on.
pub const NEEDED: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP];

/// Much more than the stacks of 144 threads (2 MiB each) and the channel take. The simulated driver's memory is mapped, too.
const ADDRESS_SPACE: u64 = 20 << 30;
/// Each handle is a description with a command descriptor; some have an event descriptor, or travel. The
/// simulated driver's have a file and a counter.
const DESCRIPTORS: u64 = 4 * MAXIMUM_HANDLES as u64;

/// Why the server is not confined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no filter for it.
    #[error("the seccomp filter: {0}")]
    Filter(#[source] Problem),
    /// One of the steps failed.
    #[error("the confinement: {0}")]
    Step(#[source] ringfence_confinement::Error),
}

/// Confines this process, which must have one thread. `nodes` are what it may open, `abi` what it may ask.
pub fn enter(nodes: &[PathBuf], abi: &Abi) -> Result<(), Error> {
    let numbers = |family| -> Vec<u32> {
        let rows = abi.granted(family).map(|row| row.id);
        rows.collect::<BTreeSet<u32>>().into_iter().collect()
    };
    let (escapes, uvm_requests) = (numbers(Family::Frontend), numbers(Family::Uvm));
    let tables = [
        ("escapes", &escapes[..]),
        ("uvm_requests", &uvm_requests),
        ("self", &[std::process::id()]),
    ];
    let tables = tables.map(|(name, numbers)| Table { name, numbers });
    let program = policies::SERVER.compile(&tables).map_err(Error::Filter)?;
    Confinement {
        kept: Some(Kept {
            paths: nodes,
            // Since the launcher started it.
            alone: true,
        }),
        landlock: true,
        capabilities: &[],
        address_space: ADDRESS_SPACE,
        descriptors: DESCRIPTORS,
        // The simulated driver's memory is files.
        file_size: u64::MAX,
        program: &program,
    }
    .enter()
    .map_err(Error::Step)
}
