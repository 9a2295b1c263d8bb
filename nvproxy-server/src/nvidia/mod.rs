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
//! a description of every GPU in use is kept here: its `Presence`.
//!
//! The driver also looks which process made a client, so a server that was replaced stays as the `keeper` of the command
//! descriptions that it opened, and issues the requests on them for its successor, to which they are `kept`.

mod error;
mod identities;
mod issue;
mod keeper;
mod kept;
mod line;
mod marks;
mod restored;
mod saved;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use landlock::{AccessFs, Ruleset, RulesetAttr};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::Socket;
use ringfence_ipc::locks::IgnorePoison;

pub use self::error::Error;
use self::identities::Identities;
use self::issue::Issue;
use self::keeper::Keeper;
use self::kept::{Keeping, Register};
use self::marks::Marks;
use crate::backend::handover::Enclosures;
use crate::backend::{
    self, Backend, BackendFactory, Call, DeviceFile, GpuNames, OpenFlags, Opened, Opener, Restore,
};

/// The major number of `nvidiactl`, the GPUs' nodes (Documentation/admin-guide/devices.txt in Linux).
const FRONTEND_MAJOR: u64 = 195;
/// The minor number of `nvidiactl`.
const CONTROL_MINOR: u64 = 255;

/// NVIDIA's driver on this machine.
pub struct Driver {
    devices: PathBuf,
    gpus: Vec<u8>,
    /// The device number of UVM's node, which the kernel assigns when the module is loaded.
    uvm: Option<u64>,
    /// The device numbers of the open-only nodes that were given, assigned likewise.
    open_only: BTreeSet<u64>,
    presences: Mutex<HashMap<u8, Weak<Presence>>>,
    issue: Issue,
    identities: Arc<Identities>,
    commands: Arc<Commands>,
    /// Ways to the keepers of what predecessors opened, by the number of the predecessor.
    keepers: Mutex<BTreeMap<u64, Weak<Keeping>>>,
    register: Arc<Register>,
    /// By which tasks' descriptions of UVM are told apart.
    marks: Arc<Marks>,
    /// By which it is told which descriptions of `nvidiactl` are gone that showed memory.
    shown: Marks,
    told_of_marks: AtomicBool,
    /// Where this process is to be told what to do as a keeper, if there was something to keep when it was last saved.
    control: Mutex<Option<Socket>>,
    /// What was handed over, until the files that hold it have been.
    handed_over: Mutex<HandedOver>,
}

/// Command descriptions that this process opens itself, by the number that it gives to each.
#[derive(Default)]
struct Commands {
    /// How many servers there were before this one.
    server: u64,
    numbered: Mutex<Numbered>,
}

#[derive(Default)]
struct Numbered {
    next: u64,
    commands: BTreeMap<u64, Weak<OnceLock<OwnedFd>>>,
}

impl Commands {
    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.numbered.lock().ignore_poison()
    }

    /// Those that have been opened.
    fn opened(&self) -> BTreeMap<u64, Arc<OnceLock<OwnedFd>>> {
        let numbered = self.lock();
        let commands = numbered.commands.iter();
        commands
            .filter_map(|(file, command)| Some((*file, command.upgrade()?)))
            .filter(|(_, command)| command.get().is_some())
            .collect()
    }
}

#[derive(Default)]
struct HandedOver {
    presences: Vec<Arc<Presence>>,
    keepers: Vec<Arc<Keeping>>,
}

/// A description of a GPU's node, held so that the driver finds one in this process's table.
struct Presence(OwnedFd);

impl Driver {
    /// The driver whose nodes lie in `devices` (`/dev`), restricted to `given`.
    pub fn new(devices: &Path, given: &[Node]) -> Driver {
        let number = |node: Node| {
            nix::sys::stat::stat(&devices.join(node.file_name()))
                .ok()
                .map(|status| status.st_rdev)
        };
        let given = given.iter().copied();
        let open_only = given
            .clone()
            .filter(|node| matches!(node, Node::OpenOnly(_)));
        Driver {
            devices: devices.to_owned(),
            gpus: given.filter_map(Node::minor).collect(),
            uvm: number(Node::Uvm),
            open_only: open_only.filter_map(number).collect(),
            presences: Mutex::default(),
            issue: issue::ioctl,
            identities: Arc::new(Identities::new(
                devices.join(Node::Control.file_name()),
                issue::ioctl,
            )),
            commands: Arc::default(),
            keepers: Mutex::default(),
            register: Arc::default(),
            marks: Arc::new(Marks::of_uvm(BTreeSet::new())),
            shown: Marks::of_control(),
            told_of_marks: AtomicBool::new(false),
            control: Mutex::default(),
            handed_over: Mutex::default(),
        }
    }

