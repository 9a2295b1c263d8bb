//! What can keep one server from taking another's place. Whoever it happens to tells the launcher, and that the user.

use std::io;

use ringfence_ipc::{PROTOCOL_VERSION, RegionError, SocketError};

use super::{FORMAT, MAXIMUM_REST, MAXIMUM_STATE, PATIENCE};
use crate::backend::{self, handover};
use crate::server;

/// Why one server does not take the other's place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request does not come to its end.
    #[error(
        "a request is under way that the driver has not answered for {PATIENCE:?}: try again later"
    )]
    UnderWay,
    /// A descriptor that all servers have cannot be duplicated.
    #[error("duplicating a descriptor: {0}")]
    Duplicate(#[source] io::Error),
    /// The state cannot be written.
    #[error("the state: {0}")]
    Write(#[source] serde_json::Error),
    /// The state has so many bytes.
    #[error("the state has {0} bytes, and no more than {MAXIMUM_STATE} are handed over")]
    TooLong(u64),
    /// The state has so many bytes without the ledger.
    #[error(
        "the state has {0} bytes besides the ledger, and no more than {MAXIMUM_REST} are handed over"
    )]
    RestTooLong(usize),
    /// The state cannot be sent.
    #[error("sending the state: {0}")]
    Send(#[source] io::Error),
    /// The launcher cannot be told.
    #[error("the launcher: {0}")]
    Launcher(#[source] SocketError),
    /// The launcher has not said that the new one is to serve.
    #[error("the old server serves on")]
    ServesOn,
    /// The other one has sent something else.
    #[error("there came something else than a state")]
    NoState,
    /// The other one has sent no state.
    #[error("waiting for the state: {0}")]
    Wait(#[source] SocketError),
    /// Descriptors did not come in their order.
    #[error("a descriptor of the state is missing")]
    DescriptorMissing,
    /// A descriptor did not come.
    #[error("receiving a descriptor of the state: {0}")]
    Receive(#[source] SocketError),
    /// The state cannot be read.
    #[error("reading the state: {0}")]
    Read(#[source] io::Error),
    /// The state is something that one may have to wait for.
    #[error("the state is no file")]
    NoFile,
    /// The state is not what a server writes.
    #[error("the state is damaged: {0}")]
    Damaged(#[source] serde_json::Error),
    /// The state is that of another release.
    #[error(
        "the running server hands over in format {format}.{protocol}, and this one takes {FORMAT}.{PROTOCOL_VERSION}: use \
         a release with the same"
    )]
    Format {
        /// Which one it is.
        format: u32,
        /// Its [`PROTOCOL_VERSION`].
        protocol: u32,
    },
    /// The shared memory is none.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// No ring can be where the state says.
    #[error("the state names positions that no ring can have")]
    Positions,
    /// A description has a handle that no server gives.
    #[error("the state names a handle that cannot have been given")]
    Handle,
    /// What was handed over is not whole.
    #[error(transparent)]
    HandedOver(#[from] handover::Error),
    /// The driver cannot be saved or restored.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// The new server does not begin.
    #[error(transparent)]
    Begin(#[from] server::Error),
}
