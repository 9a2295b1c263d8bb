//! The real driver: NVIDIA's kernel modules, reached through their device nodes.
//!
//! Each open of a node by a task gives two open file descriptions (docs/ARCHITECTURE.md, decision 2). The *mapping* description is
//! opened on a thread under a Landlock domain that withholds `LANDLOCK_ACCESS_FS_IOCTL_DEV`; the restriction stays
//! with the description wherever it goes, so the task that is given it can map it and nothing more. The *command*
//! description is opened when a request first needs it and never leaves this process, but for the one moment of
//! decision 7. UVM is the exception: its address space belongs to one description, which the task holds and which
//! travels here with each request.
//!
//! The driver looks for an open GPU node in the descriptor table of the process that allocates a device
//! (`nv_is_gpu_accessible`, kernel-open/nvidia/nv.c, 580.142). Tasks' descriptions are not in this process's table, so
//! a description of every GPU in use is kept here: its [`Presence`].

mod issue;
mod saved;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use landlock::{AccessFs, RestrictionStatus, Ruleset, RulesetAttr, RulesetStatus};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nvproxy_abi::node::Node;

use crate::handover::Enclosures;
use crate::host::{Call, DeviceFile, Host, OpenFlags, Opened, Opener};

/// The major number of `nvidiactl`, the GPUs' nodes (Documentation/admin-guide/devices.txt in Linux).
const FRONTEND_MAJOR: u64 = 195;

/// NVIDIA's driver on this machine.
pub struct Driver {
    devices: PathBuf,
    gpus: Vec<u8>,
    /// The device number of UVM's node, which the kernel assigns when the module is loaded.
    uvm: Option<u64>,
    /// The major number of the capability nodes, assigned likewise.
    capabilities: Option<u64>,
    presences: Mutex<HashMap<u8, Weak<Presence>>>,
    /// Presences that were handed over, until the files that hold them have been.
    handed_over: Mutex<Vec<Arc<Presence>>>,
}

/// A description of a GPU's node, held so that the driver finds one in this process's table.
struct Presence(OwnedFd);

impl Driver {
    /// The driver whose nodes lie in `devices` (`/dev`), restricted to the GPUs with the minor numbers `gpus`.
    pub fn new(devices: &Path, gpus: &[u8]) -> Driver {
        let number = |name: &str| {
            nix::sys::stat::stat(&devices.join(name))
                .ok()
                .map(|status| status.st_rdev)
        };
        Driver {
            devices: devices.to_owned(),
            gpus: gpus.to_vec(),
            uvm: number("nvidia-uvm"),
            capabilities: number("nvidia-caps/nvidia-cap1").map(major),
            presences: Mutex::default(),
            handed_over: Mutex::default(),
        }
    }

    /// The driver that another process had saved.
    pub fn restore(
        saved: serde_json::Value,
        enclosures: &mut Enclosures,
    ) -> Result<Driver, String> {
        saved::restore(saved, enclosures)
    }

    fn presence(&self, gpu: u8) -> Option<Arc<Presence>> {
        self.presences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&gpu)?
            .upgrade()
    }

    /// The presence of `gpu`, made if there is none. The first one initializes the GPU, which can take seconds.
    fn ensure_presence(&self, gpu: u8) -> Result<Arc<Presence>, Errno> {
        if let Some(presence) = self.presence(gpu) {
            return Ok(presence);
        }
        let opened = Arc::new(Presence(self.open_node(Node::Gpu(gpu), OFlag::empty())?));
        let mut presences = self
            .presences
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        presences.insert(gpu, Arc::downgrade(&opened));
        Ok(opened)
    }

    fn path(&self, node: Node) -> PathBuf {
        self.devices.join(node.file_name())
    }

    fn open_node(&self, node: Node, flags: OFlag) -> Result<OwnedFd, Errno> {
        open(
            &self.path(node),
            OFlag::O_RDWR | OFlag::O_CLOEXEC | flags,
            Mode::empty(),
        )
    }
}

impl Host for Driver {
    fn confine(&self) -> Result<(), String> {
        let restricted = Ruleset::default()
            .handle_access(AccessFs::IoctlDev)
            .and_then(|ruleset| ruleset.create())
            .and_then(|ruleset| ruleset.restrict_self())
            .map_err(|error| format!("Landlock: {error}"))?;
        if !is_enforced(&restricted) {
            tracing::warn!(
                "this kernel's Landlock cannot withhold ioctl on devices (it came with Linux 6.10): \
                            a task's mapping descriptors are held back by the seccomp filter alone"
            );
        }
        Ok(())
    }

    fn opener(&self, node: Node) -> Opener {
        match node {
            Node::Uvm => Opener::Unconfined,
            Node::Gpu(gpu) if self.presence(gpu).is_none() => Opener::Patient,
            Node::Gpu(_) | Node::Control => Opener::Prompt,
        }
    }