    /// This driver, of which nothing was opened yet, as another process had saved it. Which nodes there are and which
    /// GPUs were given stays what this one was made with.
    pub fn restore(
        self,
        saved: serde_json::Value,
        enclosures: &mut Enclosures,
    ) -> Result<Driver, backend::Error> {
        restored::restore(self, saved, enclosures)
    }

    fn presence(&self, gpu: u8) -> Option<Arc<Presence>> {
        self.presences.lock().ignore_poison().get(&gpu)?.upgrade()
    }

    /// The presence of `gpu`, made if there is none. The first one initializes the GPU, which can take seconds.
    fn ensure_presence(&self, gpu: u8) -> Result<Arc<Presence>, Errno> {
        if let Some(presence) = self.presence(gpu) {
            return Ok(presence);
        }
        let opened = Arc::new(Presence(self.open_node(Node::Gpu(gpu), OFlag::empty())?));
        for keeper in self.keepers().values().filter_map(Weak::upgrade) {
            // One that is gone fails the requests that would need it.
            let _ = keeper.hold_presence(gpu, opened.0.as_fd());
        }
        let mut presences = self.presences.lock().ignore_poison();
        presences.insert(gpu, Arc::downgrade(&opened));
        Ok(opened)
    }

    fn keepers(&self) -> MutexGuard<'_, BTreeMap<u64, Weak<Keeping>>> {
        self.keepers.lock().ignore_poison()
    }

    fn open_uvm(&self) -> Result<Opened, Errno> {
        let open = || self.open_node(Node::Uvm, OFlag::empty());
        let granted = open()?;
        self.identities.reach();
        if let Err(errno) = self.marks.mark(granted.as_fd(), open)
            && !self.told_of_marks.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "nvidia-uvm: a description cannot be marked ({errno}), so memory that is mapped through it counts \
                 towards --gpu-memory until the sandbox ends"
            );
        }
        Ok(Opened {
            file: None,
            granted,
        })
    }

    fn path(&self, node: Node) -> PathBuf {
        self.devices.join(node.file_name())
    }

    fn open_node(&self, node: Node, flags: OFlag) -> Result<OwnedFd, Errno> {
        let access = match node {
            // Nothing is read or written there, and the driver lets users read most of them only.
            Node::OpenOnly(_) => OFlag::O_RDONLY,
            Node::Control | Node::Gpu(_) | Node::Uvm => OFlag::O_RDWR,
        };
        open(
            &self.path(node),
            access | OFlag::O_CLOEXEC | flags,
            Mode::empty(),
        )
    }
}

/// How a server comes to NVIDIA's driver on this machine.
pub struct Factory {
    /// It, and the nodes of it that the sandbox was given.
    pub driver: nvproxy_protocol::driver::Driver,
}

impl Factory {
    fn driver(&self) -> Driver {
        Driver::new(&self.driver.directory, &self.driver.nodes)
    }
}

impl BackendFactory for Factory {
    fn nodes(&self) -> Vec<PathBuf> {
        let nodes = self.driver.nodes.iter();
        nodes.map(|node| self.driver.path(*node)).collect()
    }

    fn make(&self, _: &'static Abi) -> Result<Arc<dyn Backend>, backend::Error> {
        Ok(Arc::new(self.driver()))
    }

    fn prepare_to_restore(&self, _: &'static Abi) -> Result<Restore, backend::Error> {
        let driver = self.driver();
        Ok(Box::new(move |saved, enclosures| {
            Ok(Arc::new(driver.restore(saved, enclosures)?))
        }))
    }
}

