//! The arguments of the ioctls on `/dev/nvidiactl` and the GPUs.
//!
//! From kernel-open/common/inc/nv-ioctl.h and nv-ioctl-numa.h, src/common/sdk/nvidia/inc/nvos.h,
//! src/nvidia/arch/nvalloc/unix/include/nv-unix-nvos-params-wrappers.h.

use super::layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use nvproxy_abi::structs::{
    NVOS21_PARAMETERS, NVOS54_PARAMETERS, nv_ioctl_card_info_t, nv_ioctl_rm_api_version_t,
    nv_pci_info_t,
};

/// NV_ESC_REGISTER_FD, on a GPU's descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_register_fd_t {
    pub ctl_fd: i32,
}

layout!(nv_ioctl_register_fd_t, 4, { ctl_fd: 0 });

/// NV_ESC_ALLOC_OS_EVENT. `fd` is a key by which events refer to it and names no descriptor to the driver.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_alloc_os_event_t {
    pub hClient: u32,
    pub hDevice: u32,
    pub fd: u32,
    pub Status: u32,
}

layout!(nv_ioctl_alloc_os_event_t, 16, { hClient: 0, hDevice: 4, fd: 8, Status: 12 });

/// NV_ESC_FREE_OS_EVENT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_free_os_event_t {
    pub hClient: u32,
    pub hDevice: u32,
    pub fd: u32,
    pub Status: u32,
}

layout!(nv_ioctl_free_os_event_t, 16, { hClient: 0, hDevice: 4, fd: 8, Status: 12 });

/// NV_ESC_RM_GET_EVENT_DATA.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS41_PARAMETERS {
    pub pEvent: u64,
    pub MoreEvents: u32,
    pub status: u32,
}

layout!(NVOS41_PARAMETERS, 16, { pEvent: 0, MoreEvents: 8, status: 12 });

/// NV_ESC_SYS_PARAMS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_sys_params_t {
    pub memblock_size: u64,
}

layout!(nv_ioctl_sys_params_t, 8, { memblock_size: 0 });

/// NV_ESC_NUMA_INFO. The last field is `nv_offline_addresses_t`: the addresses, then their count.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_numa_info_t {
    pub nid: i32,
    pub status: i32,
    pub memblock_size: u64,
    pub numa_mem_addr: u64,
    pub numa_mem_size: u64,
    pub use_auto_online: u8,
    pub padding: [u8; 7],
    pub offline_addresses: [u64; 65],
}

layout!(nv_ioctl_numa_info_t, 560, { nid: 0, status: 4, memblock_size: 8, numa_mem_addr: 16, numa_mem_size: 24, use_auto_online: 32, offline_addresses: 40 });

/// NV_ESC_WAIT_OPEN_COMPLETE: `rc` is the errno with which the open failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_wait_open_complete_t {
    pub rc: i32,
    pub adapterStatus: u32,
}

layout!(nv_ioctl_wait_open_complete_t, 8, { rc: 0, adapterStatus: 4 });

/// NV_ESC_RM_FREE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS00_PARAMETERS {
    pub hRoot: u32,
    pub hObjectParent: u32,
    pub hObjectOld: u32,
    pub status: u32,
}

layout!(NVOS00_PARAMETERS, 16, { hRoot: 0, hObjectParent: 4, hObjectOld: 8, status: 12 });

/// The greater part of NV_ESC_RM_ALLOC_MEMORY's argument. `pMemory` is an address in the caller, not a pointer to
/// parameters.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS02_PARAMETERS {
    pub hRoot: u32,
    pub hObjectParent: u32,
    pub hObjectNew: u32,
    pub hClass: u32,
    pub flags: u32,
    pub padding: [u8; 4],
    pub pMemory: u64,
    pub limit: u64,
    pub status: u32,
    pub padding1: [u8; 4],
}

layout!(NVOS02_PARAMETERS, 48, { hRoot: 0, hObjectParent: 4, hObjectNew: 8, hClass: 12, flags: 16, pMemory: 24, limit: 32, status: 40 });

