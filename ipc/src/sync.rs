//! The atomics that rings are built on: the processor's, or loom's when a model is checked.
//!
//! Only `ring` and what it stands on import from here, so that the very code that runs in
//! production is the code that loom explores. Everything else uses `std` directly.

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

/// How many 64-bit words one ring entry has: 64 bytes, a cache line. A model needs only two words
/// to see a torn entry, and every further word multiplies what loom has to explore.
pub(crate) const ENTRY_WORDS: usize = if cfg!(loom) { 2 } else { 8 };

/// One entry's place in a ring. Words and not bytes, so that both sides touch it atomically; the
/// order between the words and the index that publishes them is the ring's business.
pub(crate) type Slot = [AtomicU64; ENTRY_WORDS];
