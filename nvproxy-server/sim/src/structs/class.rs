//! The parameters of allocation classes.
//!
//! From src/common/sdk/nvidia/inc/nvos.h, class/ and alloc/.

use super::layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// NV01_EVENT, NV01_EVENT_OS_EVENT. For an OS event `data` is the number that NV_ESC_ALLOC_OS_EVENT was given.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0005_ALLOC_PARAMETERS {
    pub hParentClient: u32,
    pub hSrcResource: u32,
    pub hClass: u32,
    pub notifyIndex: u32,
    pub data: u64,
}

layout!(NV0005_ALLOC_PARAMETERS, 24, { hParentClient: 0, hSrcResource: 4, hClass: 8, notifyIndex: 12, data: 16 });

/// NV01_DEVICE_0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV0080_ALLOC_PARAMETERS {
    pub deviceId: u32,
    pub hClientShare: u32,
    pub hTargetClient: u32,
    pub hTargetDevice: u32,
    pub flags: u32,
    pub padding: [u8; 4],
    pub vaSpaceSize: u64,
    pub vaStartInternal: u64,
    pub vaLimitInternal: u64,
    pub vaMode: u32,
    pub padding1: [u8; 4],
}

layout!(NV0080_ALLOC_PARAMETERS, 56, { deviceId: 0, hClientShare: 4, hTargetClient: 8, hTargetDevice: 12, flags: 16, vaSpaceSize: 24, vaStartInternal: 32, vaLimitInternal: 40, vaMode: 48 });

/// NV20_SUBDEVICE_0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV2080_ALLOC_PARAMETERS {
    pub subDeviceId: u32,
}

layout!(NV2080_ALLOC_PARAMETERS, 4, { subDeviceId: 0 });

/// NV01_MEMORY_SYSTEM, NV01_MEMORY_LOCAL_USER, NV50_MEMORY_VIRTUAL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_MEMORY_ALLOCATION_PARAMS {
    pub owner: u32,
    pub r#type: u32,
    pub flags: u32,
    pub width: u32,
    pub height: u32,
    pub pitch: i32,
    pub attr: u32,
    pub attr2: u32,
    pub format: u32,
    pub comprCovg: u32,
    pub zcullCovg: u32,
    pub padding: [u8; 4],
    pub rangeLo: u64,
    pub rangeHi: u64,
    pub size: u64,
    pub alignment: u64,
    pub offset: u64,
    pub limit: u64,
    pub address: u64,
    pub ctagOffset: u32,
    pub hVASpace: u32,
    pub internalflags: u32,
    pub tag: u32,
    pub numaNode: i32,
    pub padding1: [u8; 4],
}

layout!(NV_MEMORY_ALLOCATION_PARAMS, 128, { owner: 0, r#type: 4, flags: 8, width: 12, height: 16, pitch: 20, attr: 24, attr2: 28, format: 32, comprCovg: 36, zcullCovg: 40, rangeLo: 48, rangeHi: 56, size: 64, alignment: 72, offset: 80, limit: 88, address: 96, ctagOffset: 104, hVASpace: 108, internalflags: 112, tag: 116, numaNode: 120 });

/// NV01_MEMORY_SYSTEM_OS_DESCRIPTOR through NV_ESC_RM_ALLOC. `descriptor` is the address of the memory that is
/// pinned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_OS_DESC_MEMORY_ALLOCATION_PARAMS {
    pub r#type: u32,
    pub flags: u32,
    pub attr: u32,
    pub attr2: u32,
    pub descriptor: u64,
    pub limit: u64,
    pub descriptorType: u32,
    pub tag: u32,
}

layout!(NV_OS_DESC_MEMORY_ALLOCATION_PARAMS, 40, { r#type: 0, flags: 4, attr: 8, attr2: 12, descriptor: 16, limit: 24, descriptorType: 32, tag: 36 });

/// FERMI_VASPACE_A.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_VASPACE_ALLOCATION_PARAMETERS {
    pub index: u32,
    pub flags: u32,
    pub vaSize: u64,
    pub vaStartInternal: u64,
    pub vaLimitInternal: u64,
    pub bigPageSize: u32,
    pub padding: [u8; 4],
    pub vaBase: u64,
    pub pasid: u32,
    pub padding1: [u8; 4],
}

layout!(NV_VASPACE_ALLOCATION_PARAMETERS, 56, { index: 0, flags: 4, vaSize: 8, vaStartInternal: 16, vaLimitInternal: 24, bigPageSize: 32, vaBase: 40, pasid: 48 });

/// A range of memory in [`NV_CHANNEL_ALLOC_PARAMS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_MEMORY_DESC_PARAMS {
    pub base: u64,
    pub size: u64,
    pub addressSpace: u32,
    pub cacheAttrib: u32,
}

layout!(NV_MEMORY_DESC_PARAMS, 24, { base: 0, size: 8, addressSpace: 16, cacheAttrib: 20 });

/// The channel classes, HOPPER_CHANNEL_GPFIFO_A among them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_CHANNEL_ALLOC_PARAMS {
    pub hObjectError: u32,
    pub hObjectBuffer: u32,
    pub gpFifoOffset: u64,
    pub gpFifoEntries: u32,
    pub flags: u32,
    pub hContextShare: u32,
    pub hVASpace: u32,
    pub hUserdMemory: [u32; 8],
    pub userdOffset: [u64; 8],
    pub engineType: u32,
    pub cid: u32,
    pub subDeviceId: u32,
    pub hObjectEccError: u32,
    pub instanceMem: NV_MEMORY_DESC_PARAMS,
    pub userdMem: NV_MEMORY_DESC_PARAMS,
    pub ramfcMem: NV_MEMORY_DESC_PARAMS,
    pub mthdbufMem: NV_MEMORY_DESC_PARAMS,
    pub hPhysChannelGroup: u32,
    pub internalFlags: u32,
    pub errorNotifierMem: NV_MEMORY_DESC_PARAMS,
    pub eccErrorNotifierMem: NV_MEMORY_DESC_PARAMS,
    pub ProcessID: u32,
    pub SubProcessID: u32,
    pub encryptIv: [u32; 3],
    pub decryptIv: [u32; 3],
    pub hmacNonce: [u32; 8],
    pub tpcConfigID: u32,
    pub padding: [u8; 4],
}

