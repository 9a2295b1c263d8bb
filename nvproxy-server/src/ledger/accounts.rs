//! The ledger itself: which clients and objects there are, and what each has charged to a GPU or to the host.
//!
//! It is plain data, kept from what the driver was asked and answered, so that it can be handed to another process. It
//! knows nothing of requests. Memory is an `Allocation` that counts who refers to it: objects, copies of objects, and
//! copies that lie in a description for another process, and descriptions through which tasks can have mapped it
//! (`shown.rs`). It is charged once, and given back when the last of these is gone, by whichever way. What lies in a dma-buf is
//! charged for good (`dma_bufs.rs`).

mod begun;
mod dma_bufs;
mod named;
mod os_events;
mod shown;
mod spaces;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use nvproxy_protocol::requests::Issuer;
use nvproxy_protocol::size::Size;
use serde::{Deserialize, Serialize};
use slab::Slab;

use super::content::{Content, Key};
use super::limits::{Full, Limits, RECORD};
use super::mappings::Mappings;
use super::numbered;

use self::begun::Begun;
pub use self::begun::Pin;
use self::shown::{Pinned, Shown};
pub use self::spaces::UNKNOWN_SPACE;

/// A handle of a client or of an object, as programs and the driver choose them.
pub type Handle = u32;

/// Whose memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pool {
    /// That of the GPU with this number.
    Gpu(u32),
    /// What the driver takes of the host's.
    Host,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allocation {
    pub(super) pool: Pool,
    pub(super) bytes: u64,
    references: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    parent: Handle,
    content: Content,
    children: HashSet<Handle>,
    /// Whether everybody has been let copy it.
    is_shared: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    /// The description that it was made through, with which it ends.
    description: u64,
    /// Who has made it, where that is told.
    #[serde(deserialize_with = "Option::deserialize")]
    maker: Option<Issuer>,
    objects: HashMap<Handle, Object>,
    /// Directly below the client.
    children: HashSet<Handle>,
    /// Whether the driver was to free it and said that it has not. It does say so of some that are gone, whose number may be another's then
    /// (`serverFreeResourceTree`, src/nvidia/src/libraries/resserv/src/rs_server.c, 580.142).
    is_doubtful: bool,
    /// Those of its devices that use another client's address space, with that client's handle.
    naming: BTreeMap<Handle, Handle>,
}

/// A description of a device node, as far as it concerns objects.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    clients: HashSet<Handle>,
    /// Copies of objects on their way to another process, by their place.
    exported: BTreeMap<u32, Content>,
    /// Whether the driver keeps a table of them.
    pub(super) has_places: bool,
    /// What the driver keeps with the description itself: that table, and a list of GPUs.
    pub(super) kept: Content,
    /// The description whose clients it uses, and keeps open.
    #[serde(deserialize_with = "Option::deserialize")]
    registered: Option<u64>,
    /// How many descriptions are registered with it.
    registrants: u32,
    closed: bool,
}

