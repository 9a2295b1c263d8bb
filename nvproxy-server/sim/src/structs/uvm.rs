//! The arguments of the ioctls on `/dev/nvidia-uvm`.
//!
//! From kernel-open/nvidia-uvm/uvm_ioctl.h, uvm_linux_ioctl.h and uvm_types.h.

use super::layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The identity of a GPU or of the CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NvProcessorUuid {
    pub uuid: [u8; 16],
}

layout!(NvProcessorUuid, 16, { uuid: 0 });

/// How one GPU maps an external allocation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UvmGpuMappingAttributes {
    pub gpuUuid: NvProcessorUuid,
    pub gpuMappingType: u32,
    pub gpuCachingType: u32,
    pub gpuFormatType: u32,
    pub gpuElementBits: u32,
    pub gpuCompressionType: u32,
}

layout!(UvmGpuMappingAttributes, 36, { gpuUuid: 0, gpuMappingType: 16, gpuCachingType: 20, gpuFormatType: 24, gpuElementBits: 28, gpuCompressionType: 32 });

/// UVM_INITIALIZE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_INITIALIZE_PARAMS {
    pub flags: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_INITIALIZE_PARAMS, 16, { flags: 0, rmStatus: 8 });

/// UVM_MM_INITIALIZE. `uvmFd` is the UVM descriptor that was initialized.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_MM_INITIALIZE_PARAMS {
    pub uvmFd: i32,
    pub rmStatus: u32,
}

layout!(UVM_MM_INITIALIZE_PARAMS, 8, { uvmFd: 0, rmStatus: 4 });

/// UVM_PAGEABLE_MEM_ACCESS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_PAGEABLE_MEM_ACCESS_PARAMS {
    pub pageableMemAccess: u8,
    pub padding: [u8; 3],
    pub rmStatus: u32,
}

layout!(UVM_PAGEABLE_MEM_ACCESS_PARAMS, 8, { pageableMemAccess: 0, rmStatus: 4 });

/// UVM_REGISTER_GPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_REGISTER_GPU_PARAMS {
    pub gpu_uuid: NvProcessorUuid,
    pub numaEnabled: u8,
    pub padding: [u8; 3],
    pub numaNodeId: i32,
    pub rmCtrlFd: i32,
    pub hClient: u32,
    pub hSmcPartRef: u32,
    pub rmStatus: u32,
}

layout!(UVM_REGISTER_GPU_PARAMS, 40, { gpu_uuid: 0, numaEnabled: 16, numaNodeId: 20, rmCtrlFd: 24, hClient: 28, hSmcPartRef: 32, rmStatus: 36 });

/// UVM_UNREGISTER_GPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_UNREGISTER_GPU_PARAMS {
    pub gpu_uuid: NvProcessorUuid,
    pub rmStatus: u32,
}

layout!(UVM_UNREGISTER_GPU_PARAMS, 20, { gpu_uuid: 0, rmStatus: 16 });

/// UVM_REGISTER_GPU_VASPACE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_REGISTER_GPU_VASPACE_PARAMS {
    pub gpuUuid: NvProcessorUuid,
    pub rmCtrlFd: i32,
    pub hClient: u32,
    pub hVaSpace: u32,
    pub rmStatus: u32,
}

layout!(UVM_REGISTER_GPU_VASPACE_PARAMS, 32, { gpuUuid: 0, rmCtrlFd: 16, hClient: 20, hVaSpace: 24, rmStatus: 28 });

/// UVM_UNREGISTER_GPU_VASPACE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_UNREGISTER_GPU_VASPACE_PARAMS {
    pub gpuUuid: NvProcessorUuid,
    pub rmStatus: u32,
}

layout!(UVM_UNREGISTER_GPU_VASPACE_PARAMS, 20, { gpuUuid: 0, rmStatus: 16 });

