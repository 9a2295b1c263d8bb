//! The sandbox's `/dev`: the devices that every program expects, and the driver's nodes in name only.
//!
//! The driver's nodes are the host's own, bound onto a mount without devices: `stat` shows what libcuda looks for, and
//! an open that the sentry did not answer fails in the kernel with `EACCES`. A simulated driver has no nodes on the
//! host; the null device stands in their place, in the same way.
//!
//! Open-only nodes can be opened to be read, as programs open them: no driver takes a request there (`g_nv_cap_drv_fops`,
//! kernel-open/nvidia/nv-caps.c, 580.142), and the server looks at the device behind each descriptor that a request names. In place of a simulated one
//! there is a file that says which one it is.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nvproxy_abi::node::Node;
use nvproxy_protocol::driver::{Driver, Kind};
use nvproxy_sim::partitions;
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

/// What is to be at a path.
#[derive(Debug)]
enum Device {
    Taken(Tree),
    /// A file with this text.
    File(String),
}

/// The host's devices that a sandbox has, taken before its `/dev` is covered.
#[derive(Debug)]
pub struct Devices(Vec<(String, Device)>);

impl Devices {
    /// Takes the harmless ones, and the driver's nodes so that they cannot be opened.
    pub fn take(driver: &Driver) -> Result<Devices, Failure> {
        let mut devices = Vec::new();
        for name in HARMLESS {
            if let Some(device) = take(&Path::new("/dev").join(name), DEVICE)? {
                devices.push((name.to_owned(), Device::Taken(device)));
            }
        }
        for node in &driver.nodes {
            if let Some(device) = shown(driver, *node)? {
                devices.push((node.file_name(), device));
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
            match device {
                Device::Taken(device) => {
                    create(&target, 0o666)?;
                    device
                        .attach(&target)
                        .attempt(format_args!("binding {}", target.display()))?;
                }
                Device::File(text) => create(&target, 0o444)?
                    .write_all(text.as_bytes())
                    .attempt(target.display())?,
            }
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

/// What a node of the driver's is to a program.
fn shown(driver: &Driver, node: Node) -> Result<Option<Device>, Failure> {
    if let (Node::OpenOnly(_), Kind::Simulated) = (node, driver.kind) {
        return Ok(Some(Device::File(partitions::text(node))));
    }
    let attributes = match driver.kind.lets_be_opened(node) {
        true => DEVICE,
        false => READ_ONLY,
    };
    let taken = match take(&driver.path(node), attributes)? {
        None => take(Path::new(STAND_IN), READ_ONLY)?,
        taken => taken,
    };
    Ok(taken.map(Device::Taken))
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

fn create(path: &Path, mode: u32) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .attempt(path.display())
}
