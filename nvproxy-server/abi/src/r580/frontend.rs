//! Rows of the 580 branch: the ioctls on `/dev/nvidiactl` and the GPUs, by number (NV_ESC_*).
//!
//! Sizes and offsets are those of the structs in [`crate::structs::frontend`]. What each ioctl does with its argument:
//! `nvidia_ioctl` (kernel-open/nvidia/nv.c), `rm_ioctl` and `RmIoctl` (osapi.c and escape.c in
//! src/nvidia/arch/nvalloc/unix/src). A row may block where the recorded median was 200 µs or more.

use crate::status::NV_ERR_NOT_SUPPORTED;
use crate::table::{Contents, Length, Pointer, Request, bytes, command, mapping};

/// NVOS54_FLAGS_FINN_SERIALIZED: the parameters are in another format, in which pointers would not be found.
const CONTROL_SERIALIZED: u32 = 0x4;
/// NVOS64_FLAGS_FINN_SERIALIZED, likewise.
const ALLOC_SERIALIZED: u32 = 0x1;

/// sizeof(RS_ACCESS_MASK), alloc/alloc_access_params.h.
const ACCESS_MASK: u32 = 4;

/// NVOS54_PARAMETERS.params.
const CONTROL_PARAMETERS: Pointer = Pointer {
    at: 16,
    length: Length::Field { at: 24, scale: 1 },
    contents: Contents::Control { command_at: 8 },
};
/// NVOS21_PARAMETERS.pAllocParms and NVOS64_PARAMETERS.pAllocParms.
const CLASS_PARAMETERS: Pointer = Pointer {
    at: 16,
    length: Length::OfContents,
    contents: Contents::Class { class_at: 12 },
};

/// What NV_ESC_RM_ALLOC_MEMORY allocates, by NVOS02_PARAMETERS.hClass. Of the driver's list (`rmAllocMemoryTable`,
/// src/nvidia/interface/deprecated/rmapi_deprecated_allocmemory.c) these are what compute programs ask for; some of the others
/// take a list of page numbers behind pMemory.
static MEMORY_CLASSES: &[Request] = &[
    // The descriptor is the target of a mapping, as in NV_ESC_RM_MAP_MEMORY, unless the flags say that there is none.
    Request::new(0x3e, "NV01_MEMORY_SYSTEM", 56).descriptors(&[mapping(48)]),
    // pMemory is the address of what is pinned; the descriptor is not looked at.
    Request::new(0x71, "NV01_MEMORY_SYSTEM_OS_DESCRIPTOR", 56)
        .pins()
        .may_block(),
];

pub(super) static FRONTEND: &[Request] = &[
    Request::new(0x27, "NV_ESC_RM_ALLOC_MEMORY", 56)
        .status_at(40)
        .variants(12, MEMORY_CLASSES),
    Request::new(0x29, "NV_ESC_RM_FREE", 16)
        .status_at(12)
        .may_block(),
    Request::new(0x2a, "NV_ESC_RM_CONTROL", 32)
        .status_at(28)
        .pointers(&[CONTROL_PARAMETERS])
        .refused_flags(12, CONTROL_SERIALIZED, NV_ERR_NOT_SUPPORTED),
    Request::new(0x2b, "NV_ESC_RM_ALLOC", 32)
        .status_at(28)
        .pointers(&[CLASS_PARAMETERS]),
    Request::new(0x2b, "NV_ESC_RM_ALLOC", 48)
        .status_at(40)
        .pointers(&[CLASS_PARAMETERS, bytes(24, ACCESS_MASK)])
        .refused_flags(36, ALLOC_SERIALIZED, NV_ERR_NOT_SUPPORTED),
    Request::new(0x34, "NV_ESC_RM_DUP_OBJECT", 28).status_at(24),
    Request::new(0x35, "NV_ESC_RM_SHARE", 24).status_at(20),
    Request::new(0x4e, "NV_ESC_RM_MAP_MEMORY", 56)
        .status_at(40)
        .descriptors(&[mapping(48)]),
    Request::new(0x4f, "NV_ESC_RM_UNMAP_MEMORY", 32).status_at(24),
    Request::new(0x57, "NV_ESC_RM_MAP_MEMORY_DMA", 64).status_at(56),
    Request::new(0x58, "NV_ESC_RM_UNMAP_MEMORY_DMA", 48).status_at(40),
    Request::new(0x5e, "NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO", 40).status_at(32),
    // As many nv_ioctl_card_info_t as fit.
    Request::new(0xc8, "NV_ESC_CARD_INFO", Request::ANY),
    Request::new(0xc9, "NV_ESC_REGISTER_FD", 4).descriptors(&[command(0)]),
    // Their `fd` is a key by which events refer to it; the driver does not look the descriptor up.
    Request::new(0xce, "NV_ESC_ALLOC_OS_EVENT", 16)
        .status_at(12)
        .makes_event(),
    Request::new(0xcf, "NV_ESC_FREE_OS_EVENT", 16).status_at(12),
    Request::new(0xd2, "NV_ESC_CHECK_VERSION_STR", 72),
    // A list of GPU ids.
    Request::new(0xd4, "NV_ESC_ATTACH_GPUS_TO_FD", Request::ANY),
    Request::new(0xd6, "NV_ESC_SYS_PARAMS", 8),
    Request::new(0xd7, "NV_ESC_NUMA_INFO", 560),
    Request::new(0xda, "NV_ESC_WAIT_OPEN_COMPLETE", 8),
];