impl Backend for Driver {
    fn confine(&self) -> Result<(), backend::Error> {
        // Where the kernel cannot withhold it, the launcher has said so.
        Ruleset::default()
            .handle_access(AccessFs::IoctlDev)
            .and_then(|ruleset| ruleset.create())
            .and_then(|ruleset| ruleset.restrict_self())
            .map(drop)
            .map_err(|error| Error::Landlock(error).into())
    }

    fn opener(&self, node: Node) -> Opener {
        match node {
            Node::Uvm => Opener::Unconfined,
            Node::Gpu(gpu) if self.presence(gpu).is_none() => Opener::Patient,
            Node::Gpu(_) | Node::Control | Node::OpenOnly(_) => Opener::Prompt,
        }
    }

    fn open(&self, node: Node, flags: OpenFlags) -> Result<Opened, Errno> {
        let presence = match node {
            Node::Uvm => return self.open_uvm(),
            Node::Gpu(gpu) if !self.gpus.contains(&gpu) => return Err(Errno::ENODEV),
            Node::Gpu(gpu) => Some(self.ensure_presence(gpu)?),
            Node::Control | Node::OpenOnly(_) => None,
        };
        let nonblocking = if flags.nonblocking {
            OFlag::O_NONBLOCK
        } else {
            OFlag::empty()
        };
        let granted = self.open_node(node, nonblocking)?;
        let file: Option<Arc<dyn DeviceFile>> = match node {
            Node::OpenOnly(_) => None,
            _ => Some(Arc::new(CommandFile::new(self, node, presence))),
        };
        Ok(Opened { file, granted })
    }

    fn carried(&self, descriptor: OwnedFd) -> Result<Arc<dyn DeviceFile>, Errno> {
        match character_device(&descriptor)? {
            Some(number) if Some(number) == self.uvm => Ok(Arc::new(UvmFile {
                descriptor,
                issue: self.issue,
                register: Arc::clone(&self.register),
                marks: Arc::clone(&self.marks),
            })),
            _ => Err(Errno::ENOTTY),
        }
    }

    fn number_of(&self, descriptor: BorrowedFd<'_>) -> Result<i32, Errno> {
        let Some(number) = character_device(&descriptor)? else {
            return Err(Errno::EBADF);
        };
        let of_a_gpu_here =
            || u8::try_from(minor(number)).is_ok_and(|gpu| gpu == 255 || self.gpus.contains(&gpu));
        let is_given = match major(number) {
            FRONTEND_MAJOR => of_a_gpu_here(),
            _ => Some(number) == self.uvm || self.open_only.contains(&number),
        };
        // A test leaves this out, to show that it would notice.
        let is_given = is_given || at(Point::NotGiven) == Some(Act::Drop);
        is_given.then(|| descriptor.as_raw_fd()).ok_or(Errno::EBADF)
    }

    fn gpus(&self) -> Option<Vec<GpuNames>> {
        Some(self.identities.of(&self.gpus))
    }

    /// The driver lets memory of the host be mapped through `nvidiactl` alone (`nvidia_mmap_helper`,
    /// kernel-open/nvidia/nv-mmap.c, 580.142).
    fn mark(&self, granted: BorrowedFd<'_>) -> Option<u64> {
        let number = character_device(&granted).ok()??;
        let is_control = (major(number), minor(number)) == (FRONTEND_MAJOR, CONTROL_MINOR);
        is_control.then(|| self.shown.place(granted).ok())?
    }

