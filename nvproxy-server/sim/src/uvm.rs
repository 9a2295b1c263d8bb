//! Unified memory: the ioctls on `nvidia-uvm`.
//!
//! A description becomes an address space by UVM_INITIALIZE. Its mappings are to be made at an offset that equals the
//! address, so its file is made as long as a program's address space, without taking memory for it. The driver refuses
//! mappings by another process than the initializing one unless the address space was made for several processes;
//! since it is always the server that initializes, here a file initialized without that flag refuses writable
//! mappings altogether (with EPERM; the driver's is EOPNOTSUPP).
//!
//! Mapping itself goes unnoticed. Where the driver asks whether a range is mapped, any that collides with none made by
//! ioctl passes; where it refuses to create a range over a mapped one, here it succeeds. Pages do not move: requests
//! about where they should be are accepted without effect.

mod ranges;

use crate::structs::uvm::*;
use nix::errno::Errno;
use nvproxy_abi::number::*;
use nvproxy_abi::status::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::address_space::{AddressSpace, RegisteredGpu};
use super::buffers::Buffers;
use super::memory::PAGE;
use super::names::{FileNumber, Handle, Outcome};
use super::objects::Detail;
use super::parameters::*;
use super::state::{Shared, State};

/// UVM_INIT_FLAGS_MULTI_PROCESS_SHARING_MODE and UVM_INIT_FLAGS_MASK (uvm_types.h).
const MULTI_PROCESS_SHARING: u64 = 0x2;
const INIT_FLAGS: u64 = 0x3;
/// UVM_MAX_GPUS of the arrays in parameters.
const MAXIMUM_GPUS: u64 = 256;
/// Bytes of address space that a program on x86-64 has.
const ADDRESS_SPACE: u64 = 1 << 47;

/// uvm_api_range_invalid and uvm_api_range_invalid_4k: whole pages, not none, and not at 0.
fn check_range(base: u64, length: u64) -> Outcome {
    let aligned = base.is_multiple_of(PAGE) && length.is_multiple_of(PAGE);
    if aligned && base != 0 && length != 0 && base.checked_add(length).is_some() {
        Ok(())
    } else {
        Err(NV_ERR_INVALID_ADDRESS)
    }
}

/// One request while it is answered.
struct Request<'a> {
    state: &'a mut State,
    file: FileNumber,
}

impl Request<'_> {
    /// Requests on a description that is no address space yet are NV_ERR_ILLEGAL_ACTION (uvm_api.h).
    fn space(&mut self) -> Outcome<&mut AddressSpace> {
        let file = self.state.files.get_mut(&self.file);
        file.and_then(|file| file.address_space.as_mut())
            .ok_or(NV_ERR_ILLEGAL_ACTION)
    }

    fn gpu(&self, uuid: NvProcessorUuid) -> Option<usize> {
        self.state.gpu_by_uuid(uuid.uuid)
    }

    /// An object that a program names by client and handle. It need not be the client's owner who does.
    fn detail(&self, client: Handle, object: Handle) -> Outcome<(&Detail, Option<usize>)> {
        let object = self.state.clients.object(client, object)?;
        Ok((&object.detail, object.gpu))
    }
}

