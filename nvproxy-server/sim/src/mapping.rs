//! Mappings: of memory into tasks (NV_ESC_RM_MAP_MEMORY) and into the address spaces of GPUs (NV_ESC_RM_MAP_MEMORY_DMA).
//!
//! NV_ESC_RM_MAP_MEMORY prepares one description for one `mmap` at offset 0. The driver checks at `mmap` that address
//! range and protection are those that were asked for; a memory file cannot, so that here a task can map more than it
//! asked for (touching the surplus raises SIGBUS) and write to what it asked to read.

use std::sync::Arc;

use crate::structs::frontend::{
    NVOS33_PARAMETERS, NVOS34_PARAMETERS, NVOS46_PARAMETERS, NVOS47_PARAMETERS, NVOS56_PARAMETERS,
};
use nvproxy_abi::node::Node;
use nvproxy_abi::status::*;

use super::classes::Kind;
use super::memory::{Memory, PAGE, Place};
use super::names::{FileNumber, Handle, Outcome};
use super::objects::{Client, CpuMapping, Detail, Object};
use super::state::State;

/// NVOS33_FLAGS_ACCESS (nvos.h): the value that means nothing.
const ACCESS_MASK: u32 = 0x3;
const ACCESS_INVALID: u32 = 0x3;
/// NVOS33_FLAGS_MAPPING and NVOS33_FLAGS_CACHING_TYPE: fields, and the values that the driver writes.
const MAPPING_MASK: u32 = 0x3 << 15;
const MAPPING_DIRECT: u32 = 1 << 15;
const MAPPING_REFLECTED: u32 = 2 << 15;
const CACHING_MASK: u32 = 0x7 << 23;
const CACHING_UNCACHED: u32 = 1 << 23;
const CACHING_WRITE_COMBINED: u32 = 2 << 23;
const CACHING_DEFAULT: u32 = 6 << 23;
/// NVOS33_FLAGS_PERSISTENT_ENABLE.
const PERSISTENT: u32 = 1 << 4;
/// NVOS46_FLAGS_DMA_OFFSET_FIXED.
const DMA_OFFSET_FIXED: u32 = 1 << 15;

/// The object under which `hDevice` says that a mapping is made: a device, a subdevice, or the client itself for
/// memory that hangs on the client (serverMap_Prologue, src/nvidia/src/kernel/rmapi/mapping_cpu.c).
fn check_device(client: &Client, device: Handle, memory: &Object) -> Outcome {
    let under_client = memory.parent == client.handle;
    if under_client != (device == client.handle) {
        return Err(NV_ERR_INVALID_OBJECT_PARENT);
    }
    match client.object(device)?.kind {
        Kind::Device | Kind::Subdevice | Kind::Client => Ok(()),
        _ => Err(NV_ERR_INVALID_OBJECT_PARENT),
    }
}

/// The range of memory that is asked for (memMap_IMPL).
fn check_range(memory: &Memory, offset: u64, length: u64) -> Outcome {
    if matches!(memory.place(), Place::Pinned) {
        return Err(NV_ERR_NOT_SUPPORTED);
    }
    check_within(memory, offset, length)
}

/// That it has bytes there, and at least one.
fn check_within(memory: &Memory, offset: u64, length: u64) -> Outcome {
    if offset >= memory.length() {
        return Err(NV_ERR_INVALID_BASE);
    }
    if length == 0
        || offset
            .checked_add(length)
            .is_none_or(|end| end > memory.length())
    {
        return Err(NV_ERR_INVALID_LIMIT);
    }
    Ok(())
}

