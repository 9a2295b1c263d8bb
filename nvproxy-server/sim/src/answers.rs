//! What control commands answer that a program can check against other requests: what there is and what it is like.
//! Answers about objects that the program has made are in [`objects`], those about other tenants in [`others`].
//!
//! Each function here is the model of one command; [`super::control`] has found client and object, and knows that the
//! parameters have the command's size.

pub(super) mod objects;
pub(super) mod others;

use std::collections::BTreeMap;

use crate::structs::control::*;
use nvproxy_abi::status::*;

use super::classes::{self, Kind};
use super::command::Command;
use super::gpu::{self, Gpu};
use super::names::Outcome;
use super::parameters::*;
use super::state::State;

/// NV0000_CTRL_GPU_INVALID_ID: an unused entry in a list of GPUs.
const NV0000_CTRL_GPU_INVALID_ID: u32 = u32::MAX;
/// NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS.
const NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS: u32 = 0xffff;
/// NV0000_CTRL_SLI_STATUS_GPU_NOT_SUPPORTED and _INVALID_GPU_COUNT, for a GPU that SLI is not made for.
const SLI_STATUS: u32 = 0x41;
/// NV0000_CTRL_NO_NUMA_NODE.
const NV0000_CTRL_NO_NUMA_NODE: i32 = -1;
/// NV2080_GPU_CMD_GPU_GET_GID_FLAGS_FORMAT and its value for 16 bytes rather than text.
const GID_FORMAT: u32 = 0x3;
const GID_FORMAT_BINARY: u32 = 0x2;
/// NV2080_CTRL_GPU_GET_NAME_STRING_FLAGS_TYPE_UNICODE.
const NAME_UNICODE: u32 = 1;
/// NV2080_CTRL_FB_INFO_INDEX_NUMA_NODE_ID, which is the last index, and NV0080_CTRL_GR_INFO_MAX_SIZE.
const FB_INFO_INDEX_NUMA_NODE_ID: u32 = 0x3b;
const GR_INFO_MAX_SIZE: u32 = 0x3a;

/// NV2080_CTRL_CMD_GR_GET_INFO: what an H100 has (NV0080_CTRL_GR_INFO_INDEX_*, ctrl/ctrl0080/ctrl0080gr.h). All else
/// is 0.
static GR_INFO: &[(u32, u32)] = &[
    (0x0c, 0x900), // SM_VERSION: compute capability 9.0
    (0x0d, 64),    // MAX_WARPS_PER_SM
    (0x0e, 32),    // MAX_THREADS_PER_WARP
    (0x14, 8),     // LITTER_NUM_GPCS
    (0x17, 9),     // LITTER_NUM_TPC_PER_GPC
    (0x20, 2),     // LITTER_NUM_SM_PER_TPC
    (0x2c, 64),    // MAX_SUBCONTEXT_COUNT
];

/// The parts of an H100's InfoROM, with version and subversion.
static INFOROM: &[(&[u8; 3], (u8, u8))] = &[(b"OBD", (2, 1)), (b"ECC", (7, 16)), (b"EEN", (1, 0))];

/// The ids of all GPUs and unused entries behind them.
fn ids(gpus: &[Gpu]) -> [u32; 32] {
    let mut ids = [NV0000_CTRL_GPU_INVALID_ID; 32];
    for (id, gpu) in ids.iter_mut().zip(gpus) {
        *id = gpu.id;
    }
    ids
}

pub(super) fn build_version(command: &mut Command<'_, '_>) -> Outcome {
    let parameters = command.parameters;
    let version = command.state.version.clone();
    let texts = [
        (
            std::mem::offset_of!(
                NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS,
                pDriverVersionBuffer
            ),
            version.as_str(),
        ),
        (
            std::mem::offset_of!(NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS, pVersionBuffer),
            "simulated",
        ),
        (
            std::mem::offset_of!(NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS, pTitleBuffer),
            "Simulated driver",
        ),
    ];
    for (field, text) in texts {
        let buffer = command
            .buffers
            .pointed_to(parameters, field)
            .ok_or(NV_ERR_INVALID_ARGUMENT)?;
        command.buffers.put_text(buffer, text);
    }
    Ok(())
}

pub(super) fn attached_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_GET_ATTACHED_IDS_PARAMS, command| {
            parameters.gpuIds = ids(&command.state.gpus);
            Ok(())
        },
    )
}

pub(super) fn probed_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS, command| {
            parameters.gpuIds = ids(&command.state.gpus);
            parameters.excludedGpuIds = ids(&[]);
            parameters.gpuFlags = [0; 32];
            Ok(())
        },
    )
}

