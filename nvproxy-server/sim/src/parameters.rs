//! Parameters that only the simulated driver looks into; all others are in `nvproxy_abi::structs`. They too have the
//! driver's names and layout (src/common/sdk/nvidia/inc/ctrl/, kernel-open/nvidia-uvm/uvm_ioctl.h).

#![allow(non_snake_case, non_camel_case_types)]

use crate::structs::uvm::NvProcessorUuid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// NV0000_CTRL_CMD_GPU_GET_PCI_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_GET_PCI_INFO_PARAMS {
    pub gpuId: u32,
    pub domain: u32,
    pub bus: u16,
    pub slot: u16,
}

/// NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_CLIENT_GET_ADDR_SPACE_TYPE_PARAMS {
    pub hObject: u32,
    pub mapFlags: u32,
    pub addrSpaceType: u32,
}

/// NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_GET_ACTIVE_DEVICE_IDS_PARAMS {
    pub numDevices: u32,
    /// Each a GPU's id and, for a part of a GPU, which part.
    pub devices: [[u32; 3]; 256],
}

/// NV2080_CTRL_CMD_GPU_GET_INFOROM_OBJECT_VERSION.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_GPU_GET_INFOROM_OBJECT_VERSION_PARAMS {
    pub objectType: [u8; 3],
    pub version: u8,
    pub subversion: u8,
}

/// NV2080_CTRL_CMD_GSP_GET_FEATURES.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_GSP_GET_FEATURES_PARAMS {
    pub gspFeatures: u32,
    pub bValid: u8,
    pub bDefaultGspRmGpu: u8,
    pub firmwareVersion: [u8; 64],
    pub padding: [u8; 2],
}

/// UVM_UNREGISTER_CHANNEL.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_UNREGISTER_CHANNEL_PARAMS {
    pub gpuUuid: NvProcessorUuid,
    pub hClient: u32,
    pub hChannel: u32,
    pub rmStatus: u32,
}

/// UVM_SET_RANGE_GROUP.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_SET_RANGE_GROUP_PARAMS {
    pub rangeGroupId: u64,
    pub requestedBase: u64,
    pub length: u64,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}

/// UVM_MAP_DYNAMIC_PARALLELISM_REGION.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct UVM_MAP_DYNAMIC_PARALLELISM_REGION_PARAMS {
    pub base: u64,
    pub length: u64,
    pub gpuUuid: NvProcessorUuid,
    pub rmStatus: u32,
    pub padding: [u8; 4],
}
