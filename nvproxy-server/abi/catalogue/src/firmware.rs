//! Which control commands are the GPU's firmware's own, by their number.
//!
//! The driver's published source has no entry for them. It hands them to the firmware as they are, follows nothing in their
//! parameters, and does not look at how many bytes these have:
//!
//! - Commands with bit 15, on any object that belongs to a GPU: `RmDeprecatedGetControlHandler` and `RmGssLegacyRpcCmd`
//!   (src/nvidia/interface/deprecated/rmapi_deprecated_control.c and rmapi_gss_legacy_control.c, in every release from
//!   515.43.04 to 595.45.04). All that are known of are of a subdevice's.
//! - Commands on an object of class NV2081_BINAPI: `binapiControl_IMPL` (src/nvidia/src/kernel/rmapi/binary_api.c, in the same),
//!   with 1 MiB at most, as of every ordinary command.

/// The name of commands that the published source does not name.
pub const UNNAMED: &str = "(not in the public headers)";

/// NV20_SUBDEVICE_0 and NV2081_BINAPI, which the upper half of a command's number names.
const SUBDEVICE: u32 = 0x2080;
const BINAPI: u32 = 0x2081;

/// RM_GSS_LEGACY_MASK (rmapi_deprecated.h).
const FIRMWARES: u32 = 1 << 15;
/// What RM_GSS_LEGACY_MASK_PRIVILEGED has besides: the driver leaves these to administrators.
const PRIVILEGED: u32 = 1 << 14;

/// Whether the command is one of the firmware's own.
pub const fn is_of_firmware(command: u32) -> bool {
    match command >> 16 {
        SUBDEVICE => command & FIRMWARES != 0,
        BINAPI => true,
        _ => false,
    }
}

/// Whether such a command is marked as one for administrators.
pub const fn is_privileged(command: u32) -> bool {
    command & PRIVILEGED != 0
}
