//! Events of the operating system: what makes a description readable.
//!
//! A program registers a number for a description (NV_ESC_ALLOC_OS_EVENT), allocates NV01_EVENT_OS_EVENT objects that
//! refer to the number and hang on a notifier such as a subdevice, and switches a notification on. When the notifier
//! fires, the description becomes readable.
//!
//! With the driver, an event without data is forgotten as soon as `poll` has reported it (`nvidia_poll`,
//! kernel-open/nvidia/nv.c), and one with data when NV_ESC_RM_GET_EVENT_DATA has fetched it, which the request tables
//! do not carry. No descriptor that an unprivileged process can make forgets its readiness when `poll` reports it. Here
//! the event descriptor is an edge-triggered epoll instance: an `epoll_wait` on it takes what is pending, and `poll`
//! reports it until then. So no event is lost, but a program that only polls goes on seeing one that is over. An event with
//! data is pending for good.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::structs::class::NV0005_ALLOC_PARAMETERS;
use crate::structs::control::NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nvproxy_abi::status::*;
use serde::{Deserialize, Serialize};

use super::classes::Kind;
use super::encoding::descriptor;
use super::names::{FileNumber, Handle, Outcome};
use super::objects::{Clients, Detail};
use super::state::State;

/// Flags in NV0005_ALLOC_PARAMETERS.notifyIndex (nvos.h); the index itself is the lower half.
const NV01_EVENT_NONSTALL_INTR: u32 = 0x0800_0000;
const NV01_EVENT_WITHOUT_EVENT_DATA: u32 = 0x1000_0000;
const NOTIFY_INDEX: u32 = 0xffff;

/// Notifications of a subdevice (class/cl2080_notification.h).
const NV2080_NOTIFIERS_SW: u32 = 0;
const NV2080_NOTIFIERS_TIMER: u32 = 11;
const NV2080_NOTIFIERS_MAXCOUNT: u32 = 198;

/// NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS.action (ctrl/ctrl2080/ctrl2080event.h).
const ACTION_DISABLE: u32 = 0;
const ACTION_SINGLE: u32 = 1;
const ACTION_REPEAT: u32 = 2;

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

    fn post(&self, with_data: bool) {
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
type RegistrationId = u64;

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

    /// The descriptions for which there are registrations.
    pub fn files(&self) -> impl Iterator<Item = FileNumber> {
        self.by_id.values().map(|event| event.file)
    }

    fn find(&self, client: Handle, key: u32) -> Option<RegistrationId> {
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
    registration: RegistrationId,
    /// The client and the object whose notifications it hears.
    notifier: (Handle, Handle),
    index: u32,
    /// Whether the driver keeps a record of each post.
    with_data: bool,
}

impl Event {
    /// An event under `parent`, which is what it hears, whatever the program says
    /// (eventConstruct_IMPL and eventInit_IMPL, event.c; rmapiFixupAllocParams, rmapi_specific.c; both in
    /// src/nvidia/src/kernel/rmapi/).
    pub fn construct(
        clients: &Clients,
        registrations: &OsEvents,
        client: Handle,
        parent: Handle,
        parameters: &mut NV0005_ALLOC_PARAMETERS,
    ) -> Outcome<Event> {
        parameters.hSrcResource = parent;
        let of = if parameters.hParentClient == 0 {
            client
        } else {
            parameters.hParentClient
        };
        let source = clients.get(of).ok_or(NV_ERR_INVALID_OBJECT_HANDLE)?;
        let source = source.object(parent).map_err(|_| NV_ERR_INVALID_OBJECT)?;
        if !source.kind.notifies() {
            return Err(NV_ERR_INVALID_OBJECT);
        }
        // The driver looks at the lower half of `data` only.
        let key = parameters.data as u32;
        let registration = registrations
            .find(client, key)
            .ok_or(NV_ERR_OBJECT_NOT_FOUND)?;
        if parameters.notifyIndex & NV01_EVENT_NONSTALL_INTR != 0 && source.kind != Kind::Subdevice
        {
            return Err(NV_ERR_INVALID_ARGUMENT);
        }
        Ok(Event {
            registration,
            notifier: (of, parent),
            index: parameters.notifyIndex & NOTIFY_INDEX,
            with_data: parameters.notifyIndex & NV01_EVENT_WITHOUT_EVENT_DATA == 0,
        })
    }
}

/// All event objects.
fn events(clients: &Clients) -> impl Iterator<Item = &Event> {
    let objects = clients.all().flat_map(|client| client.objects.values());
    objects.filter_map(|object| match &object.detail {
        Detail::Event(event) => Some(event),
        _ => None,
    })
}

/// NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION on a subdevice of `client` (subdeviceCtrlCmdEventSetNotification_IMPL).
pub(super) fn set_notification(
    clients: &mut Clients,
    client: Handle,
    subdevice: Handle,
    parameters: &NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS,
) -> Outcome {
    if !events(clients).any(|event| event.notifier == (client, subdevice)) {
        return Err(NV_ERR_INVALID_STATE);
    }
    let index = parameters.event;
    if index >= NV2080_NOTIFIERS_MAXCOUNT || index == NV2080_NOTIFIERS_TIMER {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let found = clients
        .all_mut()
        .find(|candidate| candidate.handle == client);
    let object = found.ok_or(NV_ERR_INVALID_CLIENT)?.object_mut(subdevice)?;
    let Detail::Subdevice { repeats } = &mut object.detail else {
        return Err(NV_ERR_NOT_SUPPORTED);
    };
    match parameters.action {
        ACTION_DISABLE => {
            repeats.remove(&index);
        }
        ACTION_SINGLE | ACTION_REPEAT if repeats.contains_key(&index) => {
            return Err(NV_ERR_INVALID_STATE);
        }
        ACTION_SINGLE | ACTION_REPEAT => {
            repeats.insert(index, parameters.action == ACTION_REPEAT);
        }

        _ => return Err(NV_ERR_INVALID_ARGUMENT),
    }
    Ok(())
}

/// NV2080_CTRL_CMD_EVENT_SET_TRIGGER on a subdevice of the GPU with instance `gpu`: fires NV2080_NOTIFIERS_SW on every
/// subdevice of that GPU on which it is switched on (gpuNotifySubDeviceEvent_IMPL).
pub(super) fn trigger(state: &mut State, gpu: usize) {
    let mut fired = Vec::new();
    for client in state.clients.all_mut() {
        let client_handle = client.handle;
        for (handle, object) in client
            .objects
            .iter_mut()
            .filter(|(_, object)| object.gpu == Some(gpu))
        {
            if let Detail::Subdevice { repeats } = &mut object.detail
                && let Some(repeat) = repeats.get(&NV2080_NOTIFIERS_SW).copied()
            {
                fired.push((client_handle, *handle));
                if !repeat {
                    repeats.remove(&NV2080_NOTIFIERS_SW);
                }
            }
        }
    }
    let heard = events(&state.clients)
        .filter(|event| event.index == NV2080_NOTIFIERS_SW && fired.contains(&event.notifier));
    for event in heard {
        let registered = state.os_events.by_id.get(&event.registration);
        let file = registered.and_then(|registered| state.files.get(&registered.file));
        file.inspect(|file| file.pending.post(event.with_data));
    }
}
