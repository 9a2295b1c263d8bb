//! Clients and the trees of objects that they own.
//!
//! A client belongs to the description of `nvidiactl` through which it was made and is used by no other
//! (rmclientValidate_IMPL, src/nvidia/src/kernel/rmapi/client.c; PDB_PROP_SYS_VALIDATE_CLIENT_HANDLE_STRICT is on by
//! default). Which user or process uses it is then no matter. Objects are named by handles that the program chooses, or that the driver generates where it chose 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nvproxy_abi::status::*;
use serde::{Deserialize, Serialize};

use super::classes::Kind;
use super::encoding::shared;
use super::events::Event;
use super::memory::Memory;
use super::names::{FileNumber, Handle, Outcome};
use super::virtual_memory::VirtualMemory;

/// The first handle of a client that is given out (RS_CLIENT_HANDLE_BASE, src/nvidia/inc/libraries/resserv/resserv.h).
const CLIENT_HANDLES: Handle = 0xc1d0_0000;
/// A client that another tenant of the machine has: its handle is taken, and nobody here may use it.
pub(super) const ANOTHERS: Handle = CLIENT_HANDLES + 0x40;
/// Memory that it has of the first GPU, for who can name it, and how much.
pub(super) const ANOTHERS_MEMORY: (Handle, u64) = (0x5c00_0001, 16 << 20);
/// The handles that are generated for objects (RS_UNIQUE_HANDLE_BASE, RS_UNIQUE_HANDLE_RANGE, rs_client.h).
const GENERATED_HANDLES: Handle = 0xcaf0_0000;
const GENERATED_HANDLES_COUNT: u32 = 0x8_0000;
/// The first of as many handles that a program may not choose (RS_FW_UNIQUE_HANDLE_BASE, rmapi/client.c).
const FIRMWARE_HANDLES: Handle = 0xc9f0_0000;

/// One object.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    pub class: u32,
    pub kind: Kind,
    /// The object that holds it; a client's own object holds itself.
    pub parent: Handle,
    /// The instance of the GPU that it belongs to.
    #[serde(deserialize_with = "Option::deserialize")]
    pub gpu: Option<usize>,
    pub detail: Detail,
    pub mappings: Vec<CpuMapping>,
}

/// A mapping into a task, known by its address. The driver's is a physical one until the program tells where it has
/// mapped the memory (NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CpuMapping {
    pub address: u64,
}

/// What is kept of an object besides its place in the tree.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Detail {
    Nothing,
    AddressSpace {
        /// The UVM driver may manage it (NV_VASPACE_ALLOCATION_FLAGS_IS_EXTERNALLY_OWNED).
        externally_owned: bool,
    },
    Memory(#[serde(with = "shared")] Arc<Memory>),
    Virtual(VirtualMemory),
    Channel {
        id: u32,
    },
    /// Which notifications are switched on, and whether they stay so when they fire.
    Subdevice {
        repeats: BTreeMap<u32, bool>,
    },
    ChannelGroup {
        /// Microseconds.
        timeslice: u64,
    },
    Event(Event),
    /// The part of the GPU that is subscribed to, by its number.
    Instance(u32),
}

impl Detail {
    /// The detail of a copy of an object (`Kind::can_be_copied`). A copy of memory is the same memory; a copy of virtual
    /// memory is the same range with none of the mappings made through the original.
    pub fn copied(&self) -> Detail {
        match self {
            Detail::Memory(memory) => Detail::Memory(Arc::clone(memory)),
            Detail::Virtual(range) => Detail::Virtual(range.copied()),
            Detail::AddressSpace { externally_owned } => Detail::AddressSpace {
                externally_owned: *externally_owned,
            },
            _ => Detail::Nothing,
        }
    }
}

impl Object {
    /// An object without anything to be kept.
    pub fn new(
        class: u32,
        kind: Kind,
        parent: Handle,
        gpu: Option<usize>,
        detail: Detail,
    ) -> Object {
        Object {
            class,
            kind,
            parent,
            gpu,
            detail,
            mappings: Vec::new(),
        }
    }

    /// The memory that the object is.
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        match &self.detail {
            Detail::Memory(memory) => Some(memory),
            _ => None,
        }
    }
}

/// One client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    pub handle: Handle,
    pub owner: FileNumber,
    pub objects: BTreeMap<Handle, Object>,
    /// How many handles have been generated.
    generated: u32,
}

impl Client {
    pub fn object(&self, handle: Handle) -> Outcome<&Object> {
        self.objects.get(&handle).ok_or(NV_ERR_OBJECT_NOT_FOUND)
    }

    pub fn object_mut(&mut self, handle: Handle) -> Outcome<&mut Object> {
        self.objects.get_mut(&handle).ok_or(NV_ERR_OBJECT_NOT_FOUND)
    }

    /// The objects directly under `parent`.
    pub fn children(&self, parent: Handle) -> impl Iterator<Item = (Handle, &Object)> {
        let held = self
            .objects
            .iter()
            .filter(move |(handle, object)| object.parent == parent && **handle != parent);
        held.map(|(handle, object)| (*handle, object))
    }

