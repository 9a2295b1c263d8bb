//! How much memory the driver takes for an object, told from what it is asked for.
//!
//! The idea: what is charged has to be known before the driver is asked, and be no less than what it takes, so that a
//! limit holds with requests under way. The driver's answer cannot serve for that: it comes afterwards, and it is the size
//! of the object, of which the driver's allocators know nothing. They give out whole pages, from a contiguous piece as
//! many as a power of two, and, at a fixed place, whatever an alignment spans. So this follows their arithmetic, and where
//! it depends on the GPU it goes by the largest that there is. File names are those of 580.142, below
//! src/nvidia/src/kernel unless said otherwise.

use nvproxy_abi::table::effects::Amount;

use super::limits::RECORD;
use super::payload::Values;

/// Bytes of the driver's pages (RM_PAGE_SIZE and its neighbours).
const SMALL: u64 = 4 << 10;
const BIG: u64 = 64 << 10;
const HUGE: u64 = 2 << 20;
const HALF_GIB: u64 = 512 << 20;
const QUARTER_TIB: u64 = 256 << 30;

/// The largest piece of memory that is compressed as one (comprPageSize, which the GPU's firmware tells).
const COMPRESSED: u64 = 256 << 10;

/// For each page of the task that the driver keeps: a physical and a virtual address (nvidia_pte_t), a `struct page *`, an
/// entry of the memory descriptor, and one of a scatterlist of 32 bytes (kernel-open/nvidia/nv.c, nv-dma.c; mem_desc.c).
const RECORDS_OF_A_PAGE: u64 = 64;

/// Bytes of the host's memory that UVM takes for an address space (uvm_va_space_t, kernel-open/nvidia-uvm/uvm_va_space.h):
/// with a kernel of up to 1,024 NUMA nodes, 264 KiB of tables of them, some 76 KiB of sets of 257 processors, and what it
/// keeps to migrate pages. As no more than the first two were added up, half as much again is charged.
pub(super) const ADDRESS_SPACE: u64 = 512 << 10;

/// NVOS32_ATTR_*, NVOS32_ATTR2_*, NVOS32_ALLOC_FLAGS_* and NVOS02_FLAGS_* (nvos.h).
const COMPR: u32 = 0x3 << 12;
const PAGE_SIZE_SHIFT: u32 = 23;
const HUGE_SHIFT: u32 = 20;
const PHYSICALITY: u32 = 0x3 << 27;
const PHYSICALITY_CONTIGUOUS: u32 = 2 << 27;
const FIXED_ADDRESS_ALLOCATE: u32 = 0x10;
const ALIGNMENT_HINT_OR_FORCE: u32 = 0x80 | 0x100;
const NVOS02_PHYSICALITY: u32 = 0xf << 4;

/// For each page of memory in a dma-buf: a range of addresses (MemoryRange, src/nvidia/inc/kernel/os/nv_memory_area.h). Where all of a GPU's memory can
/// be reached over the bus, or as the processor reaches its own, the driver looks the addresses up when the dma-buf is made and keeps them
/// (`nv_dma_buf_get_phys_addresses`, kernel-open/nvidia/nv-dmabuf.c). Of pages that lie together it may keep one.
const RANGE: u64 = 16;

/// What stands for more than there can be.
const TOO_MUCH: u64 = u64::MAX;

/// The bytes of a page that it is to have, if it says so (dmaNvos32ToPageSizeAttr, gpu/mem_mgr/dma.c).
fn page(amount: &Amount<Values>) -> Option<u64> {
    Some(
        match (
            amount.attr.value >> PAGE_SIZE_SHIFT & 0x3,
            amount.attr2.value >> HUGE_SHIFT & 0x3,
        ) {
            (0, _) => return None,
            (1, _) => SMALL,
            (2, _) => BIG,
            (_, 2) => HALF_GIB,
            (_, 3) => QUARTER_TIB,
            _ => HUGE,
        },
    )
}

