//! What one address space of UVM keeps: memory, in ranges of addresses, for GPUs.
//!
//! UVM duplicates what a program maps, and so the program can free its own object and have the memory still. The idea: a
//! mapping is a [`Content`] like that of an object, and it is cut into pieces as UVM cuts it: a piece for each GPU, and
//! further ones where a part of a range is mapped anew or unmapped. When the last piece is gone, so is the content.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use slab::Slab;

use super::content::Content;
use super::numbered;

/// How UVM calls a GPU: the 16 bytes of an NvProcessorUuid.
pub type Uuid = u128;

/// Addresses, from the first to one behind the last.
pub type Addresses = Range<u64>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    content: Content,
    pieces: usize,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    end: u64,
    /// Of what is kept.
    key: usize,
}

/// The mappings of one address space.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mappings {
    /// What was taken for the address space itself, and how many range groups it has.
    #[serde(deserialize_with = "Option::deserialize")]
    own: Option<Content>,
    groups: usize,
    #[serde(deserialize_with = "numbered::deserialize")]
    kept: Slab<Kept>,
    /// The ranges that programs have made, by their first address: where they end, and what they have of their own.
    ranges: BTreeMap<u64, (u64, Content)>,
    /// For each GPU its pieces by their first address, which do not overlap.
    gpus: BTreeMap<Uuid, BTreeMap<u64, Piece>>,
}

impl Mappings {
    /// How many ranges and pieces there are, with the range groups and, where it was begun, the address space itself.
    pub fn parts(&self) -> usize {
        let pieces: usize = self.gpus.values().map(BTreeMap::len).sum();
        let own = usize::from(self.own.is_some()) + self.groups;
        own + self.ranges.len() + pieces
    }

    /// Keeps `content` for the address space itself, once. Returns what is not kept.
    pub fn begin(&mut self, content: Content) -> Vec<Content> {
        match &self.own {
            Some(_) => vec![content],
            None => {
                self.own = Some(content);
                Vec::new()
            }
        }
    }

    /// There is one range group more.
    pub fn add_group(&mut self) {
        self.groups = self.groups.saturating_add(1);
    }

    /// There is one range group less.
    pub fn end_group(&mut self) {
        self.groups = self.groups.saturating_sub(1);
    }

    /// Adds a range, in which something can be mapped, or which has memory of its own. Returns what is kept no longer.
    pub fn add_range(&mut self, range: &Addresses, content: Content) -> Vec<Content> {
        let replaced = self.ranges.insert(range.start, (range.end, content));
        replaced.map(|(_, content)| content).into_iter().collect()
    }

    /// Takes away the range that begins at `start`, and what is mapped in it. Returns what is kept no longer.
    pub fn end_range(&mut self, start: u64) -> Vec<Content> {
        match self.ranges.remove(&start) {
            Some((end, content)) => {
                let mut dropped = self.unmap(&(start..end), None);
                dropped.push(content);
                dropped
            }
            None => Vec::new(),
        }
    }

    /// Maps `content` for each of `gpus`, in place of what they had there. Returns what is kept no longer.
    pub fn map(&mut self, at: &Addresses, gpus: &[Uuid], content: Content) -> Vec<Content> {
        let mut dropped: Vec<_> = gpus
            .iter()
            .flat_map(|gpu| self.unmap(at, Some(gpu)))
            .collect();
        if content.memory.is_empty() || at.is_empty() {
            dropped.push(content);
            return dropped;
        }
        let key = self.kept.vacant_key();
        let mut pieces = 0;
        for gpu in gpus {
            let piece = Piece { end: at.end, key };
            // A GPU that is named twice has it once.
            if self
                .gpus
                .entry(*gpu)
                .or_default()
                .insert(at.start, piece)
                .is_none()
            {
                pieces += 1;
            }
        }
        if pieces > 0 {
            self.kept.insert(Kept { content, pieces });
        } else {
            dropped.push(content);
        }
        dropped
    }

    /// For how many GPUs unmapping `at`, for one or for all, leaves one piece more than there was: something on both sides.
    pub fn parted_by(&self, at: &Addresses, gpu: Option<&Uuid>) -> usize {
        let concerned = self
            .gpus
            .iter()
            .filter(|(own, _)| gpu.is_none_or(|gpu| gpu == *own));
        let around = concerned.filter_map(|(_, pieces)| pieces.range(..at.start).next_back());
        around.filter(|(_, piece)| piece.end > at.end).count()
    }

    /// Unmaps what lies in `at`, for one GPU or for all. Returns what is kept no longer.
    pub fn unmap(&mut self, at: &Addresses, gpu: Option<&Uuid>) -> Vec<Content> {
        let mut dropped = Vec::new();
        let concerned = self
            .gpus
            .iter_mut()
            .filter(|(own, _)| gpu.is_none_or(|gpu| gpu == *own));
        for (_, pieces) in concerned {
            for (key, more) in cut(pieces, at) {
                let Some(kept) = self.kept.get_mut(key) else {
                    continue;
                };
                kept.pieces = kept.pieces.saturating_add_signed(more);
                if kept.pieces == 0 {
                    dropped.push(self.kept.remove(key).content);
                }
            }
        }
        dropped
    }

    /// All that is kept.
    pub fn into_contents(self) -> impl Iterator<Item = Content> {
        let own = self.ranges.into_values().map(|(_, content)| content);
        let own = own.chain(self.own);
        own.chain(self.kept.into_iter().map(|(_, kept)| kept.content))
    }
}

/// Takes `at` out of `pieces`. Returns how many more pieces there are now of what was touched: one fewer, as many, or one
/// more.
fn cut(pieces: &mut BTreeMap<u64, Piece>, at: &Addresses) -> Vec<(usize, isize)> {
    let before = pieces.range(..at.start).next_back();
    let reaches_in = before.filter(|(_, piece)| piece.end > at.start);
    let within = pieces.range(at.start..at.end.max(at.start));
    let touched: Vec<(u64, Piece)> = reaches_in
        .into_iter()
        .chain(within)
        .map(|(start, piece)| (*start, *piece))
        .collect();
    let mut changes = Vec::new();
    for (start, piece) in touched {
        pieces.remove(&start);
        let mut left = 0;
        for (from, to) in [
            (start, piece.end.min(at.start)),
            (start.max(at.end), piece.end),
        ] {
            if from < to {
                let key = piece.key;
                pieces.insert(from, Piece { end: to, key });
                left += 1;
            }
        }
        changes.push((piece.key, left - 1));
    }
    changes
}

#[cfg(test)]
mod tests;
