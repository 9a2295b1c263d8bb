//! How much memory there is for the caller: the machine's, or as much of it as the caller's control groups allow. And whether
//! the caller's own limits leave enough to run.
//!
//! A limit of any control group above the caller's holds for it too, so the smallest on the way up counts. Version 1 keeps
//! it in `memory.limit_in_bytes`, version 2 in `memory.max` (cgroups(7)). What cannot be read limits nothing: the defaults
//! that rest on this are meant for whoever set none.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::sysinfo::sysinfo;
use nvproxy_protocol::size::Size;
use ringfence_ipc::region::Region;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::link::geometry;

/// How much data (RLIMIT_DATA) a process of Ringfence must be allowed: with 8 MiB a sandbox did not start, with 12 MiB it did.
const DATA: u64 = 16 << 20;

/// What is said to be too small.
const FILES: &str = "the limit of files";

/// Fails if the caller's limit of data is too small, or that of files. Otherwise one of the processes would end in the middle
/// of something, or start no threads, and say nothing of the limit.
pub fn check_limits() -> Result<(), Failure> {
    let (limit, _) = getrlimit(Resource::RLIMIT_DATA).attempt("the limit of data")?;
    if limit < DATA {
        return Err(Failure::setup(format!(
            "the limit of data (ulimit -d) is {} KiB, which is too little to run: raise it to {} KiB at least",
            limit >> 10,
            DATA >> 10,
        )));
    }
    limits_of_files().map(drop)
}

/// The caller's limits of files, of which the first can be raised up to the second. Fails if that is too small for the memory
/// that a server is to share with the sentry: to the kernel it is a file.
fn limits_of_files() -> Result<(u64, u64), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).attempt(FILES)?;
    let needed = geometry().region_bytes() as u64;
    if hard < needed {
        return Err(Failure::setup(format!(
            "{FILES} (ulimit -f) is {} KiB, which is too little to run: raise it to {} KiB at least",
            hard >> 10,
            needed.div_ceil(1 << 10),
        )));
    }
    Ok((soft, hard))
}

/// Has the limit that could be raised hold no longer for this process: for the sentry, whose files are memory.
pub fn raise_limit_of_files() -> Result<(), Failure> {
    let (_, hard) = limits_of_files()?;
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).attempt(FILES)
}

/// Makes the memory that a server is to share with the sentry. For the launcher's files, as the log is one, the caller's limit
/// goes on to hold.
pub fn make_shared() -> Result<OwnedFd, Failure> {
    let (soft, hard) = limits_of_files()?;
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).attempt(FILES)?;
    let made = Region::make_memory(geometry()).attempt("memory to share with a server");
    setrlimit(Resource::RLIMIT_FSIZE, soft, hard).attempt(FILES)?;
    made
}

/// What `--host-memory` is unless it is given: half of all.
pub fn default_for_the_driver() -> Size {
    Size::of_at_least_one(available() / 2)
}

/// What `--tmp-size` is unless it is given: an eighth of all.
pub fn default_for_files() -> Size {
    Size::of_at_least_one(available() / 8)
}

/// Bytes of memory that the caller may use.
fn available() -> u64 {
    let machine = sysinfo().map_or(0, |info| info.ram_total());
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let (groups, mounts) = (text("/proc/self/cgroup"), text("/proc/self/mountinfo"));
    let read = |path: &Path| fs::read_to_string(path).ok();
    limit(&groups, &mounts, read).map_or(machine, |limit| limit.min(machine))
}

/// A version of control groups, as far as memory is concerned.
struct Version {
    file_system: &'static str,
    /// A controller among the options of the file system, and among those of a line in `/proc/self/cgroup`.
    controller: Option<&'static str>,
    file: &'static str,
}

static VERSIONS: [Version; 2] = [
    Version {
        file_system: "cgroup2",
        controller: None,
        file: "memory.max",
    },
    Version {
        file_system: "cgroup",
        controller: Some("memory"),
        file: "memory.limit_in_bytes",
    },
];

