//! The two ends of a channel.
//!
//! An end is no more than its parts, and the parts share nothing but the mapping: take them apart,
//! give each its own lock or its own thread.

use static_assertions::assert_impl_all;

use crate::{
    arena::Arena,
    message::{Completion, Submission},
    region::Region,
    ring::{Consumer, Position, Producer},
    socket::Socket,
};

/// The end that asks.
pub struct ClientChannel {
    /// Where requests go.
    pub submissions: Producer<Submission>,
    /// Where answers come from.
    pub completions: Consumer<Completion>,
    /// Where payloads lie; the client decides where, see [`ArenaAllocator`](crate::ArenaAllocator).
    pub arena: Arena,
    /// Where descriptors travel, and where the server's death shows.
    pub socket: Socket,
}

/// The end that answers.
pub struct ServerChannel {
    /// Where requests come from.
    pub submissions: Consumer<Submission>,
    /// Where answers go.
    pub completions: Producer<Completion>,
    /// Where payloads lie; a submission says where.
    pub arena: Arena,
    /// Where descriptors travel, and where the client's death shows.
    pub socket: Socket,
    /// What the others share, for a process that takes this end over.
    pub region: Region,
}

assert_impl_all!(ClientChannel: Send);
assert_impl_all!(ServerChannel: Send);
assert_impl_all!(Arena: Send, Sync);

impl ClientChannel {
    /// The client's end of a region in which nothing has happened yet.
    pub fn new(region: &Region, socket: Socket) -> Self {
        Self {
            submissions: Producer::new(region.submissions()),
            completions: Consumer::new(region.completions()),
            arena: Arena::new(region.arena()),
            socket,
        }
    }
}

impl ServerChannel {
    /// The server's end of a region in which nothing has happened yet.
    pub fn new(region: Region, socket: Socket) -> Self {
        Self {
            submissions: Consumer::new(region.submissions()),
            completions: Producer::new(region.completions()),
            arena: Arena::new(region.arena()),
            socket,
            region,
        }
    }

    /// The server's end that another process had, whose rings' ends stood at these positions and are used no more.
    /// `None` if none can stand there.
    pub fn resume(
        region: Region,
        socket: Socket,
        submissions: Position,
        completions: Position,
    ) -> Option<Self> {
        Some(Self {
            submissions: Consumer::resume(region.submissions(), submissions)?,
            completions: Producer::resume(region.completions(), completions)?,
            arena: Arena::new(region.arena()),
            socket,
            region,
        })
    }
}
