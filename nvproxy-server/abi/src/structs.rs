//! The few parameters of the driver's that the server itself makes or looks into, under NVIDIA's names. All others it knows by
//! the tables alone.
//!
//! Each struct has the driver's layout on 64-bit Linux: same size, every field at the same offset, both proved at
//! compile time against numbers that a C compiler gave for the driver's headers. Padding is spelled out, so that a
//! struct can be read from bytes and written to bytes as it is. Handles are `u32`, booleans (NvBool) are `u8`, pointers
//! (NvP64) are `u64`.
//!
//! From kernel-open/common/inc/nv-ioctl.h and src/common/sdk/nvidia/inc/nvos.h.

#![allow(non_snake_case, non_camel_case_types)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Proves the size of a struct and the offset of each of its fields.
macro_rules! layout {
    ($name:ident, $size:literal, { $($field:ident: $offset:literal),* }) => {
        static_assertions::const_assert_eq!(size_of::<$name>(), $size);
        $(static_assertions::const_assert_eq!(std::mem::offset_of!($name, $field), $offset);)*
    };
}

/// Where a GPU is on the PCI bus.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_pci_info_t {
    pub domain: u32,
    pub bus: u8,
    pub slot: u8,
    pub function: u8,
    pub padding: [u8; 1],
    pub vendor_id: u16,
    pub device_id: u16,
}

layout!(nv_pci_info_t, 12, { domain: 0, bus: 4, slot: 5, function: 6, vendor_id: 8, device_id: 10 });

/// NV_ESC_CARD_INFO takes an array of these; the driver fills one for each GPU and clears `valid` in the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_card_info_t {
    pub valid: u8,
    pub padding: [u8; 3],
    pub pci_info: nv_pci_info_t,
    pub gpu_id: u32,
    pub interrupt_line: u16,
    pub padding1: [u8; 2],
    pub reg_address: u64,
    pub reg_size: u64,
    pub fb_address: u64,
    pub fb_size: u64,
    pub minor_number: u32,
    pub dev_name: [u8; 10],
    pub padding2: [u8; 2],
}

layout!(nv_ioctl_card_info_t, 72, { valid: 0, pci_info: 4, gpu_id: 16, interrupt_line: 20, reg_address: 24, reg_size: 32, fb_address: 40, fb_size: 48, minor_number: 56, dev_name: 60 });

/// NV_ESC_CHECK_VERSION_STR.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct nv_ioctl_rm_api_version_t {
    pub cmd: u32,
    pub reply: u32,
    pub versionString: [u8; 64],
}

layout!(nv_ioctl_rm_api_version_t, 72, { cmd: 0, reply: 4, versionString: 8 });

/// NV_ESC_RM_ALLOC, the shorter form.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS21_PARAMETERS {
    pub hRoot: u32,
    pub hObjectParent: u32,
    pub hObjectNew: u32,
    pub hClass: u32,
    pub pAllocParms: u64,
    pub paramsSize: u32,
    pub status: u32,
}

layout!(NVOS21_PARAMETERS, 32, { hRoot: 0, hObjectParent: 4, hObjectNew: 8, hClass: 12, pAllocParms: 16, paramsSize: 24, status: 28 });

/// NV_ESC_RM_CONTROL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct NVOS54_PARAMETERS {
    pub hClient: u32,
    pub hObject: u32,
    pub cmd: u32,
    pub flags: u32,
    pub params: u64,
    pub paramsSize: u32,
    pub status: u32,
}

layout!(NVOS54_PARAMETERS, 32, { hClient: 0, hObject: 4, cmd: 8, flags: 12, params: 16, paramsSize: 24, status: 28 });
