//! The parameters of control commands.
//!
//! From src/common/sdk/nvidia/inc/ctrl/.

use super::layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS. Unused entries are NV0000_CTRL_GPU_INVALID_ID, all ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_GET_ATTACHED_IDS_PARAMS {
    pub gpuIds: [u32; 32],
}

layout!(NV0000_CTRL_GPU_GET_ATTACHED_IDS_PARAMS, 128, { gpuIds: 0 });

/// NV0000_CTRL_CMD_GPU_GET_PROBED_IDS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS {
    pub gpuIds: [u32; 32],
    pub excludedGpuIds: [u32; 32],
    pub gpuFlags: [u32; 32],
}

layout!(NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS, 384, { gpuIds: 0, excludedGpuIds: 128, gpuFlags: 256 });

/// NV0000_CTRL_CMD_GPU_ATTACH_IDS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_ATTACH_IDS_PARAMS {
    pub gpuIds: [u32; 32],
    pub failedId: u32,
}

layout!(NV0000_CTRL_GPU_ATTACH_IDS_PARAMS, 132, { gpuIds: 0, failedId: 128 });

/// NV0000_CTRL_CMD_GPU_GET_ID_INFO. The driver leaves `szName`, a pointer, alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_GET_ID_INFO_PARAMS {
    pub gpuId: u32,
    pub gpuFlags: u32,
    pub deviceInstance: u32,
    pub subDeviceInstance: u32,
    pub szName: u64,
    pub sliStatus: u32,
    pub boardId: u32,
    pub gpuInstance: u32,
    pub numaId: i32,
}

layout!(NV0000_CTRL_GPU_GET_ID_INFO_PARAMS, 40, { gpuId: 0, gpuFlags: 4, deviceInstance: 8, subDeviceInstance: 12, szName: 16, sliStatus: 24, boardId: 28, gpuInstance: 32, numaId: 36 });

/// NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS {
    pub gpuId: u32,
    pub gpuFlags: u32,
    pub deviceInstance: u32,
    pub subDeviceInstance: u32,
    pub sliStatus: u32,
    pub boardId: u32,
    pub gpuInstance: u32,
    pub numaId: i32,
}

layout!(NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS, 32, { gpuId: 0, gpuFlags: 4, deviceInstance: 8, subDeviceInstance: 12, sliStatus: 16, boardId: 20, gpuInstance: 24, numaId: 28 });

/// NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION. Each of the three buffers has `sizeOfStrings` bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS {
    pub sizeOfStrings: u32,
    pub padding: [u8; 4],
    pub pDriverVersionBuffer: u64,
    pub pVersionBuffer: u64,
    pub pTitleBuffer: u64,
    pub changelistNumber: u32,
    pub officialChangelistNumber: u32,
}

layout!(NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS, 40, { sizeOfStrings: 0, pDriverVersionBuffer: 8, pVersionBuffer: 16, pTitleBuffer: 24, changelistNumber: 32, officialChangelistNumber: 36 });

/// What NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD exports and its counterpart imports: a type, then hDevice,
/// hParent and hObject.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_OS_UNIX_EXPORT_OBJECT {
    pub r#type: u32,
    pub data: [u32; 3],
}

layout!(NV0000_CTRL_OS_UNIX_EXPORT_OBJECT, 16, { r#type: 0, data: 4 });

/// NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS {
    pub object: NV0000_CTRL_OS_UNIX_EXPORT_OBJECT,
    pub fd: i32,
    pub flags: u32,
}

layout!(NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS, 24, { object: 0, fd: 16, flags: 20 });

/// NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_OS_UNIX_IMPORT_OBJECT_FROM_FD_PARAMS {
    pub fd: i32,
    pub object: NV0000_CTRL_OS_UNIX_EXPORT_OBJECT,
}

layout!(NV0000_CTRL_OS_UNIX_IMPORT_OBJECT_FROM_FD_PARAMS, 20, { fd: 0, object: 4 });

/// NV0000_CTRL_CMD_OS_UNIX_GET_EXPORT_OBJECT_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_OS_UNIX_GET_EXPORT_OBJECT_INFO_PARAMS {
    pub fd: i32,
    pub deviceInstance: u32,
    pub gpuInstanceId: u32,
    pub maxObjects: u16,
    pub metadata: [u8; 64],
    pub padding: [u8; 2],
}

layout!(NV0000_CTRL_OS_UNIX_GET_EXPORT_OBJECT_INFO_PARAMS, 80, { fd: 0, deviceInstance: 4, gpuInstanceId: 8, maxObjects: 12, metadata: 14 });

/// NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS {
    pub fd: i32,
    pub hDevice: u32,
    pub maxObjects: u16,
    pub metadata: [u8; 64],
    pub padding: [u8; 2],
    pub objects: [u32; 512],
    pub numObjects: u16,
    pub index: u16,
}

layout!(NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS, 2128, { fd: 0, hDevice: 4, maxObjects: 8, metadata: 10, objects: 76, numObjects: 2124, index: 2126 });

/// NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0000_CTRL_OS_UNIX_IMPORT_OBJECTS_FROM_FD_PARAMS {
    pub fd: i32,
    pub hParent: u32,
    pub objects: [u32; 128],
    pub objectTypes: [u8; 128],
    pub numObjects: u16,
    pub index: u16,
}

layout!(NV0000_CTRL_OS_UNIX_IMPORT_OBJECTS_FROM_FD_PARAMS, 652, { fd: 0, hParent: 4, objects: 8, objectTypes: 520, numObjects: 648, index: 650 });

