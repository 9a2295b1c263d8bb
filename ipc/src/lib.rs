//! A shared-memory channel between two processes that do not trust one another.
//!
//! The idea: one region of memory, sealed so that neither side can take it away from under the
//! other, holds two rings of fixed-size entries and an arena for payloads. The *client* produces
//! [`Submission`]s and consumes [`Completion`]s, the *server* does the opposite. A socket beside
//! the region carries what memory cannot: the [`handshake`], file descriptors, and the news that
//! the peer died.
//!
//! Whoever sits at one end assumes that the other end may write any byte of the region at any
//! time. Therefore an entry is copied out once and only the copy is looked at, an index is checked
//! against what the peer may legally have reached, and shared memory is touched through atomics
//! only, never through a reference to plain bytes. The peer can make a channel useless; it cannot
//! make this side misbehave.
//!
//! | module | subject |
//! |---|---|
//! | [`mod@region`] | the sealed memory, its layout, raw access (`unsafe` lives here alone) |
//! | `ring` | producers, consumers, the sleep protocol |
//! | `look` | how long to look for the peer's work before sleeping |
//! | `futex` | the system call behind a doorbell |
//! | `arena` | payload copies and the allocator of payload ranges |
//! | [`locks`] | locks whose poison is ignored |
//! | `faults` | wrongs of a producer that tests ask for; nothing in ordinary builds |
//! | `socket` | descriptors in parcels, over SOCK_SEQPACKET |
//! | [`typed`] | messages that are values of an enum, over the same |
//! | `ancillary` | the one `recvmsg(2)` that takes in a descriptor |
//! | [`handshake`] | how two processes come to share a region, or learn why not |
//!
//! The sleep protocol and the publication order of rings are model-checked with loom, see
//! `ring`.

mod faults;
pub mod locks;
mod look;
mod ring;
mod sync;

#[cfg(not(loom))]
mod ancillary;
#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod futex;
#[cfg(not(loom))]
pub mod handshake;
#[cfg(not(loom))]
mod message;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
mod socket;
#[cfg(not(loom))]
pub mod typed;

#[cfg(all(loom, test))]
mod ring_model;

pub use look::Spin;
pub use ring::{Consumer, Corrupt, Entry, Position, Producer, PushError, WaitError, Wake};

#[cfg(not(loom))]
pub use {
    arena::{Arena, ArenaAllocator, ArenaRange, DEFAULT_ARENA, OutOfBounds, SlotClass},
    channel::{ClientChannel, ServerChannel},
    futex::{FUTEX_BITSET_ANY, FUTEX_SHARED_U32},
    handshake::{HandshakeError, PROTOCOL_VERSION},
    message::{Completion, FLAG_DESCRIPTOR, Submission},
    region::{Geometry, MAX_ARENA_BYTES, MAX_RING_ENTRIES, Region, RegionError},
    socket::{Socket, SocketError},
    typed::Message,
};
