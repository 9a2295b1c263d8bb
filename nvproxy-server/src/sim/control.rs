//! Control commands.
//!
//! A command that says something which a program can check against other requests has a handler here; of some others
//! what they answer is a constant ([`CONSTANTS`]). The rest of those in the request tables do nothing and succeed, with
//! their parameters as they were, which for the many that only report is as good as zeros where the program cleared
//! them.

use nvproxy_abi::number::*;
use nvproxy_abi::status::*;
use nvproxy_abi::structs::control::*;
use nvproxy_abi::structs::frontend::NVOS54_PARAMETERS;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::buffers::{Buffers, Part};
use super::export::{self, Party};
use super::gpu::{self, Gpu};
use super::memory::Place;
use super::objects::{Detail, Handle, Outcome};
use super::parameters::*;
use super::state::{FileNumber, State};
use super::{classes, events};

/// NV0000_CTRL_GPU_INVALID_ID: an unused entry in a list of GPUs.
const NV0000_CTRL_GPU_INVALID_ID: u32 = u32::MAX;
/// NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS.
const NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS: u32 = 0xffff;
/// NV0000_CTRL_NO_NUMA_NODE.
const NV0000_CTRL_NO_NUMA_NODE: i32 = -1;
/// NV0080_CTRL_FIFO_GET_CHANNELLIST_INVALID_CHANNEL.
const INVALID_CHANNEL: u32 = u32::MAX;
/// NV2080_GPU_CMD_GPU_GET_GID_FLAGS_FORMAT and its value for 16 bytes rather than text.
const GID_FORMAT: u32 = 0x3;
const GID_FORMAT_BINARY: u32 = 0x2;
/// NV2080_CTRL_GPU_GET_NAME_STRING_FLAGS_TYPE_UNICODE.
const NAME_UNICODE: u32 = 1;
/// NV2080_CTRL_FB_INFO_INDEX_MAX, NV0080_CTRL_GR_INFO_MAX_SIZE and NV0041_CTRL_SURFACE_INFO_INDEX_ADDR_SPACE_TYPE.
const FB_INFO_INDEX_MAX: u32 = 0x3b;
const GR_INFO_MAX_SIZE: u32 = 0x3a;

