//! Ranges of an address space that are made by ioctl, what GPUs map there, and groups of ranges.

use std::sync::Arc;

use crate::structs::uvm::*;
use nvproxy_abi::status::*;

use super::super::address_space::{External, RangeKind, unmap};
use super::super::memory::Memory;
use super::super::names::Outcome;
use super::super::objects::Detail;
use super::super::parameters::*;
use super::{MAXIMUM_GPUS, Request, check_range};

pub(super) fn create_range_group(
    parameters: &mut UVM_CREATE_RANGE_GROUP_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let space = request.space()?;
    space.groups_made = space.groups_made.wrapping_add(1);
    space.groups.insert(space.groups_made);
    parameters.rangeGroupId = space.groups_made;
    Ok(())
}

pub(super) fn destroy_range_group(
    parameters: &mut UVM_DESTROY_RANGE_GROUP_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let existed = request.space()?.groups.remove(&parameters.rangeGroupId);
    if existed {
        Ok(())
    } else {
        Err(NV_ERR_OBJECT_NOT_FOUND)
    }
}

/// uvm_api_set_range_group; 0 stands for no group.
pub(super) fn set_range_group(
    parameters: &mut UVM_SET_RANGE_GROUP_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let space = request.space()?;
    check_range(parameters.requestedBase, parameters.length)?;
    if parameters.rangeGroupId != 0 && !space.groups.contains(&parameters.rangeGroupId) {
        return Err(NV_ERR_OBJECT_NOT_FOUND);
    }
    if space.collides(parameters.requestedBase, parameters.length) {
        return Err(NV_ERR_INVALID_ADDRESS);
    }
    Ok(())
}

pub(super) fn create_external_range(
    parameters: &mut UVM_CREATE_EXTERNAL_RANGE_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let space = request.space()?;
    check_range(parameters.base, parameters.length)?;
    space.add(
        parameters.base,
        parameters.length,
        RangeKind::External(Vec::new()),
    )
}

/// uvm_map_external_allocation: for each GPU that is named, in place of what it had mapped there. If one fails, what
/// the others have just mapped goes.
pub(super) fn map_external_allocation(
    parameters: &mut UVM_MAP_EXTERNAL_ALLOCATION_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let (base, length) = (parameters.base, parameters.length);
    request.space()?;
    check_range(base, length)?;
    if parameters.gpuAttributesCount == 0 || parameters.gpuAttributesCount > MAXIMUM_GPUS {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    request.space()?.external(base, length)?;
    let mut mapped = Vec::new();
    let outcome = parameters
        .perGpuAttributes
        .iter()
        .take(parameters.gpuAttributesCount as usize)
        .try_for_each(|attributes| {
            let gpu = request.gpu(attributes.gpuUuid);
            request.space()?.tied(gpu)?;
            let gpu = gpu.ok_or(NV_ERR_INVALID_DEVICE)?;
            unmap(request.space()?.external(base, length)?, gpu, base, length);
            let memory = external_memory(request, parameters)?;
            request.space()?.external(base, length)?.push(External {
                base,
                length,
                gpu,
                _memory: memory,
            });
            mapped.push(gpu);
            Ok(())
        });
    if outcome.is_err() {
        let external = request.space()?.external(base, length)?;
        for gpu in mapped {
            unmap(external, gpu, base, length);
        }
    }
    outcome
}

/// The allocation that is to be mapped, of which the range is (uvm_va_range_map_rm_allocation, dupMemory).
fn external_memory(
    request: &Request<'_>,
    parameters: &UVM_MAP_EXTERNAL_ALLOCATION_PARAMS,
) -> Outcome<Arc<Memory>> {
    let (detail, _) = request.detail(parameters.hClient, parameters.hMemory)?;
    let Detail::Memory(memory) = detail else {
        return Err(NV_ERR_INVALID_OBJECT);
    };
    let end = parameters.offset.checked_add(parameters.length);
    if end.is_none_or(|end| end > memory.length()) {
        return Err(NV_ERR_INVALID_OFFSET);
    }
    Ok(Arc::clone(memory))
}

pub(super) fn unmap_external(
    parameters: &mut UVM_UNMAP_EXTERNAL_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let (base, length) = (parameters.base, parameters.length);
    let gpu = request.gpu(parameters.gpuUuid);
    let space = request.space()?;
    check_range(base, length)?;
    space.external(base, length)?;
    let gpu = gpu
        .filter(|gpu| space.gpus.contains_key(gpu))
        .ok_or(NV_ERR_INVALID_DEVICE)?;
    unmap(space.external(base, length)?, gpu, base, length);
    Ok(())
}

/// uvm_map_sked_reflected_range.
pub(super) fn map_dynamic_parallelism_region(
    parameters: &mut UVM_MAP_DYNAMIC_PARALLELISM_REGION_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let (base, length) = (parameters.base, parameters.length);
    let gpu = request.gpu(parameters.gpuUuid);
    let space = request.space()?;
    check_range(base, length)?;
    space.tied(gpu)?;
    if !length.is_power_of_two() || !base.is_multiple_of(length) {
        return Err(NV_ERR_INVALID_ADDRESS);
    }
    space.add(base, length, RangeKind::DynamicParallelism)
}

pub(super) fn alloc_semaphore_pool(
    parameters: &mut UVM_ALLOC_SEMAPHORE_POOL_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let space = request.space()?;
    check_range(parameters.base, parameters.length)?;
    if parameters.gpuAttributesCount > MAXIMUM_GPUS {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    space.add(parameters.base, parameters.length, RangeKind::SemaphorePool)
}

/// uvm_free: a whole range, and not one that belongs to a channel.
pub(super) fn free(parameters: &mut UVM_FREE_PARAMS, request: &mut Request<'_>) -> Outcome {
    let space = request.space()?;
    check_range(parameters.base, parameters.length)?;
    let range = space
        .ranges
        .get(&parameters.base)
        .filter(|range| range.length == parameters.length);
    match range.ok_or(NV_ERR_INVALID_ADDRESS)?.kind {
        RangeKind::Channels(_) => return Err(NV_ERR_INVALID_ADDRESS),
        RangeKind::External(_) | RangeKind::SemaphorePool | RangeKind::DynamicParallelism => {}
    }
    space.ranges.remove(&parameters.base);
    Ok(())
}

/// uvm_api_validate_va_range: a whole range, be it made by ioctl or, as must be assumed here, by mapping.
pub(super) fn validate_va_range(
    parameters: &mut UVM_VALIDATE_VA_RANGE_PARAMS,
    request: &mut Request<'_>,
) -> Outcome {
    let UVM_VALIDATE_VA_RANGE_PARAMS { base, length, .. } = *parameters;
    let space = request.space()?;
    let is_range = space
        .ranges
        .get(&base)
        .is_some_and(|range| range.length == length);
    let may_be_mapped = !space.collides(base, length) && check_range(base, length).is_ok();
    if is_range || may_be_mapped {
        Ok(())
    } else {
        Err(NV_ERR_INVALID_ADDRESS)
    }
}
