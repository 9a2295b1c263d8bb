//! A driver and GPUs that are not there, for tests, demonstrations and fault injection on any machine.
//!
//! It models what a client of NVIDIA's driver can observe: clients and trees of objects, memory and its mappings, events
//! of the operating system, sharing through descriptors, and unified memory. Statuses and the order of checks are those
//! of the driver's source, release 580.142; a constant or a field that only hardware could give is made up. No
//! work is executed: a channel takes what is written to its doorbell and does nothing.
//!
//! Where it differs from the driver:
//! - Two descriptors of one allocation show copies of its bytes, not the same pages (`memory`).
//! - Mapping a descriptor is not checked, and mapping one of UVM goes unnoticed (`mapping`, `uvm`).
//! - An event goes on being reported by `poll` until `epoll_wait` takes it (`events`).
//! - A control command without a model succeeds and leaves its parameters as they are (`control`).
//! - The GPUs are attached from the start, as they are in persistence mode.
//! - A dma-buf is an empty memory file of its size, and nothing in the driver: memory that lies in one is given back with its last
//!   object, and nothing can be added to one (`dma_buf`).
//! - Access rights and share policies are not modelled: a client can duplicate whatever it can name.
//! - Every GPU has parts (MIG) and can be used as a whole besides; a node of a part is a file that says so (`partitions`).
//!
//! A driver can be saved and be restored in another process (`saved`).
//!
//! A module names those of the rows above its own, and some of its own row:
//!
//! | modules | subject |
//! |---|---|
//! | `structs`, `parameters`, `buffers`, `names`, `classes` | what requests are made of |
//! | `encoding` | how what is no plain data is saved |
//! | `backing`, `partitions`, `memory`, `pages`, `gpu`, `virtual_memory`, `events`, `address_space`, `objects` | what is remembered, each by itself |
//! | `state` | all of it, behind one lock |
//! | `notifications`, `mapping`, `allocate`, `export`, `dma_buf` | what requests do to it |
//! | `command`, `answers`, `control` | control commands |
//! | `frontend`, `uvm` | the ioctls of each node |
//! | `device_file`, `saved` | what the server asks for: requests on a description, and a handover |
//!
//! Callers issue only requests that the planner has accepted, and those of one description from any thread.

mod address_space;
mod allocate;
mod answers;
pub mod backing;
mod buffers;
mod classes;
mod command;
mod control;
mod device_file;
mod dma_buf;
mod encoding;
mod error;
mod events;
mod export;
mod frontend;
mod gpu;
mod mapping;
mod memory;
mod names;
mod notifications;
mod objects;
mod older_requests;
mod pages;
mod parameters;
pub mod partitions;
mod saved;
mod state;
pub mod structs;
mod uvm;
mod virtual_memory;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::version::DriverVersion;
use ringfence_ipc::locks::IgnorePoison;

use self::backing::Inode;
pub use self::error::{Error, Impossible};
use self::names::FileNumber;
use self::state::{Description, Shared, Showing};
use nvproxy_server::backend::handover::Enclosures;
use nvproxy_server::backend::{
    self, Backend, BackendFactory, DeviceFile, GpuNames, OpenFlags, Opened, Restore,
};

/// The branch whose structures it reads and writes.
const BRANCH: u16 = 580;

/// How many GPUs the simulated machine has.
pub const MACHINE_GPUS: u8 = 2;

/// From where on marked descriptions are named, by their numbers: apart from what the server calls descriptions.
const SHOWN: u64 = 1 << 60;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The release that the driver says it is.
    pub version: DriverVersion,
    /// The tables by which it reads requests.
    pub abi: &'static Abi,
    /// The minor numbers of the GPUs, in order of their instances.
    pub gpus: Vec<u8>,
    /// Those of the GPUs that the sandbox was given: the others it cannot open.
    pub given: Vec<u8>,
    /// The open-only nodes that it was given.
    pub open_only: Vec<Node>,
    /// Bytes of memory of each GPU.
    pub memory: u64,
    /// How long UVM_REGISTER_GPU takes.
    pub register_gpu: Duration,
}

impl Configuration {
    /// A machine with GPUs of 80 GiB, those that the sandbox was given and as many more as make [`MACHINE_GPUS`], on which
    /// UVM_REGISTER_GPU takes as long as it did on an H100.
    pub fn new(version: DriverVersion, abi: &'static Abi, given: Vec<u8>) -> Configuration {
        let mut gpus: Vec<u8> = given.iter().copied().chain(0..MACHINE_GPUS).collect();
        gpus.sort_unstable();
        gpus.dedup();
        Configuration {
            version,
            abi,
            gpus,
            given,
            open_only: Vec::new(),
            memory: 80 << 30,
            register_gpu: Duration::from_millis(190),
        }
    }
}

/// The UUID, as text, of the simulated GPU with this minor number.
pub fn gpu_uuid(minor: u8) -> String {
    gpu::Gpu::new(0, minor, 0).uuid_text()
}

/// The simulated driver.
pub struct Simulator {
    shared: Arc<Shared>,
    /// Descriptions that were handed over and have not been asked for yet.
    unclaimed: Mutex<BTreeMap<FileNumber, Arc<Description>>>,
}

