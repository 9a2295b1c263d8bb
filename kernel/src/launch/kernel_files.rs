//! `/proc` and `/sys`: the kernel's own files.
//!
//! Most of them are harmless to read and cannot be written without a capability, which no task has. But where the
//! kernel asks only who owns a file, root in the sandbox would be root: a sandbox that root started may not change
//! what the kernel keeps for all, the settings of NVIDIA's driver in /proc/driver among it. So those parts are
//! read-only. Nor may it read what the kernel tells only root, which `ordinary_view.rs` sees to.
//!
//! Some that every user may read are hidden all the same, since they tell of what others do. The lists are those of the
//! container engines (moby, oci/defaults.go), and what else root could write.

use std::path::Path;

use ringfence_faults::{Act, Point, at};
use ringfence_sentry::failure::Failure;

use super::mounts::{hide, protect};
use super::{network, ordinary_view};

/// What cannot be written. `/sys` is not among it: it is part of the file system, all of which is read-only.
const PROTECTED: [&str; 9] = [
    "/proc/bus",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/irq",
    "/proc/mtrr",
    // Any user may ask to be told of pressure, by as many triggers as there are descriptors, and the kernel takes minutes to
    // end a process that has them.
    "/proc/pressure",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What of `/proc` is not there.
const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    // Who has keys, and how many.
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    // Whose memory is mapped, by the marks on the nodes of all sandboxes.
    "/proc/locks",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// What of `/sys` is not there, where it is the host's. (Other file systems in it are covered whole: `kernel_mounts.rs`.)
const HIDDEN_IN_SYS: [&str; 2] = ["/sys/devices/virtual/powercap", "/sys/firmware"];

/// Where `/sys` shows the interfaces of a network that are of no device, and links to all.
const OF_NETWORK: [&str; 2] = ["/sys/class/net", "/sys/devices/virtual/net"];

/// Restricts both, which must be mounted. `/dev` must be the sandbox's. `has_network` says whether the sandbox has the caller's.
/// The result is whether `/sys` is the host's, with all that is mounted there.
pub fn restrict(has_network: bool) -> Result<bool, Failure> {
    let each = |paths: &[&str], restriction: fn(&Path) -> Result<(), Failure>| {
        paths
            .iter()
            .try_for_each(|path| restriction(Path::new(path)))
    };
    each(&HIDDEN, hide)?;
    let shows_others = !has_network && !network::cover_sys()?;
    let is_remade = ordinary_view::is_needed() && at(Point::RootsFiles) != Some(Act::Drop);
    if is_remade {
        ordinary_view::take(has_network)?;
    } else {
        each(&HIDDEN_IN_SYS, hide)?;
        each(&PROTECTED, protect)?;
    }
    // Not before: nothing may be mounted in what an overlay is made of.
    if shows_others {
        each(&OF_NETWORK, hide)?;
    }
    Ok(!is_remade && (has_network || shows_others))
}
