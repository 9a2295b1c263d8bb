//! What NVIDIA's driver alone can fail with when it is confined, handed over or taken up.

use std::io;

use landlock::RulesetError;
use nix::errno::Errno;
use nvproxy_abi::node::Node;
use ringfence_ipc::SocketError;

use crate::backend;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread got no Landlock domain.
    #[error("Landlock: {0}")]
    Landlock(#[source] RulesetError),
    /// What was saved cannot be written, or not be read.
    #[error("what was saved of the driver: {0}")]
    Damaged(#[source] serde_json::Error),
    /// A descriptor of this node cannot be duplicated.
    #[error("a duplicate of {}: {source}", .node.file_name())]
    Duplicate {
        /// The node.
        node: Node,
        /// Why not.
        source: io::Error,
    },
    /// The socket to a keeper cannot be duplicated.
    #[error("a keeper's socket: {0}")]
    KeeperDuplicate(#[source] Errno),
    /// This process gets no socket for when it is a keeper.
    #[error("a keeper's socket: {0}")]
    KeeperSocket(#[source] SocketError),
    /// A descriptor of this node came, and the sandbox does not have it.
    #[error("a descriptor of {} was handed over, which the sandbox was not given", .0.file_name())]
    NotGiven(Node),
    /// A description of this node came without the descriptor that stands for the GPU in use.
    #[error("no descriptor of {} was handed over", .0.file_name())]
    NoPresence(Node),
    /// A description of this node came, of which none is kept.
    #[error("a server keeps no description of {}", .0.file_name())]
    NotKept(Node),
    /// A description of UVM is to be saved, and is the task's.
    #[error("a description of nvidia-uvm is the task's and comes with each request")]
    TasksOwn,
    /// There is no way to who keeps a description.
    #[error("nobody keeps what server {server} opened of {}", .node.file_name())]
    NoKeeper {
        /// The server that opened it, counted from the first.
        server: u64,
        /// The node.
        node: Node,
    },
}

impl From<Error> for backend::Error {
    fn from(error: Error) -> backend::Error {
        backend::Error::Driver(Box::new(error))
    }
}
