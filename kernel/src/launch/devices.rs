//! The sandbox's `/dev`: the devices that every program expects, and the driver's nodes in name only.
//!
//! The driver's nodes are the host's own, bound onto a mount without devices: `stat` shows what libcuda looks for, and
//! an open that the sentry did not answer fails in the kernel with `EACCES`. A simulated driver has no nodes on the
//! host; the null device stands in their place, in the same way.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nvproxy_protocol::driver::Driver;
use ringfence_sentry::failure::{Attempt, Failure};

use super::mounts::{DEVICE, READ_ONLY, Tree, cover_with_memory};

/// Devices that a task may use as it likes.
const HARMLESS: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What stands in the place of a simulated driver's nodes.
const STAND_IN: &str = "/dev/null";
/// The directory of the terminals that programs make.
const TERMINALS: &str = "pts";
/// The directory of the sandbox's message queues (mq_overview(7)).
pub const QUEUES: &str = "/dev/mqueue";
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
        .chain([&TERMINALS])
        .map(|name| format!("/dev/{name}"))
        .collect()
}

/// The host's devices that a sandbox has, taken before its `/dev` is covered.
#[derive(Debug)]
pub struct Devices(Vec<(String, Tree)>);

impl Devices {
    /// Takes the harmless ones, and the driver's nodes so that they cannot be opened.
    pub fn take(driver: &Driver) -> Result<Devices, Failure> {
        let mut devices = Vec::new();
        for name in HARMLESS {
            if let Some(device) = take(&Path::new("/dev").join(name), DEVICE)? {
                devices.push((name.to_owned(), device));
            }
        }
        for node in &driver.nodes {
            let name = node.file_name();
            let node = match take(&driver.path(*node), READ_ONLY)? {
                None => take(Path::new(STAND_IN), READ_ONLY)?,
                node => node,
            };
            if let Some(node) = node {
                devices.push((name, node));
            }
        }
        Ok(Devices(devices))
    }

    /// Covers `/dev` of the calling process's mount namespace, with `shared` as `/dev/shm`. `/proc` must be that of its
    /// process namespace.
    pub fn place(&self, shared: &Tree) -> Result<(), Failure> {
        let (dev, shm, terminals) = ("/dev", "/dev/shm", "/dev/pts");
        // A device can be in a directory of its own, and there can be thousands.
        let files = 1024 + 2 * self.0.len();
        let options = format!("mode=755,size=64k,nr_inodes={files}");
        cover_with_memory(Path::new(dev), MsFlags::MS_NOEXEC, &options)?;
        for (name, device) in &self.0 {
            let target = Path::new(dev).join(name);
            if let Some(directory) = target.parent() {
                fs::create_dir_all(directory).attempt(directory.display())?;
            }
            create(&target)?;
            device
                .attach(&target)
                .attempt(format_args!("binding {}", target.display()))?;
        }
        for (target, name) in LINKS {
            symlink(target, Path::new(dev).join(name)).attempt(name)?;
        }
        fs::create_dir(shm).attempt(shm)?;
        shared.attach(Path::new(shm)).attempt(shm)?;
        fs::create_dir(terminals).attempt(terminals)?;
        mount_terminals(Path::new(terminals)).attempt("mounting /dev/pts")?;
        mount_queues()
    }
}

/// What is at `path`, with these attributes of its mount; `None` if there is nothing.
fn take(path: &Path, attributes: u64) -> Result<Option<Tree>, Failure> {
    match Tree::copy(path).and_then(|tree| tree.with_attributes(attributes)) {
        Ok(tree) => Ok(Some(tree)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno).attempt(path.display()),
    }
}

/// Mounts the sandbox's own terminals: those that its programs make. It does not see the host's, among them the
/// caller's others, which the caller may open. The one that a program was started from it has without a name.
pub fn mount_terminals(directory: &Path) -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=666,mode=620");
    mount(Some("devpts"), directory, Some("devpts"), flags, options)
}

/// Mounts the message queues of this IPC namespace, if the kernel knows any. Programs need no directory for them, but the rule
/// about what they may write needs it.
fn mount_queues() -> Result<(), Failure> {
    fs::create_dir(QUEUES).attempt(QUEUES)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("mqueue"), QUEUES, Some("mqueue"), flags, None::<&str>) {
        Ok(()) => Ok(()),
        Err(Errno::ENODEV) => fs::remove_dir(QUEUES).attempt(QUEUES),
        Err(errno) => Err(errno).attempt("mounting /dev/mqueue"),
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(path)
        .attempt(path.display())
}
