//! Notifications: which objects fire them, and which events of the operating system hear them ([`super::events`]).
//!
//! An event hangs on a notifier such as a subdevice. The program switches a notification of the notifier on; when it
//! fires, the descriptions of all events that hear it become readable.

use crate::structs::class::NV0005_ALLOC_PARAMETERS;
use crate::structs::control::NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS;
use nvproxy_abi::status::*;

use super::classes::Kind;
use super::events::{Event, OsEvents};
use super::names::{Handle, Outcome};
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

/// An event under `parent`, which is what it hears, whatever the program says
/// (eventConstruct_IMPL and eventInit_IMPL, event.c; rmapiFixupAllocParams, rmapi_specific.c; both in
/// src/nvidia/src/kernel/rmapi/).
pub(super) fn construct_event(
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
    if parameters.notifyIndex & NV01_EVENT_NONSTALL_INTR != 0 && source.kind != Kind::Subdevice {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    Ok(Event {
        registration,
        notifier: (of, parent),
        index: parameters.notifyIndex & NOTIFY_INDEX,
        with_data: parameters.notifyIndex & NV01_EVENT_WITHOUT_EVENT_DATA == 0,
    })
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
        let registered = state.os_events.file(event.registration);
        let file = registered.and_then(|number| state.files.get(&number));
        file.inspect(|file| file.pending.post(event.with_data));
    }
}
