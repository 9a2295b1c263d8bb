//! The handle table: names for open file descriptions that survive reuse of their slot.
//!
//! A handle is a slot number and the generation of what is in the slot. A slot's generation grows each time the slot
//! is emptied, so a handle kept past its close names nothing, rather than whatever took the slot next. Handles come
//! from another process: every one is looked up, none is trusted.

use nix::errno::Errno;
use nvproxy_protocol::requests::MAXIMUM_HANDLES;
use ringfence_faults::{Act, Point, at};
use slab::Slab;

use crate::backend::handover::Error;

/// The handle of what is in `slot` in its `generation`.
pub fn name(slot: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | slot as u64
}

/// Values of type `T`, each named by a handle.
pub struct HandleTable<T> {
    slots: Slab<T>,
    /// By slot number, kept when the slot is empty. Starts at 1, so that no handle is 0.
    generations: Vec<u32>,
}

impl<T> Default for HandleTable<T> {
    fn default() -> Self {
        HandleTable {
            slots: Slab::new(),
            generations: Vec::new(),
        }
    }
}

impl<T> HandleTable<T> {
    /// Stores what `value` makes, given its name. Fails with `EMFILE` when the table is full.
    pub fn insert(&mut self, value: impl FnOnce(u64) -> T) -> Result<u64, Errno> {
        let most = match at(Point::Nodes) {
            Some(Act::Value(most)) => most as usize,
            _ => MAXIMUM_HANDLES,
        };
        if self.slots.len() >= most {
            return Err(Errno::EMFILE);
        }
        let vacant = self.slots.vacant_entry();
        let slot = vacant.key();
        if slot == self.generations.len() {
            self.generations.push(1);
        }
        let handle = name(slot, self.generations[slot]);
        vacant.insert(value(handle));
        Ok(handle)
    }

    /// The value that `handle` names. Fails with `EBADF` if it names none.
    pub fn get(&self, handle: u64) -> Result<&T, Errno> {
        let slot = self.slot(handle)?;
        self.slots.get(slot).ok_or(Errno::EBADF)
    }

    /// As [`HandleTable::get`], to change it.
    pub fn get_mut(&mut self, handle: u64) -> Result<&mut T, Errno> {
        let slot = self.slot(handle)?;
        self.slots.get_mut(slot).ok_or(Errno::EBADF)
    }

    /// Takes out what `handle` names; from now on the handle names nothing. Fails with `EBADF` if it names none.
    pub fn remove(&mut self, handle: u64) -> Result<T, Errno> {
        let slot = self.slot(handle)?;
        let value = self.slots.try_remove(slot).ok_or(Errno::EBADF)?;
        // After 2^32 - 1 closes of one slot its generations start over; 0 stays unused.
        self.generations[slot] = self.generations[slot].wrapping_add(1).max(1);
        Ok(value)
    }

    /// What is in the table, by slot number, and the slots' generations: what [`HandleTable::restore`] needs.
    pub fn slots(&self) -> (impl Iterator<Item = (usize, &T)>, &[u32]) {
        (self.slots.iter(), &self.generations)
    }

    /// The table that had these slots and generations. Fails if there is none.
    pub fn restore(slots: Vec<(usize, T)>, generations: Vec<u32>) -> Result<HandleTable<T>, Error> {
        let count = slots.len();
        let is_known = |slot: &usize| *slot < generations.len();
        if generations.len() > MAXIMUM_HANDLES
            || generations.contains(&0)
            || !slots.iter().all(|(slot, _)| is_known(slot))
        {
            return Err(Error::Handles);
        }
        let slots: Slab<T> = slots.into_iter().collect();
        if slots.len() != count {
            return Err(Error::SameHandle);
        }
        Ok(HandleTable { slots, generations })
    }

    fn slot(&self, handle: u64) -> Result<usize, Errno> {
        let slot = (handle & u64::from(u32::MAX)) as usize;
        let generation = (handle >> 32) as u32;
        match self.generations.get(slot) {
            Some(&current) if current == generation => Ok(slot),
            _ => Err(Errno::EBADF),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_what_it_was_given_for_and_nothing_after() {
        let mut table = HandleTable::default();
        let first = table.insert(|_| "first").unwrap();
        assert_ne!(first, 0);
        assert_eq!(table.get(first), Ok(&"first"));
        assert_eq!(table.remove(first), Ok("first"));
        let second = table.insert(|_| "second").unwrap();
        assert_eq!(
            first & 0xffff_ffff,
            second & 0xffff_ffff,
            "the slot is reused"
        );
        assert_eq!(table.get(first), Err(Errno::EBADF));
        assert_eq!(table.remove(first), Err(Errno::EBADF));
        assert_eq!(table.get(second), Ok(&"second"));
    }

    #[test]
    fn handles_that_were_never_given_name_nothing() {
        let mut table = HandleTable::default();
        table.insert(|_| ()).unwrap();
        for handle in [0, 1, 1 << 32 | 1, u64::MAX, 2 << 32] {
            assert_eq!(table.get(handle), Err(Errno::EBADF), "{handle:#x}");
        }
    }

    #[test]
    fn a_restored_table_knows_what_the_other_did() {
        let mut table = HandleTable::default();
        let handles = ["a", "b", "c", "d"].map(|value| table.insert(|_| value).unwrap());
        table.remove(handles[1]).unwrap();
        table.remove(handles[3]).unwrap();
        let (slots, generations) = table.slots();
        let slots: Vec<_> = slots.map(|(slot, value)| (slot, *value)).collect();
        let mut restored = HandleTable::restore(slots.clone(), generations.to_vec()).unwrap();
        assert_eq!(restored.get(handles[0]), Ok(&"a"));
        assert_eq!(restored.get(handles[2]), Ok(&"c"));
        for closed in [handles[1], handles[3]] {
            assert_eq!(restored.get(closed), Err(Errno::EBADF));
        }
        for value in ["e", "f", "g"] {
            let handle = restored.insert(|_| value).unwrap();
            assert!(!handles.contains(&handle), "a handle was given twice");
            assert_eq!(restored.get(handle), Ok(&value));
        }
        let restored = |slots, generations| HandleTable::restore(slots, generations).is_err();
        assert!(
            restored(slots.clone(), vec![1]),
            "a slot that no generation is of"
        );
        assert!(restored(vec![(0, "a"), (0, "b")], vec![1]), "a slot twice");
        assert!(restored(slots, vec![0; 4]), "generation 0");
    }

    #[test]
    fn a_full_table_refuses() {
        let mut table = HandleTable::default();
        for _ in 0..MAXIMUM_HANDLES {
            table.insert(|_| ()).unwrap();
        }
        assert_eq!(table.insert(|_| ()), Err(Errno::EMFILE));
    }
}