/// The smallest limit that a process has by its control groups, with the contents of its `/proc/self/cgroup` and
/// `/proc/self/mountinfo`.
fn limit(groups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let paths = VERSIONS.iter().filter_map(|version| {
        let group = group(groups, version)?;
        let (root, mounted_at) = mount(mounts, version)?;
        Some((version, mounted_at.join(within(&group, &root)), mounted_at))
    });
    let limits = paths.flat_map(|(version, path, mounted_at)| {
        let ancestors: Vec<PathBuf> = path
            .ancestors()
            .take_while(|above| above.starts_with(&mounted_at))
            .map(|above| above.join(version.file))
            .collect();
        // In version 2 a group without a limit says "max".
        let limits = ancestors.into_iter().filter_map(|file| read(&file));
        limits
            .filter_map(|text| text.trim().parse::<u64>().ok())
            .collect::<Vec<_>>()
    });
    limits.min()
}

/// The path of the process's group, in the form `ID:CONTROLLERS:PATH`.
fn group(groups: &str, version: &Version) -> Option<PathBuf> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match version.controller {
            None => controllers.is_empty(),
            Some(wanted) => controllers.split(',').any(|one| one == wanted),
        };
        is_it.then(|| PathBuf::from(path))
    })
}

/// Which group is at the root of the mount, and where it is mounted (proc_pid_mountinfo(5)).
fn mount(mounts: &str, version: &Version) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, mounted_at) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let file_system = after.next()?;
        let options = after.nth(1).unwrap_or_default();
        let has_controller = version
            .controller
            .is_none_or(|wanted| options.split(',').any(|one| one == wanted));
        let is_it = file_system == version.file_system && has_controller;
        is_it.then(|| (root.into(), mounted_at.into()))
    })
}

/// `group` from the root of the mount. One that lies elsewhere is that of a process that was moved away, or of a mount that
/// shows another part: the mount's own root is as near as one gets.
fn within(group: &Path, root: &Path) -> PathBuf {
    group
        .strip_prefix(root)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn limit_with(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        limit(groups, mounts, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| format!("{text}\n"))
        })
    }

    #[test]
    fn the_smallest_limit_above_a_process_counts() {
        let files = [
            ("/sys/fs/cgroup/memory.max", "1"),
            ("/sys/fs/cgroup/a/memory.max", "4096"),
            ("/sys/fs/cgroup/a/b/memory.max", "8192"),
            ("/sys/fs/cgroup/a/b/c/memory.max", "max"),
            ("/sys/fs/cgroup/other/memory.max", "2"),
        ];
        assert_eq!(limit_with("0::/a/b/c\n", V2, &files[1..]), Some(4096));
        assert_eq!(limit_with("0::/a/b/c\n", V2, &files), Some(1));
        assert_eq!(limit_with("0::/a/b/c\n", V2, &files[3..]), None);
        assert_eq!(limit_with("0::/\n", V2, &files[1..]), None);
        assert_eq!(limit_with("", V2, &files), None);
        assert_eq!(limit_with("0::/a\n", "", &files), None);
    }

    #[test]
    fn version_1_is_read_too_and_beside_version_2() {
        let groups = "8:pids:/\n4:cpu,memory:/job\n0::/unified\n";
        let files = [
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "12288"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712",
            ),
        ];
        assert_eq!(limit_with(groups, V1, &files), Some(12288));
        let both = format!("{V1}{V2}");
        let with_v2 = [files[0], ("/sys/fs/cgroup/unified/memory.max", "4096")];
        assert_eq!(limit_with(groups, &both, &with_v2), Some(4096));
    }

    #[test]
    fn a_mount_may_show_a_part_of_the_groups() {
        let mounts = V2.replace("0:26 / ", "0:26 /docker/abc ");
        let files = [
            ("/sys/fs/cgroup/memory.max", "8192"),
            ("/sys/fs/cgroup/inner/memory.max", "4096"),
        ];
        assert_eq!(
            limit_with("0::/docker/abc/inner\n", &mounts, &files),
            Some(4096)
        );
        assert_eq!(limit_with("0::/docker/abc\n", &mounts, &files), Some(8192));
        assert_eq!(limit_with("0::/elsewhere\n", &mounts, &files), Some(8192));
    }

    #[test]
    fn there_is_some_memory() {
        assert!(default_for_files().bytes() > 0);
        assert!(default_for_the_driver().bytes() >= default_for_files().bytes());
    }
}