/// Whole pages of `page` bytes, or of what is compressed as one.
fn in_pages(amount: &Amount<Values>, page: u64) -> Option<u64> {
    let page = match amount.attr.value & COMPR {
        0 => page,
        _ => page.max(COMPRESSED),
    };
    amount.size.value.checked_next_multiple_of(page)
}

/// Bytes of a GPU's memory (`_vidmemPmaAllocate`, mem_mgr/video_mem.c; `memmgrDeterminePageSize_IMPL`,
/// gpu/mem_mgr/mem_mgr.c; `memmgrAllocDetermineAlignment_GM107`). The allocator of physical memory has no smaller pages
/// than big ones.
pub(super) fn of_gpu(amount: &Amount<Values>) -> u64 {
    let flags = amount.flags.value;
    let unsaid = if amount.size.value < HUGE { BIG } else { HUGE };
    let page = page(amount).unwrap_or(unsaid).max(BIG);
    let aligned = flags & ALIGNMENT_HINT_OR_FORCE != 0;
    let alignment = if aligned { amount.alignment.value } else { 0 };
    let taken = in_pages(amount, page).and_then(|size| {
        if flags & FIXED_ADDRESS_ALLOCATE == 0 || alignment <= page {
            return Some(size);
        }
        // The driver rounds with a mask, which for what is no power of two gives anything up to one alignment more.
        match alignment.is_power_of_two() {
            true => size.checked_next_multiple_of(alignment),
            false => size.checked_add(alignment)?.checked_next_multiple_of(page),
        }
    });
    taken.unwrap_or(TOO_MUCH)
}

/// Bytes of the host's memory (`sysmemConstruct_IMPL`, mem_mgr/system_mem.c; `memdescCreate`, gpu/mem_mgr/mem_desc.c;
/// `nv_alloc_pages`, kernel-open/nvidia/nv.c).
pub(super) fn of_host(amount: &Amount<Values>) -> u64 {
    let unsaid = if amount.size.value < BIG { SMALL } else { BIG };
    let taken = in_pages(amount, page(amount).unwrap_or(unsaid));
    let contiguous = amount.attr.value & PHYSICALITY == PHYSICALITY_CONTIGUOUS;
    in_one_piece(taken, contiguous)
}

/// The same for NVOS02_PARAMETERS (`_rmAllocMemorySystem`,
/// src/nvidia/interface/deprecated/rmapi_deprecated_allocmemory.c): a byte more than `limit`, in one piece unless the flags
/// say otherwise.
pub(super) fn of_host_up_to(limit: u64, flags: u32) -> u64 {
    let taken = limit
        .checked_add(1)
        .and_then(|size| size.checked_next_multiple_of(if size < BIG { SMALL } else { BIG }));
    in_one_piece(taken, flags & NVOS02_PHYSICALITY == 0)
}

/// The kernel gives out contiguous pages by powers of two (`nv_alloc_contig_pages`, kernel-open/nvidia/nv-vm.c).
fn in_one_piece(taken: Option<u64>, contiguous: bool) -> u64 {
    match (taken, contiguous) {
        (Some(bytes), true) => bytes.checked_next_power_of_two().unwrap_or(TOO_MUCH),
        (Some(bytes), false) => bytes,
        (None, _) => TOO_MUCH,
    }
}

/// Bytes of the host's memory with which UVM backs a range.
pub(super) fn of_range(length: u64) -> u64 {
    length.checked_next_multiple_of(SMALL).unwrap_or(TOO_MUCH)
}

/// Bytes of the host's memory in which the driver notes which pages of the task it keeps: a byte more than `limit` of
/// them. The pages themselves are the task's, whatever cgroup it is in.
pub(super) fn of_pinned(limit: u64) -> u64 {
    let pages = limit / SMALL + 2;
    pages.saturating_mul(RECORDS_OF_A_PAGE)
}

/// Bytes of the host's memory, for a dma-buf of so many bytes of objects: a record of itself and of each, and their addresses.
pub(super) fn of_dma_buf(sizes: impl Iterator<Item = u64>) -> u64 {
    let of_each = |size: u64| RECORD.saturating_add(size.div_ceil(SMALL).saturating_mul(RANGE));
    sizes.fold(RECORD, |bytes, size| bytes.saturating_add(of_each(size)))
}

