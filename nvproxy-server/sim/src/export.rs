//! Objects that travel between processes by a descriptor: a description of `nvidiactl` is filled with copies of objects,
//! passed on, and emptied into another client.
//!
//! From rmobjexportimport.c and os.c in src/nvidia/arch/nvalloc/unix/src. A copy that is in a description keeps what it
//! refers to alive, as a copy in a client does.

use crate::structs::control::*;
use nvproxy_abi::node::Node;
use nvproxy_abi::status::*;

use super::allocate::{adopt, copy};
use super::classes::Kind;
use super::names::{FileNumber, Handle, Outcome};
use super::objects::Object;
use super::state::{Exports, FileState, State};

/// What NV0000_CTRL_OS_UNIX_EXPORT_OBJECT.type has to be (NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TYPE_RM).
const TYPE_RM: u32 = 1;
/// NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_FLAGS_EMPTY_FD: for a library in the program.
const EMPTY_FD: u32 = 1;
/// What stands for no device, and for a GPU that is not partitioned.
const NO_DEVICE: u32 = 32;
const NO_GPU_INSTANCE: u32 = u32::MAX;
/// NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_TYPE_*.
const TYPE_NONE: u8 = 0;
const TYPE_VIDMEM: u8 = 1;
const TYPE_SYSMEM: u8 = 2;

/// Who exports or imports: the description that issued the request, and its client.
#[derive(Clone, Copy)]
pub(super) struct Party {
    pub caller: FileNumber,
    pub client: Handle,
}

/// The description of `nvidiactl` that a request names.
fn file(state: &mut State, number: i32) -> Outcome<&mut FileState> {
    let file = state
        .files
        .get_mut(&FileNumber(number))
        .filter(|file| file.node == Node::Control);
    file.ok_or(NV_ERR_INVALID_PARAMETER)
}

/// An empty set of exports of objects of `device` (_initializeExportObjectFd).
fn prepare(
    state: &State,
    client: Handle,
    device: Handle,
    slots: u16,
    metadata: [u8; 64],
) -> Outcome<Exports> {
    let device = if device == 0 {
        NO_DEVICE
    } else {
        let object = state.clients.existing(client)?.object(device)?;
        match (object.kind, object.gpu) {
            (Kind::Device, Some(instance)) => instance as u32,
            _ => return Err(NV_ERR_INVALID_PARAMETER),
        }
    };
    Ok(Exports {
        slots: (0..slots).map(|_| None).collect(),
        device,
        metadata,
    })
}

/// A copy of an object, and the instance of the device that it is of (RmExportObject).
fn export(state: &State, client: Handle, object: Handle) -> Outcome<(Object, u32)> {
    let object = state.clients.existing(client)?.object(object)?;
    let copy = copy(object).ok_or(NV_ERR_INVALID_ARGUMENT)?;
    Ok((
        copy,
        object.gpu.map_or(NO_DEVICE, |instance| instance as u32),
    ))
}

/// NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD.
pub(super) fn export_one(
    state: &mut State,
    party: Party,
    parameters: &NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS,
) -> Outcome {
    let [device, _parent, object] = parameters.object.data;
    if parameters.flags & EMPTY_FD != 0
        || parameters.object.r#type != TYPE_RM
        || parameters.fd == -1
    {
        return Err(NV_ERR_INVALID_PARAMETER);
    }
    let (copy, _) = export(state, party.client, object)?;
    if file(state, parameters.fd)?.exports.is_some() {
        return Err(NV_ERR_STATE_IN_USE);
    }
    let mut exports = prepare(state, party.client, device, 0, [0; 64])?;
    exports.slots.push(Some(copy));
    file(state, parameters.fd)?.exports = Some(exports);
    Ok(())
}

/// NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD.
pub(super) fn import_one(
    state: &mut State,
    party: Party,
    parameters: &mut NV0000_CTRL_OS_UNIX_IMPORT_OBJECT_FROM_FD_PARAMS,
) -> Outcome {
    let [_device, parent, object] = parameters.object.data;
    if parameters.object.r#type != TYPE_RM || parameters.fd == -1 {
        return Err(NV_ERR_INVALID_PARAMETER);
    }
    let exports = file(state, parameters.fd)?.exports.as_ref();
    let exported = exports
        .and_then(|exports| exports.slots.first()?.as_ref())
        .ok_or(NV_ERR_INVALID_PARAMETER)?;
    let copy = copy(exported);
    let [_, _, imported] = &mut parameters.object.data;
    *imported = adopt(state, party.caller, party.client, parent, object, copy)?;
    Ok(())
}