    /// The handle for a new object: `requested` if it can be had, or a new one if that is 0.
    /// (clientAssignResourceHandle_IMPL, clientValidateNewResourceHandle_IMPL, rs_client.c)
    pub fn new_handle(&mut self, requested: Handle) -> Outcome<Handle> {
        if requested == 0 {
            return self.generate_handle();
        }
        let firmware = FIRMWARE_HANDLES..FIRMWARE_HANDLES + GENERATED_HANDLES_COUNT;
        if requested == self.handle || firmware.contains(&requested) {
            return Err(NV_ERR_INVALID_OBJECT_HANDLE);
        }
        if self.objects.contains_key(&requested) {
            return Err(NV_ERR_INSERT_DUPLICATE_NAME);
        }
        Ok(requested)
    }

    fn generate_handle(&mut self) -> Outcome<Handle> {
        for _ in 0..GENERATED_HANDLES_COUNT {
            let handle = GENERATED_HANDLES + self.generated % GENERATED_HANDLES_COUNT;
            self.generated = self.generated.wrapping_add(1);
            if !self.objects.contains_key(&handle) {
                return Ok(handle);
            }
        }
        Err(NV_ERR_INSUFFICIENT_RESOURCES)
    }

    /// Frees an object and everything under it.
    fn free(&mut self, handle: Handle) {
        let mut held: BTreeMap<Handle, Vec<Handle>> = BTreeMap::new();
        for (child, object) in &self.objects {
            held.entry(object.parent).or_default().push(*child);
        }
        let mut freed = BTreeSet::new();
        let mut found = vec![handle];
        while let Some(object) = found.pop() {
            freed.insert(object);
            found.append(held.entry(object).or_default());
        }
        self.objects.retain(|handle, _| !freed.contains(handle));
        for object in self.objects.values_mut() {
            if let Detail::Virtual(range) = &mut object.detail {
                range.forget(&freed);
            }
        }
    }
}

/// All clients.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clients {
    by_handle: BTreeMap<Handle, Client>,
    made: u32,
}

impl Clients {
    /// Makes a client, with the handle `requested` unless that is 0.
    pub fn create(&mut self, owner: FileNumber, requested: Handle) -> Outcome<Handle> {
        let handle = if requested == 0 {
            self.generate_handle()
        } else {
            requested
        };
        if handle == ANOTHERS || self.by_handle.contains_key(&handle) {
            return Err(NV_ERR_INSERT_DUPLICATE_NAME);
        }
        let itself = Object::new(
            nvproxy_abi::number::NV01_ROOT_CLIENT,
            Kind::Client,
            handle,
            None,
            Detail::Nothing,
        );
        let objects = BTreeMap::from([(handle, itself)]);
        self.by_handle.insert(
            handle,
            Client {
                handle,
                owner,
                objects,
                generated: 0,
            },
        );
        Ok(handle)
    }

    fn generate_handle(&mut self) -> Handle {
        loop {
            let handle = CLIENT_HANDLES + (self.made & 0xf_ffff);
            self.made = self.made.wrapping_add(1);
            if handle != ANOTHERS && !self.by_handle.contains_key(&handle) {
                return handle;
            }
        }
    }

    /// A client, whoever it belongs to.
    pub fn get(&self, handle: Handle) -> Option<&Client> {
        self.by_handle.get(&handle)
    }

    /// The same; without it, what most requests answer that name one.
    pub fn existing(&self, handle: Handle) -> Outcome<&Client> {
        self.get(handle).ok_or(NV_ERR_INVALID_CLIENT)
    }

    /// An object of a client, whoever the client belongs to (serverutilGetResourceRef). Another tenant's exists, and
    /// has no object that a program here could guess.
    pub fn object(&self, client: Handle, object: Handle) -> Outcome<&Object> {
        if client == ANOTHERS {
            return Err(NV_ERR_OBJECT_NOT_FOUND);
        }
        self.existing(client)?.object(object)
    }

    /// All clients, by handle.
    pub fn by_handle(&self) -> impl Iterator<Item = (Handle, &Client)> {
        self.by_handle
            .iter()
            .map(|(handle, client)| (*handle, client))
    }

    /// A client that the description `caller` may use. The driver has several answers to a handle that no client has;
    /// `absent` is the one for the request at hand.
    pub fn usable(
        &mut self,
        handle: Handle,
        caller: FileNumber,
        absent: u32,
    ) -> Outcome<&mut Client> {
        if handle == ANOTHERS {
            return Err(NV_ERR_INVALID_CLIENT);
        }
        let client = self.by_handle.get_mut(&handle).ok_or(absent)?;
        if client.owner == caller {
            Ok(client)
        } else {
            Err(NV_ERR_INVALID_CLIENT)
        }
    }

    /// All clients, for what happens to objects of all of them.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.by_handle.values_mut()
    }

    /// All clients.
    pub fn all(&self) -> impl Iterator<Item = &Client> {
        self.by_handle.values()
    }

    /// Frees an object and all under it, or the client if `object` is the client itself. An object that does not exist
    /// is freed successfully (serverFreeResourceTreeLockAndFindResource, RS_COMPATABILITY_MODE).
    pub fn free(&mut self, client: Handle, caller: FileNumber, object: Handle) -> Outcome {
        let owner = self.usable(client, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
        if object == client {
            self.by_handle.remove(&client);
        } else if owner.objects.contains_key(&object) {
            owner.free(object);
        }
        Ok(())
    }

    /// Frees the clients of a description that was closed, and says which they were.
    pub fn free_of(&mut self, owner: FileNumber) -> Vec<Handle> {
        let theirs = self
            .by_handle
            .values()
            .filter(|client| client.owner == owner)
            .map(|client| client.handle);
        let freed: Vec<Handle> = theirs.collect();
        for handle in &freed {
            self.by_handle.remove(handle);
        }
        freed
    }
}
