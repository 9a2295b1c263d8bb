//! The kernel's own files, `/proc` and `/sys`, in a sandbox that root started: what every user may read, and nothing that
//! only root may.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;

use userland_tests::guest_under;

use super::*;

/// What an ordinary user has outside and root's sandbox has not, but for the settings of the network, which are its own.
const ABSENT: [&str; 16] = [
    "/proc/acpi/",
    "/proc/asound/",
    "/proc/bus/",
    "/proc/dynamic_debug/",
    "/proc/fs/",
    "/proc/interrupts",
    "/proc/locks",
    "/proc/irq/",
    "/proc/key-users",
    "/proc/keys",
    "/proc/sched_debug",
    "/proc/scsi/",
    "/sys/firmware/",
    "/sys/hypervisor/",
    "/sys/kernel/",
    "/sys/power/",
];
/// What it has where the rest is absent.
const PRESENT: [&str; 2] = [
    "/sys/kernel/mm/hugepages/",
    "/sys/kernel/mm/transparent_hugepage/",
];
/// Files that are root's alone wherever a kernel has them.
const OF_ROOT: [&str; 5] = [
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/pagetypeinfo",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
];

/// The files and directories of which a guest's output tells.
fn listed(ended: &Ended) -> BTreeSet<String> {
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    ended.stdout.lines().map(str::to_owned).collect()
}

/// What an ordinary user can open outside.
fn of_every_user(executables: &Reachable) -> BTreeSet<String> {
    let mut command = Command::new(&executables.guest);
    command
        .arg("kernel-files")
        .current_dir("/")
        .uid(USER)
        .gid(USER);
    listed(&finish(&mut command))
}

/// What the kernel shows changes while one looks: what was there at any time of a test, and what was there all the time.
struct Outside {
    ever: BTreeSet<String>,
    always: BTreeSet<String>,
}

/// Compares what `inside` tells with what an ordinary user finds before and after.
fn compared(inside: impl FnOnce() -> BTreeSet<String>) -> (Outside, BTreeSet<String>) {
    let executables = Reachable::new();
    let before = of_every_user(&executables);
    let found = inside();
    let after = of_every_user(&executables);
    let outside = Outside {
        ever: &before | &after,
        always: &before & &after,
    };
    (outside, found)
}

fn is_absent(path: &str) -> bool {
    let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let of_a_file_system = path.starts_with("/sys/fs/") && !path.starts_with("/sys/fs/cgroup/");
    of_a_file_system || below(&ABSENT) && !below(&PRESENT)
}

#[test]
fn root_sees_of_the_kernels_files_what_every_user_sees() {
    if !is_root() {
        eprintln!("skipped: to an ordinary user the kernel shows no more inside than outside");
        return;
    }
    for options in [&[][..], &["--net"]] {
        let (outside, inside) = compared(|| {
            let mut sandbox = guest_with(options, &["kernel-files", "read"]);
            listed(&finish(&mut sandbox))
        });
        let is_own = |path: &str| {
            let is_interfaces = path.starts_with("/sys/") && path.contains("/net/");
            options.is_empty() && (path.starts_with("/proc/sys/net/") || is_interfaces)
        };
        let excess: Vec<&String> = inside
            .difference(&outside.ever)
            .filter(|path| !is_own(path))
            .collect();
        assert!(excess.is_empty(), "{options:?}: only root sees {excess:#?}");
        let missing: Vec<&String> = outside
            .always
            .difference(&inside)
            .filter(|path| !is_absent(path) && !is_own(path))
            .collect();
        assert!(missing.is_empty(), "{options:?}: missing are {missing:#?}");
    }
}

/// The test above can fail: without what it tests, a sandbox that root started reads what only root may.
#[test]
fn root_sees_more_of_the_kernels_files_if_they_are_left_as_they_are() {
    if !is_root() {
        eprintln!("skipped: to an ordinary user the kernel shows no more inside than outside");
        return;
    }
    let (outside, inside) = compared(|| {
        let rules = "sentry.roots-files=drop";
        listed(&finish(&mut guest_under(rules, &["kernel-files"])))
    });
    let of_root: Vec<&str> = OF_ROOT
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    assert!(!of_root.is_empty());
    for path in of_root {
        assert!(inside.contains(path), "{path} is not seen");
        assert!(!outside.ever.contains(path), "{path} is not root's alone");
    }
    let in_sys = |path: &&String| path.starts_with("/sys/");
    assert!(inside.difference(&outside.ever).any(|path| in_sys(&path)));
}

/// The files whose modes a guest could change, and nothing that belongs to its processes.
fn permitted(ended: &Ended) -> BTreeSet<String> {
    let is_file = |path: &String| !path.ends_with('/');
    listed(ended).into_iter().filter(is_file).collect()
}

