//! The ioctls on `nvidiactl` and the GPUs.
//!
//! An ioctl that the driver does not accept on a node fails with EINVAL (`nvidia_ioctl`, kernel-open/nvidia/nv.c);
//! whatever else is wrong is told in the NV_STATUS of its argument.

use crate::structs::frontend::*;
use nix::errno::Errno;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::status::{NV_ERR_OPERATING_SYSTEM, NV_OK};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::allocate::{self, Request};
use super::buffers::Buffers;
use super::names::{FileNumber, Outcome};
use super::state::{Shared, State};
use super::{control, dma_buf, gpu, mapping, older_requests};

/// Who issues a request.
#[derive(Clone, Copy)]
pub(super) struct Issuer {
    pub file: FileNumber,
    pub node: Node,
    /// It was issued from the task's own address space.
    pub from_task: bool,
}

/// On which nodes an ioctl is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Any,
    Control,
    Gpu,
}

type Handler = fn(&mut State, Issuer, &mut Buffers<'_>) -> Result<(), Errno>;

static IOCTLS: &[(u32, On, Handler)] = &[
    (NV_ESC_RM_ALLOC_MEMORY, On::Gpu, allocate_memory),
    (NV_ESC_RM_FREE, On::Control, free),
    (NV_ESC_RM_CONTROL, On::Control, control),
    // For all classes but events the handler asks for nvidiactl.
    (NV_ESC_RM_ALLOC, On::Any, allocate),
    (NV_ESC_RM_DUP_OBJECT, On::Control, duplicate),
    (NV_ESC_RM_SHARE, On::Control, share),
    (NV_ESC_RM_VID_HEAP_CONTROL, On::Control, heap_control),
    (NV_ESC_RM_MAP_MEMORY, On::Control, map_memory),
    (NV_ESC_RM_UNMAP_MEMORY, On::Control, unmap_memory),
    (NV_ESC_RM_MAP_MEMORY_DMA, On::Control, map_memory_dma),
    (NV_ESC_RM_UNMAP_MEMORY_DMA, On::Control, unmap_memory_dma),
    (
        NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO,
        On::Control,
        update_device_mapping_info,
    ),
    (NV_ESC_CARD_INFO, On::Control, card_info),
    (NV_ESC_REGISTER_FD, On::Any, register_fd),
    (NV_ESC_ALLOC_OS_EVENT, On::Any, alloc_os_event),
    (NV_ESC_FREE_OS_EVENT, On::Any, free_os_event),
    (NV_ESC_RM_GET_EVENT_DATA, On::Any, event_data),
    (NV_ESC_CHECK_VERSION_STR, On::Control, check_version),
    (NV_ESC_ATTACH_GPUS_TO_FD, On::Control, attach_gpus),
    (NV_ESC_SYS_PARAMS, On::Control, system_parameters),
    (NV_ESC_NUMA_INFO, On::Gpu, numa_info),
    (NV_ESC_WAIT_OPEN_COMPLETE, On::Any, wait_open_complete),
    (NV_ESC_EXPORT_TO_DMABUF_FD, On::Gpu, export_to_dma_buf),
];

/// Answers one ioctl.
pub(super) fn issue(
    shared: &Shared,
    issuer: Issuer,
    request: u32,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    let (_, number, _) = parts(request);
    let found = IOCTLS.iter().find(|(known, _, _)| *known == number);
    let (_, on, handler) = found.ok_or(Errno::EINVAL)?;
    let is_control = issuer.node == Node::Control;
    match on {
        On::Control if !is_control => Err(Errno::EINVAL),
        On::Gpu if is_control => Err(Errno::EINVAL),
        _ => handler(&mut shared.state(), issuer, buffers),
    }
}

/// An argument that has room for an NV_STATUS.
trait Answered: FromBytes + IntoBytes + Immutable {
    fn status(&mut self) -> &mut u32;
}

macro_rules! answered {
    ($($argument:ident: $($field:ident).+;)*) => {
        $(impl Answered for $argument {
            fn status(&mut self) -> &mut u32 {
                &mut self.$($field).+
            }
        })*
    };
}

answered! {
    NVOS00_PARAMETERS: status;
    NVOS21_PARAMETERS: status;
    NVOS32_PARAMETERS: status;
    NVOS34_PARAMETERS: status;
    NVOS41_PARAMETERS: status;
    NVOS46_PARAMETERS: status;
    NVOS47_PARAMETERS: status;
    NVOS54_PARAMETERS: status;
    NVOS55_PARAMETERS: status;
    NVOS56_PARAMETERS: status;
    NVOS57_PARAMETERS: status;
    NVOS64_PARAMETERS: status;
    nv_ioctl_nvos02_parameters_with_fd: params.status;
    nv_ioctl_nvos33_parameters_with_fd: params.status;
    nv_ioctl_alloc_os_event_t: Status;
    nv_ioctl_free_os_event_t: Status;
    nv_ioctl_export_to_dma_buf_fd_t: status;
}

/// Reads the argument, lets `answer` work on it, and writes it back with the status of the outcome.
fn with_status<T: Answered>(
    buffers: &mut Buffers<'_>,
    answer: impl FnOnce(&mut T, &mut Buffers<'_>) -> Outcome,
) -> Result<(), Errno> {
    let at = buffers.argument();
    let mut argument: T = buffers.get(at).ok_or(Errno::EINVAL)?;
    *argument.status() = match answer(&mut argument, buffers) {
        Ok(()) => NV_OK,
        Err(status) => status,
    };
    buffers.put(at, &argument);
    Ok(())
}

/// The same for an argument without a status.
fn with<T: FromBytes + IntoBytes + Immutable>(
    buffers: &mut Buffers<'_>,
    answer: impl FnOnce(&mut T) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let at = buffers.argument();
    let mut argument: T = buffers.get(at).ok_or(Errno::EINVAL)?;
    let answered = answer(&mut argument);
    buffers.put(at, &argument);
    answered
}

fn allocate(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let at = buffers.argument();
    // The two forms of the argument begin alike.
    let NVOS21_PARAMETERS {
        hRoot,
        hObjectParent,
        hObjectNew,
        hClass,
        ..
    } = buffers.get(at).ok_or(Errno::EINVAL)?;
    if issuer.node != Node::Control && !matches!(hClass, NV01_EVENT | NV01_EVENT_OS_EVENT) {
        return Err(Errno::EINVAL);
    }
    let is_client = matches!(hClass, NV01_ROOT | NV01_ROOT_NON_PRIV | NV01_ROOT_CLIENT);
    let request = Request {
        client: hRoot,
        parent: hObjectParent,
        object: hObjectNew,
        class: hClass,
        parameters: buffers.pointed_to(at, std::mem::offset_of!(NVOS21_PARAMETERS, pAllocParms)),
        from_task: issuer.from_task,
    };
    let caller = if is_client {
        issuer.file
    } else {
        state.client_owner(issuer.file)
    };
    let outcome = allocate::allocate(state, caller, request, buffers);
    let object = *outcome.as_ref().unwrap_or(&hObjectNew);
    let outcome = outcome.map(drop);
    let class = if is_client { NV01_ROOT_CLIENT } else { hClass };
    if at.length() == size_of::<NVOS64_PARAMETERS>() {
        with_status(buffers, |argument: &mut NVOS64_PARAMETERS, _| {
            (argument.hObjectNew, argument.hClass) = (object, class);
            outcome
        })
    } else {
        with_status(buffers, |argument: &mut NVOS21_PARAMETERS, _| {
            (argument.hObjectNew, argument.hClass) = (object, class);
            outcome
        })
    }
}

fn allocate_memory(
    state: &mut State,
    issuer: Issuer,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    let mut is_ready = true;
    with_status(
        buffers,
        |argument: &mut nv_ioctl_nvos02_parameters_with_fd, _| {
            is_ready = older_requests::allocate_memory(
                state,
                caller,
                &mut argument.params,
                argument.fd,
                issuer.from_task,
            )?;
            Ok(())
        },
    )?;
    is_ready.then_some(()).ok_or(Errno::EINVAL)
}

fn free(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS00_PARAMETERS, _| {
        allocate::free(state, caller, argument)
    })
}

fn control(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS54_PARAMETERS, buffers| {
        control::issue(state, caller, argument, buffers)
    })
}