/// Who owns what in one sandbox. Descriptions are named by the server's handles.
///
/// What is written of it for another server is what only this one knows. What follows from that, and what the launcher
/// said, is not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    #[serde(skip, default = "Limits::nothing")]
    limits: Limits,
    clients: HashMap<Handle, Client>,
    pub(super) descriptions: HashMap<u64, Description>,
    /// What UVM keeps, by the description that is the address space.
    mappings: HashMap<u64, Mappings>,
    #[serde(deserialize_with = "numbered::deserialize")]
    pub(super) allocations: Slab<Allocation>,
    /// What tasks can have mapped.
    shown: Shown,
    /// What is pinned.
    pinned: Pinned,
    /// What lies in dma-bufs, with a reference to each.
    in_dma_bufs: BTreeSet<Key>,
    /// Bytes, by GPU.
    #[serde(skip)]
    charged: BTreeMap<u32, u64>,
    /// Bytes of the host's memory, but for [`RECORD`]s.
    #[serde(skip)]
    pub(super) charged_to_host: u64,
    /// What a task was lent a descriptor for, and has not been said to be finished.
    pins: Vec<Begun>,
    /// Records of events of the operating system, by client and key: the descriptions with which they end.
    os_events: BTreeMap<u64, u64>,
    /// Objects, exported copies, records of events, and address spaces, range groups, ranges and mappings of UVM, and those that requests under way may add.
    objects: usize,
    /// Clients that requests under way may add.
    #[serde(skip)]
    pending_clients: usize,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Ledger {
        Ledger {
            limits,
            clients: HashMap::new(),
            descriptions: HashMap::new(),
            mappings: HashMap::new(),
            allocations: Slab::new(),
            shown: Shown::default(),
            pinned: Pinned::default(),
            in_dma_bufs: BTreeSet::new(),
            charged: BTreeMap::new(),
            charged_to_host: 0,
            pins: Vec::new(),
            os_events: BTreeMap::new(),
            objects: 0,
            pending_clients: 0,
        }
    }

    /// This ledger, which was read from what another server has written, with the limits of the sandbox. No request is
    /// under way.
    pub fn with_limits(mut self, limits: Limits) -> Ledger {
        self.limits = limits;
        let charges = self.allocations.iter();
        let charges: Vec<_> = charges
            .map(|(_, allocation)| (allocation.pool, allocation.bytes))
            .collect();
        for (pool, bytes) in charges {
            let charged = self.charged_in(pool);
            *charged = charged.saturating_add(bytes);
        }
        self.charged_to_host = self.charged_to_host.saturating_add(self.shown.for_good);
        self.pinned.restore();
        self
    }

    /// Whether there is nothing, and nothing is charged or expected.
    pub fn is_empty(&self) -> bool {
        let is_charged = self.charged_to_host > 0 || self.charged.values().any(|bytes| *bytes > 0);
        let is_known = !self.clients.is_empty() || !self.descriptions.is_empty();
        let is_counted = self.objects > 0 || self.pending_clients > 0;
        let is_begun = !self.pins.is_empty();
        let is_shown = !self.shown.is_empty();
        !(is_charged || is_known || is_counted || is_begun || is_shown)
            && self.allocations.is_empty()
    }

    /// Everybody is let copy an object from now on.
    pub fn share(&mut self, client: Handle, object: Handle) {
        let owner = self.clients.get_mut(&client);
        if let Some(object) = owner.and_then(|owner| owner.objects.get_mut(&object)) {
            object.is_shared = true;
        }
    }

    /// Whether everybody has been let copy an object.
    pub fn is_shared(&self, client: Handle, object: Handle) -> bool {
        let object = self.object(client, object);
        object.is_some_and(|object| object.is_shared)
    }

    /// Whether `client` is the sandbox's own.
    pub fn has_client(&self, client: Handle) -> bool {
        self.clients.contains_key(&client)
    }

    /// The description that a client was made through, and ends with.
    pub fn description_of(&self, client: Handle) -> Option<u64> {
        Some(self.clients.get(&client)?.description)
    }

    /// Who has made `client`, where that was told.
    pub fn made_by(&self, client: Handle) -> Option<Issuer> {
        self.clients.get(&client)?.maker
    }

    /// The GPU that an object belongs to.
    pub fn gpu_of(&self, client: Handle, object: Handle) -> Option<u32> {
        self.object(client, object)?.content.gpu
    }

    /// Bytes that each GPU's memory is limited to, if they are.
    pub fn gpu_memory_limit(&self) -> Option<u64> {
        self.limits.settings.gpu_memory.map(Size::bytes)
    }

    /// Bytes of a GPU's memory that the sandbox has.
    pub fn charged(&self, gpu: u32) -> u64 {
        self.charged.get(&gpu).copied().unwrap_or(0)
    }

    /// Makes room for as many further objects, or copies of objects.
    pub fn expect_objects(&mut self, count: usize) -> Result<(), Full> {
        if count > self.limits.objects.saturating_sub(self.objects) {
            return Err(Full);
        }
        self.has_host_memory(RECORD.saturating_mul(count as u64))?;
        self.objects += count;
        Ok(())
    }

    /// Whether as many bytes of the host's memory are left.
    pub fn has_host_memory(&self, bytes: u64) -> Result<(), Full> {
        let clients = self.clients.len() + self.pending_clients;
        let records = RECORD.saturating_mul(clients.saturating_add(self.objects) as u64);
        let taken = self.charged_to_host.checked_add(records);
        let total = taken.and_then(|taken| taken.checked_add(bytes));
        let limit = self.limits.settings.host_memory;
        let limit = limit.map_or(u64::MAX, Size::bytes);
        match total.is_some_and(|total| total <= limit) {
            true => Ok(()),
            false => Err(Full),
        }
    }

    /// Takes back room that [`Ledger::expect_objects`] made. What was added meanwhile has its own.
    pub fn expected_objects(&mut self, count: usize) {
        self.objects = self.objects.saturating_sub(count);
    }

    /// Makes room for a further client.
    pub fn expect_client(&mut self) -> Result<(), Full> {
        if self.clients.len() + self.pending_clients >= self.limits.clients {
            return Err(Full);
        }
        self.has_host_memory(RECORD)?;
        self.pending_clients += 1;
        Ok(())
    }

    /// Takes back the room that [`Ledger::expect_client`] made.
    pub fn expected_client(&mut self) {
        self.pending_clients = self.pending_clients.saturating_sub(1);
    }

    /// Charges `bytes` and returns the one reference to them, if there is room for them.
    pub fn charge(&mut self, pool: Pool, bytes: u64) -> Result<Key, Full> {
        match pool {
            Pool::Host => self.has_host_memory(bytes)?,
            Pool::Gpu(gpu) => {
                let total = self.charged(gpu).checked_add(bytes).ok_or(Full)?;
                if self.gpu_memory_limit().is_some_and(|limit| total > limit) {
                    return Err(Full);
                }
            }
        }
        Ok(self.charge_anyway(pool, bytes))
    }

    /// Charges `bytes` that have been taken, whether or not there is room for them.
    pub fn charge_anyway(&mut self, pool: Pool, bytes: u64) -> Key {
        let charged = self.charged_in(pool);
        *charged = charged.saturating_add(bytes);
        self.allocations.insert(Allocation {
            pool,
            bytes,
            references: 1,
        })
    }

    fn charged_in(&mut self, pool: Pool) -> &mut u64 {
        match pool {
            Pool::Gpu(gpu) => self.charged.entry(gpu).or_default(),
            Pool::Host => &mut self.charged_to_host,
        }
    }

    /// Makes a charge no less than `bytes`, whether or not there is room for more. Returns whether it was less.
    pub fn raise(&mut self, key: Key, bytes: u64) -> bool {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return false;
        };
        let more = bytes.saturating_sub(allocation.bytes);
        allocation.bytes += more;
        let pool = allocation.pool;
        let charged = self.charged_in(pool);
        *charged = charged.saturating_add(more);
        more > 0
    }

    /// What a copy of an object has, with references of its own. One that is not known may be that of any pin of its client
    /// that was begun and of which nothing has been heard since: the driver has made that one already.
    pub fn copy_of(&mut self, client: Handle, object: Handle) -> Option<Content> {
        let owner = self.clients.get(&client)?;
        let copy = match owner.objects.get(&object) {
            Some(Object { content, .. }) => Content {
                gpu: content.gpu,
                memory: content.memory.clone(),
            },
            None => self.begun_of(client)?,
        };
        Some(self.referred(copy))
    }

    /// What a copy of an object has that lies in a description, with references of its own.
    pub fn copy_of_exported(&mut self, description: u64, place: u32) -> Option<Content> {
        let content = self.descriptions.get(&description)?.exported.get(&place)?;
        let copy = Content {
            gpu: content.gpu,
            memory: content.memory.clone(),
        };
        Some(self.referred(copy))
    }

    /// The same, of which the caller owns further references.
    pub(super) fn referred(&mut self, content: Content) -> Content {
        for key in &content.memory {
            if let Some(allocation) = self.allocations.get_mut(*key) {
                allocation.references = allocation.references.saturating_add(1);
            }
        }
        content
    }

    /// Gives references back. Memory that nothing refers to any more is no longer charged.
    pub fn release(&mut self, content: Content) {
        for key in content.memory {
            let Some(allocation) = self.allocations.get_mut(key) else {
                continue;
            };
            allocation.references = allocation.references.saturating_sub(1);
            if allocation.references == 0 {
                let Allocation { pool, bytes, .. } = self.allocations.remove(key);
                self.pinned.end(key);
                let charged = self.charged_in(pool);
                *charged = charged.saturating_sub(bytes);
            }
        }
    }

    /// Adds a client that was made through `description`, by this task where that was told.
    pub fn add_client(&mut self, client: Handle, description: u64, maker: Option<Issuer>) {
        self.free_client(client);
        let made = Client {
            description,
            maker,
            objects: HashMap::new(),
            children: HashSet::new(),
            is_doubtful: false,
            naming: BTreeMap::new(),
        };
        self.clients.insert(client, made);
        let description = self.descriptions.entry(description).or_default();
        description.clients.insert(client);
    }

    /// Adds an object. One that had its handle is gone, since the driver has given the handle out again.
    pub fn add_object(&mut self, client: Handle, object: Handle, parent: Handle, content: Content) {
        // No driver gives an object the client's own handle, but the sentry could say so of one that it pinned.
        if object == client {
            return self.release(content);
        }
        self.free(client, object);
        let Some(owner) = self.clients.get_mut(&client) else {
            return self.release(content);
        };
        match owner.objects.get_mut(&parent) {
            Some(parent) => parent.children.insert(object),
            None => owner.children.insert(object),
        };
        let added = Object {
            parent,
            content,
            children: HashSet::new(),
            is_shared: false,
        };
        owner.objects.insert(object, added);
        self.objects = self.objects.saturating_add(1);
    }

    /// Adds what an object keeps from now on.
    pub fn hold(&mut self, client: Handle, object: Handle, content: Content) {
        let owner = self.clients.get_mut(&client);
        match owner.and_then(|owner| owner.objects.get_mut(&object)) {
            Some(holder) => holder.content.memory.extend(content.memory),
            None => self.release(content),
        }
    }

    /// Whether an object has this handle.
    pub fn has_object(&self, client: Handle, object: Handle) -> bool {
        self.object(client, object).is_some()
    }

    /// Whether an object keeps memory.
    pub fn keeps_memory(&self, client: Handle, object: Handle) -> bool {
        let object = self.object(client, object);
        object.is_some_and(|object| !object.content.memory.is_empty())
    }

    fn object(&self, client: Handle, object: Handle) -> Option<&Object> {
        self.clients.get(&client)?.objects.get(&object)
    }

    /// Removes an object and all below it; the client, if `object` is its own handle.
    pub fn free(&mut self, client: Handle, object: Handle) {
        if object == client {
            return self.free_client(client);
        }
        let mut freed = Vec::new();
        if let Some(owner) = self.clients.get_mut(&client) {
            owner.take(object, &mut freed);
        }
        self.objects = self.objects.saturating_sub(freed.len());
        for content in freed {
            self.release(content);
        }
    }

    fn free_client(&mut self, client: Handle) {
        let Some(freed) = self.clients.remove(&client) else {
            return;
        };
        self.end_os_events(|event, _| event >> 32 == u64::from(client));
        self.end_begun_of(client);
        if let Some(description) = self.descriptions.get_mut(&freed.description) {
            description.clients.remove(&client);
        }
        self.objects = self.objects.saturating_sub(freed.objects.len());
        for object in freed.objects.into_values() {
            self.release(object.content);
        }
    }

    /// Puts a copy of an object into a description, in the place of what was there.
    pub fn add_exported(&mut self, description: u64, place: u32, content: Content) {
        let exported = &mut self.descriptions.entry(description).or_default().exported;
        match exported.insert(place, content) {
            Some(replaced) => self.release(replaced),
            None => self.objects = self.objects.saturating_add(1),
        }
    }

    /// `description` uses the clients of `of` from now on, and keeps it open.
    pub fn register(&mut self, description: u64, of: u64) {
        let registrant = self.descriptions.entry(description).or_default();
        if registrant.registered.replace(of).is_none() {
            let registrants = &mut self.descriptions.entry(of).or_default().registrants;
            *registrants = registrants.saturating_add(1);
        }
    }

    /// A description was closed: its clients and what lies in it are gone, once none is open that keeps it.
    pub fn close(&mut self, description: u64) {
        self.end_address_space(description);
        self.close_begun(description);
        let mut next = Some(description);
        while let Some(closed) = next.take() {
            let Some(known) = self.descriptions.get_mut(&closed) else {
                return;
            };
            known.closed |= closed == description;
            if known.registrants > 0 || !known.closed {
                return;
            }
            let Some(known) = self.descriptions.remove(&closed) else {
                return;
            };
            for client in known.clients {
                self.free_client(client);
            }
            self.end_os_events(|_, description| description == closed);
            self.objects = self.objects.saturating_sub(known.exported.len());
            for content in known.exported.into_values() {
                self.release(content);
            }
            self.release(known.kept);
            if let Some(of) = known.registered {
                if let Some(kept) = self.descriptions.get_mut(&of) {
                    kept.registrants = kept.registrants.saturating_sub(1);
                }
                next = Some(of);
            }
        }
    }
}

impl Client {
    /// Takes out an object and all below it, and puts what they had into `taken`.
    fn take(&mut self, object: Handle, taken: &mut Vec<Content>) {
        let mut found = vec![object];
        if let Some(parent) = self.objects.get(&object).map(|object| object.parent) {
            match self.objects.get_mut(&parent) {
                Some(parent) => parent.children.remove(&object),
                None => self.children.remove(&object),
            };
        }
        while let Some(handle) = found.pop() {
            self.naming.remove(&handle);
            if let Some(object) = self.objects.remove(&handle) {
                found.extend(object.children);
                taken.push(object.content);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