#[cfg(test)]
mod tests {
    use super::super::payload::Value;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn amount(size: u64, alignment: u64, words: [u32; 3]) -> Amount<Values> {
        let long = |value| Value { at: 0, value };
        let [flags, attr, attr2] = words.map(|value| Value { at: 0, value });
        Amount {
            size: long(size),
            alignment: long(alignment),
            flags,
            attr,
            attr2,
        }
    }

    fn gpu(size: u64, alignment: u64, words: [u32; 3]) -> u64 {
        of_gpu(&amount(size, alignment, words))
    }

    fn host(size: u64, attr: u32) -> u64 {
        of_host(&amount(size, 0, [0, attr, 0]))
    }

    #[test]
    fn a_gpu_gives_out_pages_of_64_kib_and_more() {
        let page = |attr: u32, attr2: u32| [0, attr << 23, attr2 << 20];
        for (size, words, taken) in [
            (0, page(0, 0), 0),
            (1, page(0, 0), BIG),
            (1, page(1, 0), BIG),
            (BIG + 1, page(1, 0), 2 * BIG),
            (1, page(2, 0), BIG),
            (1, page(3, 0), HUGE),
            (1, page(3, 1), HUGE),
            (1, page(3, 2), HALF_GIB),
            (1, page(3, 3), QUARTER_TIB),
            (2 * MIB - 1, page(0, 0), 2 * MIB),
            (2 * MIB + 1, page(0, 0), 4 * MIB),
            (2 * MIB + 1, page(2, 0), 2 * MIB + BIG),
            (1, [0, 1 << 12, 0], COMPRESSED),
            (u64::MAX, page(0, 0), TOO_MUCH),
            (u64::MAX - BIG, page(3, 0), TOO_MUCH),
        ] {
            assert_eq!(gpu(size, 0, words), taken, "{size:#x} {words:x?}");
        }
    }

    #[test]
    fn an_alignment_is_taken_whole_at_a_fixed_address_only() {
        let (fixed, hint, force) = (0x10, 0x80, 0x100);
        for (flags, alignment, taken) in [
            (hint, 16 * MIB, BIG),
            (fixed, 16 * MIB, BIG),
            (fixed | hint, 16 * MIB, 16 * MIB),
            (fixed | force, 16 * MIB, 16 * MIB),
            (fixed | force, SMALL, BIG),
            (fixed | force, 3 * MIB, 3 * MIB + BIG),
            (fixed | force, u64::MAX, TOO_MUCH),
            (fixed | force, 1 << 63, 1 << 63),
        ] {
            assert_eq!(
                gpu(1, alignment, [flags, 0, 0]),
                taken,
                "{flags:#x} {alignment:#x}"
            );
        }
    }

    #[test]
    fn the_host_gives_out_contiguous_memory_by_powers_of_two() {
        let (scattered, contiguous) = (1 << 27, 2 << 27);
        for (size, attr, taken) in [
            (0, scattered, 0),
            (1, scattered, SMALL),
            (5 * SMALL, scattered, 5 * SMALL),
            (BIG + 1, scattered, 2 * BIG),
            (BIG + 1, scattered | 1 << 23, BIG + SMALL),
            (5 * SMALL, contiguous, 8 * SMALL),
            (3 * MIB, contiguous, 4 * MIB),
            (3 * MIB, 3 << 27, 3 * MIB),
            (1, 3 << 23, HUGE),
            (u64::MAX, scattered, TOO_MUCH),
            (1 << 63 | 1, contiguous, TOO_MUCH),
        ] {
            assert_eq!(host(size, attr), taken, "{size:#x} {attr:#x}");
        }
        assert_eq!(of_host_up_to(5 * SMALL - 1, 1 << 4), 5 * SMALL);
        assert_eq!(of_host_up_to(5 * SMALL - 1, 0), 8 * SMALL);
        assert_eq!(of_host_up_to(u64::MAX, 1 << 4), TOO_MUCH);
        assert_eq!(of_range(u64::MAX), TOO_MUCH);
    }
}