    fn open(&self, node: Node, flags: OpenFlags) -> Result<Opened, Errno> {
        let presence = match node {
            Node::Uvm => {
                return Ok(Opened {
                    file: None,
                    granted: self.open_node(node, OFlag::empty())?,
                });
            }
            Node::Gpu(gpu) if !self.gpus.contains(&gpu) => return Err(Errno::ENODEV),
            Node::Gpu(gpu) => Some(self.ensure_presence(gpu)?),
            Node::Control => None,
        };
        let nonblocking = if flags.nonblocking {
            OFlag::O_NONBLOCK
        } else {
            OFlag::empty()
        };
        let granted = self.open_node(node, nonblocking)?;
        let file = CommandFile {
            node,
            path: self.path(node),
            command: OnceLock::new(),
            _presence: presence,
        };
        Ok(Opened {
            file: Some(Arc::new(file)),
            granted,
        })
    }

    fn carried(&self, descriptor: OwnedFd) -> Result<Arc<dyn DeviceFile>, Errno> {
        match character_device(&descriptor)? {
            Some(number) if Some(number) == self.uvm => Ok(Arc::new(UvmFile(descriptor))),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn number_of(&self, descriptor: BorrowedFd<'_>) -> Result<i32, Errno> {
        let Some(number) = character_device(&descriptor)? else {
            return Err(Errno::EBADF);
        };
        let of_a_gpu_here =
            || u8::try_from(minor(number)).is_ok_and(|gpu| gpu == 255 || self.gpus.contains(&gpu));
        match major(number) {
            FRONTEND_MAJOR if of_a_gpu_here() => Ok(descriptor.as_raw_fd()),
            other if Some(other) == self.capabilities => Ok(descriptor.as_raw_fd()),
            _ if Some(number) == self.uvm => Ok(descriptor.as_raw_fd()),
            _ => Err(Errno::EBADF),
        }
    }

    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, String> {
        saved::save(self, enclosures)
    }

    fn restore_file(
        &self,
        saved: serde_json::Value,
        enclosures: &mut Enclosures,
    ) -> Result<Arc<dyn DeviceFile>, String> {
        let file = saved::restore_file(self, saved, enclosures)?;
        Ok(Arc::new(file))
    }

    fn finish_restoring(&self) {
        self.handed_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Whether a Landlock domain holds all that it was asked to.
fn is_enforced(status: &RestrictionStatus) -> bool {
    status.ruleset == RulesetStatus::FullyEnforced
}

/// The device number behind `descriptor`, or `None` if it is no character device.
fn character_device(descriptor: &impl std::os::fd::AsFd) -> Result<Option<u64>, Errno> {
    let status = fstat(descriptor)?;
    let is_character_device =
        SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    Ok(is_character_device.then_some(status.st_rdev))
}

/// A description of `nvidiactl` or of a GPU's node.
struct CommandFile {
    node: Node,
    path: PathBuf,
    /// Opened on first use, on a thread that is not confined. Always without `O_NONBLOCK`, whatever the task asked
    /// for: `nvidia_poll` would not register a waiter (kernel-open/nvidia/nv.c), and event descriptors rely on it.
    command: OnceLock<OwnedFd>,
    _presence: Option<Arc<Presence>>,
}

impl CommandFile {
    fn command(&self) -> Result<&OwnedFd, Errno> {
        if let Some(command) = self.command.get() {
            return Ok(command);
        }
        let opened = open(&self.path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        // If another thread was faster its descriptor stays and this one is closed.
        Ok(self.command.get_or_init(|| opened))
    }
}

impl DeviceFile for CommandFile {
    fn is_ready(&self) -> bool {
        self.command.get().is_some()
    }

    fn number(&self) -> Result<i32, Errno> {
        Ok(self.command()?.as_raw_fd())
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        issue::ioctl(self.command()?, call)
    }

    fn event_descriptor(&self) -> Result<OwnedFd, Errno> {
        let watcher = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI | EpollFlags::EPOLLRDNORM;
        watcher.add(self.command()?, EpollEvent::new(events, 0))?;
        Ok(watcher.0)
    }

    fn lend(&self) -> Result<OwnedFd, Errno> {
        self.command()?
            .try_clone()
            .map_err(|error| error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw))
    }

    fn pinned(&self, issued: Result<i32, Errno>, _call: Call<'_>) -> Result<i32, Errno> {
        // The kernel wrote the parameters to the task's memory itself.
        issued
    }

    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, String> {
        saved::save_file(self, enclosures)
    }
}

/// A description of `nvidia-uvm`, the task's own.
struct UvmFile(OwnedFd);

impl DeviceFile for UvmFile {
    fn number(&self) -> Result<i32, Errno> {
        Ok(self.0.as_raw_fd())
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        issue::ioctl(&self.0, call)
    }

    fn event_descriptor(&self) -> Result<OwnedFd, Errno> {
        Err(Errno::ENOTTY)
    }

    fn lend(&self) -> Result<OwnedFd, Errno> {
        Err(Errno::ENOTTY)
    }

    fn pinned(&self, _issued: Result<i32, Errno>, _call: Call<'_>) -> Result<i32, Errno> {
        Err(Errno::ENOTTY)
    }

    fn save(&self, _enclosures: &mut Enclosures) -> Result<serde_json::Value, String> {
        Err("a description of nvidia-uvm is the task's and comes with each request".to_owned())
    }
}