/// Of a kernel's file that belongs to no process, the kernel keeps the mode for all who see it.
#[test]
fn root_changes_no_mode_of_the_kernels_files() {
    if !is_root() {
        eprintln!("skipped: only root could");
        return;
    }
    let ended = finish(&mut guest_with(&[], &["kernel-files", "permit"]));
    assert_eq!(permitted(&ended), BTreeSet::new());
}

/// The test above can fail.
#[test]
fn root_changes_modes_of_the_kernels_files_if_they_are_left_as_they_are() {
    if !is_root() {
        eprintln!("skipped: only root could");
        return;
    }
    let rules = "sentry.roots-files=drop";
    let permitted = permitted(&finish(&mut guest_under(
        rules,
        &["kernel-files", "permit"],
    )));
    for path in ["/proc/meminfo", "/proc/stat", "/proc/cpuinfo"] {
        assert!(
            permitted.contains(path),
            "{path} is not among {permitted:?}"
        );
    }
}

/// Files that GPU programs, NVML, NCCL, hwloc, the C library and interpreters read (traced on an H200: vectoradd, PyTorch,
/// CuPy, JAX, NCCL, nvidia-smi), of which two readings are the same.
const READ_BY_PROGRAMS: [&str; 42] = [
    "/proc/cmdline",
    "/proc/devices",
    "/proc/driver/nvidia/capabilities/mig/config",
    "/proc/driver/nvidia/capabilities/mig/monitor",
    "/proc/driver/nvidia/params",
    "/proc/driver/nvidia/version",
    "/proc/filesystems",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/fs/nr_open",
    "/proc/sys/fs/pipe-max-size",
    "/proc/sys/kernel/cap_last_cap",
    "/proc/sys/kernel/ngroups_max",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/mmap_min_addr",
    "/proc/sys/vm/overcommit_memory",
    "/proc/tty/drivers",
    "/proc/version",
    "/sys/bus/cpu/devices/cpu0/topology/core_id",
    "/sys/bus/node/devices/node0/cpumap",
    "/sys/devices/system/cpu/cpu0/cache/index0/coherency_line_size",
    "/sys/devices/system/cpu/cpu0/cache/index0/level",
    "/sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_map",
    "/sys/devices/system/cpu/cpu0/cache/index0/size",
    "/sys/devices/system/cpu/cpu0/topology/core_cpus",
    "/sys/devices/system/cpu/cpu0/topology/core_id",
    "/sys/devices/system/cpu/cpu0/topology/package_cpus",
    "/sys/devices/system/cpu/cpu0/topology/physical_package_id",
    "/sys/devices/system/cpu/kernel_max",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/present",
    "/sys/devices/system/memory/block_size_bytes",
    "/sys/devices/system/node/node0/cpumap",
    "/sys/devices/system/node/online",
    "/sys/devices/virtual/dmi/id/board_name",
    "/sys/devices/virtual/dmi/id/product_name",
    "/sys/fs/cgroup/cgroup.controllers",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/module/nvidia/initstate",
    "/sys/module/nvidia_uvm/initstate",
];
/// The same of each of the devices in a directory, which are links.
const READ_OF_DEVICES: [(&str, &[&str]); 2] = [
    (
        "/sys/bus/pci/devices",
        &[
            "class",
            "device",
            "local_cpus",
            "max_link_speed",
            "max_link_width",
            "numa_node",
            "resource",
            "revision",
            "subsystem_device",
            "subsystem_vendor",
            "vendor",
        ],
    ),
    ("/sys/class/net", &["address", "speed"]),
];

#[test]
fn what_programs_read_of_the_kernels_files_is_there() {
    let mut paths: Vec<String> = READ_BY_PROGRAMS.map(str::to_owned).to_vec();
    for (directory, names) in READ_OF_DEVICES {
        let devices = fs::read_dir(directory).into_iter().flatten().flatten();
        let paths_of = |device: fs::DirEntry| {
            let device = device.path();
            names
                .iter()
                .map(move |name| format!("{}/{name}", device.display()))
        };
        paths.extend(devices.flat_map(paths_of));
    }
    for options in [&[][..], &["--net"]] {
        let mut scenario = vec!["read"];
        let mut expected = String::new();
        // Without the caller's network there are other interfaces.
        let is_shown = |path: &&String| !options.is_empty() || !path.starts_with("/sys/class/net/");
        for path in paths.iter().filter(is_shown) {
            let every_user_may = fs::metadata(path).is_ok_and(|status| status.mode() & 0o004 != 0);
            if let (true, Ok(text)) = (every_user_may, fs::read_to_string(path)) {
                scenario.push(path);
                expected += &format!("{path}: {text:?}\n");
            }
        }
        assert!(scenario.len() > 20, "{scenario:?}");
        as_root_and_user(options, &scenario, &Ended::printing(&expected));
    }
}
