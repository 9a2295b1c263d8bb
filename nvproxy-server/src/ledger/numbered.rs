//! How a slab is read from what another server has written.
//!
//! A slab has a place for every number up to its largest, so a single large number would make it take any amount of memory.
//! The idea: an honest one is numbered densely, and so no number is larger than there can be entries.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use slab::Slab;

use super::limits::MAXIMUM_OBJECTS;

/// More entries than any slab of the ledger has: everything that has one counts as an object, or is about to.
const MAXIMUM_ENTRIES: usize = 2 * MAXIMUM_OBJECTS;

/// Reads a slab. Fails if a number is larger than any that was given.
pub fn deserialize<'de, D, T>(deserializer: D) -> Result<Slab<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let entries = BTreeMap::<usize, T>::deserialize(deserializer)?;
    match entries.last_key_value() {
        Some((last, _)) if *last >= MAXIMUM_ENTRIES => Err(D::Error::custom(format!(
            "the number {last}, of at most {MAXIMUM_ENTRIES} entries"
        ))),
        _ => Ok(entries.into_iter().collect()),
    }
}
