//! What address spaces of UVM keep: ranges, range groups, and mappings of memory that clients have.

use super::{Content, Ledger};
use crate::ledger::mappings::{Addresses, Mappings, Uuid};

/// What stands for an address space of which the backend cannot tell which it is. What it keeps is charged for good.
pub const UNKNOWN_SPACE: u64 = u64::MAX;

impl Ledger {
    /// There is an address space from now on, for which `content` was taken, unless it was there.
    pub fn add_space(&mut self, space: u64, content: Content) {
        self.change_mappings(space, content, Mappings::begin);
    }

    /// An address space has one more range group.
    pub fn add_group(&mut self, space: u64) {
        if space == UNKNOWN_SPACE {
            self.objects = self.objects.saturating_add(1);
        }
        self.change_mappings(space, Content::default(), |mappings, _| {
            mappings.add_group();
            Vec::new()
        });
    }

    /// An address space has one range group less.
    pub fn end_group(&mut self, space: u64) {
        self.change_mappings(space, Content::default(), |mappings, _| {
            mappings.end_group();
            Vec::new()
        });
    }

    /// An address space has a range from now on, which has memory of its own.
    pub fn add_range(&mut self, space: u64, range: &Addresses, content: Content) {
        self.change_mappings(space, content, |mappings, content| {
            mappings.add_range(range, content)
        });
    }

    /// The range of an address space that begins at `start` is gone.
    pub fn end_range(&mut self, space: u64, start: u64) {
        self.change_mappings(space, Content::default(), |mappings, _| {
            mappings.end_range(start)
        });
    }

    /// An address space keeps `content` in a range for each of `gpus` from now on, in place of what it kept for them there.
    pub fn map(&mut self, space: u64, at: &Addresses, gpus: &[Uuid], content: Content) {
        self.change_mappings(space, content, |mappings, content| {
            mappings.map(at, gpus, content)
        });
    }

    /// An address space no longer keeps what it kept in a range, for a GPU or for all.
    pub fn unmap(&mut self, space: u64, at: &Addresses, gpu: Option<&Uuid>) {
        self.change_mappings(space, Content::default(), |mappings, _| {
            mappings.unmap(at, gpu)
        });
    }

    /// How many records more there are once an address space no longer keeps what it kept in a range.
    pub fn parted_by(&self, space: u64, at: &Addresses, gpu: Option<&Uuid>) -> usize {
        let mappings = self.mappings.get(&space);
        mappings.map_or(0, |mappings| mappings.parted_by(at, gpu))
    }

    /// Changes what an address space keeps. What [`UNKNOWN_SPACE`] keeps is never given back: it stands for many address
    /// spaces, so that what is mapped there takes nothing's place.
    fn change_mappings(
        &mut self,
        space: u64,
        content: Content,
        change: impl FnOnce(&mut Mappings, Content) -> Vec<Content>,
    ) {
        if space == UNKNOWN_SPACE {
            return;
        }
        let mappings = self.mappings.entry(space).or_default();
        let before = mappings.parts();
        let dropped = change(mappings, content);
        let after = mappings.parts();
        if after == 0 {
            self.mappings.remove(&space);
        }
        self.objects = self.objects.saturating_sub(before).saturating_add(after);
        for content in dropped {
            self.release(content);
        }
    }

    /// The address spaces that have a range or keep something, and what marks descriptions that show something.
    pub fn marks(&self) -> Vec<u64> {
        let spaces = self.mappings.keys().copied();
        spaces.chain(self.shown.marks()).collect()
    }

    /// An address space is gone.
    pub fn end_address_space(&mut self, space: u64) {
        let Some(mappings) = self.mappings.remove(&space) else {
            return;
        };
        self.objects = self.objects.saturating_sub(mappings.parts());
        for content in mappings.into_contents() {
            self.release(content);
        }
    }
}
