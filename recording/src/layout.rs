//! Where pointers and descriptors lie in a payload.
//!
//! This is the planner's walk once more, over a payload that is there already, whole or as far as it was read before the
//! request was refused.

use std::borrow::Cow;
use std::ops::Range;

use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::{DescriptorField, Plan, Planner, Segment, Step};
use nvproxy_abi::table::{ForcedBits, shown_name};

/// What a payload is made of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// NVIDIA's name for the request, or what is wrong with it.
    pub name: Cow<'static, str>,
    /// The argument and the buffers that were found. One that was not read, because the request was refused before,
    /// lies beyond the payload's end.
    pub segments: Vec<Segment>,
    pub descriptors: Vec<DescriptorField>,
    /// (offset, bits): bits of an 8-byte field that Ringfence sets or clears for the driver, of which the program is told nothing.
    pub forced_bits: Option<(u32, ForcedBits)>,
    /// (where, which): handles of clients that Ringfence fills in, where the program has 0 ([`Plan::filled_in`]).
    pub filled_in: Vec<(u32, u32)>,
    /// Parts in which Ringfence gives the driver zeros ([`Plan::cleared`]).
    pub cleared: Vec<Range<usize>>,
}

impl Layout {
    /// The layout of a request's payload, as a program made it or normalized.
    pub fn of(abi: &'static Abi, node: Node, command: u32, payload: &[u8]) -> Layout {
        let mut planner = match Planner::new(abi, node, command, 0) {
            Ok(planner) => planner,
            Err(refusal) => {
                return Layout {
                    name: refusal.what.to_string().into(),
                    segments: Vec::new(),
                    descriptors: Vec::new(),
                    forced_bits: None,
                    filled_in: Vec::new(),
                    cleared: Vec::new(),
                };
            }
        };
        let mut known = 0;
        loop {
            match planner.step(&payload[..known]) {
                Ok(Step::Fetch(fetch)) => {
                    let end = (fetch.offset + fetch.length).next_multiple_of(8) as usize;
                    if end > payload.len() {
                        return Layout::from(planner.finish());
                    }
                    known = end;
                }
                Ok(Step::Complete) => return Layout::from(planner.finish()),
                Err(refusal) => {
                    return Layout {
                        name: refusal.what.to_string().into(),
                        ..Layout::from(planner.finish())
                    };
                }
            }
        }
    }

    /// The pointer fields, each with the offset of the buffer that it leads to.
    pub fn pointers(&self) -> impl Iterator<Item = (usize, u64)> {
        self.segments.iter().filter_map(|segment| {
            let at = segment.pointer_at?;
            Some((at as usize, u64::from(segment.offset)))
        })
    }
}

impl From<Plan> for Layout {
    fn from(plan: Plan) -> Layout {
        Layout {
            name: shown_name(plan.request.name, plan.id),
            segments: plan.segments.to_vec(),
            descriptors: plan.descriptors.to_vec(),
            forced_bits: plan.forced_bits(),
            filled_in: plan.filled_in().collect(),
            cleared: plan.cleared().map(|(part, _)| part).collect(),
        }
    }
}

/// The field of `N` bytes at `at`, if it is there.
pub fn field<const N: usize>(payload: &[u8], at: usize) -> Option<[u8; N]> {
    payload.get(at..)?.first_chunk().copied()
}

/// Puts `bytes` at `at`, if there is room; says whether there was.
pub fn put(payload: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    let part = at
        .checked_add(bytes.len())
        .and_then(|end| payload.get_mut(at..end));
    part.map(|part| part.copy_from_slice(bytes)).is_some()
}