pub(super) fn attach_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_ATTACH_IDS_PARAMS, command| {
            if parameters.gpuIds[0] == NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS {
                return Ok(());
            }
            let mut listed = parameters
                .gpuIds
                .iter()
                .take_while(|id| **id != NV0000_CTRL_GPU_INVALID_ID);
            let exist = listed.all(|id| command.state.gpu_by_id(*id).is_some());
            if exist {
                Ok(())
            } else {
                Err(NV_ERR_INVALID_ARGUMENT)
            }
        },
    )
}

/// A set bit for every device instance.
pub(super) fn device_ids(command: &mut Command<'_, '_>) -> Outcome {
    let devices =
        (0..command.state.gpus.len()).fold(0u32, |mask, instance| mask | 1 << (instance & 31));
    command.buffers.put(command.parameters, &devices);
    Ok(())
}

/// NV0000_CTRL_GPU_ID_INFO_IN_USE: some client has a device of the GPU (gpuIsInUse_IMPL).
fn in_use(state: &State, instance: usize) -> u32 {
    let mut objects = state
        .clients
        .all()
        .flat_map(|client| client.objects.values());
    u32::from(objects.any(|object| object.kind == Kind::Device && object.gpu == Some(instance)))
}

pub(super) fn id_info_v2(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS, command| {
            let (instance, gpu) = command
                .state
                .gpu_by_id(parameters.gpuId)
                .ok_or(NV_ERR_INVALID_ARGUMENT)?;
            *parameters = NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS {
                gpuId: gpu.id,
                gpuFlags: in_use(command.state, instance),
                deviceInstance: instance as u32,
                subDeviceInstance: 0,
                sliStatus: SLI_STATUS,
                boardId: gpu.id,
                gpuInstance: instance as u32,
                numaId: NV0000_CTRL_NO_NUMA_NODE,
            };
            Ok(())
        },
    )
}

pub(super) fn id_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_GET_ID_INFO_PARAMS, command| {
            let (instance, gpu) = command
                .state
                .gpu_by_id(parameters.gpuId)
                .ok_or(NV_ERR_INVALID_ARGUMENT)?;
            *parameters = NV0000_CTRL_GPU_GET_ID_INFO_PARAMS {
                gpuId: gpu.id,
                gpuFlags: in_use(command.state, instance),
                deviceInstance: instance as u32,
                subDeviceInstance: 0,
                szName: parameters.szName,
                sliStatus: SLI_STATUS,
                boardId: gpu.id,
                gpuInstance: instance as u32,
                numaId: NV0000_CTRL_NO_NUMA_NODE,
            };
            Ok(())
        },
    )
}

pub(super) fn gpu_pci_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_GET_PCI_INFO_PARAMS, command| {
            let (_, gpu) = command
                .state
                .gpu_by_id(parameters.gpuId)
                .ok_or(NV_ERR_INVALID_ARGUMENT)?;
            (parameters.domain, parameters.bus, parameters.slot) = (0, u16::from(gpu.bus), 0);
            Ok(())
        },
    )
}

pub(super) fn active_device_ids(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0000_CTRL_GPU_GET_ACTIVE_DEVICE_IDS_PARAMS, command| {
            let gpus = &command.state.gpus;
            parameters.numDevices = gpus.len() as u32;
            for (device, gpu) in parameters.devices.iter_mut().zip(gpus) {
                *device = [
                    gpu.id,
                    NV0000_CTRL_GPU_INVALID_ID,
                    NV0000_CTRL_GPU_INVALID_ID,
                ];
            }
            Ok(())
        },
    )
}

pub(super) fn class_list(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV0080_CTRL_GPU_GET_CLASSLIST_V2_PARAMS, _| {
            let mut count = 0;
            for (entry, class) in parameters.classList.iter_mut().zip(classes::all()) {
                *entry = class;
                count += 1;
            }
            parameters.numClasses = count;
            Ok(())
        },
    )
}

pub(super) fn name(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS, _| {
            let width = if parameters.gpuNameStringFlags == NAME_UNICODE {
                2
            } else {
                1
            };
            parameters.gpuNameString = [0; 128];
            for (to, from) in parameters
                .gpuNameString
                .iter_mut()
                .step_by(width)
                .zip(gpu::NAME.bytes())
            {
                *to = from;
            }
            Ok(())
        },
    )
}

pub(super) fn short_name(command: &mut Command<'_, '_>) -> Outcome {
    command
        .buffers
        .put_text(command.parameters, gpu::SHORT_NAME);
    Ok(())
}

