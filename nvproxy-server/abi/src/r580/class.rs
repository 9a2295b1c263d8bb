//! Rows of the 580 branch: the allocation classes, by hClass.
//!
//! Which classes there are and how long their parameters are: src/nvidia/src/kernel/rmapi/resource_list.h. The driver
//! copies nothing behind these parameters. A row may block where the recorded median was 200 µs or more, and
//! where it is another generation's counterpart of one that does.

use crate::table::{Request, capability};

pub(super) static CLASS: &[Request] = &[
    Request::new(0x0000, "NV01_ROOT", 4),
    Request::new(0x0001, "NV01_ROOT_NON_PRIV", 4),
    Request::new(0x003e, "NV01_MEMORY_SYSTEM", 128),
    Request::new(0x0040, "NV01_MEMORY_LOCAL_USER", 128),
    Request::new(0x0041, "NV01_ROOT_CLIENT", 4),
    Request::new(0x0070, "NV01_MEMORY_VIRTUAL", 24),
    // `descriptor` is the address of what is pinned.
    Request::new(0x0071, "NV01_MEMORY_SYSTEM_OS_DESCRIPTOR", 40)
        .may_block()
        .pins(),
    Request::new(0x0073, "NV04_DISPLAY_COMMON", 0),
    // `data` is the number given to NV_ESC_ALLOC_OS_EVENT: a key, not a pointer, whatever its type.
    Request::new(0x0079, "NV01_EVENT_OS_EVENT", 24).may_block(),
    Request::new(0x0080, "NV01_DEVICE_0", 56).may_block(),
    Request::new(0x00de, "RM_USER_SHARED_DATA", 8),
    Request::new(0x00f8, "NV_MEMORY_FABRIC", 48).may_block(),
    // pOsEvent is such a number, too.
    Request::new(0x00fd, "NV_MEMORY_MULTICAST_FABRIC", 80).may_block(),
    Request::new(0x2080, "NV20_SUBDEVICE_0", 4).may_block(),
    Request::new(0x2081, "NV2081_BINAPI", 4).may_block(),
    Request::new(0x208f, "NV20_SUBDEVICE_DIAG", 0),
    Request::new(0x503b, "NV50_P2P", 72).may_block(),
    Request::new(0x503c, "NV50_THIRD_PARTY_P2P", 4),
    Request::new(0x50a0, "NV50_MEMORY_VIRTUAL", 128),
    Request::new(0x83de, "GT200_DEBUGGER", 12).may_block(),
    Request::new(0x900e, "MPS_COMPUTE", 0),
    Request::new(0x9067, "FERMI_CONTEXT_SHARE_A", 12).may_block(),
    Request::new(0x90e6, "GF100_SUBDEVICE_MASTER", 0).may_block(),
    Request::new(0x90e7, "GF100_SUBDEVICE_INFOROM", 0),
    Request::new(0x90f1, "FERMI_VASPACE_A", 56).may_block(),
    Request::new(0xa06c, "KEPLER_CHANNEL_GROUP_A", 20).may_block(),
    Request::new(0xc461, "TURING_USERMODE_A", 0),
    Request::new(0xc46f, "TURING_CHANNEL_GPFIFO_A", 368).may_block(),
    Request::new(0xc561, "AMPERE_USERMODE_A", 0),
    Request::new(0xc56f, "AMPERE_CHANNEL_GPFIFO_A", 368).may_block(),
    Request::new(0xc5b5, "TURING_DMA_COPY_A", 8).may_block(),
    Request::new(0xc5c0, "TURING_COMPUTE_A", 16).may_block(),
    // The capability of these four is in the lower half of an 8-byte field.
    Request::new(0xc637, "AMPERE_SMC_PARTITION_REF", 16).descriptors(&[capability(0)]),
    Request::new(0xc638, "AMPERE_SMC_EXEC_PARTITION_REF", 16).descriptors(&[capability(0)]),
    Request::new(0xc639, "AMPERE_SMC_CONFIG_SESSION", 8).descriptors(&[capability(0)]),
    Request::new(0xc640, "AMPERE_SMC_MONITOR_SESSION", 8).descriptors(&[capability(0)]),
    Request::new(0xc661, "HOPPER_USERMODE_A", 2),
    Request::new(0xc6b5, "AMPERE_DMA_COPY_A", 8).may_block(),
    Request::new(0xc6c0, "AMPERE_COMPUTE_A", 16).may_block(),
    Request::new(0xc761, "BLACKWELL_USERMODE_A", 2),
    Request::new(0xc7b5, "AMPERE_DMA_COPY_B", 8).may_block(),
    Request::new(0xc7c0, "AMPERE_COMPUTE_B", 16).may_block(),
    Request::new(0xc86f, "HOPPER_CHANNEL_GPFIFO_A", 368).may_block(),
    Request::new(0xc8b5, "HOPPER_DMA_COPY_A", 8).may_block(),
    Request::new(0xc96f, "BLACKWELL_CHANNEL_GPFIFO_A", 368).may_block(),
    Request::new(0xc9b5, "BLACKWELL_DMA_COPY_A", 8).may_block(),
    Request::new(0xc9c0, "ADA_COMPUTE_A", 16).may_block(),
    Request::new(0xca6f, "BLACKWELL_CHANNEL_GPFIFO_B", 368).may_block(),
    Request::new(0xcab5, "BLACKWELL_DMA_COPY_B", 8).may_block(),
    Request::new(0xcb33, "NV_CONFIDENTIAL_COMPUTE", 4),
    Request::new(0xcba2, "HOPPER_SEC2_WORK_LAUNCH_A", 0).may_block(),
    Request::new(0xcbc0, "HOPPER_COMPUTE_A", 16).may_block(),
    Request::new(0xcdc0, "BLACKWELL_COMPUTE_A", 16).may_block(),
    Request::new(0xcec0, "BLACKWELL_COMPUTE_B", 16).may_block(),
];