fn duplicate(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS55_PARAMETERS, _| {
        allocate::duplicate(state, caller, argument)
    })
}

/// Share policies are not modelled; the object has to exist.
fn share(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS57_PARAMETERS, _| {
        let absent = nvproxy_abi::status::NV_ERR_INVALID_OBJECT_HANDLE;
        state
            .clients
            .usable(argument.hClient, caller, absent)?
            .object(argument.hObject)
            .map(drop)
    })
}

fn heap_control(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS32_PARAMETERS, _| {
        older_requests::allocate_by_flags(state, caller, argument)
    })
}

fn map_memory(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(
        buffers,
        |argument: &mut nv_ioctl_nvos33_parameters_with_fd, _| {
            mapping::map(state, caller, &mut argument.params, argument.fd)
        },
    )
}

fn unmap_memory(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS34_PARAMETERS, _| {
        mapping::unmap(state, caller, argument)
    })
}

fn map_memory_dma(
    state: &mut State,
    issuer: Issuer,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS46_PARAMETERS, _| {
        mapping::map_dma(state, caller, argument)
    })
}

fn unmap_memory_dma(
    state: &mut State,
    issuer: Issuer,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    let caller = state.client_owner(issuer.file);
    with_status(buffers, |argument: &mut NVOS47_PARAMETERS, _| {
        mapping::unmap_dma(state, caller, argument)
    })
}

