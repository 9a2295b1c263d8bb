//! The arena: payloads that do not fit into a ring entry.
//!
//! The idea: the client owns the arena's space and hands out ranges of it; the server is told a
//! range and copies. Neither side ever looks at a payload in place, because the peer may change
//! it at any time: what was copied out once is what gets checked and used.
//!
//! All access is by relaxed atomics on whole 64-bit words, so that no concurrent write, by the
//! peer or by a thread of this process, is a data race. A write that covers a word only in part
//! clears its bytes and sets them, in two steps that leave the neighbours' bytes alone. The order
//! between a payload and the entry that names it comes from the ring.

use std::{
    error::Error,
    fmt, slice,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::region::{ArenaMemory, Geometry};

const WORD: usize = size_of::<u64>();

/// A range that does not lie in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Where the range starts, in bytes.
    pub offset: u32,
    /// How many bytes it has.
    pub length: usize,
    /// How many bytes the arena has.
    pub arena: usize,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            length,
            arena,
        } = self;
        write!(
            formatter,
            "{length} bytes at {offset} do not lie in an arena of {arena} bytes"
        )
    }
}

impl Error for OutOfBounds {}

/// One side's access to the arena. Clones share the memory.
#[derive(Clone)]
pub struct Arena {
    memory: ArenaMemory,
}

impl Arena {
    pub(crate) fn new(memory: ArenaMemory) -> Self {
        Self { memory }
    }

    /// The size of the arena in bytes.
    pub fn size(&self) -> usize {
        self.memory.words().len() * WORD
    }

    /// Fills `destination` with the bytes from `offset` on. Nothing is written on an error.
    pub fn read(&self, offset: u32, destination: &mut [u8]) -> Result<(), OutOfBounds> {
        self.check(offset, destination.len())?;
        let (skipped, head) = first_word(offset, destination.len());
        let (head, rest) = destination.split_at_mut(head);
        let (whole, tail) = rest.as_chunks_mut::<WORD>();
        let mut words = self.words_from(offset);

        if !head.is_empty()
            && let Some(word) = words.next()
        {
            take(word, skipped, head);
        }
        for (bytes, word) in whole.iter_mut().zip(&mut words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        if !tail.is_empty()
            && let Some(word) = words.next()
        {
            take(word, 0, tail);
        }
        Ok(())
    }

    /// Writes `source` to the bytes from `offset` on. Nothing is written on an error.
    pub fn write(&self, offset: u32, source: &[u8]) -> Result<(), OutOfBounds> {
        self.check(offset, source.len())?;
        let (skipped, head) = first_word(offset, source.len());
        let (head, rest) = source.split_at(head);
        let (whole, tail) = rest.as_chunks::<WORD>();
        let mut words = self.words_from(offset);

        if !head.is_empty()
            && let Some(word) = words.next()
        {
            put(word, skipped, head);
        }
        for (bytes, word) in whole.iter().zip(&mut words) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if !tail.is_empty()
            && let Some(word) = words.next()
        {
            put(word, 0, tail);
        }
        Ok(())
    }

    fn check(&self, offset: u32, length: usize) -> Result<(), OutOfBounds> {
        let arena = self.size();
        match (offset as usize).checked_add(length) {
            Some(end) if end <= arena => Ok(()),
            _ => Err(OutOfBounds {
                offset,
                length,
                arena,
            }),
        }
    }

    /// The words from the one on that contains the byte at `offset`.
    fn words_from(&self, offset: u32) -> slice::Iter<'_, AtomicU64> {
        let words = self.memory.words().get(offset as usize / WORD..);
        words.unwrap_or_default().iter()
    }
}

/// How a range begins when it does not begin with a whole word: how many bytes of the first word
/// precede it, and how many of the first word belong to it; (0, 0) when it begins with a word.
fn first_word(offset: u32, length: usize) -> (usize, usize) {
    match offset as usize % WORD {
        0 => (0, 0),
        skipped => (skipped, length.min(WORD - skipped)),
    }
}

/// Copies bytes of one word out, from its byte `skipped` on.
fn take(word: &AtomicU64, skipped: usize, bytes: &mut [u8]) {
    let from = word.load(Ordering::Relaxed).to_ne_bytes();
    for (byte, from) in bytes.iter_mut().zip(from.iter().skip(skipped)) {
        *byte = *from;
    }
}

/// Replaces bytes of one word, from its byte `skipped` on, and leaves its other bytes alone. Not
/// by compare-and-swap, which a peer that keeps writing could make fail for ever.
fn put(word: &AtomicU64, skipped: usize, bytes: &[u8]) {
    let mut keep = [u8::MAX; WORD];
    let mut value = [0; WORD];
    for (byte, (keep, value)) in bytes
        .iter()
        .zip(keep.iter_mut().zip(&mut value).skip(skipped))
    {
        *keep = 0;
        *value = *byte;
    }
    word.fetch_and(u64::from_ne_bytes(keep), Ordering::Relaxed);
    word.fetch_or(u64::from_ne_bytes(value), Ordering::Relaxed);
}

