//! The older requests that allocate memory: NV_ESC_RM_ALLOC_MEMORY and NV_ESC_RM_VID_HEAP_CONTROL. The driver makes the same objects by
//! them as by NV_ESC_RM_ALLOC ([`super::allocate`]), and takes what is to be said of them from other fields.

use crate::structs::class::NV_MEMORY_ALLOCATION_PARAMS;
use crate::structs::frontend::{NVOS02_PARAMETERS, NVOS32_PARAMETERS};
use nvproxy_abi::number::*;
use nvproxy_abi::status::*;
use zerocopy::FromZeros;

use super::allocate::{Request, memory, pinned_memory, place, sized_memory, virtual_memory};
use super::classes::{Kind, class};
use super::mapping::show;
use super::memory::Place;
use super::names::{FileNumber, Outcome};
use super::objects::{Detail, Object};
use super::state::State;

/// NVOS02_PARAMETERS.flags (nvos.h): fields, and the values of them that matter.
const NVOS02_LOCATION: u32 = 0xf << 8;
const NVOS02_COHERENCY: u32 = 0xf << 12;
const NVOS02_COHERENCY_CACHED: u32 = 1 << 12;
const NVOS02_COHERENCY_WRITE_BACK: u32 = 5 << 12;
const NVOS02_ALLOC: u32 = 0x3 << 16;
const NVOS02_ALLOC_NONE: u32 = 1 << 16;
const NVOS02_MAPPING: u32 = 0x3 << 30;
const NVOS02_MAPPING_NO_MAP: u32 = 1 << 30;

/// NVOS32_PARAMETERS.function, and of its flags and attributes those by which it chooses a class (nvos.h).
const ALLOC_SIZE: u32 = 2;
const MEMORY_HANDLE_PROVIDED: u32 = 0x4000;
const VIRTUAL: u32 = 0x8_0000;
const LOCATION: u32 = 0x3 << 25;

/// NV_ESC_RM_ALLOC_MEMORY, with `target` the number of the description to be mapped (RmIoctl and RmAllocOsDescriptor,
/// escape.c). Says whether it could be made ready to be mapped; if not, the object stays all the same.
pub(super) fn allocate_memory(
    state: &mut State,
    caller: FileNumber,
    parameters: &mut NVOS02_PARAMETERS,
    target: i32,
    from_task: bool,
) -> Outcome<bool> {
    let NVOS02_PARAMETERS {
        hRoot,
        hObjectParent,
        hObjectNew,
        hClass,
        flags,
        limit,
        ..
    } = *parameters;
    let request = Request {
        client: hRoot,
        parent: hObjectParent,
        object: hObjectNew,
        class: hClass,
        parameters: None,
        from_task,
    };
    if hClass == NV01_MEMORY_LOCAL_USER {
        return tell_memory_size(state, caller, request, &mut parameters.limit);
    }
    let class = class(hClass).ok_or(NV_ERR_INVALID_CLASS)?;
    let pinned = hClass == NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
    if pinned {
        let coherency = flags & NVOS02_COHERENCY;
        let coherent = matches!(
            coherency,
            0 | NVOS02_COHERENCY_CACHED | NVOS02_COHERENCY_WRITE_BACK
        );
        if flags & NVOS02_LOCATION != 0
            || flags & NVOS02_MAPPING != NVOS02_MAPPING_NO_MAP
            || !coherent
        {
            return Err(NV_ERR_INVALID_FLAGS);
        }
    } else if hClass != NV01_MEMORY_SYSTEM {
        return Err(NV_ERR_INVALID_CLASS);
    }
    let length = limit.checked_add(1).ok_or(NV_ERR_INVALID_LIMIT)?;
    let detail = if pinned {
        pinned_memory(state, from_task, parameters.pMemory, limit)?
    } else {
        Detail::Memory(memory(state, Place::System, length)?)
    };
    let (handle, gpu) = place(state, caller, class, request)?;
    let object = Object::new(hClass, class.kind, hObjectParent, gpu, detail);
    let mut is_ready = true;
    if let Some(memory) = object.memory().filter(|_| !pinned).cloned() {
        let mapped = flags & NVOS02_ALLOC != NVOS02_ALLOC_NONE
            && flags & NVOS02_MAPPING != NVOS02_MAPPING_NO_MAP;
        is_ready = !mapped || show(state, &memory, gpu, 0, length, target).is_ok();
        parameters.pMemory = memory.address();
    }
    state
        .clients
        .usable(hRoot, caller, NV_ERR_INVALID_OBJECT_HANDLE)?
        .objects
        .insert(handle, object);
    // A handle that the driver has chosen is not told.
    Ok(is_ready)
}