/// The GPU's firmware, which every H100 runs with, is of the driver's release.
pub(super) fn gsp_features(command: &mut Command<'_, '_>) -> Outcome {
    let version = command.state.version.clone();
    command.with(|parameters: &mut NV2080_CTRL_GSP_GET_FEATURES_PARAMS, _| {
        // NV2080_CTRL_GSP_GET_FEATURES_UVM_ENABLED
        parameters.gspFeatures = 1;
        (parameters.bValid, parameters.bDefaultGspRmGpu) = (1, 1);
        parameters.firmwareVersion = [0; 64];
        for (to, from) in parameters.firmwareVersion.iter_mut().zip(version.bytes()) {
            *to = from;
        }
        Ok(())
    })
}

/// The version of a part of the GPU's InfoROM, which is named by three letters.
pub(super) fn inforom_version(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV2080_CTRL_GPU_GET_INFOROM_OBJECT_VERSION_PARAMS, _| {
            let found = INFOROM
                .iter()
                .find(|(name, _)| **name == parameters.objectType);
            let (_, version) = found.ok_or(NV_ERR_OBJECT_NOT_FOUND)?;
            (parameters.version, parameters.subversion) = *version;
            Ok(())
        },
    )
}

pub(super) fn gpu_id(command: &mut Command<'_, '_>) -> Outcome {
    let id = command.gpu()?.1.id;
    command.buffers.put(command.parameters, &id);
    Ok(())
}

/// The UUID, as 16 bytes or as text with a terminating zero.
pub(super) fn gid_info(command: &mut Command<'_, '_>) -> Outcome {
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

pub(super) fn gr_info(command: &mut Command<'_, '_>) -> Outcome {
    let parameters: Option<NV2080_CTRL_GR_GET_INFO_PARAMS> =
        command.buffers.get(command.parameters);
    if parameters.is_none_or(|parameters| parameters.grInfoListSize > GR_INFO_MAX_SIZE) {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    command.answer_list(
        std::mem::offset_of!(NV2080_CTRL_GR_GET_INFO_PARAMS, grInfoList),
        |index| {
            GR_INFO
                .iter()
                .find(|(known, _)| *known == index)
                .map_or(0, |(_, data)| *data)
        },
    );
    Ok(())
}

/// NV2080_CTRL_FB_INFO_INDEX_*: sizes are in KiB. `None` for one that there is not.
fn fb_info_of(gpu: &Gpu, index: u32) -> Option<u32> {
    Some(match index {
        // RAM_SIZE, TOTAL_RAM_SIZE, HEAP_SIZE, MAPPABLE_HEAP_SIZE, USABLE_RAM_SIZE
        0x07 | 0x08 | 0x09 | 0x0a | 0x20 => (gpu.memory.size() >> 10) as u32,
        // LARGEST_FREE_REGION_SIZE_KB, HEAP_FREE
        0x12 | 0x16 => (gpu.memory.free() >> 10) as u32,
        // BUS_WIDTH, in bits
        0x0b => 5120,
        FB_INFO_INDEX_NUMA_NODE_ID => NV0000_CTRL_NO_NUMA_NODE as u32,
        ..FB_INFO_INDEX_NUMA_NODE_ID => 0,
        _ => return None,
    })
}

/// The older of the two commands, with the list behind a pointer.
pub(super) fn fb_info_behind(command: &mut Command<'_, '_>) -> Outcome {
    let (instance, _) = command.gpu()?;
    let gpus = &command.state.gpus;
    let gpu = gpus.get(instance).ok_or(NV_ERR_INVALID_STATE)?;
    let answers: BTreeMap<u32, u32> = (0..=FB_INFO_INDEX_NUMA_NODE_ID)
        .filter_map(|index| Some((index, fb_info_of(gpu, index)?)))
        .collect();
    let field = std::mem::offset_of!(NV2080_CTRL_FB_GET_INFO_PARAMS, fbInfoList);
    command.answer_list(field, |index| {
        answers.get(&index).copied().unwrap_or_default()
    });
    Ok(())
}

pub(super) fn fb_info(command: &mut Command<'_, '_>) -> Outcome {
    command.with(
        |parameters: &mut NV2080_CTRL_FB_GET_INFO_V2_PARAMS, command| {
            let (_, gpu) = command.gpu()?;
            let listed = parameters
                .fbInfoList
                .get_mut(..parameters.fbInfoListSize as usize);
            for info in listed.ok_or(NV_ERR_INVALID_ARGUMENT)? {
                info.data = fb_info_of(gpu, info.index).ok_or(NV_ERR_INVALID_ARGUMENT)?;
            }
            Ok(())
        },
    )
}

pub(super) fn bus_pci_info(command: &mut Command<'_, '_>) -> Outcome {
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