/// What commands answer that always answer the same: 4-byte values and where in the parameters they go.
type Constant = (u32, &'static [(usize, u32)]);

static CONSTANTS: &[Constant] = &[
    (NV0000_CTRL_CMD_SYSTEM_GET_FEATURES, &[(0, 0)]),
    (NV0000_CTRL_CMD_GPU_QUERY_DRAIN_STATE, &[(4, 0), (8, 0)]),
    (NV0000_CTRL_CMD_GPU_GET_MEMOP_ENABLE, &[(0, 0)]),
    (NV0000_CTRL_CMD_SYNC_GPU_BOOST_GROUP_INFO, &[(0, 0)]),
    (NV0080_CTRL_CMD_GPU_GET_NUM_SUBDEVICES, &[(0, 1)]),
    (NV0080_CTRL_CMD_GPU_GET_VIRTUALIZATION_MODE, &[(0, 0), (4, 0)]),
    (NV2080_CTRL_CMD_GPU_GET_SIMULATION_INFO, &[(0, 0)]),
    (NV2080_CTRL_CMD_GPU_QUERY_COMPUTE_MODE_RULES, &[(0, 0)]),
    // GH100, its first implementation, revision A1.
    (NV2080_CTRL_CMD_MC_GET_ARCH_INFO, &[(0, 0x180), (4, 0), (8, 0xa1)]),
];

/// NV2080_CTRL_CMD_GR_GET_INFO: what an H100 has (NV0080_CTRL_GR_INFO_INDEX_*, ctrl/ctrl0080/ctrl0080gr.h). All else
/// is 0.
static GR_INFO: &[(u32, u32)] = &[
    (0x0c, 0x900), // SM_VERSION: compute capability 9.0
    (0x0d, 64),    // MAX_WARPS_PER_SM
    (0x0e, 32),    // MAX_THREADS_PER_WARP
    (0x13, 128),   // MAX_SP_PER_SM
    (0x14, 8),     // LITTER_NUM_GPCS
    (0x17, 9),     // LITTER_NUM_TPC_PER_GPC
    (0x20, 2),     // LITTER_NUM_SM_PER_TPC
    (0x2c, 64),    // MAX_SUBCONTEXT_COUNT
];

/// One command while it is answered. Client and object exist.
struct Command<'a, 'b> {
    state: &'a mut State,
    buffers: &'a mut Buffers<'b>,
    caller: FileNumber,
    client: Handle,
    object: Handle,
    parameters: Part,
}

type Handler = fn(&mut Command<'_, '_>) -> Outcome;

static HANDLERS: &[(u32, Handler)] = &[
    (NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION, build_version),
    (NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS, attached_ids),
    (NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, probed_ids),
    (NV0000_CTRL_CMD_GPU_ATTACH_IDS, attach_ids),
    (NV0000_CTRL_CMD_GPU_GET_DEVICE_IDS, device_ids),
    (NV0000_CTRL_CMD_GPU_GET_ID_INFO, id_info),
    (NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2, id_info_v2),
    (NV0000_CTRL_CMD_GPU_GET_PCI_INFO, gpu_pci_info),
    (NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS, active_device_ids),
    (NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE, address_space_type),
    (NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD, export_one),
    (NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD, import_one),
    (NV0000_CTRL_CMD_OS_UNIX_GET_EXPORT_OBJECT_INFO, export_info),
    (NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD, export_many),
    (NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD, import_many),
    (NV0041_CTRL_CMD_GET_SURFACE_INFO, surface_info),
    (NV0080_CTRL_CMD_GPU_GET_CLASSLIST_V2, class_list),
    (NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST, channel_list),
    (NV2080_CTRL_CMD_GPU_GET_NAME_STRING, name),
    (NV2080_CTRL_CMD_GPU_GET_SHORT_NAME_STRING, short_name),
    (NV2080_CTRL_CMD_GPU_GET_ID, gpu_id),
    (NV2080_CTRL_CMD_GPU_GET_GID_INFO, gid_info),
    (NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION, set_notification),
    (NV2080_CTRL_CMD_EVENT_SET_TRIGGER, set_trigger),
    (NV2080_CTRL_CMD_GR_GET_INFO, gr_info),
    (NV2080_CTRL_CMD_FB_GET_INFO_V2, fb_info),
    (NV2080_CTRL_CMD_BUS_GET_PCI_INFO, bus_pci_info),
    (NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN, work_submit_token),
];

/// Answers NV_ESC_RM_CONTROL (rmapiControl, control.c; serverControl, rs_server.c).
pub(super) fn issue(
    state: &mut State,
    caller: FileNumber,
    call: &NVOS54_PARAMETERS,
    buffers: &mut Buffers<'_>,
) -> Outcome {
    let NVOS54_PARAMETERS { hClient, hObject, cmd, params, paramsSize, .. } = *call;
    state.clients.get(hClient).ok_or(NV_ERR_INVALID_CLIENT)?;
    let row = state.abi.control(cmd).ok_or(NV_ERR_NOT_SUPPORTED)?;
    if (params == 0) != (paramsSize == 0) || !row.accepts(paramsSize) {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let object = state.clients.usable(hClient, caller, NV_ERR_INVALID_CLIENT)?.object(hObject)?;
    let interface = cmd >> 16;
    if !object.kind.interfaces().contains(&interface) && object.class != interface {
        return Err(NV_ERR_NOT_SUPPORTED);
    }
    let parameters = buffers.pointed_to(buffers.argument(), std::mem::offset_of!(NVOS54_PARAMETERS, params));
    let parameters = parameters.or_else(|| buffers.argument().field(0, 0)).ok_or(NV_ERR_INVALID_ARGUMENT)?;
    if let Some((_, values)) = CONSTANTS.iter().find(|(command, _)| *command == cmd) {
        for (at, value) in *values {
            parameters.field(*at, 4).inspect(|field| buffers.put(*field, value));
        }
    }
    match HANDLERS.iter().find(|(command, _)| *command == cmd) {
        Some((_, handler)) => {
            handler(&mut Command { state, buffers, caller, client: hClient, object: hObject, parameters })
        }
        None => Ok(()),
    }
}

impl Command<'_, '_> {
    /// Reads the parameters, lets `answer` work on them, and writes them back if it succeeds.
    fn with<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        answer: impl FnOnce(&mut T, &mut Self) -> Outcome,
    ) -> Outcome {
        let mut parameters: T = self.buffers.get(self.parameters).ok_or(NV_ERR_INVALID_ARGUMENT)?;
        answer(&mut parameters, self)?;
        self.buffers.put(self.parameters, &parameters);
        Ok(())
    }

    /// The GPU that the object belongs to.
    fn gpu(&self) -> Outcome<(usize, &Gpu)> {
        let client = self.state.clients.get(self.client).ok_or(NV_ERR_INVALID_CLIENT)?;
        let instance = client.object(self.object)?.gpu.ok_or(NV_ERR_INVALID_STATE)?;
        let gpu = self.state.gpus.get(instance).ok_or(NV_ERR_INVALID_STATE)?;
        Ok((instance, gpu))
    }

    /// Who exports or imports.
    fn party(&self) -> Party {
        Party { caller: self.caller, client: self.client }
    }

    /// Answers every element of the list behind the pointer at byte `field` of the parameters.
    fn answer_list(&mut self, field: usize, answer: impl Fn(u32) -> u32) {
        const EACH: usize = size_of::<NVXXXX_CTRL_XXX_INFO>();
        let Some(list) = self.buffers.pointed_to(self.parameters, field) else { return };
        for index in 0..list.length() / EACH {
            let element = list.field(index * EACH, EACH);
            let asked = element.and_then(|part| self.buffers.get::<NVXXXX_CTRL_XXX_INFO>(part));
            if let (Some(part), Some(NVXXXX_CTRL_XXX_INFO { index, .. })) = (element, asked) {
                self.buffers.put(part, &NVXXXX_CTRL_XXX_INFO { index, data: answer(index) });
            }
        }
    }
}

/// The ids of all GPUs and unused entries behind them.
fn ids(gpus: &[Gpu]) -> [u32; 32] {
    let mut ids = [NV0000_CTRL_GPU_INVALID_ID; 32];
    for (id, gpu) in ids.iter_mut().zip(gpus) {
        *id = gpu.id;
    }
    ids
}

fn build_version(command: &mut Command<'_, '_>) -> Outcome {
    let parameters = command.parameters;
    let version = command.state.version.clone();
    let texts = [
        (std::mem::offset_of!(NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS, pDriverVersionBuffer), version.as_str()),
        (std::mem::offset_of!(NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS, pVersionBuffer), "simulated"),
        (std::mem::offset_of!(NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS, pTitleBuffer), "Simulated driver"),
    ];
    for (field, text) in texts {
        let buffer = command.buffers.pointed_to(parameters, field).ok_or(NV_ERR_INVALID_ARGUMENT)?;
        command.buffers.put_text(buffer, text);
    }
    Ok(())
}

fn attached_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_GET_ATTACHED_IDS_PARAMS, command| {
        parameters.gpuIds = ids(&command.state.gpus);
        Ok(())
    })
}