/// What NV_ESC_RM_ALLOC_MEMORY does for who is no administrator: an object without memory (_rmAllocMemoryLocalUser).
fn tell_memory_size(
    state: &mut State,
    caller: FileNumber,
    request: Request,
    limit: &mut u64,
) -> Outcome<bool> {
    let class = class(request.class).ok_or(NV_ERR_INVALID_CLASS)?;
    let (handle, gpu) = place(state, caller, class, request)?;
    let memory = gpu.and_then(|instance| state.gpus.get(instance));
    *limit = memory.ok_or(NV_ERR_INVALID_STATE)?.memory.size() - 1;
    let object = Object::new(
        request.class,
        Kind::Leaf,
        request.parent,
        gpu,
        Detail::Nothing,
    );
    state
        .clients
        .usable(request.client, caller, NV_ERR_INVALID_OBJECT_HANDLE)?
        .objects
        .insert(handle, object);
    Ok(true)
}

/// NV_ESC_RM_VID_HEAP_CONTROL, of NVOS32_FUNCTION_ALLOC_SIZE (_nvos32FunctionAllocSize and _rmVidHeapControlAllocCommon,
/// src/nvidia/interface/deprecated/rmapi_deprecated_vidheapctrl.c).
pub(super) fn allocate_by_flags(
    state: &mut State,
    caller: FileNumber,
    parameters: &mut NVOS32_PARAMETERS,
) -> Outcome {
    if parameters.function != ALLOC_SIZE {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let mut wanted = NV_MEMORY_ALLOCATION_PARAMS::new_zeroed();
    wanted.flags = parameters.flags;
    (wanted.attr, wanted.attr2) = (parameters.attr, parameters.attr2);
    (wanted.size, wanted.alignment) = (parameters.size, parameters.alignment);
    wanted.offset = parameters.offset;
    let id = if wanted.flags & VIRTUAL != 0 {
        NV50_MEMORY_VIRTUAL
    } else if wanted.attr & LOCATION == 0 {
        NV01_MEMORY_LOCAL_USER
    } else {
        NV01_MEMORY_SYSTEM
    };
    let is_chosen = wanted.flags & MEMORY_HANDLE_PROVIDED != 0;
    let request = Request {
        client: parameters.hRoot,
        parent: parameters.hObjectParent,
        object: if is_chosen { parameters.hMemory } else { 0 },
        class: id,
        parameters: None,
        from_task: false,
    };
    let class = class(id).ok_or(NV_ERR_INVALID_CLASS)?;
    let (handle, gpu) = place(state, caller, class, request)?;
    let detail = match class.kind {
        Kind::VirtualMemory => virtual_memory(&mut wanted)?,
        kind => sized_memory(state, kind, gpu, &mut wanted)?,
    };
    let object = Object::new(id, class.kind, request.parent, gpu, detail);
    state
        .clients
        .usable(request.client, caller, NV_ERR_INVALID_OBJECT_HANDLE)?
        .objects
        .insert(handle, object);
    parameters.hMemory = handle;
    (parameters.attr, parameters.attr2) = (wanted.attr, wanted.attr2);
    (parameters.size, parameters.limit) = (wanted.size, wanted.limit);
    (parameters.offset, parameters.format) = (wanted.offset, wanted.format);
    Ok(())
}