/// NV_ESC_RM_ALLOC_MEMORY.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_nvos02_parameters_with_fd {
    pub params: NVOS02_PARAMETERS,
    pub fd: i32,
    pub padding: [u8; 4],
}

layout!(nv_ioctl_nvos02_parameters_with_fd, 56, { params: 0, fd: 48 });

/// The greater part of NV_ESC_RM_MAP_MEMORY's argument.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS33_PARAMETERS {
    pub hClient: u32,
    pub hDevice: u32,
    pub hMemory: u32,
    pub padding: [u8; 4],
    pub offset: u64,
    pub length: u64,
    pub pLinearAddress: u64,
    pub status: u32,
    pub flags: u32,
}

layout!(NVOS33_PARAMETERS, 48, { hClient: 0, hDevice: 4, hMemory: 8, offset: 16, length: 24, pLinearAddress: 32, status: 40, flags: 44 });

/// NV_ESC_RM_MAP_MEMORY. `fd` is the descriptor that can be mapped afterwards.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_nvos33_parameters_with_fd {
    pub params: NVOS33_PARAMETERS,
    pub fd: i32,
    pub padding: [u8; 4],
}

layout!(nv_ioctl_nvos33_parameters_with_fd, 56, { params: 0, fd: 48 });

/// NV_ESC_RM_UNMAP_MEMORY.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS34_PARAMETERS {
    pub hClient: u32,
    pub hDevice: u32,
    pub hMemory: u32,
    pub padding: [u8; 4],
    pub pLinearAddress: u64,
    pub status: u32,
    pub flags: u32,
}

layout!(NVOS34_PARAMETERS, 32, { hClient: 0, hDevice: 4, hMemory: 8, pLinearAddress: 16, status: 24, flags: 28 });

/// NV_ESC_RM_VID_HEAP_CONTROL, with the parameters of NVOS32_FUNCTION_ALLOC_SIZE (`data.AllocSize`) and what other functions have
/// behind them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS32_PARAMETERS {
    pub hRoot: u32,
    pub hObjectParent: u32,
    pub function: u32,
    pub hVASpace: u32,
    pub ivcHeapNumber: i16,
    pub padding: [u8; 2],
    pub status: u32,
    pub total: u64,
    pub free: u64,
    pub owner: u32,
    pub hMemory: u32,
    pub r#type: u32,
    pub flags: u32,
    pub attr: u32,
    pub format: u32,
    pub comprCovg: u32,
    pub zcullCovg: u32,
    pub partitionStride: u32,
    pub width: u32,
    pub height: u32,
    pub padding1: [u8; 4],
    pub size: u64,
    pub alignment: u64,
    pub offset: u64,
    pub limit: u64,
    pub address: u64,
    pub rangeBegin: u64,
    pub rangeEnd: u64,
    pub attr2: u32,
    pub ctagOffset: u32,
    pub numaNode: i32,
    pub others: [u8; 28],
}

layout!(NVOS32_PARAMETERS, 184, { hRoot: 0, hObjectParent: 4, function: 8, hVASpace: 12, ivcHeapNumber: 16, status: 20, total: 24, free: 32, owner: 40, hMemory: 44, r#type: 48, flags: 52, attr: 56, format: 60, comprCovg: 64, zcullCovg: 68, partitionStride: 72, width: 76, height: 80, size: 88, alignment: 96, offset: 104, limit: 112, address: 120, rangeBegin: 128, rangeEnd: 136, attr2: 144, ctagOffset: 148, numaNode: 152 });

/// NV_ESC_RM_MAP_MEMORY_DMA.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS46_PARAMETERS {
    pub hClient: u32,
    pub hDevice: u32,
    pub hDma: u32,
    pub hMemory: u32,
    pub offset: u64,
    pub length: u64,
    pub flags: u32,
    pub flags2: u32,
    pub kindOverride: u32,
    pub padding: [u8; 4],
    pub dmaOffset: u64,
    pub status: u32,
    pub padding1: [u8; 4],
}

layout!(NVOS46_PARAMETERS, 64, { hClient: 0, hDevice: 4, hDma: 8, hMemory: 12, offset: 16, length: 24, flags: 32, flags2: 36, kindOverride: 40, dmaOffset: 48, status: 56 });

/// NV_ESC_RM_UNMAP_MEMORY_DMA.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS47_PARAMETERS {
    pub hClient: u32,
    pub hDevice: u32,
    pub hDma: u32,
    pub hMemory: u32,
    pub flags: u32,
    pub padding: [u8; 4],
    pub dmaOffset: u64,
    pub size: u64,
    pub status: u32,
    pub padding1: [u8; 4],
}

