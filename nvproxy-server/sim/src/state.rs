//! Everything that the simulated driver remembers, behind one lock.

mod description;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use ringfence_ipc::locks::IgnorePoison;
use serde::{Deserialize, Serialize};

pub(super) use self::description::Description;
use super::Configuration;
use super::address_space::AddressSpace;
use super::backing::{Backing, Inode, OwnDescriptors};
use super::encoding::{array, shared, tables};
use super::events::{OsEvents, Pending};
use super::gpu::Gpu;
use super::names::FileNumber;
use super::objects::{Clients, Object};
use nvproxy_server::backend::handover::node_name;

/// The first address of an allocation; none is at 0.
const FIRST_ADDRESS: u64 = 1 << 32;

/// What is kept of an open description.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileState {
    #[serde(with = "node_name")]
    pub node: Node,
    #[serde(with = "shared")]
    pub backing: Arc<Backing>,
    pub pending: Pending,
    #[serde(skip)]
    pub description: Weak<Description>,
    /// The description of `nvidiactl` whose clients this one may use (NV_ESC_REGISTER_FD). It stays open until this one
    /// is closed.
    #[serde(skip)]
    pub registered: Option<Arc<Description>>,
    /// NV_ESC_RM_MAP_MEMORY has named it, which can happen once.
    pub mapped: bool,
    #[serde(deserialize_with = "Option::deserialize")]
    pub exports: Option<Exports>,
    /// What UVM_INITIALIZE has made of it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub address_space: Option<AddressSpace>,
}

/// The copies of objects that a description has been filled with, to be passed on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exports {
    pub slots: Vec<Option<Object>>,
    pub device: u32,
    #[serde(with = "array")]
    pub metadata: [u8; 64],
}

impl Exports {
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.slots.iter().flatten()
    }
}

/// The file of a description that shows memory of the host. Its pages last as long as it does, as the driver's do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Showing {
    #[serde(with = "shared")]
    pub backing: Arc<Backing>,
}

/// The state of the driver.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    #[serde(with = "tables")]
    pub abi: &'static Abi,
    #[serde(skip)]
    pub version: String,
    #[serde(skip)]
    pub gpus: Vec<Gpu>,
    pub files: BTreeMap<FileNumber, FileState>,
    pub clients: Clients,
    pub os_events: OsEvents,
    /// Files of descriptions through which tasks can have mapped memory of the host, until these are known to be gone.
    pub shown: BTreeMap<FileNumber, Showing>,
    /// Such descriptions that are gone, until somebody asks. Of their memory nothing is left, as by the driver.
    pub gone: BTreeSet<FileNumber>,
    /// NV_ESC_SYS_PARAMS sets it once.
    pub memory_block_size: u64,
    next_file: i32,
    next_address: u64,
    next_channel: u32,
}

impl State {
    pub fn new(configuration: &Configuration) -> State {
        let gpus = configuration.gpus.iter().enumerate();
        State {
            abi: configuration.abi,
            version: configuration.version.to_string(),
            gpus: gpus
                .map(|(instance, minor)| Gpu::new(instance, *minor, configuration.memory))
                .collect(),
            files: BTreeMap::new(),
            clients: Clients::default(),
            os_events: OsEvents::default(),
            shown: BTreeMap::new(),
            gone: BTreeSet::new(),
            memory_block_size: 0,
            next_file: 1,
            next_address: FIRST_ADDRESS,
            next_channel: 0,
        }
    }

    /// The number for a new description. Numbers are not used again.
    pub fn new_number(&mut self) -> Result<FileNumber, Errno> {
        let number = self.next_file;
        self.next_file = number.checked_add(1).ok_or(Errno::ENFILE)?;
        Ok(FileNumber(number))
    }

    /// Whether [`State::new_number`] has returned this number.
    pub fn has_given_out(&self, number: FileNumber) -> bool {
        (1..self.next_file).contains(&number.0)
    }

    /// A range of addresses for an allocation.
    pub fn new_address(&mut self, length: u64) -> u64 {
        let address = self.next_address;
        self.next_address = address.wrapping_add(length.next_multiple_of(1 << 21));
        address
    }

    pub fn new_channel(&mut self) -> u32 {
        self.next_channel = self.next_channel.wrapping_add(1);
        self.next_channel
    }

    /// The instance of the GPU with an id, as GET_ATTACHED_IDS tells it.
    pub fn gpu_by_id(&self, id: u32) -> Option<(usize, &Gpu)> {
        self.gpus.iter().enumerate().find(|(_, gpu)| gpu.id == id)
    }

    /// The instance of the GPU with a UUID.
    pub fn gpu_by_uuid(&self, uuid: [u8; 16]) -> Option<usize> {
        self.gpus.iter().position(|gpu| gpu.uuid == uuid)
    }

    /// The description whose clients the description `number` uses: itself unless it has been registered with another.
    pub fn client_owner(&self, number: FileNumber) -> FileNumber {
        let registered = self
            .files
            .get(&number)
            .and_then(|file| file.registered.as_ref());
        registered.map_or(number, |description| description.number)
    }

    /// Closes a description: its clients, events, exports and address space go with it. The caller drops what is
    /// returned after it has released the lock, since that can close another description.
    pub fn close(&mut self, number: FileNumber) -> Option<FileState> {
        for client in self.clients.free_of(number) {
            self.os_events.free_of_client(client);
        }
        self.os_events.free_of_file(number);
        if let Some(showing) = self.take_if_gone(number) {
            self.gone.insert(number);
            drop(showing);
        }
        self.files.remove(&number)
    }

    /// What a description showed, if it is gone, and nobody has known that yet.
    fn take_if_gone(&mut self, number: FileNumber) -> Option<Showing> {
        let showing = self.shown.get(&number)?;
        let is_gone = showing.backing.has_lost_its_mark();
        is_gone.then(|| self.shown.remove(&number))?
    }

    /// Whether a description that showed something is gone. That is said once.
    pub fn has_ended(&mut self, number: FileNumber) -> bool {
        self.gone.remove(&number) || self.take_if_gone(number).is_some()
    }
}

/// The state and what is used without its lock.
pub(super) struct Shared {
    pub configuration: Configuration,
    pub own_descriptors: OwnDescriptors,
    state: Mutex<State>,
}

impl Shared {
    pub fn new(configuration: Configuration) -> Result<Shared, Errno> {
        let state = Mutex::new(State::new(&configuration));
        Ok(Shared {
            own_descriptors: OwnDescriptors::open()?,
            state,
            configuration,
        })
    }

    /// Nothing panics while it holds the lock, so that the state is whole whenever the lock can be had.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }

    /// The open description that a descriptor of a task is of.
    pub fn description(&self, inode: Inode) -> Option<Arc<Description>> {
        let state = self.state();
        let found = state
            .files
            .values()
            .find(|file| file.backing.inode() == inode)?;
        found.description.upgrade()
    }
}