/// UVM_CREATE_RANGE_GROUP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_CREATE_RANGE_GROUP_PARAMS {
    pub rangeGroupId: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_CREATE_RANGE_GROUP_PARAMS, 16, { rangeGroupId: 0, rmStatus: 8 });

/// UVM_DESTROY_RANGE_GROUP.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_DESTROY_RANGE_GROUP_PARAMS {
    pub rangeGroupId: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_DESTROY_RANGE_GROUP_PARAMS, 16, { rangeGroupId: 0, rmStatus: 8 });

/// UVM_CREATE_EXTERNAL_RANGE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_CREATE_EXTERNAL_RANGE_PARAMS {
    pub base: u64,
    pub length: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_CREATE_EXTERNAL_RANGE_PARAMS, 24, { base: 0, length: 8, rmStatus: 16 });

/// UVM_MAP_EXTERNAL_ALLOCATION.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_MAP_EXTERNAL_ALLOCATION_PARAMS {
    pub base: u64,
    pub length: u64,
    pub offset: u64,
    pub perGpuAttributes: [UvmGpuMappingAttributes; 256],
    pub gpuAttributesCount: u64,
    pub rmCtrlFd: i32,
    pub hClient: u32,
    pub hMemory: u32,
    pub rmStatus: u32,
}

layout!(UVM_MAP_EXTERNAL_ALLOCATION_PARAMS, 9264, { base: 0, length: 8, offset: 16, perGpuAttributes: 24, gpuAttributesCount: 9240, rmCtrlFd: 9248, hClient: 9252, hMemory: 9256, rmStatus: 9260 });

/// UVM_UNMAP_EXTERNAL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_UNMAP_EXTERNAL_PARAMS {
    pub base: u64,
    pub length: u64,
    pub gpuUuid: NvProcessorUuid,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_UNMAP_EXTERNAL_PARAMS, 40, { base: 0, length: 8, gpuUuid: 16, rmStatus: 32 });

/// UVM_FREE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_FREE_PARAMS {
    pub base: u64,
    pub length: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_FREE_PARAMS, 24, { base: 0, length: 8, rmStatus: 16 });

/// UVM_VALIDATE_VA_RANGE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_VALIDATE_VA_RANGE_PARAMS {
    pub base: u64,
    pub length: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_VALIDATE_VA_RANGE_PARAMS, 24, { base: 0, length: 8, rmStatus: 16 });

/// UVM_ALLOC_SEMAPHORE_POOL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_ALLOC_SEMAPHORE_POOL_PARAMS {
    pub base: u64,
    pub length: u64,
    pub perGpuAttributes: [UvmGpuMappingAttributes; 256],
    pub gpuAttributesCount: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

layout!(UVM_ALLOC_SEMAPHORE_POOL_PARAMS, 9248, { base: 0, length: 8, perGpuAttributes: 16, gpuAttributesCount: 9232, rmStatus: 9240 });

/// UVM_REGISTER_CHANNEL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_REGISTER_CHANNEL_PARAMS {
    pub gpuUuid: NvProcessorUuid,
    pub rmCtrlFd: i32,
    pub hClient: u32,
    pub hChannel: u32,
    pub padding: [u8; 4],
    pub base: u64,
    pub length: u64,
    pub rmStatus: u32,
    pub padding1: [u8; 4],
}

layout!(UVM_REGISTER_CHANNEL_PARAMS, 56, { gpuUuid: 0, rmCtrlFd: 16, hClient: 20, hChannel: 24, base: 32, length: 40, rmStatus: 48 });

/// UVM_ENABLE_PEER_ACCESS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_ENABLE_PEER_ACCESS_PARAMS {
    pub gpuUuidA: NvProcessorUuid,
    pub gpuUuidB: NvProcessorUuid,
    pub rmStatus: u32,
}

layout!(UVM_ENABLE_PEER_ACCESS_PARAMS, 36, { gpuUuidA: 0, gpuUuidB: 16, rmStatus: 32 });