layout!(NVOS47_PARAMETERS, 48, { hClient: 0, hDevice: 4, hDma: 8, hMemory: 12, flags: 16, dmaOffset: 24, size: 32, status: 40 });

/// NV_ESC_EXPORT_TO_DMABUF_FD, since 580.65.06.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_export_to_dma_buf_fd_t {
    pub fd: i32,
    pub hClient: u32,
    pub totalObjects: u32,
    pub numObjects: u32,
    pub index: u32,
    pub padding: [u8; 4],
    pub totalSize: u64,
    pub mappingType: u8,
    pub bAllowMmap: u8,
    pub padding1: [u8; 2],
    pub handles: [u32; 128],
    pub padding2: [u8; 4],
    pub offsets: [u64; 128],
    pub sizes: [u64; 128],
    pub status: u32,
    pub padding3: [u8; 4],
}

layout!(nv_ioctl_export_to_dma_buf_fd_t, 2608, { fd: 0, hClient: 4, totalObjects: 8, numObjects: 12, index: 16, totalSize: 24, mappingType: 32, bAllowMmap: 33, handles: 36, offsets: 552, sizes: 1576, status: 2600 });

/// NV_ESC_RM_DUP_OBJECT.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS55_PARAMETERS {
    pub hClient: u32,
    pub hParent: u32,
    pub hObject: u32,
    pub hClientSrc: u32,
    pub hObjectSrc: u32,
    pub flags: u32,
    pub status: u32,
}

layout!(NVOS55_PARAMETERS, 28, { hClient: 0, hParent: 4, hObject: 8, hClientSrc: 12, hObjectSrc: 16, flags: 20, status: 24 });

/// NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO. The addresses are keys; the driver does not follow them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS56_PARAMETERS {
    pub hClient: u32,
    pub hDevice: u32,
    pub hMemory: u32,
    pub padding: [u8; 4],
    pub pOldCpuAddress: u64,
    pub pNewCpuAddress: u64,
    pub status: u32,
    pub padding1: [u8; 4],
}

layout!(NVOS56_PARAMETERS, 40, { hClient: 0, hDevice: 4, hMemory: 8, pOldCpuAddress: 16, pNewCpuAddress: 24, status: 32 });

/// NV_ESC_RM_SHARE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS57_PARAMETERS {
    pub hClient: u32,
    pub hObject: u32,
    pub sharePolicy: [u32; 3],
    pub status: u32,
}

layout!(NVOS57_PARAMETERS, 24, { hClient: 0, hObject: 4, sharePolicy: 8, status: 20 });

/// NV_ESC_RM_ALLOC, the longer form. The driver takes the length of the parameters from the class and looks at
/// `paramsSize` only if they are serialized.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS64_PARAMETERS {
    pub hRoot: u32,
    pub hObjectParent: u32,
    pub hObjectNew: u32,
    pub hClass: u32,
    pub pAllocParms: u64,
    pub pRightsRequested: u64,
    pub paramsSize: u32,
    pub flags: u32,
    pub status: u32,
    pub padding: [u8; 4],
}

layout!(NVOS64_PARAMETERS, 48, { hRoot: 0, hObjectParent: 4, hObjectNew: 8, hClass: 12, pAllocParms: 16, pRightsRequested: 24, paramsSize: 32, flags: 36, status: 40 });