fn probed_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS, command| {
        parameters.gpuIds = ids(&command.state.gpus);
        parameters.excludedGpuIds = ids(&[]);
        parameters.gpuFlags = [0; 32];
        Ok(())
    })
}

fn attach_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_ATTACH_IDS_PARAMS, command| {
        if parameters.gpuIds[0] == NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS {
            return Ok(());
        }
        let mut listed = parameters.gpuIds.iter().take_while(|id| **id != NV0000_CTRL_GPU_INVALID_ID);
        let exist = listed.all(|id| command.state.gpu_by_id(*id).is_some());
        if exist { Ok(()) } else { Err(NV_ERR_INVALID_ARGUMENT) }
    })
}

/// A set bit for every device instance.
fn device_ids(command: &mut Command<'_, '_>) -> Outcome {
    let devices = (0..command.state.gpus.len()).fold(0u32, |mask, instance| mask | 1 << (instance & 31));
    command.buffers.put(command.parameters, &devices);
    Ok(())
}

fn id_info_v2(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS, command| {
        let (instance, gpu) = command.state.gpu_by_id(parameters.gpuId).ok_or(NV_ERR_INVALID_ARGUMENT)?;
        *parameters = NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS {
            gpuId: gpu.id,
            gpuFlags: 0,
            deviceInstance: instance as u32,
            subDeviceInstance: 0,
            sliStatus: 0,
            boardId: gpu.id,
            gpuInstance: instance as u32,
            numaId: NV0000_CTRL_NO_NUMA_NODE,
        };
        Ok(())
    })
}

fn id_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_GET_ID_INFO_PARAMS, command| {
        let (instance, gpu) = command.state.gpu_by_id(parameters.gpuId).ok_or(NV_ERR_INVALID_ARGUMENT)?;
        *parameters = NV0000_CTRL_GPU_GET_ID_INFO_PARAMS {
            gpuId: gpu.id,
            gpuFlags: 0,
            deviceInstance: instance as u32,
            subDeviceInstance: 0,
            szName: parameters.szName,
            sliStatus: 0,
            boardId: gpu.id,
            gpuInstance: instance as u32,
            numaId: NV0000_CTRL_NO_NUMA_NODE,
        };
        Ok(())
    })
}

