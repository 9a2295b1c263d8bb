//! What may come by a lane: a task's own request, as far as it can be judged without the rest of the server.
//!
//! The idea: it becomes the submission that a sentry would have made of it, so that there is one way of validating, and
//! is held to less. A task cannot choose where its payload lies, on which handle it is made or of which node that is,
//! and adds neither handles nor descriptors.

use nvproxy_abi::node::Node;
use ringfence_ipc::Submission;
use ringfence_ipc::lane::{LaneServer, Request, SLOT_BYTES};

use crate::protocol::{ARGUMENT_NODE, Kind};
use crate::request::{Action, Buffer, Context, Descriptors, Files, Prepared};

/// A description that the sentry has vouched for: a descriptor of the task's own means it.
#[derive(Clone, Copy)]
pub struct Grant {
    /// The server's handle of it.
    pub handle: u64,
    /// The node that was opened.
    pub node: Node,
}

impl<F: Files> Context<'_, F> {
    /// Validates what was taken from a slot of the lane whose memory is the context's arena; `None` if it is to be made by
    /// the trap, because it is refused or is not a plain prompt request. The payload is copied into the memory of `buffer`,
    /// which the prepared request takes along.
    pub fn prepare_from_lane(
        &self,
        grant: Grant,
        slot: usize,
        request: Request,
        buffer: &mut Buffer,
    ) -> Option<Prepared> {
        if request.length as usize > SLOT_BYTES {
            return None;
        }
        let mut submission = Submission {
            kind: Kind::Ioctl as u16,
            target: grant.handle,
            code: request.operation,
            payload_offset: LaneServer::payload_offset(slot),
            payload_length: request.length,
            ..Submission::default()
        };
        submission.arguments[ARGUMENT_NODE] = grant.node.to_wire();
        let buffer_in_use = std::mem::take(buffer);
        let prepared = self.prepare(
            &submission,
            grant.node,
            Action::Issue,
            Descriptors::new(),
            buffer_in_use,
        );
        let mut prepared = prepared.ok()?;
        prepared.is_timed = false;
        let plan = &prepared.plan;
        let is_plain = !plan.may_block() && !plan.makes_event() && plan.descriptors.is_empty();
        if !is_plain || !prepared.is_ready() {
            *buffer = prepared.buffer;
            return None;
        }
        Some(prepared)
    }
}