    fn ended(&self, descriptions: &[u64]) -> Vec<u64> {
        let open = |node| move || self.open_node(node, OFlag::empty());
        let mut ended = self.marks.ended(descriptions, open(Node::Uvm));
        ended.extend(self.shown.ended(descriptions, open(Node::Control)));
        ended
    }

    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Ok(saved::save(self, enclosures)?)
    }

    fn restore_file(
        &self,
        saved: serde_json::Value,
        enclosures: &mut Enclosures,
    ) -> Result<Arc<dyn DeviceFile>, backend::Error> {
        restored::restore_file(self, saved, enclosures)
    }

    fn finish_restoring(&self) {
        let mut handed_over = self.handed_over.lock().ignore_poison();
        *handed_over = HandedOver::default();
    }

    fn begin_to_serve(&self) {
        for keeper in self.keepers().values().filter_map(Weak::upgrade) {
            keeper.set_serves(true);
        }
    }

    fn keep(&self) -> Option<Box<dyn FnOnce()>> {
        for keeper in self.keepers().values().filter_map(Weak::upgrade) {
            keeper.set_serves(false);
        }
        self.identities.leave();
        let mut control = self.control.lock().ignore_poison();
        let control = control.take()?;
        let presences = self.presences.lock().ignore_poison();
        let held = presences
            .iter()
            .filter_map(|(gpu, presence)| Some((*gpu, presence.upgrade()?)));
        let keeper = Keeper {
            control,
            commands: self.commands.opened(),
            presences: held.collect(),
            issue: self.issue,
        };
        Some(Box::new(|| keeper.run()))
    }
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
    /// Its number among those that this process opens.
    file: u64,
    /// Opened on first use, on a thread that is not confined. Always without `O_NONBLOCK`, whatever the task asked
    /// for: `nvidia_poll` would not register a waiter (kernel-open/nvidia/nv.c), and event descriptors rely on it.
    command: Arc<OnceLock<OwnedFd>>,
    issue: Issue,
    identities: Arc<Identities>,
    commands: Arc<Commands>,
    _presence: Option<Arc<Presence>>,
}

impl CommandFile {
    fn new(driver: &Driver, node: Node, presence: Option<Arc<Presence>>) -> CommandFile {
        let command = Arc::default();
        let mut numbered = driver.commands.lock();
        let file = numbered.next;
        numbered.next += 1;
        numbered.commands.insert(file, Arc::downgrade(&command));
        drop(numbered);
        CommandFile {
            node,
            path: driver.path(node),
            file,
            command,
            issue: driver.issue,
            identities: Arc::clone(&driver.identities),
            commands: Arc::clone(&driver.commands),
            _presence: presence,
        }
    }

    fn command(&self) -> Result<&OwnedFd, Errno> {
        if let Some(command) = self.command.get() {
            return Ok(command);
        }
        let opened = open(&self.path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        self.identities.reach();
        // If another thread was faster its descriptor stays and this one is closed.
        Ok(self.command.get_or_init(|| opened))
    }
}

impl Drop for CommandFile {
    fn drop(&mut self) {
        self.commands.lock().commands.remove(&self.file);
    }
}

impl DeviceFile for CommandFile {
    fn is_ready(&self) -> bool {
        self.command.get().is_some()
    }

    fn number(&self) -> Result<i32, Errno> {
        Ok(self.command()?.as_raw_fd())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.command.get().map(AsFd::as_fd)
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        (self.issue)(self.command()?, call)
    }

    fn event_descriptor(&self) -> Result<OwnedFd, Errno> {
        event_descriptor(self.command()?)
    }

    fn lend(&self) -> Result<OwnedFd, Errno> {
        duplicate(self.command()?.as_fd())
    }

    fn pinned(&self, issued: Result<i32, Errno>, _call: Call<'_>) -> Result<i32, Errno> {
        // The kernel wrote the parameters to the task's memory itself.
        issued
    }

    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Ok(saved::save_file(self, enclosures)?)
    }
}

/// A descriptor that is readable while an event is pending on `command`.
fn event_descriptor(command: &OwnedFd) -> Result<OwnedFd, Errno> {
    let watcher = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI | EpollFlags::EPOLLRDNORM;
    watcher.add(command, EpollEvent::new(events, 0))?;
    Ok(watcher.0)
}

fn duplicate(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    descriptor
        .try_clone_to_owned()
        .map_err(|error| error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw))
}

/// A description of `nvidia-uvm`, the task's own.
struct UvmFile {
    descriptor: OwnedFd,
    issue: Issue,
    register: Arc<Register>,
    marks: Arc<Marks>,
}

impl DeviceFile for UvmFile {
    fn description(&self) -> Option<u64> {
        self.marks.of(self.descriptor.as_fd())
    }

    fn number(&self) -> Result<i32, Errno> {
        Ok(self.descriptor.as_raw_fd())
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        match self.register.keeper_named(&call) {
            Some(keeper) => self.register.issue(&keeper, self.descriptor.as_fd(), call),
            None => (self.issue)(&self.descriptor, call),
        }
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

    fn save(&self, _enclosures: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Err(Error::TasksOwn.into())
    }
}