fn gpu_pci_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_GET_PCI_INFO_PARAMS, command| {
        let (_, gpu) = command.state.gpu_by_id(parameters.gpuId).ok_or(NV_ERR_INVALID_ARGUMENT)?;
        (parameters.domain, parameters.bus, parameters.slot) = (0, u16::from(gpu.bus), 0);
        Ok(())
    })
}

fn active_device_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_GPU_GET_ACTIVE_DEVICE_IDS_PARAMS, command| {
        let gpus = &command.state.gpus;
        parameters.numDevices = gpus.len() as u32;
        for (device, gpu) in parameters.devices.iter_mut().zip(gpus) {
            *device = [gpu.id, NV0000_CTRL_GPU_INVALID_ID, NV0000_CTRL_GPU_INVALID_ID];
        }
        Ok(())
    })
}

/// NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE_*.
fn address_space(place: &Place) -> u32 {
    match place {
        Place::System | Place::Pinned => 1,
        Place::Video(_) => 2,
        Place::Registers => 3,
    }
}

fn address_space_type(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0000_CTRL_CLIENT_GET_ADDR_SPACE_TYPE_PARAMS, command| {
        let client = command.state.clients.get(command.client).ok_or(NV_ERR_INVALID_CLIENT)?;
        let object = client.object(parameters.hObject)?;
        parameters.addrSpaceType = match &object.detail {
            Detail::Memory(memory) => address_space(memory.place()),
            Detail::Virtual(_) => return Err(NV_ERR_INVALID_ARGUMENT),
            _ => return Err(NV_ERR_INVALID_OBJECT),
        };
        Ok(())
    })
}

fn export_one(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::export_one(command.state, party, parameters))
}

fn import_one(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::import_one(command.state, party, parameters))
}

fn export_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters, command| export::info(command.state, parameters))
}

fn export_many(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::export_many(command.state, party, parameters))
}

fn import_many(command: &mut Command<'_, '_>) -> Outcome {
    let party = command.party();
    command.with(|parameters, command| export::import_many(command.state, party, parameters))
}

/// NV0041_CTRL_SURFACE_INFO_INDEX_*: the size in two halves, and where the memory is.
fn surface_info(command: &mut Command<'_, '_>) -> Outcome {
    let client = command.state.clients.get(command.client).ok_or(NV_ERR_INVALID_CLIENT)?;
    let memory = client.object(command.object)?.memory().ok_or(NV_ERR_NOT_SUPPORTED)?;
    let (length, space) = (memory.length(), address_space(memory.place()));
    let field = std::mem::offset_of!(NV0041_CTRL_GET_SURFACE_INFO_PARAMS, surfaceInfoList);
    command.answer_list(field, |index| match index {
        0x2 => length as u32,
        0x3 => (length >> 32) as u32,
        0x9 => space,
        _ => 0,
    });
    Ok(())
}

fn class_list(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS, _| {
        let mut count = 0;
        for (entry, class) in parameters.classList.iter_mut().zip(classes::all()) {
            *entry = class;
            count += 1;
        }
        parameters.numClasses = count;
        Ok(())
    })
}

