//! Events of the operating system: what makes a description readable.
//!
//! A program registers a number for a description (NV_ESC_ALLOC_OS_EVENT), and allocates NV01_EVENT_OS_EVENT objects that
//! refer to the number and hear a notifier. When that fires, the description becomes readable.
//!
//! With the driver, an event without data is forgotten as soon as `poll` has reported it (`nvidia_poll`,
//! kernel-open/nvidia/nv.c), and one with data when NV_ESC_RM_GET_EVENT_DATA has fetched it. No descriptor that an unprivileged process can make forgets its readiness when `poll` reports it. Here
//! the event descriptor is an edge-triggered epoll instance: an `epoll_wait` on it takes what is pending, and `poll`
//! reports it until then. So no event is lost, but a program that only polls goes on seeing one that is over. Of an event with data
//! the number is kept, and not what it says.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nvproxy_abi::status::*;
use serde::{Deserialize, Serialize};

use super::encoding::descriptor;
use super::names::{FileNumber, Handle, Outcome};

/// Whether an event is pending on one description.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    /// An eventfd for events without data.
    dataless: Counter,
    /// Another for those with data, once there is somebody to see it.
    #[serde(deserialize_with = "Option::deserialize")]
    with_data: Option<Counter>,
}

/// An eventfd.
#[derive(Debug, Serialize, Deserialize)]
struct Counter(#[serde(with = "descriptor")] OwnedFd);

impl Counter {
    fn new() -> Result<Counter, Errno> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(|eventfd| Counter(eventfd.into()))
    }
}

impl Pending {
    pub fn new() -> Result<Pending, Errno> {
        Ok(Pending {
            dataless: Counter::new()?,
            with_data: None,
        })
    }

    /// A pollable descriptor that is readable while an event is pending.
    pub fn descriptor(&mut self) -> Result<OwnedFd, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&self.dataless.0, EpollEvent::new(interest, 0))?;
        let with_data = match self.with_data.take() {
            Some(counter) => counter,
            None => Counter::new()?,
        };
        epoll.add(&with_data.0, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        self.with_data = Some(with_data);
        Ok(epoll.0)
    }

    /// Takes one event with data, if there is one. Returns whether there are more.
    pub fn fetch(&self) -> Option<bool> {
        let Counter(counter) = self.with_data.as_ref()?;
        let mut count = [0; 8];
        nix::unistd::read(counter, &mut count).ok()?;
        let left = u64::from_ne_bytes(count) - 1;
        // It has room for what was in it.
        let _ = (left > 0).then(|| nix::unistd::write(counter, &left.to_ne_bytes()));
        Some(left > 0)
    }

    pub fn post(&self, with_data: bool) {
        let counter = match &self.with_data {
            Some(counter) if with_data => counter,
            _ => &self.dataless,
        };
        // The only error is that the counter is full after 2^64 - 2 events. It is readable then, which is all that is
        // wanted.
        let _ = nix::unistd::write(&counter.0, &1u64.to_ne_bytes());
    }
}

/// A registration by NV_ESC_ALLOC_OS_EVENT.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OsEvent {
    client: Handle,
    /// A number that the program chose. The driver compares it and nothing more.
    key: u32,
    file: FileNumber,
}

/// Which registration is meant. Event objects refer to one and may outlive it; they are silent then.
pub(super) type RegistrationId = u64;

/// All registrations.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OsEvents {
    by_id: BTreeMap<RegistrationId, OsEvent>,
    /// How many have been made; ids are not used again.
    made: u64,
}

impl OsEvents {
    /// Registers `key` for a description (allocate_os_event, src/nvidia/arch/nvalloc/unix/src/osapi.c).
    pub fn allocate(&mut self, client: Handle, key: u32, file: FileNumber) -> Outcome {
        if self.find(client, key).is_some() {
            return Err(NV_ERR_INSUFFICIENT_RESOURCES);
        }
        self.made = self.made.wrapping_add(1);
        self.by_id.insert(self.made, OsEvent { client, key, file });
        Ok(())
    }

    pub fn free(&mut self, client: Handle, key: u32) -> Outcome {
        let id = self.find(client, key).ok_or(NV_ERR_INVALID_EVENT)?;
        self.by_id.remove(&id);
        Ok(())
    }

    /// Frees the registrations of a client that was freed.
    pub fn free_of_client(&mut self, client: Handle) {
        self.by_id.retain(|_, event| event.client != client);
    }

    /// Frees the registrations for a description that was closed.
    pub fn free_of_file(&mut self, file: FileNumber) {
        self.by_id.retain(|_, event| event.file != file);
    }

    /// The description of a registration, unless that is gone.
    pub fn file(&self, registration: RegistrationId) -> Option<FileNumber> {
        self.by_id.get(&registration).map(|event| event.file)
    }

    /// The descriptions for which there are registrations.
    pub fn files(&self) -> impl Iterator<Item = FileNumber> {
        self.by_id.values().map(|event| event.file)
    }

    /// The registration of `key` by a client.
    pub fn find(&self, client: Handle, key: u32) -> Option<RegistrationId> {
        self.by_id
            .iter()
            .find(|(_, event)| event.client == client && event.key == key)
            .map(|(id, _)| *id)
    }
}

/// An object of class NV01_EVENT_OS_EVENT.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub registration: RegistrationId,
    /// The client and the object whose notifications it hears.
    pub notifier: (Handle, Handle),
    pub index: u32,
    /// Whether the driver keeps a record of each post.
    pub with_data: bool,
}
