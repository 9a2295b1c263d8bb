//! What the server asks of an open description: requests, and what surrounds them.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nvproxy_abi::node::Node;

use super::backing::memory_file;
use super::buffers::Buffers;
use super::frontend::{self, Issuer};
use super::state::Description;
use super::uvm;
use nvproxy_server::backend::handover::Enclosures;
use nvproxy_server::backend::{self, Call, DeviceFile};

impl Description {
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
    fn save(&self, _enclosures: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Ok(self.number.0.into())
    }
}