/// Slots of one size, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotClass {
    /// The size of a slot in bytes.
    pub bytes: u32,
    /// How many there are.
    pub count: u32,
}

/// The classes of the default arena: 128 slots that hold nearly every request, and two for the
/// largest, 1 MiB with 128 KiB of company.
pub const DEFAULT_ARENA: [SlotClass; 2] = [
    SlotClass {
        bytes: 16 << 10,
        count: 128,
    },
    SlotClass {
        bytes: (1 << 20) + (128 << 10),
        count: 2,
    },
];

impl Default for Geometry {
    /// 256 entries, and an arena for [`DEFAULT_ARENA`].
    fn default() -> Self {
        Self {
            ring_entries: 256,
            arena_bytes: DEFAULT_ARENA
                .iter()
                .map(|class| class.count * class.bytes)
                .sum(),
        }
    }
}

/// A range of the arena that its holder alone may use. Give it back with
/// [`ArenaAllocator::release`]; a range that is dropped instead stays taken. It cannot be cloned,
/// so it cannot be given back twice.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a range that is not released stays taken"]
pub struct ArenaRange {
    /// Where the range starts, in bytes from the start of the arena.
    offset: u32,
    /// The size of the slot, which is what was asked for or more.
    length: u32,
    /// The class that the slot belongs to.
    class: usize,
}

impl ArenaRange {
    /// Where the range starts, in bytes from the start of the arena; for
    /// [`Submission::payload_offset`](crate::Submission::payload_offset).
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// How many bytes may be used: what was asked for, or more.
    pub fn length(&self) -> u32 {
        self.length
    }
}

/// Hands out an arena's space, in slots of a few sizes. Private to the client: the server learns
/// of a range by a submission, and this memory is out of its reach.
pub struct ArenaAllocator {
    /// Ordered by size, so that the first that fits wastes least.
    classes: Vec<FreeSlots>,
}

struct FreeSlots {
    bytes: u32,
    /// Offsets of free slots. Last in, first out, because the slot used last is the one whose
    /// pages are there and in the cache.
    offsets: Vec<u32>,
}

impl ArenaAllocator {
    /// Divides an arena of `arena_bytes` into the slots of `classes`, which lie in it in the given
    /// order. `None` when they do not fit.
    pub fn new(arena_bytes: u32, classes: &[SlotClass]) -> Option<Self> {
        let mut end = 0_u32;
        let mut divided = Vec::with_capacity(classes.len());
        for class in classes {
            let start = end;
            end = class.bytes.checked_mul(class.count)?.checked_add(start)?;
            if end > arena_bytes {
                return None;
            }
            // Reversed, so that the lowest slot is handed out first.
            let offsets = (0..class.count)
                .rev()
                .map(|slot| start + slot * class.bytes)
                .collect();
            divided.push(FreeSlots {
                bytes: class.bytes,
                offsets,
            });
        }
        divided.sort_by_key(|class| class.bytes);
        Some(Self { classes: divided })
    }

    /// A range of at least `length` bytes, in the smallest free slot that has them. `None` when
    /// there is none: either all are taken, and releasing one helps, or `length` exceeds
    /// [`largest`](Self::largest).
    pub fn alloc(&mut self, length: u32) -> Option<ArenaRange> {
        let fitting = self
            .classes
            .iter_mut()
            .enumerate()
            .filter(|(_, slots)| slots.bytes >= length);
        for (class, slots) in fitting {
            if let Some(offset) = slots.offsets.pop() {
                return Some(ArenaRange {
                    offset,
                    length: slots.bytes,
                    class,
                });
            }
        }
        None
    }

    /// Takes a range back, once its request was completed and its answer copied out.
    pub fn release(&mut self, range: ArenaRange) {
        if let Some(slots) = self.classes.get_mut(range.class) {
            slots.offsets.push(range.offset);
        }
    }

    /// The most bytes that a range can have.
    pub fn largest(&self) -> u32 {
        self.classes.last().map_or(0, |slots| slots.bytes)
    }
}

