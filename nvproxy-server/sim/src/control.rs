//! Control commands.
//!
//! A command that says something which a program can check against other requests has a handler here; of some others
//! what they answer is a constant ([`CONSTANTS`], [`REFUSED`]). The rest of those in the request tables do nothing and succeed, with
//! their parameters as they were, which for the many that only report is as good as zeros where the program cleared
//! them.

use crate::structs::frontend::NVOS54_PARAMETERS;
use nvproxy_abi::firmware;
use nvproxy_abi::number::*;
use nvproxy_abi::status::*;

use super::answers::{self, objects, others};
use super::buffers::Buffers;
use super::command::Command;
use super::names::{FileNumber, Outcome};
use super::state::State;

/// What commands answer that always answer the same: 4-byte values and where in the parameters they go.
type Constant = (u32, &'static [(usize, u32)]);

static CONSTANTS: &[Constant] = &[
    // Memory can be shared by UUID (NV0000_CTRL_SYSTEM_GET_FEATURES_UUID_BASED_MEM_SHARING).
    (NV0000_CTRL_CMD_SYSTEM_GET_FEATURES, &[(0, 1 << 3)]),
    (NV0000_CTRL_CMD_GPU_GET_MEMOP_ENABLE, &[(0, 0)]),
    (NV0080_CTRL_CMD_GPU_GET_NUM_SUBDEVICES, &[(0, 1)]),
    (
        NV0080_CTRL_CMD_GPU_GET_VIRTUALIZATION_MODE,
        &[(0, 0), (4, 0)],
    ),
    (NV2080_CTRL_CMD_GPU_GET_SIMULATION_INFO, &[(0, 0)]),
    (NV2080_CTRL_CMD_GPU_QUERY_COMPUTE_MODE_RULES, &[(0, 0)]),
    // GH100, its first implementation, revision A1, subrevision 3.
    (
        NV2080_CTRL_CMD_MC_GET_ARCH_INFO,
        &[(0, 0x180), (4, 0), (8, 0xa1), (12, 3)],
    ),
    // NV_CONF_COMPUTE_SYSTEM_GPUS_CAPABILITY_HCC.
    (
        NV_CONF_COMPUTE_CTRL_CMD_SYSTEM_GET_CAPABILITIES,
        &[(0, 2 << 8)],
    ),
];

/// What an H100 refused whenever it was asked (userland-tests/recordings). The names of the last three are not public.
static REFUSED: &[(u32, u32)] = &[
    (
        NV2080_CTRL_CMD_FB_QUERY_DRAM_ENCRYPTION_INFOROM_SUPPORT,
        NV_ERR_NOT_SUPPORTED,
    ),
    (NV2080_CTRL_CMD_FB_GET_OFFLINED_PAGES, NV_ERR_NOT_SUPPORTED),
    (NV90E7_CTRL_CMD_BBX_GET_LAST_FLUSH_TIME, NV_ERR_NOT_READY),
    (0x2080_852f, NV_ERR_NOT_SUPPORTED),
    (0x2080_a0f2, NV_ERR_NOT_SUPPORTED),
    (0x2080_a63c, NV_ERR_NOT_SUPPORTED),
];

type Handler = fn(&mut Command<'_, '_>) -> Outcome;

static HANDLERS: &[(u32, Handler)] = &[
    (
        NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION,
        answers::build_version,
    ),
    (NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS, answers::attached_ids),
    (NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, answers::probed_ids),
    (NV0000_CTRL_CMD_GPU_ATTACH_IDS, answers::attach_ids),
    (NV0000_CTRL_CMD_GPU_DETACH_IDS, others::detach),
    (NV0000_CTRL_CMD_GPU_ASYNC_ATTACH_ID, others::attach_one),
    (NV0000_CTRL_CMD_GPU_WAIT_ATTACH_ID, others::attach_one),
    (NV0000_CTRL_CMD_GPU_QUERY_DRAIN_STATE, others::drain_state),
    (
        NV0000_CTRL_CMD_GPUACCT_GET_ACCOUNTING_STATE,
        others::accounting_state,
    ),
    (
        NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID,
        others::uuid_of_gpu,
    ),
    (NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS, others::p2p_caps),
    (NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_V2, others::p2p_caps),
    (
        NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_MATRIX,
        others::p2p_caps_matrix,
    ),
    (
        NV0000_CTRL_CMD_SYNC_GPU_BOOST_GROUP_INFO,
        others::boost_groups,
    ),
    (
        NV2080_CTRL_CMD_PERF_GET_GPUMON_PERFMON_UTIL_SAMPLES_V2,
        others::utilization,
    ),
    (NV0000_CTRL_CMD_GPU_GET_DEVICE_IDS, answers::device_ids),
    (NV0000_CTRL_CMD_GPU_GET_ID_INFO, answers::id_info),
    (NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2, answers::id_info_v2),
    (NV0000_CTRL_CMD_GPU_GET_PCI_INFO, answers::gpu_pci_info),
    (
        NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS,
        answers::active_device_ids,
    ),
    (
        NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE,
        objects::address_space_type,
    ),
    (
        NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD,
        objects::export_one,
    ),
    (
        NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECT_FROM_FD,
        objects::import_one,
    ),
    (
        NV0000_CTRL_CMD_OS_UNIX_GET_EXPORT_OBJECT_INFO,
        objects::export_info,
    ),
    (
        NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD,
        objects::export_many,
    ),
    (
        NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD,
        objects::import_many,
    ),
    (NV0041_CTRL_CMD_GET_SURFACE_INFO, objects::surface_info),
    (NV0080_CTRL_CMD_GPU_GET_CLASSLIST_V2, answers::class_list),
    (NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST, objects::channel_list),
    (NV2080_CTRL_CMD_GPU_GET_NAME_STRING, answers::name),
    (
        NV2080_CTRL_CMD_GPU_GET_SHORT_NAME_STRING,
        answers::short_name,
    ),
    (
        NV2080_CTRL_CMD_GPU_GET_INFOROM_OBJECT_VERSION,
        answers::inforom_version,
    ),
    (NV2080_CTRL_CMD_GSP_GET_FEATURES, answers::gsp_features),
    (NV2080_CTRL_CMD_GPU_GET_ID, answers::gpu_id),
    (NV2080_CTRL_CMD_GPU_GET_GID_INFO, answers::gid_info),
    (
        NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION,
        objects::set_notification,
    ),
    (NV2080_CTRL_CMD_EVENT_SET_TRIGGER, objects::set_trigger),
    (NV2080_CTRL_CMD_GR_GET_INFO, answers::gr_info),
    (NV2080_CTRL_CMD_FB_GET_INFO, answers::fb_info_behind),
    (NV2080_CTRL_CMD_FB_GET_INFO_V2, answers::fb_info),
    (NV2080_CTRL_CMD_BUS_GET_PCI_INFO, answers::bus_pci_info),
    (NVA06C_CTRL_CMD_SET_TIMESLICE, objects::set_timeslice),
    (NVA06C_CTRL_CMD_GET_TIMESLICE, objects::timeslice),
    (
        NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN,
        objects::work_submit_token,
    ),
];

/// Answers NV_ESC_RM_CONTROL (rmapiControl, control.c; serverControl, rs_server.c).
pub(super) fn issue(
    state: &mut State,
    caller: FileNumber,
    call: &NVOS54_PARAMETERS,
    buffers: &mut Buffers<'_>,
) -> Outcome {
    let NVOS54_PARAMETERS {
        hClient,
        hObject,
        cmd,
        params,
        paramsSize,
        ..
    } = *call;
    state.clients.existing(hClient)?;
    let row = state.abi.control(cmd).map_err(|_| NV_ERR_NOT_SUPPORTED)?;
    // How long they are nobody asks of a command of the firmware's that no list has (`RmGssLegacyRpcCmd`,
    // rmapi_gss_legacy_control.c).
    let fits = firmware::is_by_rule(row) || row.accepts(paramsSize);
    if (params == 0) != (paramsSize == 0) || !fits {
        return Err(NV_ERR_INVALID_ARGUMENT);
    }
    let object = state
        .clients
        .usable(hClient, caller, NV_ERR_INVALID_CLIENT)?
        .object(hObject)?;
    let interface = cmd >> 16;
    if !object.kind.interfaces().contains(&interface) && object.class != interface {
        return Err(NV_ERR_NOT_SUPPORTED);
    }
    // The firmware knows none but those of the lists.
    if firmware::is_by_rule(row) {
        return Err(NV_ERR_NOT_SUPPORTED);
    }
    let parameters = buffers.pointed_to(
        buffers.argument(),
        std::mem::offset_of!(NVOS54_PARAMETERS, params),
    );
    let parameters = parameters
        .or_else(|| buffers.argument().field(0, 0))
        .ok_or(NV_ERR_INVALID_ARGUMENT)?;
    if let Some((_, status)) = REFUSED.iter().find(|(command, _)| *command == cmd) {
        return Err(*status);
    }
    if let Some((_, values)) = CONSTANTS.iter().find(|(command, _)| *command == cmd) {
        for (at, value) in *values {
            parameters
                .field(*at, 4)
                .inspect(|field| buffers.put(*field, value));
        }
    }
    match HANDLERS.iter().find(|(command, _)| *command == cmd) {
        Some((_, handler)) => handler(&mut Command {
            state,
            buffers,
            caller,
            client: hClient,
            object: hObject,
            parameters,
        }),
        None => Ok(()),
    }
}
