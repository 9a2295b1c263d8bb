//! Other tenants of the machine: which GPUs a request may name, and what an answer may tell.
//!
//! The idea: the driver serves everybody who can open its nodes, and knows nothing of `--gpus`. A request can name a GPU
//! whose node the sandbox does not have, and an answer can tell of one, or of processes of other tenants. Where that is the
//! case is in the rows ([`GpuField`], [`GpuList`],
//! [`Plan::cleared`]). So a name is checked before a request is issued, as a
//! client is ([`crate::ledger`]), and answered as the driver answers one that no GPU has; and what an answer is not to tell
//! is taken out before anybody else sees it.
//!
//! The bytes are hostile on the way in and the driver's on the way out; offsets come from the tables, and every access is
//! checked against the parameters' end.

use std::ops::Range;

use nvproxy_abi::plan::Plan;
use nvproxy_abi::status::{NV_ERR_INVALID_ARGUMENT, NV_OK};
use nvproxy_abi::table::{GpuField, GpuList, Naming};
use ringfence_faults::{Act, Point, at};
use smallvec::SmallVec;

use crate::backend::{Backend, GpuNames};
use crate::request::{Action, Executed, Prepared};

/// Bytes of an id.
const ID: usize = 4;

/// A GPU, as a request names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Id(u32),
    Uuid([u8; 16]),
}

impl Name {
    fn is_of(self, gpu: &GpuNames) -> bool {
        match self {
            Name::Id(id) => gpu.id == id,
            Name::Uuid(uuid) => gpu.uuid == Some(uuid),
        }
    }
}

/// Whether every GPU that a request names is one that the sandbox was given. If not, the NV_STATUS with which the driver
/// answers a name that no GPU has.
pub fn check(backend: &dyn Backend, prepared: &Prepared) -> Result<(), u32> {
    let (plan, payload) = (&prepared.plan, prepared.buffer.bytes());
    if plan.rows().all(|(row, _)| row.gpus.is_empty()) || at(Point::Named) == Some(Act::Drop) {
        return Ok(());
    }
    let Some(given) = backend.gpus() else {
        return Ok(());
    };
    for (row, base) in plan.rows() {
        for field in row.gpus {
            let is_given = |name: &Name| given.iter().any(|gpu| name.is_of(gpu));
            if !names(plan, payload, base, field).iter().all(is_given) {
                return Err(field.absent.unwrap_or(NV_ERR_INVALID_ARGUMENT));
            }
        }
    }
    Ok(())
}

/// Takes out of a request what its answer is not to tell: there the driver expects nothing of a program, and reads it all
/// the same.
pub fn hush(prepared: &mut Prepared) {
    if prepared.action != Action::Issue || at(Point::Said) == Some(Act::Drop) {
        return;
    }
    let payload = prepared.buffer.bytes_mut();
    for (part, _) in prepared.plan.cleared() {
        overwrite(payload, part, 0);
    }
}

/// Takes out of an answer what the sandbox is not to be told.
pub fn clear(backend: &dyn Backend, executed: &mut Executed) {
    let Prepared {
        plan,
        buffer,
        action,
        ..
    } = &mut executed.prepared;
    let tells = plan
        .rows()
        .any(|(row, _)| !(row.cleared.is_empty() && row.gpu_lists.is_empty()));
    if !tells
        || executed.outcome.is_err()
        || *action == Action::Lend
        || at(Point::Told) == Some(Act::Drop)
    {
        return;
    }
    let payload = buffer.bytes_mut();
    let status = plan.status_at().map(|at| word(payload, at as usize));
    let given = backend
        .gpus()
        .filter(|_| status.is_none_or(|status| status == NV_OK));
    for (part, fill) in plan.cleared() {
        overwrite(payload, part, fill);
    }
    for (row, base) in plan.rows() {
        for list in given.iter().flat_map(|_| row.gpu_lists) {
            keep(
                plan,
                payload,
                base,
                list,
                given.as_deref().unwrap_or_default(),
            );
        }
    }
}

/// The GPUs that a field of the parameters at `base` names.
fn names(plan: &Plan, payload: &[u8], base: u32, field: &GpuField) -> SmallVec<[Name; 4]> {
    let from = base as usize + usize::from(field.at);
    let ids = |count: usize| (0..count).map(move |index| word(payload, from + ID * index));
    match field.naming {
        Naming::Id => ids(1).map(Name::Id).collect(),
        Naming::Uuid => SmallVec::from_slice(&[Name::Uuid(read(payload, from))]),
        Naming::Counted { most, count_at } => {
            let count = word(payload, base as usize + usize::from(count_at));
            ids(count.min(most.into()) as usize).map(Name::Id).collect()
        }
        Naming::Until { most, end, unused } => ids(most.into())
            .take_while(|id| *id != end)
            .filter(|id| Some(*id) != unused)
            .map(Name::Id)
            .collect(),
        Naming::Rest { unused } => {
            let length = (plan.end_of(base) as usize).saturating_sub(from);
            ids(length / ID)
                .filter(|id| *id != unused)
                .map(Name::Id)
                .collect()
        }
    }
}

/// Writes over what is not told.
fn overwrite(payload: &mut [u8], part: Range<usize>, fill: u8) {
    if let Some(part) = payload.get_mut(part) {
        part.fill(fill);
    }
}

/// Keeps the elements of a list that are of GPUs in `given`, in their order.
fn keep(plan: &Plan, payload: &mut [u8], base: u32, list: &GpuList, given: &[GpuNames]) {
    let (stride, from) = (
        usize::from(list.stride),
        base as usize + usize::from(list.at),
    );
    let room = (plan.end_of(base) as usize).saturating_sub(from) / stride.max(1);
    let elements = match list.most {
        GpuList::REST => room,
        most => room.min(most.into()),
    };
    let Some(part) = payload.get_mut(from..from + elements * stride) else {
        return;
    };
    let mut kept = 0;
    for index in 0..elements {
        let element = index * stride;
        let id = word(part, element + usize::from(list.id_at));
        if given.iter().any(|gpu| gpu.id == id) {
            part.copy_within(element..element + stride, kept * stride);
            kept += 1;
        }
    }
    if let Some(rest) = part.get_mut(kept * stride..) {
        rest.fill(list.fill);
    }
    if let Some(count_at) = list.count_at {
        let at = base as usize + usize::from(count_at);
        let count = word(payload, at).min(kept as u32);
        crate::request::replace(payload, at, count.to_ne_bytes());
    }
}

/// The bytes at `at`; zeros where they lie outside.
fn read<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let rest = bytes.get(at..);
    rest.and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(read(bytes, at))
}
