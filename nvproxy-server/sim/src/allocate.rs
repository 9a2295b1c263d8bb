//! Allocation, duplication and freeing of objects.
//!
//! The checks are made in the driver's order: class and parameters (serverAllocApiCopyIn), client, parent, how many and
//! under what (serverAllocResourceUnderLock, both in src/nvidia/src/kernel/rmapi/), handle, and then what the class
//! itself demands.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::structs::class::*;
use crate::structs::frontend::{NVOS00_PARAMETERS, NVOS55_PARAMETERS};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::status::*;
use zerocopy::{Immutable, IntoBytes};

use super::buffers::{Buffers, Part};
use super::classes::{Class, Kind, Parameters, class};
use super::memory::{Memory, PAGE, Place};
use super::names::{FileNumber, Handle, Outcome};
use super::objects::{Detail, Object};
use super::state::State;
use super::virtual_memory::VirtualMemory;
use super::{notifications, pages, partitions};

/// Microseconds that a channel group is scheduled for unless it asks for others.
const TIMESLICE: u64 = 2_048;
/// Bytes of what GPUs share with the program without being asked (sizes of the driver's own allocations).
const USER_SHARED_DATA: u64 = 4 << 10;
const USERMODE_REGISTERS: u64 = 64 << 10;

/// More instances than a driver can have (NV_MAX_DEVICES).
const NV_MAX_DEVICES: u32 = 32;
/// NV_VASPACE_ALLOCATION_FLAGS_IS_EXTERNALLY_OWNED (nvos.h).
const EXTERNALLY_OWNED: u32 = 1 << 3;

/// NVOS32_ALLOC_FLAGS_FIXED_ADDRESS_ALLOCATE, and _ALIGNMENT_HINT and _ALIGNMENT_FORCE (nvos.h).
const FIXED_ADDRESS: u32 = 0x10;
const ALIGNED: u32 = 0x80 | 0x100;

/// Bytes of virtual addresses that a GPU has.
const ADDRESS_SPACE: u64 = 1 << 57;

/// What an allocation is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub client: Handle,
    pub parent: Handle,
    /// The new object's handle; 0 for one that the driver chooses.
    pub object: Handle,
    pub class: u32,
    pub parameters: Option<Part>,
    /// It was issued from the task's own address space.
    pub from_task: bool,
}