/// Parameters of UVM, all of which have room for an NV_STATUS.
trait Answered: FromBytes + IntoBytes + Immutable {
    fn status(&mut self) -> &mut u32;
    fn answer(&mut self, request: &mut Request<'_>) -> Outcome;
}

macro_rules! answered {
    ($($parameters:ident: $answer:path;)*) => {
        $(impl Answered for $parameters {
            fn status(&mut self) -> &mut u32 {
                &mut self.rmStatus
            }

            fn answer(&mut self, request: &mut Request<'_>) -> Outcome {
                $answer(self, request)
            }
        })*
    };
}

answered! {
    UVM_INITIALIZE_PARAMS: initialize;
    UVM_MM_INITIALIZE_PARAMS: mm_initialize;
    UVM_PAGEABLE_MEM_ACCESS_PARAMS: pageable_mem_access;
    UVM_REGISTER_GPU_PARAMS: register_gpu;
    UVM_UNREGISTER_GPU_PARAMS: unregister_gpu;
    UVM_REGISTER_GPU_VASPACE_PARAMS: register_gpu_vaspace;
    UVM_UNREGISTER_GPU_VASPACE_PARAMS: unregister_gpu_vaspace;
    UVM_REGISTER_CHANNEL_PARAMS: register_channel;
    UVM_UNREGISTER_CHANNEL_PARAMS: unregister_channel;
    UVM_ENABLE_PEER_ACCESS_PARAMS: enable_peer_access;
    UVM_CREATE_RANGE_GROUP_PARAMS: ranges::create_range_group;
    UVM_DESTROY_RANGE_GROUP_PARAMS: ranges::destroy_range_group;
    UVM_SET_RANGE_GROUP_PARAMS: ranges::set_range_group;
    UVM_CREATE_EXTERNAL_RANGE_PARAMS: ranges::create_external_range;
    UVM_MAP_EXTERNAL_ALLOCATION_PARAMS: ranges::map_external_allocation;
    UVM_UNMAP_EXTERNAL_PARAMS: ranges::unmap_external;
    UVM_MAP_DYNAMIC_PARALLELISM_REGION_PARAMS: ranges::map_dynamic_parallelism_region;
    UVM_ALLOC_SEMAPHORE_POOL_PARAMS: ranges::alloc_semaphore_pool;
    UVM_FREE_PARAMS: ranges::free;
    UVM_VALIDATE_VA_RANGE_PARAMS: ranges::validate_va_range;
}

type Handler = fn(&mut Request<'_>, &mut Buffers<'_>) -> Result<(), Errno>;

static IOCTLS: &[(u32, Handler)] = &[
    (UVM_INITIALIZE, answer::<UVM_INITIALIZE_PARAMS>),
    (UVM_MM_INITIALIZE, answer::<UVM_MM_INITIALIZE_PARAMS>),
    (
        UVM_PAGEABLE_MEM_ACCESS,
        answer::<UVM_PAGEABLE_MEM_ACCESS_PARAMS>,
    ),
    (UVM_REGISTER_GPU, answer::<UVM_REGISTER_GPU_PARAMS>),
    (UVM_UNREGISTER_GPU, answer::<UVM_UNREGISTER_GPU_PARAMS>),
    (
        UVM_REGISTER_GPU_VASPACE,
        answer::<UVM_REGISTER_GPU_VASPACE_PARAMS>,
    ),
    (
        UVM_UNREGISTER_GPU_VASPACE,
        answer::<UVM_UNREGISTER_GPU_VASPACE_PARAMS>,
    ),
    (UVM_REGISTER_CHANNEL, answer::<UVM_REGISTER_CHANNEL_PARAMS>),
    (
        UVM_UNREGISTER_CHANNEL,
        answer::<UVM_UNREGISTER_CHANNEL_PARAMS>,
    ),
    (
        UVM_ENABLE_PEER_ACCESS,
        answer::<UVM_ENABLE_PEER_ACCESS_PARAMS>,
    ),
    (
        UVM_CREATE_RANGE_GROUP,
        answer::<UVM_CREATE_RANGE_GROUP_PARAMS>,
    ),
    (
        UVM_DESTROY_RANGE_GROUP,
        answer::<UVM_DESTROY_RANGE_GROUP_PARAMS>,
    ),
    (UVM_SET_RANGE_GROUP, answer::<UVM_SET_RANGE_GROUP_PARAMS>),
    (
        UVM_CREATE_EXTERNAL_RANGE,
        answer::<UVM_CREATE_EXTERNAL_RANGE_PARAMS>,
    ),
    (
        UVM_MAP_EXTERNAL_ALLOCATION,
        answer::<UVM_MAP_EXTERNAL_ALLOCATION_PARAMS>,
    ),
    (UVM_UNMAP_EXTERNAL, answer::<UVM_UNMAP_EXTERNAL_PARAMS>),
    (
        UVM_MAP_DYNAMIC_PARALLELISM_REGION,
        answer::<UVM_MAP_DYNAMIC_PARALLELISM_REGION_PARAMS>,
    ),
    (
        UVM_ALLOC_SEMAPHORE_POOL,
        answer::<UVM_ALLOC_SEMAPHORE_POOL_PARAMS>,
    ),
    (UVM_FREE, answer::<UVM_FREE_PARAMS>),
    (
        UVM_VALIDATE_VA_RANGE,
        answer::<UVM_VALIDATE_VA_RANGE_PARAMS>,
    ),
];

/// Answers one ioctl. Those without a model succeed on an address space and change nothing.
pub(super) fn issue(
    shared: &Shared,
    file: FileNumber,
    number: u32,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    if number == UVM_DEINITIALIZE {
        return Ok(());
    }
    if number == UVM_REGISTER_GPU {
        // The lock is not held meanwhile: other requests go on, as they do with the driver.
        std::thread::sleep(shared.configuration.register_gpu);
    }
    let mut state = shared.state();
    let row = state.abi.uvm(number).map_err(|_| Errno::EINVAL)?;
    let mut request = Request {
        state: &mut state,
        file,
    };
    if let Some((_, handler)) = IOCTLS.iter().find(|(known, _)| *known == number) {
        return handler(&mut request, buffers);
    }
    let status = request.space().map_or_else(|status| status, |_| NV_OK);
    let at = row
        .status_at
        .and_then(|at| buffers.argument().field(at.into(), 4))
        .ok_or(Errno::EFAULT)?;
    buffers.put(at, &status);
    Ok(())
}

fn answer<T: Answered>(request: &mut Request<'_>, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let at = buffers.argument();
    let mut parameters: T = buffers.get(at).ok_or(Errno::EFAULT)?;
    *parameters.status() = match parameters.answer(request) {
        Ok(()) => NV_OK,
        Err(status) => status,
    };
    buffers.put(at, &parameters);
    Ok(())
}

/// uvm_api_initialize: again with the same flags is no error.
fn initialize(parameters: &mut UVM_INITIALIZE_PARAMS, request: &mut Request<'_>) -> Outcome {
    let file = request
        .state
        .files
        .get_mut(&request.file)
        .ok_or(NV_ERR_INVALID_STATE)?;
    if let Some(space) = &file.address_space {
        return if space.flags == parameters.flags {
            Ok(())
        } else {
            Err(NV_ERR_INVALID_ARGUMENT)
        };
    }
    if parameters.flags & !INIT_FLAGS != 0 {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let prepared = if parameters.flags & MULTI_PROCESS_SHARING != 0 {
        file.backing.set_length(ADDRESS_SPACE)
    } else {
        file.backing.refuse_writable_mappings()
    };
    prepared.map_err(|_| NV_ERR_NO_MEMORY)?;
    file.address_space = Some(AddressSpace {
        flags: parameters.flags,
        ..AddressSpace::default()
    });
    Ok(())
}

/// uvm_api_mm_initialize. An address space for several processes needs no such descriptor, which is the answer that
/// CUDA gets and accepts.
fn mm_initialize(parameters: &mut UVM_MM_INITIALIZE_PARAMS, request: &mut Request<'_>) -> Outcome {
    let named = request.state.files.get_mut(&FileNumber(parameters.uvmFd));
    let space = named
        .and_then(|file| file.address_space.as_mut())
        .ok_or(NV_ERR_INVALID_ARGUMENT)?;
    if space.flags & MULTI_PROCESS_SHARING != 0 {
        return Err(NV_WARN_NOTHING_TO_DO);
    }
    if space.has_mm {
        return Err(NV_ERR_INVALID_STATE);
    }
    space.has_mm = true;
    Ok(())
}

/// GPUs do not reach pageable memory.
fn pageable_mem_access(
    parameters: &mut UVM_PAGEABLE_MEM_ACCESS_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    request.space()?;
    parameters.pageableMemAccess = 0;
    Ok(())
}

fn register_gpu(parameters: &mut UVM_REGISTER_GPU_PARAMS, request: &mut Request<'_>) -> Outcome {
    let gpu = request.gpu(parameters.gpu_uuid);
    let space = request.space()?;
    let gpu = gpu.ok_or(NV_ERR_GPU_UUID_NOT_FOUND)?;
    if space.gpus.contains_key(&gpu) {
        return Err(NV_ERR_INVALID_DEVICE);
    }
    space.gpus.insert(gpu, RegisteredGpu::default());
    (parameters.numaEnabled, parameters.numaNodeId) = (0, -1);
    Ok(())
}

fn unregister_gpu(
    parameters: &mut UVM_UNREGISTER_GPU_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let gpu = request.gpu(parameters.gpu_uuid);
    let space = request.space()?;
    let gpu = gpu
        .filter(|gpu| space.gpus.contains_key(gpu))
        .ok_or(NV_ERR_INVALID_DEVICE)?;
    space.untie(gpu);
    space.gpus.remove(&gpu);
    space
        .peers
        .retain(|(one, other)| *one != gpu && *other != gpu);
    Ok(())
}

/// uvm_va_space_register_gpu_va_space and nvGpuOpsDupAddressSpace.
fn register_gpu_vaspace(
    parameters: &mut UVM_REGISTER_GPU_VASPACE_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let gpu = request.gpu(parameters.gpuUuid);
    let space = request.space()?;
    let gpu = gpu
        .filter(|gpu| space.gpus.contains_key(gpu))
        .ok_or(NV_ERR_INVALID_DEVICE)?;
    let (detail, of) = request.detail(parameters.hClient, parameters.hVaSpace)?;
    let Detail::AddressSpace { externally_owned } = *detail else {
        return Err(NV_ERR_INVALID_OBJECT);
    };
    if of != Some(gpu) {
        return Err(NV_ERR_OTHER_DEVICE_FOUND);
    }
    if !externally_owned {
        return Err(NV_ERR_INVALID_FLAGS);
    }
    let registered = request
        .space()?
        .gpus
        .get_mut(&gpu)
        .ok_or(NV_ERR_INVALID_DEVICE)?;
    if registered.has_address_space {
        return Err(NV_ERR_INVALID_DEVICE);
    }
    registered.has_address_space = true;
    Ok(())
}

fn unregister_gpu_vaspace(
    parameters: &mut UVM_UNREGISTER_GPU_VASPACE_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let gpu = request.gpu(parameters.gpuUuid);
    let space = request.space()?;
    space.tied(gpu)?;
    gpu.into_iter().for_each(|gpu| space.untie(gpu));
    Ok(())
}

/// uvm_register_channel. What a compute channel needs mapped goes at the addresses that the program gives, once for all
/// channels that need the same (create_va_ranges, kernel-open/nvidia-uvm/uvm_user_channel.c).
fn register_channel(
    parameters: &mut UVM_REGISTER_CHANNEL_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let UVM_REGISTER_CHANNEL_PARAMS {
        gpuUuid,
        hClient,
        hChannel,
        base,
        length,
        ..
    } = *parameters;
    let gpu = request.gpu(gpuUuid);
    request.space()?.tied(gpu)?;
    let (detail, _) = request.detail(hClient, hChannel)?;
    if !matches!(detail, Detail::Channel { .. }) {
        return Err(NV_ERR_INVALID_OBJECT_HANDLE);
    }
    let channel = (hClient, hChannel);
    let space = request.space()?;
    if length != 0 && !space.tied(gpu)?.channels.contains(&channel) {
        check_range(base, length)?;
        space.add_channel(base, length, channel)?;
    }
    space.tied(gpu)?.channels.insert(channel);
    Ok(())
}

fn unregister_channel(
    parameters: &mut UVM_UNREGISTER_CHANNEL_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let channel = (parameters.hClient, parameters.hChannel);
    let space = request.space()?;
    let removed = space
        .gpus
        .values_mut()
        .any(|gpu| gpu.channels.remove(&channel));
    space.forget_channel(channel);
    if removed {
        Ok(())
    } else {
        Err(NV_ERR_INVALID_CHANNEL)
    }
}

/// uvm_api_enable_peer_access: two different GPUs, both registered, and not twice.
fn enable_peer_access(
    parameters: &mut UVM_ENABLE_PEER_ACCESS_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let pair = (
        request.gpu(parameters.gpuUuidA),
        request.gpu(parameters.gpuUuidB),
    );
    let space = request.space()?;
    let registered = |gpu: &usize| space.gpus.contains_key(gpu);
    let (Some(one), Some(other)) = (pair.0.filter(registered), pair.1.filter(registered)) else {
        return Err(NV_ERR_INVALID_DEVICE);
    };
    if one == other || !space.peers.insert((one.min(other), one.max(other))) {
        return Err(NV_ERR_INVALID_DEVICE);
    }
    Ok(())
}
