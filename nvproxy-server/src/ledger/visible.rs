//! What the driver tells of a GPU's memory, made to agree with the limit.
//!
//! cudaMemGetInfo asks for HEAP_FREE and HEAP_SIZE; NVML for TOTAL_RAM_SIZE besides. A total is never more than the
//! limit, and never less than the charge leaves free; what is free is never more than the limit leaves.

use nvproxy_abi::plan::Plan;
use nvproxy_abi::table::MemoryList;

use super::payload::Bytes;

/// Bytes of a pair: what is asked for, and the answer.
const PAIR: u32 = 8;

/// What an answer is.
#[derive(Clone, Copy)]
enum Size {
    Total,
    Free,
}

/// NV2080_CTRL_FB_INFO_INDEX_* of sizes of memory, all in KiB (src/common/sdk/nvidia/inc/ctrl/ctrl2080/ctrl2080fb.h).
static SIZES: &[(u32, Size)] = &[
    (0x07, Size::Total), // RAM_SIZE
    (0x08, Size::Total), // TOTAL_RAM_SIZE
    (0x09, Size::Total), // HEAP_SIZE
    (0x0a, Size::Total), // MAPPABLE_HEAP_SIZE
    (0x12, Size::Free),  // LARGEST_FREE_REGION_SIZE_KB
    (0x16, Size::Free),  // HEAP_FREE
    (0x20, Size::Total), // USABLE_RAM_SIZE
    (0x33, Size::Total), // PROTECTED_MEM_SIZE_TOTAL_KB
    (0x34, Size::Free),  // PROTECTED_MEM_SIZE_FREE_KB
];

/// Rewrites the answers in `payload` for a GPU whose memory is limited to `limit` bytes, of which `charged` are taken.
pub(super) fn limit(plan: &Plan, list: &MemoryList, payload: &mut [u8], limit: u64, charged: u64) {
    let Some(base) = plan.request_at else {
        return;
    };
    let field = base + u32::from(list.at);
    let (from, room) = if list.behind {
        let behind = plan.segment_behind(field);
        behind.map_or((0, 0), |segment| (segment.offset, segment.length / PAIR))
    } else {
        (field, u32::MAX)
    };
    let count = Bytes(payload).word(base + u32::from(list.count_at));
    let kibibytes = |bytes: u64| u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    let free = kibibytes(limit.saturating_sub(charged));
    for index in 0..count.min(room) {
        let at = from.saturating_add(index.saturating_mul(PAIR));
        let Some(pair) = payload
            .get_mut(at as usize..)
            .and_then(<[u8]>::first_chunk_mut)
        else {
            return;
        };
        let [a, b, c, d, answer @ ..]: &mut [u8; PAIR as usize] = pair;
        let asked = u32::from_ne_bytes([*a, *b, *c, *d]);
        let most = match SIZES.iter().find(|(index, _)| *index == asked) {
            Some((_, Size::Total)) => kibibytes(limit),
            Some((_, Size::Free)) => free,
            None => continue,
        };
        *answer = u32::from_ne_bytes(*answer).min(most).to_ne_bytes();
    }
}

/// Rewrites the size of a GPU's memory, less a byte, that an answer tells at `at`.
pub(super) fn limit_size(payload: &mut [u8], at: u32, limit: u64) {
    let field = payload.get_mut(at as usize..);
    if let Some(told) = field.and_then(<[u8]>::first_chunk_mut) {
        let most = limit.saturating_sub(1);
        *told = u64::from_ne_bytes(*told).min(most).to_ne_bytes();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use nvproxy_abi::Abi;
    use nvproxy_abi::node::Node;
    use nvproxy_abi::number::{NV_ESC_RM_CONTROL, ioctl_word};
    use nvproxy_abi::plan::{Planner, Step};
    use nvproxy_abi::policy::Capabilities;
    use nvproxy_abi::structs::NVOS54_PARAMETERS;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    /// A control command with `parameters`, and its payload, in which `behind` is what a pointer in them points to.
    pub fn planned(cmd: u32, parameters: &[u8], behind: &[u8]) -> (Plan, Vec<u8>) {
        let version = "580.142".parse().expect("a version");
        let abi = Abi::of_release(&version, Capabilities::ALL).expect("tables");
        let mut argument = NVOS54_PARAMETERS::new_zeroed();
        argument.cmd = cmd;
        argument.params = 1;
        argument.paramsSize = parameters.len() as u32;
        let command = ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>());
        let planner = Planner::new(abi, Node::Control, command, 1);
        let mut planner = planner.unwrap_or_else(|refusal| panic!("{}", refusal.what));
        let mut payload = Vec::new();
        let mut parts = [argument.as_bytes(), parameters, behind].into_iter();
        while let Ok(Step::Fetch(fetch)) = planner.step(&payload) {
            let part = parts.next().expect("a part");
            assert_eq!(part.len(), fetch.length as usize);
            payload.extend_from_slice(part);
            payload.resize(payload.len().next_multiple_of(8), 0);
        }
        (planner.finish(), payload)
    }

    /// RAM_SIZE, BUS_WIDTH and HEAP_FREE of a GPU of 80 GiB, of which 70 are free.
    const ANSWERS: [u32; 6] = [0x07, 80 << 20, 0x0b, 5120, 0x16, 70 << 20];
    const LIMITED: [u32; 6] = [0x07, 4 << 20, 0x0b, 5120, 0x16, 3 << 20];

    fn limited(plan: &Plan, mut payload: Vec<u8>) -> Vec<u8> {
        let list = plan.request.memory_list.expect("a list");
        limit(plan, &list, &mut payload, 4 << 30, 1 << 30);
        payload
    }

    #[test]
    fn a_list_in_the_parameters_is_rewritten_as_far_as_it_goes() {
        // The second list says that it is longer than the parameters: the driver refuses it, and nothing is written
        // beyond.
        for count in [2u32, u32::MAX] {
            let mut parameters = vec![0; 1028];
            parameters[..4].copy_from_slice(&count.to_ne_bytes());
            parameters[4..28].copy_from_slice(ANSWERS.as_bytes());
            let (plan, payload) = planned(0x2080_1303, &parameters, &[]);
            let payload = limited(&plan, payload);
            let at = size_of::<NVOS54_PARAMETERS>() + 4;
            let mut expected = LIMITED;
            if count == 2 {
                expected[5] = ANSWERS[5];
            }
            assert_eq!(&payload[at..at + 24], expected.as_bytes());
        }
    }

    #[test]
    fn a_list_behind_a_pointer_is_rewritten() {
        let mut parameters = [0; 16];
        parameters[..4].copy_from_slice(&3u32.to_ne_bytes());
        parameters[8..].copy_from_slice(&1u64.to_ne_bytes());
        let (plan, payload) = planned(0x2080_1301, &parameters, ANSWERS.as_bytes());
        let payload = limited(&plan, payload);
        let at = size_of::<NVOS54_PARAMETERS>() + 16;
        assert_eq!(&payload[at..at + 24], LIMITED.as_bytes());
    }
}