/// Allocates a client or an object and returns its handle.
pub(super) fn allocate(
    state: &mut State,
    caller: FileNumber,
    request: Request,
    buffers: &mut Buffers<'_>,
) -> Outcome<Handle> {
    if matches!(
        request.class,
        NV01_ROOT | NV01_ROOT_NON_PRIV | NV01_ROOT_CLIENT
    ) {
        let handle = state.clients.create(caller, request.client)?;
        if let Some(parameters) = request.parameters {
            buffers.put(parameters, &handle);
        }
        return Ok(handle);
    }
    let request = event_in_its_place(request, buffers)?;
    // A class that other GPUs have and this one lacks gets a different answer than one that no GPU has.
    let known = state.abi.class(request.class).is_ok();
    let class = class(request.class).ok_or(if known {
        NV_ERR_NOT_SUPPORTED
    } else {
        NV_ERR_INVALID_CLASS
    })?;
    if class.parameters == Parameters::Required && request.parameters.is_none() {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let (handle, gpu) = place(state, caller, class, request)?;
    let (gpu, detail) = construct(state, class, request, gpu, buffers)?;
    let client = state
        .clients
        .usable(request.client, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    client.objects.insert(
        handle,
        Object::new(request.class, class.kind, request.parent, gpu, detail),
    );
    Ok(handle)
}

/// For NV01_EVENT, what its parameters name (rmapiFixupAllocParams, rmapi_specific.c).
fn event_in_its_place(mut request: Request, buffers: &Buffers<'_>) -> Outcome<Request> {
    if request.class == NV01_EVENT {
        request.class = get::<NV0005_ALLOC_PARAMETERS>(buffers, request.parameters)?.hClass;
        let is_event = class(request.class).is_some_and(|class| class.kind == Kind::Event);
        return is_event.then_some(request).ok_or(NV_ERR_INVALID_CLASS);
    }
    Ok(request)
}

/// Where the new object goes: its handle, and the GPU that it inherits.
pub(super) fn place(
    state: &mut State,
    caller: FileNumber,
    class: &Class,
    request: Request,
) -> Outcome<(Handle, Option<usize>)> {
    let client = state
        .clients
        .usable(request.client, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    if request.object == request.client {
        return Err(NV_ERR_INVALID_OBJECT_PARENT);
    }
    let parent = client.object(request.parent)?;
    let (kind, gpu) = (parent.kind, parent.gpu);
    if class.single
        && client
            .children(request.parent)
            .any(|(_, child)| child.class == class.id)
    {
        return Err(NV_ERR_STATE_IN_USE);
    }
    if !class.allows(kind) {
        return Err(NV_ERR_INVALID_OBJECT_PARENT);
    }
    let handle = client.new_handle(request.object)?;
    Ok((handle, gpu))
}

/// What the class itself demands, and what is kept of the object: its GPU and the rest.
fn construct(
    state: &mut State,
    class: &Class,
    request: Request,
    gpu: Option<usize>,
    buffers: &mut Buffers<'_>,
) -> Outcome<(Option<usize>, Detail)> {
    let parameters = request.parameters;
    let detail = match class.kind {
        Kind::Device => {
            // Without parameters it is the first GPU, whatever this client has attached.
            let instance = match parameters {
                Some(_) => get::<NV0080_ALLOC_PARAMETERS>(buffers, parameters)?.deviceId,
                None => 0,
            };
            return Ok((Some(device(state, instance)?), Detail::Nothing));
        }
        Kind::Subdevice => subdevice(state, request, buffers)?,
        Kind::AddressSpace => {
            let mut wanted: NV_VASPACE_ALLOCATION_PARAMETERS = get(buffers, parameters)?;
            if wanted.vaSize == 0 {
                wanted.vaSize = ADDRESS_SPACE.saturating_sub(wanted.vaBase);
                put(buffers, parameters, &wanted);
            }
            Detail::AddressSpace {
                externally_owned: wanted.flags & EXTERNALLY_OWNED != 0,
            }
        }
        Kind::SystemMemory if class.id == RM_USER_SHARED_DATA => {
            Detail::Memory(memory(state, Place::System, USER_SHARED_DATA)?)
        }
        Kind::SystemMemory | Kind::VideoMemory => {
            let mut wanted = get(buffers, parameters)?;
            let memory = sized_memory(state, class.kind, gpu, &mut wanted)?;
            put(buffers, parameters, &wanted);
            memory
        }
        Kind::RegisterMemory => {
            // NV_HOPPER_USERMODE_A_PARAMS (class/clc661.h) begins with bBar1Mapping.
            let first = parameters.and_then(|part| buffers.get::<u8>(part));
            let place = Place::Registers {
                through_memory: first.is_some_and(|first| first != 0),
            };
            Detail::Memory(memory(state, place, USERMODE_REGISTERS)?)
        }
        Kind::PinnedMemory => {
            let NV_OS_DESC_MEMORY_ALLOCATION_PARAMS {
                descriptor, limit, ..
            } = get(buffers, parameters)?;
            pinned_memory(state, request.from_task, descriptor, limit)?
        }
        Kind::VirtualMemory => {
            let mut wanted = get(buffers, parameters)?;
            let memory = virtual_memory(&mut wanted)?;
            put(buffers, parameters, &wanted);
            memory
        }
        Kind::Channel => Detail::Channel {
            id: state.new_channel(),
        },
        Kind::Event => {
            let mut wanted = get(buffers, parameters)?;
            let event = notifications::construct_event(
                &state.clients,
                &state.os_events,
                request.client,
                request.parent,
                &mut wanted,
            )?;
            put(buffers, parameters, &wanted);
            Detail::Event(event)
        }
        Kind::ChannelGroup => Detail::ChannelGroup {
            timeslice: TIMESLICE,
        },
        Kind::Instance | Kind::ComputeInstance => subscription(state, request, gpu, buffers)?,
        Kind::Session => {
            let NVC639_ALLOCATION_PARAMETERS { capDescriptor } = get(buffers, parameters)?;
            let number = match class.id {
                AMPERE_SMC_CONFIG_SESSION => partitions::CONFIGURE,
                _ => partitions::MONITOR,
            };
            partitions::expect(capDescriptor, Some(number))?;
            Detail::Nothing
        }
        Kind::Client | Kind::ContextShare | Kind::Engine | Kind::Leaf => Detail::Nothing,
    };
    Ok((gpu, detail))
}

/// A subscription to a part of a GPU, or to a part of the one that its parent is for.
fn subscription(
    state: &State,
    request: Request,
    gpu: Option<usize>,
    buffers: &Buffers<'_>,
) -> Outcome<Detail> {
    let gpu = gpu.and_then(|instance| state.gpus.get(instance));
    let minor = gpu.ok_or(NV_ERR_INVALID_STATE)?.minor;
    if request.class == AMPERE_SMC_PARTITION_REF {
        let wanted: NVC637_ALLOCATION_PARAMETERS = get(buffers, request.parameters)?;
        partitions::instance(minor, wanted.swizzId, wanted.capDescriptor)?;
        return Ok(Detail::Instance(wanted.swizzId));
    }
    let client = state.clients.existing(request.client)?;
    let Detail::Instance(within) = client.object(request.parent)?.detail else {
        return Err(NV_ERR_INVALID_STATE);
    };
    let wanted: NVC638_ALLOCATION_PARAMETERS = get(buffers, request.parameters)?;
    partitions::compute(minor, within, wanted.execPartitionId, wanted.capDescriptor)?;
    Ok(Detail::Nothing)
}

/// Reads the parameters of a class. There are none where they are optional and were left out, and for those classes
/// whose constructors read them that is NV_ERR_INVALID_ARGUMENT.
fn get<T: zerocopy::FromBytes>(buffers: &Buffers<'_>, parameters: Option<Part>) -> Outcome<T> {
    parameters
        .and_then(|part| buffers.get(part))
        .ok_or(NV_ERR_INVALID_ARGUMENT)
}

/// Writes parameters that were read.
fn put<T: IntoBytes + Immutable>(buffers: &mut Buffers<'_>, parameters: Option<Part>, written: &T) {
    if let Some(parameters) = parameters {
        buffers.put(parameters, written);
    }
}

/// deviceConstruct_IMPL and resservResourceFactory. A process has access to a GPU of which it has a description open.
fn device(state: &State, instance: u32) -> Outcome<usize> {
    if instance >= NV_MAX_DEVICES {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let instance = instance as usize;
    let gpu = state.gpus.get(instance).ok_or(NV_ERR_INVALID_STATE)?;
    let accessible = state
        .files
        .values()
        .any(|file| file.node == Node::Gpu(gpu.minor));
    if accessible {
        Ok(instance)
    } else {
        Err(NV_ERR_INSUFFICIENT_PERMISSIONS)
    }
}

/// subdeviceConstruct_IMPL: a device is one GPU, which has the instance 0 in it.
fn subdevice(state: &State, request: Request, buffers: &Buffers<'_>) -> Outcome<Detail> {
    let parameters: Option<NV2080_ALLOC_PARAMETERS> =
        request.parameters.and_then(|part| buffers.get(part));
    if parameters.is_some_and(|parameters| parameters.subDeviceId != 0) {
        return Err(NV_ERR_INVALID_CLASS);
    }
    let client = state.clients.existing(request.client)?;
    if client
        .children(request.parent)
        .any(|(_, child)| child.kind == Kind::Subdevice)
    {
        return Err(NV_ERR_INSUFFICIENT_RESOURCES);
    }
    Ok(Detail::Subdevice {
        repeats: BTreeMap::new(),
    })
}

pub(super) fn memory(state: &mut State, place: Place, length: u64) -> Outcome<Arc<Memory>> {
    let length = length
        .checked_next_multiple_of(PAGE)
        .ok_or(NV_ERR_NO_MEMORY)?;
    memory_that_takes(state, place, length, length)
}

/// Memory of `length` bytes, for which as many as `taken` are no longer free.
fn memory_that_takes(
    state: &mut State,
    place: Place,
    length: u64,
    taken: u64,
) -> Outcome<Arc<Memory>> {
    // Only lengths that there is room for reach the allocator of addresses.
    let address = state.new_address(length.min(1 << 40));
    Memory::allocate(place, length, taken, address).ok_or(NV_ERR_NO_MEMORY)
}

pub(super) fn sized_memory(
    state: &mut State,
    kind: Kind,
    gpu: Option<usize>,
    wanted: &mut NV_MEMORY_ALLOCATION_PARAMS,
) -> Outcome<Detail> {
    if wanted.size == 0 {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let place = match kind {
        Kind::VideoMemory => {
            let gpu = gpu
                .and_then(|instance| state.gpus.get(instance))
                .ok_or(NV_ERR_INVALID_STATE)?;
            Place::Video(Arc::clone(&gpu.memory))
        }
        _ => Place::System,
    };
    let (alignment, aligned) = (wanted.alignment, wanted.flags & ALIGNED != 0);
    let page = pages::choose(kind, wanted);
    let size = wanted.size.checked_next_multiple_of(page);
    let size = size.ok_or(NV_ERR_NO_MEMORY)?;
    let taken = match kind {
        // The physical allocator gives out big pages, and at a fixed address whatever the alignment spans
        // (_vidmemPmaAllocate, mem_mgr/video_mem.c).
        Kind::VideoMemory => {
            let span = match aligned && wanted.flags & FIXED_ADDRESS != 0 {
                true if !alignment.is_power_of_two() => return Err(NV_ERR_INVALID_ARGUMENT),
                true => alignment,
                false => 0,
            };
            size.checked_next_multiple_of(span.max(pages::BIG_PAGE))
        }
        _ => Some(size),
    };
    let memory = memory_that_takes(state, place, size, taken.ok_or(NV_ERR_NO_MEMORY)?)?;
    wanted.size = memory.length();
    wanted.limit = memory.length() - 1;
    if kind == Kind::VideoMemory {
        wanted.offset = memory.address();
    }
    Ok(Detail::Memory(memory))
}

pub(super) fn virtual_memory(wanted: &mut NV_MEMORY_ALLOCATION_PARAMS) -> Outcome<Detail> {
    /// Where a range starts that may start anywhere.
    const LOWEST: u64 = 1 << 26;
    if wanted.size == 0 {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let base = if wanted.offset == 0 {
        LOWEST
    } else {
        wanted.offset
    };
    let last = base.checked_add(wanted.size - 1);
    wanted.offset = base;
    wanted.limit = wanted.size - 1;
    wanted.rangeLo = base;
    wanted.rangeHi = last.ok_or(NV_ERR_INVALID_ARGUMENT)?;
    pages::choose_for_range(wanted);
    Ok(Detail::Virtual(VirtualMemory::new(base, wanted.size)))
}

/// Pages of the task. Issued by the server, the driver would look for them in the server's address space.
/// (RmCreateOsDescriptor, escape.c)
pub(super) fn pinned_memory(
    state: &mut State,
    from_task: bool,
    address: u64,
    limit: u64,
) -> Outcome<Detail> {
    if !address.is_multiple_of(PAGE) {
        return Err(NV_ERR_NOT_SUPPORTED);
    }
    let length = limit.checked_add(1).ok_or(NV_ERR_INVALID_LIMIT)?;
    if !from_task {
        return Err(NV_ERR_INVALID_ADDRESS);
    }
    Ok(Detail::Memory(memory(state, Place::Pinned, length)?))
}

/// NV_ESC_RM_DUP_OBJECT (serverCopyResource, rs_server.c).
pub(super) fn duplicate(
    state: &mut State,
    caller: FileNumber,
    parameters: &mut NVOS55_PARAMETERS,
) -> Outcome {
    let NVOS55_PARAMETERS {
        hClient,
        hParent,
        hObject,
        hClientSrc,
        hObjectSrc,
        ..
    } = *parameters;
    let source = state
        .clients
        .get(hClientSrc)
        .ok_or(NV_ERR_INVALID_OBJECT_HANDLE)?;
    let source = source.object(hObjectSrc).map(copy);
    state
        .clients
        .usable(hClient, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    parameters.hObject = adopt(state, caller, hClient, hParent, hObject, source?)?;
    Ok(())
}

/// A copy of an object that belongs nowhere; `None` if it cannot be copied.
pub(super) fn copy(object: &Object) -> Option<Object> {
    let copied = || {
        Object::new(
            object.class,
            object.kind,
            0,
            object.gpu,
            object.detail.copied(),
        )
    };
    object.kind.can_be_copied().then(copied)
}

/// Puts a copy of an object under `parent`, with the handle `requested` unless that is 0, and returns its handle.
pub(super) fn adopt(
    state: &mut State,
    caller: FileNumber,
    client: Handle,
    parent: Handle,
    requested: Handle,
    copy: Option<Object>,
) -> Outcome<Handle> {
    let client = state
        .clients
        .usable(client, caller, NV_ERR_INVALID_OBJECT_HANDLE)?;
    let parent_object = client.object(parent)?;
    let mut object = copy.ok_or(NV_ERR_INVALID_ARGUMENT)?;
    if !class(object.class).is_some_and(|class| class.allows(parent_object.kind)) {
        return Err(NV_ERR_INVALID_OBJECT_PARENT);
    }
    let handle = client.new_handle(requested)?;
    object.parent = parent;
    client.objects.insert(handle, object);
    Ok(handle)
}

/// NV_ESC_RM_FREE.
pub(super) fn free(
    state: &mut State,
    caller: FileNumber,
    parameters: &NVOS00_PARAMETERS,
) -> Outcome {
    state
        .clients
        .free(parameters.hRoot, caller, parameters.hObjectOld)?;
    if parameters.hObjectOld == parameters.hRoot {
        state.os_events.free_of_client(parameters.hRoot);
    }
    Ok(())
}