impl Default for ArenaAllocator {
    /// [`DEFAULT_ARENA`], for an arena of the default [`Geometry`](crate::Geometry).
    fn default() -> Self {
        let arena_bytes = Geometry::default().arena_bytes;
        Self::new(arena_bytes, &DEFAULT_ARENA).unwrap_or(Self {
            classes: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Region;

    const SIZE: u32 = 4096;

    fn arena() -> Arena {
        let region = Region::create(Geometry {
            ring_entries: 1,
            arena_bytes: SIZE,
        })
        .unwrap();
        Arena::new(region.arena())
    }

    /// Every offset in a word, every length up to a few words: what was written is read, and the
    /// bytes around it stay.
    #[test]
    fn any_range_is_written_and_read_exactly() {
        let arena = arena();
        for offset in 8..17_u32 {
            for length in 0..30_usize {
                let around = vec![0xaa; 64];
                arena.write(0, &around).unwrap();
                let bytes: Vec<u8> = (1..=length as u8).collect();
                arena.write(offset, &bytes).unwrap();

                let mut expected = around.clone();
                expected[offset as usize..][..length].copy_from_slice(&bytes);
                let mut all = vec![0; 64];
                arena.read(0, &mut all).unwrap();
                assert_eq!(all, expected, "{length} bytes written at {offset}");

                let mut read = vec![0xbb; length];
                arena.read(offset, &mut read).unwrap();
                assert_eq!(read, bytes, "{length} bytes read at {offset}");
            }
        }
    }

    #[test]
    fn ranges_outside_are_refused_and_touch_nothing() {
        let arena = arena();
        assert_eq!(arena.size(), SIZE as usize);
        let error = |offset, length| OutOfBounds {
            offset,
            length,
            arena: SIZE as usize,
        };
        for (offset, length) in [(0, 4097), (1, 4096), (4095, 2), (4096, 1), (u32::MAX, 1)] {
            let mut bytes = vec![0x55; length];
            assert_eq!(arena.write(offset, &bytes), Err(error(offset, length)));
            assert_eq!(arena.read(offset, &mut bytes), Err(error(offset, length)));
            assert_eq!(bytes, vec![0x55; length]);
        }
        assert_eq!(arena.read(4096, &mut []), Ok(()));
        assert_eq!(arena.write(4097, &[]), Err(error(4097, 0)));

        let mut all = vec![1; SIZE as usize];
        arena.read(0, &mut all).unwrap();
        assert_eq!(all, vec![0; SIZE as usize]);
    }

    #[test]
    fn the_last_byte_can_be_used() {
        let arena = arena();
        arena.write(4091, &[1, 2, 3, 4, 5]).unwrap();
        let mut bytes = [0; 5];
        arena.read(4091, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn threads_may_share_a_word() {
        let arena = arena();
        std::thread::scope(|scope| {
            for thread in 0..2_u8 {
                let arena = arena.clone();
                scope.spawn(move || {
                    for round in 0..2000_u32 {
                        let offset = u32::from(thread) * 3;
                        arena
                            .write(offset, &[thread + 1, round as u8, 0xff])
                            .unwrap();
                        let mut bytes = [0; 3];
                        arena.read(offset, &mut bytes).unwrap();
                        assert_eq!(bytes, [thread + 1, round as u8, 0xff]);
                    }
                });
            }
        });
    }

    #[test]
    fn slots_are_handed_out_once_and_the_smallest_first() {
        let classes = [
            SlotClass {
                bytes: 100,
                count: 1,
            },
            SlotClass {
                bytes: 16,
                count: 2,
            },
        ];
        let mut allocator = ArenaAllocator::new(132, &classes).unwrap();
        assert_eq!(allocator.largest(), 100);
        let mut take = |length| {
            allocator
                .alloc(length)
                .map(|range| (range.offset(), range.length(), range))
        };
        let (offset, length, first) = take(16).unwrap();
        assert_eq!((offset, length), (100, 16));
        let (offset, length, _second) = take(0).unwrap();
        assert_eq!((offset, length), (116, 16));
        // The small ones are taken, so a large one serves; then nothing is left.
        let (offset, length, large) = take(1).unwrap();
        assert_eq!((offset, length), (0, 100));
        assert!(take(1).is_none());
        assert!(take(101).is_none());

        allocator.release(first);
        assert!(allocator.alloc(17).is_none());
        assert_eq!(allocator.alloc(16).map(|range| range.offset()), Some(100));
        allocator.release(large);
        assert_eq!(allocator.alloc(17).map(|range| range.offset()), Some(0));
    }

    #[test]
    fn slots_must_fit_into_the_arena() {
        let slots = |bytes, count| [SlotClass { bytes, count }];
        assert!(ArenaAllocator::new(31, &slots(16, 2)).is_none());
        assert!(ArenaAllocator::new(32, &slots(16, 2)).is_some());
        assert!(ArenaAllocator::new(u32::MAX, &slots(1 << 16, 1 << 16)).is_none());
    }

    #[test]
    fn the_default_arena_holds_its_slots() {
        let mut allocator = ArenaAllocator::default();
        assert_eq!(allocator.largest(), 1_179_648);
        let ranges: Vec<_> = std::iter::from_fn(|| allocator.alloc(1)).collect();
        assert_eq!(ranges.len(), 130);
        let end = ranges
            .iter()
            .map(|range| range.offset() + range.length())
            .max();
        assert_eq!(end, Some(Geometry::default().arena_bytes));
    }
}