impl Simulator {
    /// Sets up a driver with nothing open. Fails if the release is not one that it imitates
    /// ([`io::ErrorKind::Unsupported`]) or if `/proc` is not there, through which descriptors are opened anew.
    pub fn new(configuration: Configuration) -> io::Result<Simulator> {
        let version = configuration.version;
        if version.branch() != BRANCH {
            let reason = format!(
                "it imitates releases of the {BRANCH} branch, and {version} is none: name one that is"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let shared = Arc::new(Shared::new(configuration)?);
        Ok(Simulator {
            shared,
            unclaimed: Mutex::default(),
        })
    }

    /// This driver, of which nothing was opened yet, as another process had saved it ([`Backend::save`]). What is simulated
    /// stays what this one was made with.
    pub fn restore(
        self,
        saved: serde_json::Value,
        enclosures: &mut Enclosures,
    ) -> Result<Simulator, Error> {
        saved::restore(self, saved, enclosures)
    }

    fn unclaimed(&self) -> MutexGuard<'_, BTreeMap<FileNumber, Arc<Description>>> {
        self.unclaimed.lock().ignore_poison()
    }
}

/// How a server comes to the simulated driver.
pub struct Factory {
    /// The release that it says it is.
    pub version: DriverVersion,
    /// The minor numbers of the GPUs that the sandbox was given.
    pub gpus: Vec<u8>,
    /// The open-only nodes that it was given.
    pub open_only: Vec<Node>,
}

impl Factory {
    fn simulator(&self, abi: &'static Abi) -> Result<Simulator, Error> {
        let mut configuration = Configuration::new(self.version, abi, self.gpus.clone());
        configuration.open_only.clone_from(&self.open_only);
        Simulator::new(configuration).map_err(Error::SetUp)
    }
}

impl BackendFactory for Factory {
    fn nodes(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn make(&self, abi: &'static Abi) -> Result<Arc<dyn Backend>, backend::Error> {
        Ok(Arc::new(self.simulator(abi)?))
    }

    fn prepare_to_restore(&self, abi: &'static Abi) -> Result<Restore, backend::Error> {
        let simulator = self.simulator(abi)?;
        Ok(Box::new(move |saved, enclosures| {
            Ok(Arc::new(simulator.restore(saved, enclosures)?))
        }))
    }
}

impl Backend for Simulator {
    fn open(&self, node: Node, _flags: OpenFlags) -> Result<Opened, Errno> {
        if let Node::Gpu(minor) = node
            && !self.shared.configuration.given.contains(&minor)
        {
            return Err(Errno::ENODEV);
        }
        if let Node::OpenOnly(_) = node {
            return Ok(Opened {
                file: None,
                granted: partitions::file(node)?,
            });
        }
        let (description, granted) = Description::open(&self.shared, node)?;
        Ok(Opened {
            file: Some(description),
            granted,
        })
    }

    fn carried(&self, descriptor: OwnedFd) -> Result<Arc<dyn DeviceFile>, Errno> {
        let description = self.shared.description(Inode::of(descriptor.as_fd())?);
        description
            .map(|description| description as Arc<dyn DeviceFile>)
            .ok_or(Errno::ENOTTY)
    }

    fn number_of(&self, descriptor: BorrowedFd<'_>) -> Result<i32, Errno> {
        let description = self.shared.description(Inode::of(descriptor)?);
        description
            .map(|description| description.number.0)
            .or_else(|| partitions::named(descriptor, &self.shared.configuration.open_only))
            .ok_or(Errno::EBADF)
    }

    fn gpus(&self) -> Option<Vec<GpuNames>> {
        let given = &self.shared.configuration.given;
        let state = self.shared.state();
        let gpus = state.gpus.iter().filter(|gpu| given.contains(&gpu.minor));
        let names = gpus.map(|gpu| GpuNames {
            id: gpu.id,
            uuid: Some(gpu.uuid),
        });
        Some(names.collect())
    }

    fn mark(&self, granted: BorrowedFd<'_>) -> Option<u64> {
        let description = self.shared.description(Inode::of(granted).ok()?)?;
        let number = description.number;
        let mut state = self.shared.state();
        let backing = Arc::clone(&state.files.get(&number)?.backing);
        backing.mark(granted).ok()?;
        state.shown.insert(number, Showing { backing });
        Some(SHOWN + u64::try_from(number.0).ok()?)
    }

    fn ended(&self, descriptions: &[u64]) -> Vec<u64> {
        let mut state = self.shared.state();
        let has_ended = |name: &u64| {
            let number = name
                .checked_sub(SHOWN)
                .and_then(|number| i32::try_from(number).ok());
            number.is_some_and(|number| state.has_ended(FileNumber(number)))
        };
        let mut ended = descriptions.to_vec();
        ended.retain(has_ended);
        ended
    }

    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Ok(saved::save(&self.shared, enclosures)?)
    }

    fn restore_file(
        &self,
        saved: serde_json::Value,
        _enclosures: &mut Enclosures,
    ) -> Result<Arc<dyn DeviceFile>, backend::Error> {
        let number: FileNumber = serde_json::from_value(saved).map_err(Error::Description)?;
        let description = self.unclaimed().remove(&number);
        let description = description.ok_or(Error::NoDescription(number.0))?;
        Ok(description)
    }

    fn finish_restoring(&self) {
        let closed = std::mem::take(&mut *self.unclaimed());
        drop(closed);
    }
}