layout!(NV_CHANNEL_ALLOC_PARAMS, 368, { hObjectError: 0, hObjectBuffer: 4, gpFifoOffset: 8, gpFifoEntries: 16, flags: 20, hContextShare: 24, hVASpace: 28, hUserdMemory: 32, userdOffset: 64, engineType: 128, cid: 132, subDeviceId: 136, hObjectEccError: 140, instanceMem: 144, userdMem: 168, ramfcMem: 192, mthdbufMem: 216, hPhysChannelGroup: 240, internalFlags: 244, errorNotifierMem: 248, eccErrorNotifierMem: 272, ProcessID: 296, SubProcessID: 300, encryptIv: 304, decryptIv: 316, hmacNonce: 328, tpcConfigID: 360 });

/// KEPLER_CHANNEL_GROUP_A.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS {
    pub hObjectError: u32,
    pub hObjectEccError: u32,
    pub hVASpace: u32,
    pub engineType: u32,
    pub bIsCallingContextVgpuPlugin: u8,
    pub padding: [u8; 3],
}

layout!(NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS, 20, { hObjectError: 0, hObjectEccError: 4, hVASpace: 8, engineType: 12, bIsCallingContextVgpuPlugin: 16 });

/// FERMI_CONTEXT_SHARE_A.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_CTXSHARE_ALLOCATION_PARAMETERS {
    pub hVASpace: u32,
    pub flags: u32,
    pub subctxId: u32,
}

layout!(NV_CTXSHARE_ALLOCATION_PARAMETERS, 12, { hVASpace: 0, flags: 4, subctxId: 8 });

/// The compute classes, HOPPER_COMPUTE_A among them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV_GR_ALLOCATION_PARAMETERS {
    pub version: u32,
    pub flags: u32,
    pub size: u32,
    pub caps: u32,
}

layout!(NV_GR_ALLOCATION_PARAMETERS, 16, { version: 0, flags: 4, size: 8, caps: 12 });

/// The copy engine classes, HOPPER_DMA_COPY_A among them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVB0B5_ALLOCATION_PARAMETERS {
    pub version: u32,
    pub engineType: u32,
}

layout!(NVB0B5_ALLOCATION_PARAMETERS, 8, { version: 0, engineType: 4 });

/// RM_USER_SHARED_DATA.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV00DE_ALLOC_PARAMETERS {
    pub polledDataMask: u64,
}

layout!(NV00DE_ALLOC_PARAMETERS, 8, { polledDataMask: 0 });

/// NV50_P2P.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV503B_ALLOC_PARAMETERS {
    pub hSubDevice: u32,
    pub hPeerSubDevice: u32,
    pub subDevicePeerIdMask: u32,
    pub peerSubDevicePeerIdMask: u32,
    pub mailboxBar1Addr: u64,
    pub mailboxTotalSize: u32,
    pub flags: u32,
    pub subDeviceEgmPeerIdMask: u32,
    pub peerSubDeviceEgmPeerIdMask: u32,
    pub l2pBar1P2PDmaInfo: [u64; 2],
    pub p2lBar1P2PDmaInfo: [u64; 2],
}

layout!(NV503B_ALLOC_PARAMETERS, 72, { hSubDevice: 0, hPeerSubDevice: 4, subDevicePeerIdMask: 8, peerSubDevicePeerIdMask: 12, mailboxBar1Addr: 16, mailboxTotalSize: 24, flags: 28, subDeviceEgmPeerIdMask: 32, peerSubDeviceEgmPeerIdMask: 36, l2pBar1P2PDmaInfo: 40, p2lBar1P2PDmaInfo: 56 });

/// NV50_THIRD_PARTY_P2P.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NV503C_ALLOC_PARAMETERS {
    pub flags: u32,
}

layout!(NV503C_ALLOC_PARAMETERS, 4, { flags: 0 });

/// AMPERE_SMC_PARTITION_REF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVC637_ALLOCATION_PARAMETERS {
    pub capDescriptor: u64,
    pub swizzId: u32,
    pub padding: u32,
}

layout!(NVC637_ALLOCATION_PARAMETERS, 16, { capDescriptor: 0, swizzId: 8 });

/// AMPERE_SMC_EXEC_PARTITION_REF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVC638_ALLOCATION_PARAMETERS {
    pub capDescriptor: u64,
    pub execPartitionId: u32,
    pub padding: u32,
}

layout!(NVC638_ALLOCATION_PARAMETERS, 16, { capDescriptor: 0, execPartitionId: 8 });

/// AMPERE_SMC_CONFIG_SESSION.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVC639_ALLOCATION_PARAMETERS {
    pub capDescriptor: u64,
}

layout!(NVC639_ALLOCATION_PARAMETERS, 8, { capDescriptor: 0 });

/// AMPERE_SMC_MONITOR_SESSION.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVC640_ALLOCATION_PARAMETERS {
    pub capDescriptor: u64,
}

layout!(NVC640_ALLOCATION_PARAMETERS, 8, { capDescriptor: 0 });
