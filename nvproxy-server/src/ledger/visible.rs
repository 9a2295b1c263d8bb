//! What the driver tells of a GPU's memory, made to agree with the limit.
//!
//! cudaMemGetInfo asks for HEAP_FREE and HEAP_SIZE; NVML for TOTAL_RAM_SIZE besides. A total is never more than the
//! limit, and never less than the charge leaves free; what is free is never more than the limit leaves.

use nvproxy_abi::plan::Plan;
use nvproxy_abi::table::MemoryList;

use super::deed::Bytes;

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
