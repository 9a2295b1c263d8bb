//! `/proc` and `/sys`: the kernel's own files.
//!
//! Most of them are harmless to read and cannot be written without a capability, which no task has. But where the
//! kernel asks only who owns a file, root in the sandbox would be root: a sandbox that root started may not change
//! what the kernel keeps for all, the settings of NVIDIA's driver in /proc/driver among it, nor read what the kernel
//! tells only root. So those parts are read-only or hidden. The lists are those of the container engines (moby,
//! oci/defaults.go), and what else root could write or read.

use std::path::Path;

use super::mounts::{hide, protect};
use crate::failure::Failure;

/// What cannot be written. `/sys` is not among it: it is part of the file system, all of which is read-only.
const PROTECTED: [&str; 8] = [
    "/proc/bus",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/irq",
    "/proc/mtrr",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What is not there.
const HIDDEN: [&str; 17] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// Restricts both, which must be mounted. `/dev` must be the sandbox's.
pub fn restrict() -> Result<(), Failure> {
    PROTECTED
        .iter()
        .try_for_each(|path| protect(Path::new(path)))?;
    HIDDEN.iter().try_for_each(|path| hide(Path::new(path)))
}
