//! An open file description of a simulated device node.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nvproxy_abi::node::Node;

use super::backing::{Backing, memory_file};
use super::buffers::Buffers;
use super::events::Pending;
use super::frontend::{self, Issuer};
use super::names::FileNumber;
use super::state::{FileState, Shared};
use super::uvm;
use nvproxy_server::handover::Enclosures;
use nvproxy_server::host::{self, Call, DeviceFile};

/// One open file description, from its open until the server drops it.
pub(super) struct Description {
    shared: Arc<Shared>,
    number: FileNumber,
    node: Node,
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

    pub fn file_number(&self) -> FileNumber {
        self.number
    }

    fn issue(&self, call: Call<'_>, from_task: bool) -> Result<i32, Errno> {
        let request = call.request;
        let mut buffers = Buffers::new(call);
        if self.node == Node::Uvm {
            uvm::issue(&self.shared, self.number, request, &mut buffers)?;
        } else {
            let issuer = Issuer {
                file: self.number,
                node: self.node,
                from_task,
            };
            frontend::issue(&self.shared, issuer, request, &mut buffers)?;
        }
        Ok(0)
    }
}

impl DeviceFile for Description {
    fn number(&self) -> Result<i32, Errno> {
        Ok(self.number.0)
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        self.issue(call, false)
    }

    fn event_descriptor(&self) -> Result<OwnedFd, Errno> {
        let mut state = self.shared.state();
        let file = state.files.get_mut(&self.number).ok_or(Errno::EBADF)?;
        file.pending.descriptor()
    }

    /// A file on which every ioctl of the driver answers ENOTTY.
    fn lend(&self) -> Result<OwnedFd, Errno> {
        memory_file("lent")
    }

    /// ENOTTY is what the lent file answers, and stands for the kernel having done its part.
    fn pinned(&self, issued: Result<i32, Errno>, call: Call<'_>) -> Result<i32, Errno> {
        match issued {
            Err(Errno::ENOTTY) => self.issue(call, true),
            other => other,
        }
    }

    /// The number; the state of the driver has the rest.
    fn save(&self, _enclosures: &mut Enclosures) -> Result<serde_json::Value, host::Error> {
        Ok(self.number.0.into())
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // The lock is released at the end of the statement, before what was closed is dropped.
        let closed = self.shared.state().close(self.number);
        drop(closed);
    }
}