/// NV_ESC_RM_MAP_MEMORY, with `target` the number of the description that is to be mapped.
pub(super) fn map(
    state: &mut State,
    caller: FileNumber,
    parameters: &mut NVOS33_PARAMETERS,
    target: i32,
) -> Outcome {
    let NVOS33_PARAMETERS {
        hClient,
        hDevice,
        hMemory,
        offset,
        length,
        flags,
        ..
    } = *parameters;
    let client = state
        .clients
        .usable(hClient, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    let object = client.object(hMemory)?;
    if flags & PERSISTENT != 0 {
        return Err(NV_ERR_INVALID_FLAGS);
    }
    check_device(client, hDevice, object)?;
    if flags & ACCESS_MASK == ACCESS_INVALID {
        return Err(NV_ERR_INVALID_FLAGS);
    }
    let (memory, gpu) = (
        Arc::clone(object.memory().ok_or(NV_ERR_NOT_SUPPORTED)?),
        object.gpu,
    );
    check_range(&memory, offset, length)?;
    show(state, &memory, gpu, offset, length, target)?;
    let address = memory.address().wrapping_add(offset);
    let client = state
        .clients
        .usable(hClient, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    client
        .object_mut(hMemory)?
        .mappings
        .push(CpuMapping { address });
    parameters.pLinearAddress = address;
    parameters.flags = flags & !(MAPPING_MASK | CACHING_MASK) | how(memory.place());
    Ok(())
}

/// How the driver says that it maps memory (rmapiMapMemory, memMap_IMPL; NVOS33_FLAGS_MAPPING and
/// NVOS33_FLAGS_CACHING_TYPE).
fn how(place: &Place) -> u32 {
    match place {
        Place::System | Place::Pinned => MAPPING_DIRECT | CACHING_DEFAULT,
        Place::Video(_) => MAPPING_REFLECTED | CACHING_WRITE_COMBINED,
        Place::Registers {
            through_memory: true,
        } => MAPPING_REFLECTED | CACHING_UNCACHED,
        Place::Registers {
            through_memory: false,
        } => CACHING_DEFAULT,
    }
}

/// Makes the description `target` show a range of `memory`, which is of `gpu` (nv_add_mapping_context_to_file,
/// kernel-open/nvidia/nv-usermap.c).
pub(super) fn show(
    state: &mut State,
    memory: &Memory,
    gpu: Option<usize>,
    offset: u64,
    length: u64,
    target: i32,
) -> Outcome {
    let node = match memory.place() {
        Place::System | Place::Pinned => Node::Control,
        Place::Video(_) | Place::Registers { .. } => {
            let gpu = gpu
                .and_then(|instance| state.gpus.get(instance))
                .ok_or(NV_ERR_INVALID_ARGUMENT)?;
            Node::Gpu(gpu.minor)
        }
    };
    let file = state
        .files
        .get_mut(&FileNumber(target))
        .ok_or(NV_ERR_INVALID_ARGUMENT)?;
    if (file.node == Node::Control) != (node == Node::Control) {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    if file.mapped {
        return Err(NV_ERR_STATE_IN_USE);
    }
    if file.node != node {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    memory
        .map(&file.backing, offset, length)
        .map_err(|_| NV_ERR_NO_MEMORY)?;
    file.mapped = true;
    Ok(())
}

/// NV_ESC_RM_UNMAP_MEMORY. What a task has mapped stays mapped: that is the task's to undo.
pub(super) fn unmap(
    state: &mut State,
    caller: FileNumber,
    parameters: &NVOS34_PARAMETERS,
) -> Outcome {
    let client = state
        .clients
        .usable(parameters.hClient, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    check_device(
        client,
        parameters.hDevice,
        client.object(parameters.hMemory)?,
    )?;
    let mappings = &mut client.object_mut(parameters.hMemory)?.mappings;
    let found = mappings
        .iter()
        .position(|mapping| mapping.address == parameters.pLinearAddress);
    mappings.remove(found.ok_or(NV_ERR_OBJECT_NOT_FOUND)?);
    Ok(())
}

/// NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO (RmUpdateDeviceMappingInfo, osapi.c). The driver does not ask whose client it
/// is.
pub(super) fn update(state: &mut State, parameters: &NVOS56_PARAMETERS) -> Outcome {
    let found = state
        .clients
        .all_mut()
        .find(|client| client.handle == parameters.hClient);
    let client = found.ok_or(NV_ERR_INVALID_OBJECT_HANDLE)?;
    match client.object(parameters.hDevice)?.kind {
        Kind::Device | Kind::Subdevice => {}
        _ => return Err(NV_ERR_INVALID_OBJECT_HANDLE),
    }
    let object = client.object_mut(parameters.hMemory)?;
    if object.memory().is_none() && object.kind != Kind::Channel {
        return Err(NV_ERR_INVALID_OBJECT_HANDLE);
    }
    let found = object
        .mappings
        .iter_mut()
        .find(|mapping| mapping.address == parameters.pOldCpuAddress);
    found.ok_or(NV_ERR_OBJECT_NOT_FOUND)?.address = parameters.pNewCpuAddress;
    Ok(())
}

/// NV_ESC_RM_MAP_MEMORY_DMA (serverInterMap, rs_server.c; virtmemMapTo_IMPL).
pub(super) fn map_dma(
    state: &mut State,
    caller: FileNumber,
    parameters: &mut NVOS46_PARAMETERS,
) -> Outcome {
    let client = state
        .clients
        .usable(parameters.hClient, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    client.object(parameters.hDma)?;
    let memory = client
        .object(parameters.hMemory)?
        .memory()
        .ok_or(NV_ERR_INVALID_OBJECT_HANDLE)?;
    let (offset, length) = (parameters.offset, parameters.length);
    check_within(memory, offset, length)?;
    client.object(parameters.hDevice)?;
    let fixed = (parameters.flags & DMA_OFFSET_FIXED != 0).then_some(parameters.dmaOffset);
    let Detail::Virtual(range) = &mut client.object_mut(parameters.hDma)?.detail else {
        return Err(NV_ERR_NOT_SUPPORTED);
    };
    let length = length
        .checked_next_multiple_of(PAGE)
        .ok_or(NV_ERR_INVALID_LIMIT)?;
    parameters.dmaOffset = range.map(parameters.hMemory, length, fixed)?;
    Ok(())
}

/// NV_ESC_RM_UNMAP_MEMORY_DMA.
pub(super) fn unmap_dma(
    state: &mut State,
    caller: FileNumber,
    parameters: &NVOS47_PARAMETERS,
) -> Outcome {
    let client = state
        .clients
        .usable(parameters.hClient, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    client.object(parameters.hDevice)?;
    let Detail::Virtual(range) = &mut client.object_mut(parameters.hDma)?.detail else {
        return Err(NV_ERR_NOT_SUPPORTED);
    };
    range.unmap(parameters.hMemory, parameters.dmaOffset)
}
