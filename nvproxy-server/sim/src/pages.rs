//! What the driver chooses about the pages of an allocation where the program leaves it to the driver: their size, and
//! whether they are contiguous, cached and compressed.
//!
//! The sizes are those of memmgrDeterminePageSize_IMPL (src/nvidia/src/kernel/gpu/mem_mgr/mem_mgr.c); what is written to
//! the parameters is what an H100 with 580.159.04 answers.

use crate::structs::class::NV_MEMORY_ALLOCATION_PARAMS;

use super::classes::Kind;
use super::memory::PAGE;

/// NV_MEMORY_ALLOCATION_PARAMS.attr and .attr2 (NVOS32_ATTR_*, NVOS32_ATTR2_*, nvos.h): fields, and the values of them
/// that matter.
const PAGE_SIZE: u32 = 0x3 << 23;
const PAGE_SIZE_4KB: u32 = 1 << 23;
const PAGE_SIZE_BIG: u32 = 2 << 23;
const PAGE_SIZE_HUGE: u32 = 3 << 23;
const LOCATION_ANY: u32 = 3 << 25;
const PHYSICALITY: u32 = 0x3 << 27;
const NONCONTIGUOUS: u32 = 1 << 27;
const CONTIGUOUS: u32 = 2 << 27;
const ALLOW_NONCONTIGUOUS: u32 = 3 << 27;
const ZBC: u32 = 0x3;
const PREFER_NO_ZBC: u32 = 1;
const GPU_CACHEABLE: u32 = 0x3 << 2;
const GPU_CACHEABLE_YES: u32 = 1 << 2;
const GPU_CACHEABLE_NO: u32 = 2 << 2;
const WHICH_HUGE: u32 = 0x3 << 20;
const PAGE_SIZE_HUGE_2MB: u32 = 1 << 20;
const PAGE_SIZE_HUGE_512MB: u32 = 2 << 20;
/// NV_MEMORY_ALLOCATION_PARAMS.format: the kind of a page that holds nothing special (NV_MMU_PTE_KIND_GENERIC_MEMORY,
/// src/common/inc/swref/published/hopper/gh100/dev_mmu.h).
const GENERIC_MEMORY: u32 = 6;
/// Bytes of the pages that have these names.
pub(super) const BIG_PAGE: u64 = 64 << 10;
const HUGE_PAGE: u64 = 2 << 20;
const HALF_GIB_PAGE: u64 = 512 << 20;

/// Chooses for memory, writes it where the driver does, and returns the size of a page.
pub(super) fn choose(kind: Kind, wanted: &mut NV_MEMORY_ALLOCATION_PARAMS) -> u64 {
    let asked = wanted.attr & PAGE_SIZE;
    let (page, attr, attr2) = match (kind, asked) {
        (Kind::VideoMemory, PAGE_SIZE_4KB) => (PAGE, PAGE_SIZE_4KB, 0),
        (Kind::VideoMemory, PAGE_SIZE_BIG) => (BIG_PAGE, PAGE_SIZE_BIG, 0),
        (Kind::VideoMemory, 0) if wanted.size < HUGE_PAGE => (BIG_PAGE, PAGE_SIZE_BIG, 0),
        (Kind::VideoMemory, PAGE_SIZE_HUGE)
            if wanted.attr2 & WHICH_HUGE == PAGE_SIZE_HUGE_512MB =>
        {
            (HALF_GIB_PAGE, PAGE_SIZE_HUGE, PAGE_SIZE_HUGE_512MB)
        }
        (Kind::VideoMemory, _) => (HUGE_PAGE, PAGE_SIZE_HUGE, PAGE_SIZE_HUGE_2MB),
        _ => (PAGE, PAGE_SIZE_4KB, 0),
    };
    wanted.attr = wanted.attr & !PAGE_SIZE | attr;
    wanted.attr2 |= attr2;
    if wanted.attr & PHYSICALITY == ALLOW_NONCONTIGUOUS {
        let contiguous = kind == Kind::VideoMemory;
        let chosen = if contiguous {
            CONTIGUOUS
        } else {
            NONCONTIGUOUS
        };
        wanted.attr = wanted.attr & !PHYSICALITY | chosen;
    }
    if wanted.attr2 & ZBC == 0 {
        wanted.attr2 |= PREFER_NO_ZBC;
    }
    if wanted.attr2 & GPU_CACHEABLE == 0 {
        wanted.attr2 |= match kind {
            Kind::VideoMemory => GPU_CACHEABLE_YES,
            _ => GPU_CACHEABLE_NO,
        };
    }
    if wanted.alignment == 0 {
        wanted.alignment = page;
    }
    wanted.format = GENERIC_MEMORY;
    page
}

/// The same for a range of virtual addresses, of which nothing is chosen unless all is left to the driver.
pub(super) fn choose_for_range(wanted: &mut NV_MEMORY_ALLOCATION_PARAMS) {
    if wanted.attr == 0 && wanted.attr2 == 0 && wanted.alignment == 0 {
        wanted.attr = LOCATION_ANY | CONTIGUOUS;
        wanted.attr2 = PAGE_SIZE_HUGE_2MB | GPU_CACHEABLE_YES | PREFER_NO_ZBC;
        wanted.alignment = HUGE_PAGE;
    }
    wanted.format = GENERIC_MEMORY;
}