/// NV0000_CTRL_CMD_OS_UNIX_GET_EXPORT_OBJECT_INFO.
pub(super) fn info(
    state: &mut State,
    parameters: &mut NV0000_CTRL_OS_UNIX_GET_EXPORT_OBJECT_INFO_PARAMS,
) -> Outcome {
    let exports = file(state, parameters.fd)?
        .exports
        .as_ref()
        .ok_or(NV_ERR_INVALID_PARAMETER)?;
    // There are never more slots than the 16-bit number that was asked for.
    parameters.maxObjects = u16::try_from(exports.slots.len()).unwrap_or(u16::MAX);
    parameters.deviceInstance = exports.device;
    parameters.gpuInstanceId = NO_GPU_INSTANCE;
    parameters.metadata = exports.metadata;
    Ok(())
}

/// NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD. A description is filled by several of these; the first says for how
/// many objects there is room.
pub(super) fn export_many(
    state: &mut State,
    party: Party,
    parameters: &NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS,
) -> Outcome {
    let NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS {
        fd,
        hDevice,
        maxObjects,
        metadata,
        ..
    } = *parameters;
    let (mut exports, is_new) = match file(state, fd)?.exports.take() {
        Some(exports) => (exports, false),
        None if maxObjects == 0 => return Err(NV_ERR_INVALID_PARAMETER),
        None => (
            prepare(state, party.client, hDevice, maxObjects, metadata)?,
            true,
        ),
    };
    let filled = fill(state, party.client, &mut exports, parameters);
    if filled.is_ok() || !is_new {
        file(state, fd)?.exports = Some(exports);
    }
    filled
}

fn fill(
    state: &State,
    client: Handle,
    exports: &mut Exports,
    parameters: &NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS,
) -> Outcome {
    let (count, index) = (
        usize::from(parameters.numObjects),
        usize::from(parameters.index),
    );
    let objects = parameters
        .objects
        .get(..count)
        .ok_or(NV_ERR_INVALID_PARAMETER)?;
    if index + count > exports.slots.len() {
        return Err(NV_ERR_OUT_OF_RANGE);
    }
    let mut copies = Vec::with_capacity(count);
    for object in objects {
        copies.push(match object {
            0 => None,
            object => {
                let (copy, device) = export(state, client, *object)?;
                if device != exports.device {
                    return Err(NV_ERR_INVALID_PARAMETER);
                }
                Some(copy)
            }
        });
    }
    for (slot, copy) in exports.slots.iter_mut().skip(index).zip(copies) {
        *slot = copy;
    }
    Ok(())
}

/// NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD. If one cannot be imported, none is.
pub(super) fn import_many(
    state: &mut State,
    party: Party,
    parameters: &mut NV0000_CTRL_OS_UNIX_IMPORT_OBJECTS_FROM_FD_PARAMS,
) -> Outcome {
    let (count, index) = (
        usize::from(parameters.numObjects),
        usize::from(parameters.index),
    );
    let exports = file(state, parameters.fd)?
        .exports
        .as_ref()
        .ok_or(NV_ERR_INVALID_PARAMETER)?;
    if count > parameters.objects.len() {
        return Err(NV_ERR_INVALID_PARAMETER);
    }
    let slots = exports
        .slots
        .get(index..index + count)
        .ok_or(NV_ERR_OUT_OF_RANGE)?;
    let copies: Vec<Option<Object>> = slots
        .iter()
        .map(|slot| slot.as_ref().and_then(copy))
        .collect();
    let wanted = parameters
        .objects
        .iter_mut()
        .zip(&mut parameters.objectTypes);
    let mut imported = Vec::new();
    for (copy, (handle, object_type)) in copies.into_iter().zip(wanted) {
        *object_type = object_type_of(copy.as_ref());
        if copy.is_none() {
            continue;
        }
        match adopt(
            state,
            party.caller,
            party.client,
            parameters.hParent,
            *handle,
            copy,
        ) {
            Ok(adopted) => {
                *handle = adopted;
                imported.push(adopted);
            }
            Err(status) => {
                for handle in imported {
                    state.clients.free(party.client, party.caller, handle)?;
                }
                return Err(status);
            }
        }
    }
    Ok(())
}

fn object_type_of(object: Option<&Object>) -> u8 {
    match object.map(|object| object.kind) {
        Some(Kind::VideoMemory) => TYPE_VIDMEM,
        Some(Kind::SystemMemory | Kind::PinnedMemory) => TYPE_SYSMEM,
        _ => TYPE_NONE,
    }
}
