//! The memory that something has: what an object, a copy of one or a mapping of UVM is charged for.

use serde::{Deserialize, Serialize};

/// Names an allocation in the ledger.
pub type Key = usize;

/// What an object has besides its place in the tree, and what goes over to a copy of it. Whoever has one owns a
/// reference to each of its allocations and gives it either to the ledger or back ([`super::accounts::Ledger::release`]).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use = "its references have to be given back"]
pub struct Content {
    /// The number of the GPU that it belongs to (NV0080_ALLOC_PARAMETERS.deviceId).
    #[serde(deserialize_with = "Option::deserialize")]
    pub gpu: Option<u32>,
    pub memory: Vec<Key>,
}

impl Content {
    /// Memory of no GPU.
    pub fn of(memory: Key) -> Content {
        Content {
            gpu: None,
            memory: vec![memory],
        }
    }
}