/// NV0080_CTRL_CMD_GPU_GET_CLASSLIST_V2.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS {
    pub numClasses: u32,
    pub classList: [u32; 200],
}

layout!(NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS, 804, { numClasses: 0, classList: 4 });

/// NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST. Both lists have `numChannels` elements of 4 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS {
    pub numChannels: u32,
    pub padding: [u8; 4],
    pub pChannelHandleList: u64,
    pub pChannelList: u64,
}

layout!(NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS, 24, { numChannels: 0, pChannelHandleList: 8, pChannelList: 16 });

/// NV2080_CTRL_CMD_GPU_GET_NAME_STRING. The name is 64 bytes of ASCII or 64 two-byte characters, as the flags say.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS {
    pub gpuNameStringFlags: u32,
    pub gpuNameString: [u8; 128],
}

layout!(NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS, 132, { gpuNameStringFlags: 0, gpuNameString: 4 });

/// NV2080_CTRL_CMD_GPU_GET_GID_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_GPU_GET_GID_INFO_PARAMS {
    pub index: u32,
    pub flags: u32,
    pub length: u32,
    pub data: [u8; 256],
}

layout!(NV2080_CTRL_GPU_GET_GID_INFO_PARAMS, 268, { index: 0, flags: 4, length: 8, data: 12 });

/// NV2080_CTRL_CMD_BUS_GET_PCI_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_BUS_GET_PCI_INFO_PARAMS {
    pub pciDeviceId: u32,
    pub pciSubSystemId: u32,
    pub pciRevisionId: u32,
    pub pciExtDeviceId: u32,
}

layout!(NV2080_CTRL_BUS_GET_PCI_INFO_PARAMS, 16, { pciDeviceId: 0, pciSubSystemId: 4, pciRevisionId: 8, pciExtDeviceId: 12 });

/// An element of the lists that GET_INFO commands take: what is asked for, and room for the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVXXXX_CTRL_XXX_INFO {
    pub index: u32,
    pub data: u32,
}

layout!(NVXXXX_CTRL_XXX_INFO, 8, { index: 0, data: 4 });

/// NV2080_CTRL_CMD_FB_GET_INFO_V2.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_FB_GET_INFO_V2_PARAMS {
    pub fbInfoListSize: u32,
    pub fbInfoList: [NVXXXX_CTRL_XXX_INFO; 128],
}

layout!(NV2080_CTRL_FB_GET_INFO_V2_PARAMS, 1028, { fbInfoListSize: 0, fbInfoList: 4 });

/// NV2080_CTRL_CMD_FB_GET_INFO. The list has `fbInfoListSize` elements of [`NVXXXX_CTRL_XXX_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_FB_GET_INFO_PARAMS {
    pub fbInfoListSize: u32,
    pub padding: [u8; 4],
    pub fbInfoList: u64,
}

layout!(NV2080_CTRL_FB_GET_INFO_PARAMS, 16, { fbInfoListSize: 0, fbInfoList: 8 });

/// Which graphics engine a command is about.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_GR_ROUTE_INFO {
    pub flags: u32,
    pub padding: [u8; 4],
    pub route: u64,
}

layout!(NV2080_CTRL_GR_ROUTE_INFO, 16, { flags: 0, route: 8 });

/// NV2080_CTRL_CMD_GR_GET_INFO. The list has `grInfoListSize` elements of [`NVXXXX_CTRL_XXX_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_GR_GET_INFO_PARAMS {
    pub grInfoListSize: u32,
    pub padding: [u8; 4],
    pub grInfoList: u64,
    pub grRouteInfo: NV2080_CTRL_GR_ROUTE_INFO,
}

layout!(NV2080_CTRL_GR_GET_INFO_PARAMS, 32, { grInfoListSize: 0, grInfoList: 8, grRouteInfo: 16 });

/// NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS {
    pub event: u32,
    pub action: u32,
    pub bNotifyState: u8,
    pub padding: [u8; 3],
    pub info32: u32,
    pub info16: u16,
    pub padding1: [u8; 2],
}

layout!(NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS, 20, { event: 0, action: 4, bNotifyState: 8, info32: 12, info16: 16 });

/// NV2080_CTRL_CMD_EVENT_SET_TRIGGER_FIFO. (NV2080_CTRL_CMD_EVENT_SET_TRIGGER has no parameters.)
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_CTRL_EVENT_SET_TRIGGER_FIFO_PARAMS {
    pub hEvent: u32,
}

layout!(NV2080_CTRL_EVENT_SET_TRIGGER_FIFO_PARAMS, 4, { hEvent: 0 });

/// NVA06C_CTRL_CMD_GPFIFO_SCHEDULE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS {
    pub bEnable: u8,
    pub bSkipSubmit: u8,
    pub bSkipEnable: u8,
}

layout!(NVA06C_CTRL_GPFIFO_SCHEDULE_PARAMS, 3, { bEnable: 0, bSkipSubmit: 1, bSkipEnable: 2 });

/// NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS {
    pub workSubmitToken: u32,
}

layout!(NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS, 4, { workSubmitToken: 0 });

/// NV0041_CTRL_CMD_GET_SURFACE_INFO. The list has `surfaceInfoListSize` elements of [`NVXXXX_CTRL_XXX_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0041_CTRL_GET_SURFACE_INFO_PARAMS {
    pub surfaceInfoListSize: u32,
    pub padding: [u8; 4],
    pub surfaceInfoList: u64,
}

layout!(NV0041_CTRL_GET_SURFACE_INFO_PARAMS, 16, { surfaceInfoListSize: 0, surfaceInfoList: 8 });
