//! A request as the sentry carries it: copied out of task memory once, part by part, as the plan says, and written back
//! to the same parts.
//!
//! Task memory is hostile: it may change while it is read. What was copied is what the server validates, so a change
//! has no more effect than having asked for something else.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::{Fetch, Plan, Planner, Step};
use nvproxy_abi::refusal::{self, Refusal};
use nvproxy_abi::table::Role;
use nvproxy_protocol::requests::{
    ARGUMENT_HANDLES, ARGUMENT_NODE, CLOSED_DESCRIPTOR, Issuer, Kind,
};
use ringfence_ipc::Submission;
use smallvec::SmallVec;

use super::descriptions::{Description, Descriptions, Identified};
use super::memory::{self, Ahead, Write};

/// What a request is made on.
pub enum Target {
    Device(Arc<Description>),
    Uvm(OwnedFd),
}

impl Target {
    pub fn node(&self) -> Node {
        match self {
            Target::Device(description) => description.node,
            Target::Uvm(_) => Node::Uvm,
        }
    }
}

/// A request that was copied out of task memory.
pub struct Marshalled {
    pub plan: Plan,
    /// Where each part of the payload lies in the task.
    pub parts: SmallVec<[Fetch; 4]>,
    /// Handles for the descriptor fields.
    pub handles: SmallVec<[u64; 2]>,
    /// What a field names that is of a description which the task holds.
    pub carried: Option<OwnedFd>,
    /// Who makes it, where the server is told that.
    pub issuer: Option<Issuer>,
}

/// Why a request is not passed on.
pub enum Stopped {
    Errno(Errno),
    /// Memory that it refers to cannot be read.
    Unreadable(refusal::Answer),
    Refused(Refusal),
}

impl From<Errno> for Stopped {
    fn from(errno: Errno) -> Self {
        Stopped::Errno(errno)
    }
}

/// Copies the request and everything that it refers to into `payload`, for the sandbox's server of this number.
#[expect(
    clippy::too_many_arguments,
    reason = "they are what a request consists of"
)]
pub fn marshal(
    abi: &'static Abi,
    descriptions: &Descriptions,
    task: Pid,
    server: u32,
    target: &Target,
    command: u32,
    argument: u64,
    payload: &mut Vec<u8>,
) -> Result<Marshalled, Stopped> {
    let (plan, parts) = copy(abi, target.node(), task, command, argument, payload)?;
    let (handles, carried) = descriptor_fields(descriptions, task, server, &plan, payload)?;
    Ok(Marshalled {
        plan,
        parts,
        handles,
        carried,
        issuer: None,
    })
}

/// Copies the request of command word `command` on `node`, and everything that it refers to, into `payload`.
pub fn copy(
    abi: &'static Abi,
    node: Node,
    task: Pid,
    command: u32,
    argument: u64,
    payload: &mut Vec<u8>,
) -> Result<(Plan, SmallVec<[Fetch; 4]>), Stopped> {
    payload.clear();
    let mut planner = Planner::new(abi, node, command, argument).map_err(Stopped::Refused)?;
    let mut parts = SmallVec::new();
    let mut memory = Ahead::of(task);
    loop {
        match planner.step(payload).map_err(Stopped::Refused)? {
            Step::Complete => return Ok((planner.finish(), parts)),
            Step::Fetch(fetch) => {
                let (start, length) = (fetch.offset as usize, fetch.length as usize);
                let end = (start + length).next_multiple_of(8);
                let missing = end.saturating_sub(payload.len());
                payload.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
                payload.resize(end, 0);
                let (buffer, more) = (
                    &mut payload[start..start + length],
                    planner.may_ask_further(),
                );
                if memory.read(fetch.address, buffer, more).is_err() {
                    return Err(Stopped::Unreadable(planner.unreadable()));
                }
                parts.push(fetch);
            }
        }
    }
}

/// What the descriptor numbers in a request mean. One that names nothing of the driver's goes to the driver as a
/// number that names nothing, so that the driver's own error comes back. Fails with `EIO` if one means something that a
/// server had that was lost.
fn descriptor_fields(
    descriptions: &Descriptions,
    task: Pid,
    server: u32,
    plan: &Plan,
    payload: &[u8],
) -> Result<(SmallVec<[u64; 2]>, Option<OwnedFd>), Errno> {
    let mut handles = SmallVec::new();
    let mut carried = None;
    for field in &plan.descriptors {
        let bytes = payload
            .get(field.at as usize..)
            .and_then(<[u8]>::first_chunk::<4>);
        let number = bytes.map_or(-1, |bytes| i32::from_ne_bytes(*bytes));
        match field.role {
            _ if number < 0 => {}
            Role::Command => handles.push(match descriptions.identify(task, number, false)? {
                Identified::Device(description) if description.handle.server != server => {
                    return Err(Errno::EIO);
                }
                Identified::Device(description) => description.handle.number,
                Identified::Uvm(_) | Identified::Foreign(_) | Identified::Closed => {
                    CLOSED_DESCRIPTOR
                }
            }),
            Role::Held => carried = descriptions.duplicate(task, number).ok(),
            // What is to be made names nothing.
            Role::Result => {}
        }
    }
    Ok((handles, carried))
}

/// A submission about a marshalled request; its handles are appended to the payload.
pub fn submission(
    kind: Kind,
    target: &Target,
    command: u32,
    handles: &[u64],
    payload: &mut Vec<u8>,
) -> Submission {
    for handle in handles {
        payload.extend_from_slice(&handle.to_ne_bytes());
    }
    let mut submission = Submission {
        kind: kind as u16,
        code: command,
        ..Submission::default()
    };
    if let Target::Device(description) = target {
        submission.target = description.handle.number;
    }
    submission.arguments[ARGUMENT_NODE] = target.node().to_wire();
    submission.arguments[ARGUMENT_HANDLES] = handles.len() as u64;
    submission
}

/// Writes each part of an answered request to where it came from.
pub fn write_back(task: Pid, parts: &[Fetch], payload: &[u8]) -> Result<(), Errno> {
    let mut writes: SmallVec<[Write<'_>; 4]> = SmallVec::new();
    for part in parts {
        let (start, length) = (part.offset as usize, part.length as usize);
        let bytes = payload.get(start..start + length).ok_or(Errno::EIO)?;
        writes.push(Write {
            address: part.address,
            bytes,
        });
    }
    memory::write(task, &writes)
}

/// The NV_STATUS in an answer, if the request has one.
pub fn status_of(plan: &Plan, payload: &[u8]) -> Option<u32> {
    let at = plan.status_at()? as usize;
    let status = payload.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*status))
}

/// Whether an NV_STATUS is an error and not one of the warnings (NV_WARN_*), which start at 0x10000
/// (src/common/sdk/nvidia/inc/nvstatuscodes.h, 580.142).
pub fn is_error(status: u32) -> bool {
    (1..0x10000).contains(&status)
}

/// How many bytes of task memory a request was copied from.
pub fn length_of(parts: &[Fetch]) -> usize {
    parts.iter().map(|part| part.length as usize).sum()
}
