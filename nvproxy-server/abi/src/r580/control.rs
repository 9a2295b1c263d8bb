//! Rows of the 580 branch: the control commands, by NVOS54_PARAMETERS.cmd.
//!
//! Sizes are those of the driver's own export tables (src/nvidia/generated/g_*_nvoc.c); nested pointers are those that
//! `embeddedParamCopyIn` (src/nvidia/src/kernel/rmapi/embedded_param_copy.c) or the conversion of deprecated commands
//! (src/nvidia/interface/deprecated/rmapi_deprecated_control.c) follows. A row may block where the recorded median was
//! 200 µs or more, where it waits for a GPU or a channel, and, if it was not measured, where bit 15 is set: the module
//! passes such commands to the GPU's firmware (`IsGssLegacyCall`, rmapi_deprecated_control.c).

use crate::table::{Request, command, list, matrix};

pub(super) static CONTROL: &[Request] = &[
    // The NULL commands do nothing and look at no parameters (`_rmapiRmControl`, control.c).
    Request::new(0x0000_0000, "NV0000_CTRL_CMD_NULL", Request::ANY),
    // Three strings of as many bytes.
    Request::new(0x0000_0101, "NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION", 40).pointers(&[
        list(8, 0, 1),
        list(16, 0, 1),
        list(24, 0, 1),
    ]),
    Request::new(0x0000_0102, "NV0000_CTRL_CMD_SYSTEM_GET_CPU_INFO", 108),
    Request::new(0x0000_0127, "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS", 176)
        .pointers(&[matrix(160, 128, 4), matrix(168, 128, 4)]),
    Request::new(0x0000_012b, "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_V2", 8348),
    Request::new(0x0000_0136, "NV0000_CTRL_CMD_SYSTEM_GET_FABRIC_STATUS", 4),
    Request::new(
        0x0000_013a,
        "NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_MATRIX",
        1352,
    ),
    Request::new(0x0000_01f0, "NV0000_CTRL_CMD_SYSTEM_GET_FEATURES", 4),
    Request::new(0x0000_0201, "NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS", 128),
    // szName is a pointer that the driver has no use for.
    Request::new(0x0000_0202, "NV0000_CTRL_CMD_GPU_GET_ID_INFO", 40),
    Request::new(0x0000_0204, "NV0000_CTRL_CMD_GPU_GET_DEVICE_IDS", 4),
    Request::new(0x0000_0205, "NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2", 32),
    Request::new(0x0000_0214, "NV0000_CTRL_CMD_GPU_GET_PROBED_IDS", 384),
    Request::new(0x0000_0215, "NV0000_CTRL_CMD_GPU_ATTACH_IDS", 132).may_block(),
    Request::new(0x0000_0216, "NV0000_CTRL_CMD_GPU_DETACH_IDS", 128).may_block(),
    Request::new(0x0000_021b, "NV0000_CTRL_CMD_GPU_GET_PCI_INFO", 12),
    Request::new(0x0000_0275, "NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID", 268),
    Request::new(0x0000_0279, "NV0000_CTRL_CMD_GPU_QUERY_DRAIN_STATE", 12),
    Request::new(0x0000_027b, "NV0000_CTRL_CMD_GPU_GET_MEMOP_ENABLE", 4),
    Request::new(
        0x0000_0288,
        "NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS",
        3076,
    ),
    Request::new(0x0000_0289, "NV0000_CTRL_CMD_GPU_ASYNC_ATTACH_ID", 4),
    Request::new(0x0000_0290, "NV0000_CTRL_CMD_GPU_WAIT_ATTACH_ID", 4).may_block(),
    Request::new(
        0x0000_0a04,
        "NV0000_CTRL_CMD_SYNC_GPU_BOOST_GROUP_INFO",
        2244,
    ),
    Request::new(
        0x0000_0b02,
        "NV0000_CTRL_CMD_GPUACCT_GET_ACCOUNTING_STATE",
        12,
    ),
    Request::new(
        0x0000_0d01,
        "NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE",
        12,
    ),
    Request::new(
        0x0000_0d04,
        "NV0000_CTRL_CMD_CLIENT_SET_INHERITED_SHARE_POLICY",
        12,
    ),
    // The descriptors of these five are open /dev/nvidiactl.
    Request::new(
        0x0000_3d05,
        "NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD",
        24,
    )
    .descriptors(&[command(16)]),
    Request::new(
        0x0000_3d06,
        "NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD",
        20,
    )
    .descriptors(&[command(0)]),
    Request::new(
        0x0000_3d08,
        "NV0000_CTRL_CMD_OS_UNIX_GET_EXPORT_OBJECT_INFO",
        80,
    )
    .descriptors(&[command(0)]),
    Request::new(
        0x0000_3d0b,
        "NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD",
        2128,
    )
    .descriptors(&[command(0)]),
    Request::new(
        0x0000_3d0c,
        "NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD",
        652,
    )
    .descriptors(&[command(0)]),
    Request::new(0x0041_0110, "NV0041_CTRL_CMD_GET_SURFACE_INFO", 16).pointers(&[list(8, 0, 8)]),
    Request::new(0x0080_0000, "NV0080_CTRL_CMD_NULL", Request::ANY),
    Request::new(0x0080_0201, "NV0080_CTRL_CMD_GPU_GET_CLASSLIST", 16).pointers(&[list(8, 0, 4)]),
    Request::new(0x0080_0280, "NV0080_CTRL_CMD_GPU_GET_NUM_SUBDEVICES", 4),
    Request::new(
        0x0080_0288,
        "NV0080_CTRL_CMD_GPU_QUERY_SW_STATE_PERSISTENCE",
        4,
    ),
    Request::new(
        0x0080_0289,
        "NV0080_CTRL_CMD_GPU_GET_VIRTUALIZATION_MODE",
        8,
    ),
    // Needed by: compute or utilities, by gVisor's list. Size as observed.
    Request::new(0x0080_028b, "(not in the public headers)", 1),
    Request::new(0x0080_0292, "NV0080_CTRL_CMD_GPU_GET_CLASSLIST_V2", 804),
    Request::new(0x0080_1108, "NV0080_CTRL_CMD_GR_SET_TPC_PARTITION_MODE", 32),
    Request::new(0x0080_1307, "NV0080_CTRL_CMD_FB_GET_CAPS_V2", 3),
    Request::new(0x0080_1402, "NV0080_CTRL_CMD_HOST_GET_CAPS_V2", 3),
    Request::new(0x0080_170d, "NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST", 24)
        .pointers(&[list(8, 0, 4), list(16, 0, 4)]),
    Request::new(
        0x0080_1806,
        "NV0080_CTRL_CMD_DMA_ADV_SCHED_GET_VA_CAPS",
        192,
    ),
    Request::new(0x0080_180d, "NV0080_CTRL_CMD_DMA_GET_CAPS", 12),
    Request::new(
        0x0080_1909,
        "NV0080_CTRL_CMD_PERF_CUDA_LIMIT_SET_CONTROL",
        1,
    )
    .may_block(),
    Request::new(0x00de_0001, "NV00DE_CTRL_CMD_REQUEST_DATA_POLL", 8),
    Request::new(0x00f8_0103, "NV00F8_CTRL_CMD_ATTACH_MEM", 2064),
    Request::new(0x00fd_0101, "NV00FD_CTRL_CMD_GET_INFO", 32),
    Request::new(0x00fd_0102, "NV00FD_CTRL_CMD_ATTACH_MEM", 40),
    // The descriptor, of a GPU, is in the lower half of an 8-byte field.
    Request::new(0x00fd_0104, "NV00FD_CTRL_CMD_ATTACH_GPU", 16).descriptors(&[command(8)]),
    Request::new(0x00fd_0105, "NV00FD_CTRL_CMD_DETACH_MEM", 24),
    Request::new(0x2080_0000, "NV2080_CTRL_CMD_NULL", Request::ANY),
    Request::new(0x2080_0101, "NV2080_CTRL_CMD_GPU_GET_INFO", 16).pointers(&[list(8, 0, 8)]),
    Request::new(0x2080_0102, "NV2080_CTRL_CMD_GPU_GET_INFO_V2", 564).may_block(),
    Request::new(0x2080_0110, "NV2080_CTRL_CMD_GPU_GET_NAME_STRING", 132),
    Request::new(0x2080_0111, "NV2080_CTRL_CMD_GPU_GET_SHORT_NAME_STRING", 64),
    Request::new(0x2080_0119, "NV2080_CTRL_CMD_GPU_GET_SIMULATION_INFO", 4),
    Request::new(0x2080_012f, "NV2080_CTRL_CMD_GPU_QUERY_ECC_STATUS", 1464).may_block(),
    Request::new(
        0x2080_0131,
        "NV2080_CTRL_CMD_GPU_QUERY_COMPUTE_MODE_RULES",
        4,
    ),
    Request::new(
        0x2080_0133,
        "NV2080_CTRL_CMD_GPU_QUERY_ECC_CONFIGURATION",
        8,
    ),
    Request::new(0x2080_013f, "NV2080_CTRL_CMD_GPU_GET_OEM_BOARD_INFO", 136),
    Request::new(0x2080_0142, "NV2080_CTRL_CMD_GPU_GET_ID", 4),
    // Names by gVisor; sizes by the export tables.
    Request::new(
        0x2080_0145,
        "NV2080_CTRL_CMD_GPU_ACQUIRE_COMPUTE_MODE_RESERVATION",
        0,
    ),
    Request::new(
        0x2080_0146,
        "NV2080_CTRL_CMD_GPU_RELEASE_COMPUTE_MODE_RESERVATION",
        0,
    ),
    Request::new(0x2080_014a, "NV2080_CTRL_CMD_GPU_GET_GID_INFO", 268),
    Request::new(
        0x2080_014b,
        "NV2080_CTRL_CMD_GPU_GET_INFOROM_OBJECT_VERSION",
        5,
    ),
    Request::new(
        0x2080_0156,
        "NV2080_CTRL_CMD_GPU_GET_INFOROM_IMAGE_VERSION",
        16,
    ),
    Request::new(
        0x2080_0157,
        "NV2080_CTRL_CMD_GPU_QUERY_INFOROM_ECC_SUPPORT",
        0,
    ),
    Request::new(
        0x2080_016d,
        "NV2080_CTRL_GPU_GET_NVENC_SW_SESSION_STATS",
        12,
    ),
    Request::new(0x2080_0170, "NV2080_CTRL_CMD_GPU_GET_ENGINES_V2", 340).may_block(),
    Request::new(
        0x2080_017b,
        "NV2080_CTRL_GPU_GET_NVFBC_SW_SESSION_STATS",
        12,
    ),
    Request::new(
        0x2080_018b,
        "NV2080_CTRL_CMD_GPU_GET_ACTIVE_PARTITION_IDS",
        40,
    ),
    Request::new(0x2080_018d, "NV2080_CTRL_CMD_GPU_GET_PIDS", 3812),
    Request::new(0x2080_018e, "NV2080_CTRL_CMD_GPU_GET_PID_INFO", 14408),
    Request::new(
        0x2080_0195,
        "NV2080_CTRL_CMD_GPU_GET_COMPUTE_POLICY_CONFIG",
        260,
    ),
    Request::new(0x2080_019f, "NV2080_CTRL_CMD_GPU_GET_SKYLINE_INFO", 220),
    Request::new(0x2080_01a3, "NV2080_CTRL_CMD_GET_GPU_FABRIC_PROBE_INFO", 56),
    Request::new(0x2080_01a4, "NV2080_CTRL_CMD_GPU_GET_CHIP_DETAILS", 16),
    Request::new(0x2080_01b2, "NV2080_CTRL_CMD_GPU_GET_RECOVERY_ACTION", 4),
    Request::new(0x2080_0301, "NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION", 20),
    Request::new(0x2080_0302, "NV2080_CTRL_CMD_EVENT_SET_TRIGGER", 0),
    Request::new(0x2080_0308, "NV2080_CTRL_CMD_EVENT_SET_TRIGGER_FIFO", 4),
    Request::new(0x2080_0403, "NV2080_CTRL_CMD_TIMER_GET_TIME", 8),
    Request::new(
        0x2080_0406,
        "NV2080_CTRL_CMD_TIMER_GET_GPU_CPU_TIME_CORRELATION_INFO",
        264,
    ),
    Request::new(0x2080_0407, "NV2080_CTRL_CMD_TIMER_SET_GR_TICK_FREQ", 1),
    Request::new(
        0x2080_0513,
        "NV2080_CTRL_CMD_THERMAL_SYSTEM_EXECUTE_V2",
        1432,
    ),
    Request::new(0x2080_0802, "NV2080_CTRL_CMD_BIOS_GET_INFO", 16).pointers(&[list(8, 0, 8)]),
    // pRunlistPreemptEvent is a pointer that only clients in the kernel may set (kernel_fifo_ctrl.c).
    Request::new(0x2080_110b, "NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS", 536).may_block(),
    Request::new(0x2080_1201, "NV2080_CTRL_CMD_GR_GET_INFO", 32).pointers(&[list(8, 0, 8)]),
    Request::new(
        0x2080_1210,
        "NV2080_CTRL_CMD_GR_SET_CTXSW_PREEMPTION_MODE",
        32,
    )
    .may_block(),
    Request::new(0x2080_1218, "NV2080_CTRL_CMD_GR_GET_CTX_BUFFER_SIZE", 16),
    Request::new(0x2080_121b, "NV2080_CTRL_CMD_GR_GET_GLOBAL_SM_ORDER", 9240),
    Request::new(0x2080_1227, "NV2080_CTRL_CMD_GR_GET_CAPS_V2", 48),
    Request::new(0x2080_122a, "NV2080_CTRL_CMD_GR_GET_GPC_MASK", 24),
    Request::new(0x2080_122b, "NV2080_CTRL_CMD_GR_GET_TPC_MASK", 24),
    Request::new(
        0x2080_1230,
        "NV2080_CTRL_CMD_GR_GET_SM_ISSUE_RATE_MODIFIER",
        32,
    ),
    Request::new(
        0x2080_123c,
        "NV2080_CTRL_CMD_GR_GET_SM_ISSUE_RATE_MODIFIER_V2",
        2044,
    ),
    Request::new(0x2080_1301, "NV2080_CTRL_CMD_FB_GET_INFO", 16).pointers(&[list(8, 0, 8)]),
    Request::new(0x2080_1303, "NV2080_CTRL_CMD_FB_GET_INFO_V2", 1028),
    Request::new(0x2080_1322, "NV2080_CTRL_CMD_FB_GET_OFFLINED_PAGES", 2056),
    Request::new(
        0x2080_1357,
        "NV2080_CTRL_CMD_FB_QUERY_DRAM_ENCRYPTION_INFOROM_SUPPORT",
        4,
    ),
    Request::new(
        0x2080_1358,
        "NV2080_CTRL_CMD_FB_QUERY_DRAM_ENCRYPTION_STATUS",
        4,
    ),
    Request::new(0x2080_1701, "NV2080_CTRL_CMD_MC_GET_ARCH_INFO", 16),
    Request::new(0x2080_1702, "NV2080_CTRL_CMD_MC_SERVICE_INTERRUPTS", 4),
    Request::new(0x2080_1801, "NV2080_CTRL_CMD_BUS_GET_PCI_INFO", 16),
    Request::new(0x2080_1802, "NV2080_CTRL_CMD_BUS_GET_INFO", 16).pointers(&[list(8, 0, 8)]),
    Request::new(0x2080_1803, "NV2080_CTRL_CMD_BUS_GET_PCI_BAR_INFO", 200),
    Request::new(0x2080_1813, "NV2080_CTRL_CMD_BUS_GET_PEX_COUNTERS", 76),
    Request::new(0x2080_1819, "NV2080_CTRL_CMD_BUS_GET_PEX_UTIL_COUNTERS", 32),
    Request::new(0x2080_1823, "NV2080_CTRL_CMD_BUS_GET_INFO_V2", 420).may_block(),
    Request::new(
        0x2080_1829,
        "NV2080_CTRL_CMD_BUS_GET_PCIE_REQ_ATOMICS_CAPS",
        12,
    ),
    Request::new(
        0x2080_182a,
        "NV2080_CTRL_CMD_BUS_GET_PCIE_SUPPORTED_GPU_ATOMICS",
        112,
    )
    .may_block(),
    Request::new(0x2080_182b, "NV2080_CTRL_CMD_BUS_GET_C2C_INFO", 28).may_block(),
    Request::new(
        0x2080_1830,
        "NV2080_CTRL_CMD_BUS_GET_PCIE_CPL_ATOMICS_CAPS",
        4,
    ),
    Request::new(0x2080_200a, "NV2080_CTRL_CMD_PERF_BOOST", 8).may_block(),
    Request::new(0x2080_2068, "NV2080_CTRL_CMD_PERF_GET_CURRENT_PSTATE", 4),
    Request::new(
        0x2080_2096,
        "NV2080_CTRL_CMD_PERF_GET_GPUMON_PERFMON_UTIL_SAMPLES_V2",
        55888,
    ),
    Request::new(0x2080_2209, "NV2080_CTRL_CMD_RC_GET_WATCHDOG_INFO", 4),
    Request::new(
        0x2080_220c,
        "NV2080_CTRL_CMD_RC_RELEASE_WATCHDOG_REQUESTS",
        0,
    ),
    Request::new(0x2080_2210, "NV2080_CTRL_CMD_RC_SOFT_DISABLE_WATCHDOG", 0),
    Request::new(0x2080_2a03, "NV2080_CTRL_CMD_CE_GET_CAPS_V2", 8),
    Request::new(0x2080_2a0a, "NV2080_CTRL_CMD_CE_GET_ALL_CAPS", 136).may_block(),
    Request::new(0x2080_3001, "NV2080_CTRL_CMD_NVLINK_GET_NVLINK_CAPS", 48),
    Request::new(
        0x2080_3002,
        "NV2080_CTRL_CMD_NVLINK_GET_NVLINK_STATUS",
        13344,
    ),
    Request::new(0x2080_3083, "NV2080_CTRL_CMD_NVLINK_GET_PLATFORM_INFO", 39),
    Request::new(0x2080_3125, "NV2080_CTRL_CMD_FLCN_GET_CTX_BUFFER_SIZE", 16),
    Request::new(0x2080_3404, "NV2080_CTRL_CMD_ECC_GET_REPAIR_STATUS", 2),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_3406, "(not in the public headers)", 1),
    Request::new(0x2080_3601, "NV2080_CTRL_CMD_GSP_GET_FEATURES", 72),
    Request::new(0x2080_3801, "NV2080_CTRL_CMD_GRMGR_GET_GR_FS_INFO", 1928).may_block(),
    // Needed by: every CUDA program. Size as observed.
    Request::new(0x2080_8159, "(not in the public headers)", 332).may_block(),
    // Needed by: every CUDA program. Size as observed.
    Request::new(0x2080_8162, "(not in the public headers)", 1),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_852a, "(not in the public headers)", 1784).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_852b, "(not in the public headers)", 2836).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_852e, "(not in the public headers)", 528).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_852f, "(not in the public headers)", 776).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_8536, "(not in the public headers)", 1812).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_853a, "(not in the public headers)", 1456).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_8542, "(not in the public headers)", 504).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_8546, "(not in the public headers)", 24).may_block(),
    // Needed by: PyTorch, by way of NVML. Size as observed.
    Request::new(0x2080_9001, "(not in the public headers)", 8),
    // Needed by: PyTorch, by way of NVML. Size as observed.
    Request::new(0x2080_9009, "(not in the public headers)", 8),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_9019, "(not in the public headers)", 10800).may_block(),
    // Needed by: every CUDA program. Size as observed.
    Request::new(0x2080_9038, "(not in the public headers)", 4).may_block(),
    // Needed by: PyTorch, by way of NVML. Size as observed.
    Request::new(0x2080_9064, "(not in the public headers)", 520).may_block(),
    // Needed by: PyTorch, by way of NVML. Size as observed.
    Request::new(0x2080_a026, "(not in the public headers)", 532),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a060, "(not in the public headers)", 28).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a06e, "(not in the public headers)", 1).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a06f, "(not in the public headers)", 4).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a080, "(not in the public headers)", 52).may_block(),
    // Needed by: PyTorch, by way of NVML. Size as observed.
    Request::new(0x2080_a084, "(not in the public headers)", 4),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a0a4, "(not in the public headers)", 67396).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a0a6, "(not in the public headers)", 34720).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a0a7, "(not in the public headers)", 14988).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a0a8, "(not in the public headers)", 19724).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a0f2, "(not in the public headers)", 96).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a612, "(not in the public headers)", 11680).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a618, "(not in the public headers)", 8620).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2080_a63c, "(not in the public headers)", 28).may_block(),
    // Needed by: every CUDA program. Size as observed.
    Request::new(0x2081_0108, "(not in the public headers)", 992).may_block(),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2081_0110, "(not in the public headers)", 1),
    // Needed by: nvidia-smi -q. Size as observed.
    Request::new(0x2081_0111, "(not in the public headers)", 4),
    Request::new(0x208f_1105, "NV208F_CTRL_CMD_GPU_VERIFY_INFOROM", 8),
    Request::new(0x503c_0102, "NV503C_CTRL_CMD_REGISTER_VA_SPACE", 16),
    Request::new(0x503c_0104, "NV503C_CTRL_CMD_REGISTER_VIDMEM", 32),
    Request::new(0x503c_0105, "NV503C_CTRL_CMD_UNREGISTER_VIDMEM", 4),
    Request::new(0x83de_0307, "NV83DE_CTRL_CMD_DEBUG_SET_MODE_MMU_DEBUG", 4),
    Request::new(0x83de_0309, "NV83DE_CTRL_CMD_DEBUG_SET_EXCEPTION_MASK", 4).may_block(),
    Request::new(
        0x83de_030c,
        "NV83DE_CTRL_CMD_DEBUG_READ_ALL_SM_ERROR_STATES",
        4824,
    ),
    Request::new(
        0x83de_0310,
        "NV83DE_CTRL_CMD_DEBUG_CLEAR_ALL_SM_ERROR_STATES",
        8,
    ),
    Request::new(0x83de_0315, "NV83DE_CTRL_CMD_DEBUG_READ_MEMORY", 24).pointers(&[list(16, 4, 1)]),
    Request::new(0x83de_0317, "NV83DE_CTRL_CMD_DEBUG_SUSPEND_CONTEXT", 8).may_block(),
    Request::new(0x83de_0318, "NV83DE_CTRL_CMD_DEBUG_RESUME_CONTEXT", 0).may_block(),
    Request::new(
        0x83de_031f,
        "NV83DE_CTRL_CMD_DEBUG_SET_MODE_ERRBAR_DEBUG",
        4,
    ),
    Request::new(0x906f_0101, "NV906F_CTRL_GET_CLASS_ENGINEID", 16),
    Request::new(0x906f_0102, "NV906F_CTRL_CMD_RESET_CHANNEL", 16).may_block(),
    Request::new(
        0x90e6_0102,
        "NV90E6_CTRL_CMD_MASTER_GET_VIRTUAL_FUNCTION_ERROR_CONT_INTR_MASK",
        8,
    )
    .may_block(),
    Request::new(0x90e7_0113, "NV90E7_CTRL_CMD_BBX_GET_LAST_FLUSH_TIME", 16),
    Request::new(0xa06c_0101, "NVA06C_CTRL_CMD_GPFIFO_SCHEDULE", 3).may_block(),
    Request::new(0xa06c_0103, "NVA06C_CTRL_CMD_SET_TIMESLICE", 8).may_block(),
    Request::new(0xa06c_0105, "NVA06C_CTRL_CMD_PREEMPT", 8).may_block(),
    Request::new(0xa06f_0103, "NVA06F_CTRL_CMD_GPFIFO_SCHEDULE", 3).may_block(),
    Request::new(
        0xc36f_0108,
        "NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN",
        4,
    ),
    Request::new(0xc56f_010b, "NVC56F_CTRL_CMD_GET_KMB", 144),
    Request::new(
        0xcb33_0101,
        "NV_CONF_COMPUTE_CTRL_CMD_SYSTEM_GET_CAPABILITIES",
        6,
    ),
    Request::new(
        0xcb33_0104,
        "NV_CONF_COMPUTE_CTRL_CMD_SYSTEM_GET_GPUS_STATE",
        1,
    ),
    Request::new(
        0xcb33_010b,
        "NV_CONF_COMPUTE_CTRL_CMD_GPU_GET_NUM_SECURE_CHANNELS",
        12,
    ),
    Request::new(
        0xcb33_010c,
        "NV_CONF_COMPUTE_CTRL_CMD_GPU_GET_KEY_ROTATION_STATE",
        8,
    ),
];
