//! Memory of a GPU's as a dma-buf (NV_ESC_EXPORT_TO_DMABUF_FD).
//!
//! The driver asks neither whose client is named nor who asks: it copies what the handles name as a client of its own
//! (`nv_dma_buf_create`, kernel-open/nvidia/nv-dmabuf.c; `RmDmabufVerifyMemHandle`, src/nvidia/arch/nvalloc/unix/src/osapi.c).

use std::os::fd::OwnedFd;

use crate::structs::frontend::nv_ioctl_export_to_dma_buf_fd_t;
use nix::unistd::ftruncate;
use nvproxy_abi::node::Node;
use nvproxy_abi::status::*;

use super::backing::memory_file;
use super::memory::{PAGE, Place};
use super::names::{Handle, Outcome};
use super::objects::{ANOTHERS, ANOTHERS_MEMORY};
use super::state::State;

/// NV_DMABUF_EXPORT_MAX_HANDLES (nv-ioctl.h).
const MOST: u32 = 128;
/// NV_DMABUF_EXPORT_MAPPING_TYPE_FORCE_PCIE.
const FORCE_PCIE: u8 = 1;

/// The memory that the request names, of the GPU with this node.
pub(super) fn export(
    state: &State,
    node: Node,
    parameters: &nv_ioctl_export_to_dma_buf_fd_t,
) -> Outcome<OwnedFd> {
    let (total, number) = (parameters.totalObjects, parameters.numObjects);
    if parameters.totalSize == 0 || number == 0 || number > MOST || number > total {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    match parameters.fd {
        -1 => {}
        // None of this driver's has a number.
        0.. => return Err(NV_ERR_OPERATING_SYSTEM),
        _ => return Err(NV_ERR_INVALID_ARGUMENT),
    }
    match parameters.mappingType {
        0 => {}
        // Only where the processor reaches a GPU's memory without the bus.
        FORCE_PCIE => return Err(NV_ERR_NOT_SUPPORTED),
        _ => return Err(NV_ERR_INVALID_ARGUMENT),
    }
    if parameters.index > total - number {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let mut rest = parameters.totalSize;
    let ranges = parameters.offsets.iter().zip(&parameters.sizes);
    let named = parameters.handles.iter().zip(ranges);
    for (handle, (offset, size)) in named.take(number as usize) {
        rest = rest.checked_sub(*size).ok_or(NV_ERR_INVALID_ARGUMENT)?;
        let length = length_of(state, node, (parameters.hClient, *handle))?;
        let is_whole = offset.is_multiple_of(PAGE) && size.is_multiple_of(PAGE);
        let end = offset.checked_add(*size);
        if !is_whole || *size == 0 || end.is_none_or(|end| end > length) {
            return Err(NV_ERR_INVALID_ARGUMENT);
        }
    }
    if number == total && rest != 0 {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    if parameters.bAllowMmap != 0 {
        return Err(NV_ERR_NOT_SUPPORTED);
    }
    let made = memory_file("dma-buf").map_err(|_| NV_ERR_OPERATING_SYSTEM)?;
    let size = i64::try_from(parameters.totalSize).map_err(|_| NV_ERR_OPERATING_SYSTEM)?;
    ftruncate(&made, size).map_err(|_| NV_ERR_OPERATING_SYSTEM)?;
    Ok(made)
}

/// How much memory an object of a client has, whoever the client belongs to, of the GPU with this node.
fn length_of(state: &State, node: Node, (client, object): (Handle, Handle)) -> Outcome<u64> {
    let (anothers, length) = ANOTHERS_MEMORY;
    if (client, object) == (ANOTHERS, anothers) && node == Node::Gpu(0) {
        return Ok(length);
    }
    let owner = state.clients.get(client);
    let object = match owner {
        Some(owner) => owner.object(object)?,
        None if client == ANOTHERS => return Err(NV_ERR_OBJECT_NOT_FOUND),
        None => return Err(NV_ERR_INVALID_OBJECT_HANDLE),
    };
    let memory = object.memory().ok_or(NV_ERR_INVALID_OBJECT)?;
    let gpu = object.gpu.and_then(|instance| state.gpus.get(instance));
    if gpu.is_none_or(|gpu| node != Node::Gpu(gpu.minor)) {
        return Err(NV_ERR_INVALID_OBJECT_PARENT);
    }
    match memory.place() {
        Place::Video(_) => Ok(memory.length()),
        _ => Err(NV_ERR_INVALID_ARGUMENT),
    }
}