/// deviceCtrlCmdFifoGetChannelList_IMPL: the channel behind each handle.
fn channel_list(command: &mut Command<'_, '_>) -> Outcome {
    type Parameters = NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS;
    let handles = command.buffers.pointed_to(command.parameters, std::mem::offset_of!(Parameters, pChannelHandleList));
    let channels = command.buffers.pointed_to(command.parameters, std::mem::offset_of!(Parameters, pChannelList));
    let (Some(handles), Some(channels)) = (handles, channels) else { return Err(NV_ERR_INVALID_ARGUMENT) };
    if handles.length() == 0 {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let client = command.state.clients.get(command.client).ok_or(NV_ERR_INVALID_CLIENT)?;
    for at in (0..handles.length()).step_by(4) {
        let (Some(handle), Some(channel)) = (handles.field(at, 4), channels.field(at, 4)) else { break };
        let handle: Option<u32> = command.buffers.get(handle);
        let id = match handle.and_then(|handle| client.object(handle).ok()).map(|object| &object.detail) {
            Some(Detail::Channel { id }) => *id,
            _ => INVALID_CHANNEL,
        };
        command.buffers.put(channel, &id);
    }
    Ok(())
}

fn name(command: &mut Command<'_, '_>) -> Outcome {
    command.with(|parameters: &mut NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS, _| {
        let width = if parameters.gpuNameStringFlags == NAME_UNICODE { 2 } else { 1 };
        parameters.gpuNameString = [0; 128];
        for (to, from) in parameters.gpuNameString.iter_mut().step_by(width).zip(gpu::NAME.bytes()) {
            *to = from;
        }
        Ok(())
    })
}

fn short_name(command: &mut Command<'_, '_>) -> Outcome {
    command.buffers.put_text(command.parameters, gpu::SHORT_NAME);
    Ok(())
}

fn gpu_id(command: &mut Command<'_, '_>) -> Outcome {
    let id = command.gpu()?.1.id;
    command.buffers.put(command.parameters, &id);
    Ok(())
}

/// The UUID, as 16 bytes or as text with a terminating zero.
fn gid_info(command: &mut Command<'_, '_>) -> Outcome {
    let (_, gpu) = command.gpu()?;
    let (binary, text) = (gpu.uuid, gpu.uuid_text() + "\0");
    command.with(|parameters: &mut NV2080_CTRL_GPU_GET_GID_INFO_PARAMS, _| {
        if parameters.index != 0 {
            return Err(NV_ERR_INVALID_PARAM_STRUCT);
        }
        let is_binary = parameters.flags & GID_FORMAT == GID_FORMAT_BINARY;
        let identity: &[u8] = if is_binary { &binary } else { text.as_bytes() };
        parameters.length = identity.len() as u32;
        parameters.data = [0; 256];
        for (to, from) in parameters.data.iter_mut().zip(identity) {
            *to = *from;
        }
        Ok(())
    })
}

fn set_notification(command: &mut Command<'_, '_>) -> Outcome {
    let (client, object) = (command.client, command.object);
    command.with(|parameters, command| {
        events::set_notification(&mut command.state.clients, client, object, parameters)
    })
}

fn set_trigger(command: &mut Command<'_, '_>) -> Outcome {
    let (instance, _) = command.gpu()?;
    events::trigger(&mut command.state.clients, instance);
    Ok(())
}

fn gr_info(command: &mut Command<'_, '_>) -> Outcome {
    let parameters: Option<NV2080_CTRL_GR_GET_INFO_PARAMS> = command.buffers.get(command.parameters);
    if parameters.is_none_or(|parameters| parameters.grInfoListSize > GR_INFO_MAX_SIZE) {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    command.answer_list(std::mem::offset_of!(NV2080_CTRL_GR_GET_INFO_PARAMS, grInfoList), |index| {
        GR_INFO.iter().find(|(known, _)| *known == index).map_or(0, |(_, data)| *data)
    });
    Ok(())
}

/// NV2080_CTRL_FB_INFO_INDEX_*: sizes are in KiB.
fn fb_info(command: &mut Command<'_, '_>) -> Outcome {
    let (_, gpu) = command.gpu()?;
    let (total, free) = ((gpu.memory.size() >> 10) as u32, (gpu.memory.free() >> 10) as u32);
    command.with(|parameters: &mut NV2080_CTRL_FB_GET_INFO_V2_PARAMS, _| {
        let listed = parameters.fbInfoList.get_mut(..parameters.fbInfoListSize as usize);
        for info in listed.ok_or(NV_ERR_INVALID_ARGUMENT)? {
            info.data = match info.index {
                // RAM_SIZE, TOTAL_RAM_SIZE, HEAP_SIZE, MAPPABLE_HEAP_SIZE, USABLE_RAM_SIZE
                0x07 | 0x08 | 0x09 | 0x0a | 0x20 => total,
                // LARGEST_FREE_REGION_SIZE_KB, HEAP_FREE
                0x12 | 0x16 => free,
                // BUS_WIDTH, in bits
                0x0b => 5120,
                0..=FB_INFO_INDEX_MAX => 0,
                _ => return Err(NV_ERR_INVALID_ARGUMENT),
            };
        }
        Ok(())
    })
}

fn bus_pci_info(command: &mut Command<'_, '_>) -> Outcome {
    let device = u32::from(gpu::DEVICE) << 16 | u32::from(gpu::VENDOR);
    let answer = NV2080_CTRL_BUS_GET_PCI_INFO_PARAMS {
        pciDeviceId: device,
        pciSubSystemId: gpu::SUBSYSTEM,
        pciRevisionId: gpu::REVISION,
        pciExtDeviceId: u32::from(gpu::DEVICE),
    };
    command.buffers.put(command.parameters, &answer);
    Ok(())
}

/// What a program writes to the doorbell to name the channel.
fn work_submit_token(command: &mut Command<'_, '_>) -> Outcome {
    let client = command.state.clients.get(command.client).ok_or(NV_ERR_INVALID_CLIENT)?;
    let Detail::Channel { id } = client.object(command.object)?.detail else { return Err(NV_ERR_NOT_SUPPORTED) };
    command.buffers.put(command.parameters, &NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN_PARAMS { workSubmitToken: id });
    Ok(())
}