fn update_device_mapping_info(
    state: &mut State,
    _: Issuer,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    with_status(buffers, |argument: &mut NVOS56_PARAMETERS, _| {
        mapping::update(state, argument)
    })
}

/// The driver looks neither at the client nor at who issues the request.
fn export_to_dma_buf(
    state: &mut State,
    issuer: Issuer,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    with_status(
        buffers,
        |argument: &mut nv_ioctl_export_to_dma_buf_fd_t, buffers| {
            buffers.make(dma_buf::export(state, issuer.node, argument)?);
            Ok(())
        },
    )
}

/// nvidia_read_card_info. A list that is too short is cleared.
fn card_info(state: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    const EACH: usize = size_of::<nv_ioctl_card_info_t>();
    let argument = buffers.argument();
    let room = argument.length() / EACH;
    let fits = room >= state.gpus.len();
    for index in 0..room {
        let gpu = state.gpus.get(index).filter(|_| fits);
        let card = gpu.map_or_else(nv_ioctl_card_info_t::new_zeroed, describe);
        if let Some(entry) = argument.field(index * EACH, EACH) {
            buffers.put(entry, &card);
        }
    }
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

fn describe(gpu: &gpu::Gpu) -> nv_ioctl_card_info_t {
    let mut card = nv_ioctl_card_info_t::new_zeroed();
    card.valid = 1;
    card.pci_info.bus = gpu.bus;
    card.pci_info.vendor_id = gpu::VENDOR;
    card.pci_info.device_id = gpu::DEVICE;
    card.gpu_id = gpu.id;
    card.reg_address = gpu.registers;
    card.reg_size = gpu::REGISTERS_SIZE;
    card.fb_address = gpu.aperture();
    card.fb_size = gpu.memory.size().next_power_of_two();
    card.minor_number = u32::from(gpu.minor);
    card
}

/// NV_ESC_REGISTER_FD (escape.c): from now on the description uses the clients of one of `nvidiactl`. A description
/// that has been registered cannot be registered again, nor can one be registered with it.
fn register_fd(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    with(buffers, |argument: &mut nv_ioctl_register_fd_t| {
        let number = FileNumber(argument.ctl_fd);
        let itself = state.files.get(&issuer.file).ok_or(Errno::EINVAL)?;
        let control = state
            .files
            .get(&number)
            .filter(|file| file.node == Node::Control)
            .ok_or(Errno::EINVAL)?;
        if itself.registered.is_some() || number == issuer.file || control.registered.is_some() {
            return Err(Errno::EINVAL);
        }
        let control = control.description.upgrade().ok_or(Errno::EINVAL)?;
        // `itself` again, to be written to: dropping `control` under the lock instead would wait for the lock.
        if let Some(itself) = state.files.get_mut(&issuer.file) {
            itself.registered = Some(control);
        }
        Ok(())
    })
}

fn alloc_os_event(
    state: &mut State,
    issuer: Issuer,
    buffers: &mut Buffers<'_>,
) -> Result<(), Errno> {
    with_status(buffers, |argument: &mut nv_ioctl_alloc_os_event_t, _| {
        state
            .os_events
            .allocate(argument.hClient, argument.fd, issuer.file)
    })
}

/// get_os_event_data (src/nvidia/arch/nvalloc/unix/src/osapi.c). What the event says is not modelled.
fn event_data(state: &mut State, issuer: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    with_status(buffers, |argument: &mut NVOS41_PARAMETERS, _| {
        let file = state.files.get(&issuer.file);
        let more = file.and_then(|file| file.pending.fetch());
        argument.MoreEvents = more.ok_or(NV_ERR_OPERATING_SYSTEM)?.into();
        Ok(())
    })
}

fn free_os_event(state: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    with_status(buffers, |argument: &mut nv_ioctl_free_os_event_t, _| {
        state.os_events.free(argument.hClient, argument.fd)
    })
}

/// RmPerformVersionCheck (osapi.c): a program of another release than the driver's is refused, and told the driver's.
fn check_version(state: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    /// nv_ioctl_rm_api_version_t.cmd and .reply (nv-ioctl.h).
    const CMD_RELAXED: u32 = b'1' as u32;
    const CMD_QUERY: u32 = b'2' as u32;
    const REPLY_RECOGNIZED: u32 = 1;
    with(buffers, |argument: &mut nv_ioctl_rm_api_version_t| {
        let asked = argument.versionString;
        let (cmd, version) = (argument.cmd, state.version.as_str());
        argument.reply = REPLY_RECOGNIZED;
        let compared = match (cmd, version.split_once('.')) {
            (CMD_RELAXED, Some((branch, _))) => branch,
            _ => version,
        };
        let next = if cmd == CMD_RELAXED { b'.' } else { 0 };
        let matches =
            asked.starts_with(compared.as_bytes()) && asked.get(compared.len()) == Some(&next);
        if cmd == CMD_QUERY || !matches {
            argument.versionString.fill(0);
            for (to, from) in argument.versionString.iter_mut().zip(version.bytes()) {
                *to = from;
            }
        }
        if cmd == CMD_QUERY || matches {
            return Ok(());
        }
        let client = String::from_utf8_lossy(asked.split(|byte| *byte == 0).next().unwrap_or(&[]));
        tracing::warn!(
            "in the kernel's log: NVRM: API mismatch: the client has the version {client:?}"
        );
        Err(Errno::EINVAL)
    })
}

/// Every GPU is attached; a list with one that does not exist is refused.
fn attach_gpus(state: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    let argument = buffers.argument();
    let ids = buffers.bytes(argument).unwrap_or_default();
    if ids.is_empty() || !ids.len().is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mut ids = ids
        .chunks_exact(4)
        .filter_map(|id| u32::read_from_bytes(id).ok());
    // 0 stands for an unused entry.
    if ids.all(|id| id == 0 || state.gpu_by_id(id).is_some()) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

fn system_parameters(state: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    with(buffers, |argument: &mut nv_ioctl_sys_params_t| {
        if state.memory_block_size == 0 {
            state.memory_block_size = argument.memblock_size;
        }
        if state.memory_block_size == argument.memblock_size {
            Ok(())
        } else {
            Err(Errno::EBUSY)
        }
    })
}

/// The GPUs' memory is no memory of the host's.
fn numa_info(state: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    with(buffers, |argument: &mut nv_ioctl_numa_info_t| {
        *argument = nv_ioctl_numa_info_t::new_zeroed();
        argument.nid = -1;
        argument.memblock_size = state.memory_block_size;
        Ok(())
    })
}

fn wait_open_complete(_: &mut State, _: Issuer, buffers: &mut Buffers<'_>) -> Result<(), Errno> {
    with(buffers, |argument: &mut nv_ioctl_wait_open_complete_t| {
        *argument = nv_ioctl_wait_open_complete_t {
            rc: 0,
            adapterStatus: NV_OK,
        };
        Ok(())
    })
}
