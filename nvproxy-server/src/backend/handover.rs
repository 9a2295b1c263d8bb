//! What a server hands to the process that takes its place: a state, and descriptors that travel beside it.
//!
//! A saved state is a [`serde_json::Value`] and so cannot hold a descriptor. Whoever saves puts a duplicate into
//! [`Enclosures`] and writes down its number; whoever restores takes it out by that number. Saving consumes nothing: if
//! the handover fails, the saved server goes on.
//!
//! A saved state can come from a server that was taken over. It is read by a confined process, is bounded in size, and has
//! nothing in it that the launcher says; every mistake in it is an [`Error`].

use std::os::fd::OwnedFd;

/// What is wrong with a saved state, whichever driver it is of.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It names a descriptor that did not come with it.
    #[error("the saved state names descriptor {number} of {count} that came with it")]
    NotEnclosed {
        /// The descriptor's number.
        number: u32,
        /// How many came.
        count: usize,
    },
    /// It names this descriptor twice.
    #[error("the saved state names descriptor {0} twice")]
    NamedTwice(u32),
    /// Its handles are none that a server gives.
    #[error("the saved handles cannot have been given")]
    Handles,
    /// Two of its descriptions have one handle.
    #[error("two saved descriptions have the same handle")]
    SameHandle,
    /// The ledger cannot be written, or not be read.
    #[error("the ledger: {0}")]
    Ledger(#[source] serde_json::Error),
}

/// Descriptors that travel beside a saved state, by number.
#[derive(Debug, Default)]
pub struct Enclosures(Vec<Option<OwnedFd>>);

impl Enclosures {
    /// Adds a descriptor and returns its number.
    pub fn put(&mut self, descriptor: OwnedFd) -> u32 {
        let number = self.0.len();
        self.0.push(Some(descriptor));
        // A process has at most 2^31 descriptors.
        number as u32
    }

    /// Takes out the descriptor with this number, which can be done once.
    pub fn take(&mut self, number: u32) -> Result<OwnedFd, Error> {
        let count = self.0.len();
        let found = usize::try_from(number)
            .ok()
            .and_then(|index| self.0.get_mut(index));
        let enclosed = found.ok_or(Error::NotEnclosed { number, count })?;
        enclosed.take().ok_or(Error::NamedTwice(number))
    }
}

impl From<Vec<OwnedFd>> for Enclosures {
    fn from(descriptors: Vec<OwnedFd>) -> Enclosures {
        Enclosures(descriptors.into_iter().map(Some).collect())
    }
}

/// Those that have not been taken, in order of their numbers.
impl From<Enclosures> for Vec<OwnedFd> {
    fn from(enclosures: Enclosures) -> Vec<OwnedFd> {
        enclosures.0.into_iter().flatten().collect()
    }
}

/// A device node in a saved state, as its name in `/dev`: for `#[serde(with = "...")]`.
pub mod node_name {
    use nvproxy_abi::node::Node;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the name of `node`.
    pub fn serialize<S: Serializer>(node: &Node, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&node.file_name())
    }

    /// Reads the name of a node. Fails if it is none of a sandbox's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let name = String::deserialize(deserializer)?;
        Node::from_file_name(&name)
            .ok_or_else(|| D::Error::custom(format!("there is no node '{name:.40}'")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn descriptor() -> OwnedFd {
        File::open("/dev/null").expect("/dev/null").into()
    }

    #[test]
    fn descriptors_keep_their_numbers_on_the_way() {
        let mut enclosures = Enclosures::default();
        let descriptors = [descriptor(), descriptor()];
        let raw = descriptors.each_ref().map(AsRawFd::as_raw_fd);
        assert_eq!(descriptors.map(|each| enclosures.put(each)), [0, 1]);
        let mut arrived = Enclosures::from(Vec::from(enclosures));
        for number in [1, 0] {
            let taken = arrived.take(number).expect("a descriptor");
            assert_eq!(taken.as_raw_fd(), raw[number as usize]);
        }
    }

    #[test]
    fn a_number_is_taken_once_and_has_to_be_there() {
        let mut enclosures = Enclosures::from(vec![descriptor()]);
        let mut take = |number| {
            let taken = enclosures.take(number).map(drop);
            taken.map_err(|error| error.to_string())
        };
        let absent = |number| {
            Err(format!(
                "the saved state names descriptor {number} of 1 that came with it"
            ))
        };
        assert_eq!(take(1), absent(1));
        assert_eq!(take(u32::MAX), absent(u32::MAX));
        assert_eq!(take(0), Ok(()));
        let again = Err("the saved state names descriptor 0 twice".to_owned());
        assert_eq!(take(0), again);
        assert!(Vec::from(enclosures).is_empty());
    }
}
