//! An open file description of a simulated device node.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nvproxy_abi::node::Node;

use super::super::backing::Backing;
use super::super::events::Pending;
use super::super::names::FileNumber;
use super::{FileState, Shared};

/// One open file description, from its open until the server drops it.
pub(in super::super) struct Description {
    pub shared: Arc<Shared>,
    pub number: FileNumber,
    pub node: Node,
}

impl Description {
    /// Opens `node`. The second of the pair is the descriptor for the task.
    pub fn open(shared: &Arc<Shared>, node: Node) -> Result<(Arc<Description>, OwnedFd), Errno> {
        let (backing, granted) = Backing::create(&node.file_name(), &shared.own_descriptors)?;
        let pending = Pending::new()?;
        let mut state = shared.state();
        let number = state.new_number()?;
        let description = Description::of(shared, number, node);
        let file = FileState {
            node,
            backing: Arc::new(backing),
            pending,
            description: Arc::downgrade(&description),
            registered: None,
            mapped: false,
            exports: None,
            address_space: None,
        };
        state.files.insert(number, file);
        Ok((description, granted))
    }

    /// What the server is to hold of a description that the state knows.
    pub fn of(shared: &Arc<Shared>, number: FileNumber, node: Node) -> Arc<Description> {
        Arc::new(Description {
            shared: Arc::clone(shared),
            number,
            node,
        })
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // The lock is released at the end of the statement, before what was closed is dropped.
        let closed = self.shared.state().close(self.number);
        drop(closed);
    }
}
