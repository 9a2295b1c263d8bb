//! Writing the body of a file: numbers, strings and lists.
//!
//! Strings are written by their place in the table of strings, which gets each string when it is first written.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Writer {
    strings: BTreeMap<String, u32>,
    /// The table of strings, without the number of them.
    table: Vec<u8>,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn number(&mut self, number: u32) {
        put(&mut self.bytes, number);
    }

    /// The length of a list.
    pub(super) fn length(&mut self, length: usize) {
        // Lists are parts of a driver's headers: none comes near 2^32 entries.
        put(&mut self.bytes, length as u32);
    }

    pub(super) fn string(&mut self, string: &str) {
        let index = match self.strings.get(string) {
            Some(index) => *index,
            None => {
                let index = self.strings.len() as u32;
                self.strings.insert(string.to_owned(), index);
                put(&mut self.table, string.len() as u32);
                self.table.extend(string.as_bytes());
                index
            }
        };
        self.number(index);
    }

    /// Writes distinct entries in their order, and gives the place of each.
    pub(super) fn pool<T: Ord + Copy>(
        &mut self,
        entries: BTreeSet<T>,
        mut write: impl FnMut(&mut Writer, T),
    ) -> BTreeMap<T, u32> {
        self.length(entries.len());
        let mut places = BTreeMap::new();
        for (place, entry) in entries.into_iter().enumerate() {
            write(self, entry);
            places.insert(entry, place as u32);
        }
        places
    }

    /// Writes what is in one of two ascending lists but not in both, each as the distance from the one before it.
    pub(super) fn changes(&mut self, before: &[u32], now: &[u32]) {
        let before: BTreeSet<u32> = before.iter().copied().collect();
        let now: BTreeSet<u32> = now.iter().copied().collect();
        let changed: Vec<u32> = before.symmetric_difference(&now).copied().collect();
        self.length(changed.len());
        let mut least = 0;
        for index in changed {
            self.number(index - least);
            least = index + 1;
        }
    }

    /// The whole body.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, self.strings.len() as u32);
        body.extend(self.table);
        body.extend(self.bytes);
        body
    }
}

/// LEB128: seven bits a byte, the lowest first, the top bit set in all bytes but the last.
fn put(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}
