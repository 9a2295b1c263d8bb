//! The sandbox's `/dev`: the devices that every program expects, and the driver's nodes in name only.
//!
//! The driver's nodes are the host's own, bound onto a mount without devices: `stat` shows what libcuda looks for, and
//! an open that the sentry did not answer fails in the kernel with `EACCES`. A simulated driver has no nodes on the
//! host; the null device stands in their place, in the same way.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use ringfence_faults::device_directory;

use crate::failure::{Attempt, Failure};
use crate::system_calls::forbid_devices;

/// Devices that a task may use as it likes.
const HARMLESS: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What stands in the place of a simulated driver's nodes.
const STAND_IN: &str = "/dev/null";
/// Directories of the host's that a task sees: its terminals have to keep their names.
const DIRECTORIES: [&str; 1] = ["pts"];
/// Links that programs expect (hier(7) and the kernel's devices.rst).
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Paths below which ioctls on devices are harmless.
pub fn harmless_paths() -> Vec<String> {
    HARMLESS
        .iter()
        .chain(&DIRECTORIES)
        .map(|name| format!("/dev/{name}"))
        .collect()
}

/// Covers `/dev` of the calling process's mount namespace. `/proc` must be that of its process namespace.
pub fn build(driver_nodes: &[String]) -> Result<(), Failure> {
    let host: Vec<(&str, Option<File>)> = HARMLESS
        .iter()
        .chain(&DIRECTORIES)
        .map(|name| (*name, held(format!("/dev/{name}"))))
        .collect();
    let driver: Vec<(&str, Option<File>)> = driver_nodes
        .iter()
        .map(|name| {
            let node = held(device_directory().join(name));
            (name.as_str(), node.or_else(|| held(STAND_IN)))
        })
        .collect();

    let options = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        "/dev",
        Some("tmpfs"),
        options,
        Some("mode=755,size=64k"),
    )
    .attempt("mounting /dev")?;
    for (name, source) in host {
        if let Some(source) = source {
            bind(&source, name)?;
        }
    }
    for (name, source) in driver {
        if let Some(source) = source {
            bind(&source, name)?;
            let path = CString::new(format!("/dev/{name}")).attempt(name)?;
            forbid_devices(&path).attempt(format_args!("forbidding devices on /dev/{name}"))?;
        }
    }
    for (target, name) in LINKS {
        symlink(target, Path::new("/dev").join(name)).attempt(name)?;
    }
    fs::create_dir("/dev/shm").attempt("/dev/shm")?;
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        "/dev/shm",
        Some("tmpfs"),
        options,
        Some("mode=1777"),
    )
    .attempt("mounting /dev/shm")
}

/// The file or directory at `path`, held so that it can be found once `/dev` is covered.
fn held(path: impl AsRef<Path>) -> Option<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .ok()
}

fn bind(source: &File, name: &str) -> Result<(), Failure> {
    let target = Path::new("/dev").join(name);
    if source.metadata().attempt(name)?.is_dir() {
        fs::create_dir(&target).attempt(name)?;
    } else {
        create(name)?;
    }
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(
        Some(source.as_str()),
        &target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .attempt(format_args!("binding /dev/{name}"))
}

fn create(name: &str) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(Path::new("/dev").join(name))
        .attempt(name)
}
