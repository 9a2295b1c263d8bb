//! What control commands and the lesser ioctls tell.

use super::*;
use crate::structs::control::*;

/// The ids of the two GPUs.
const FIRST: u32 = 0x100;
const SECOND: u32 = 0x400;

#[test]
fn gpus_are_enumerated() {
    let driver = driver();
    let control = open(&driver, Node::Control);
    let client = control.client();
    let mut cards = [nv_ioctl_card_info_t::new_zeroed(); 4];
    assert_eq!(control.ioctl(NV_ESC_CARD_INFO, &mut cards), Ok(0));
    assert_eq!(
        cards.map(|card| (card.valid, card.gpu_id, card.minor_number)),
        [(1, FIRST, 0), (1, SECOND, 3), (0, 0, 0), (0, 0, 0)]
    );
    assert_eq!(
        control.ioctl(NV_ESC_CARD_INFO, &mut cards[0]),
        Err(Errno::EINVAL)
    );
    assert_eq!(cards[0].valid, 0);

    let mut attached = NV0000_CTRL_GPU_GET_ATTACHED_IDS_PARAMS::new_zeroed();
    assert_eq!(
        control.control(
            client,
            client,
            NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS,
            &mut attached
        ),
        NV_OK
    );
    assert_eq!(attached.gpuIds[..3], [FIRST, SECOND, u32::MAX]);
    let mut probed = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
    assert_eq!(
        control.control(
            client,
            client,
            NV0000_CTRL_CMD_GPU_GET_PROBED_IDS,
            &mut probed
        ),
        NV_OK
    );
    assert_eq!(
        (probed.gpuIds, probed.excludedGpuIds),
        (attached.gpuIds, [u32::MAX; 32])
    );

    let mut attach = NV0000_CTRL_GPU_ATTACH_IDS_PARAMS {
        gpuIds: attached.gpuIds,
        failedId: 0,
    };
    assert_eq!(
        control.control(client, client, NV0000_CTRL_CMD_GPU_ATTACH_IDS, &mut attach),
        NV_OK
    );
    attach.gpuIds[1] = 0x200;
    assert_eq!(
        control.control(client, client, NV0000_CTRL_CMD_GPU_ATTACH_IDS, &mut attach),
        NV_ERR_INVALID_ARGUMENT
    );
    attach.gpuIds[0] = 0xffff;
    assert_eq!(
        control.control(client, client, NV0000_CTRL_CMD_GPU_ATTACH_IDS, &mut attach),
        NV_OK
    );

    let mut info = NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS::new_zeroed();
    info.gpuId = SECOND;
    assert_eq!(
        control.control(
            client,
            client,
            NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2,
            &mut info
        ),
        NV_OK
    );
    assert_eq!(
        (info.deviceInstance, info.gpuInstance, info.numaId),
        (1, 1, -1)
    );
    let mut info = NV0000_CTRL_GPU_GET_ID_INFO_PARAMS::new_zeroed();
    info.gpuId = 0x200;
    assert_eq!(
        control.control(client, client, NV0000_CTRL_CMD_GPU_GET_ID_INFO, &mut info),
        NV_ERR_INVALID_ARGUMENT
    );
}

#[test]
fn commands_reach_objects_that_have_them() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut count = 0u32;
    let command = NV0080_CTRL_CMD_GPU_GET_NUM_SUBDEVICES;
    assert_eq!(control.control(client, 0x10, command, &mut count), NV_OK);
    assert_eq!(count, 1);
    assert_eq!(
        control.control(client, 0x11, command, &mut count),
        NV_ERR_NOT_SUPPORTED
    );
    assert_eq!(
        control.control(client, 0x99, command, &mut count),
        NV_ERR_OBJECT_NOT_FOUND
    );
}

#[test]
fn a_command_without_a_model_leaves_its_parameters_alone() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut status = [0x5a_u8; 1464];
    assert_eq!(
        control.control(
            client,
            0x11,
            NV2080_CTRL_CMD_GPU_QUERY_ECC_STATUS,
            &mut status
        ),
        NV_OK
    );
    assert_eq!(status, [0x5a; 1464]);
}

#[test]
fn nested_texts_are_filled() {
    let driver = driver();
    let control = open(&driver, Node::Control);
    let client = control.client();
    let mut memory: TaskMemory = [0x3000, 0x4000, 0x5000]
        .map(|address| (address, vec![0xff; 8]))
        .into();
    let mut parameters = NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS::new_zeroed();
    parameters.sizeOfStrings = 8;
    (
        parameters.pDriverVersionBuffer,
        parameters.pVersionBuffer,
        parameters.pTitleBuffer,
    ) = (0x3000, 0x4000, 0x5000);
    let command = NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION;
    assert_eq!(
        control.control_with(client, client, command, &mut parameters, &mut memory),
        NV_OK
    );
    assert_eq!(memory[&0x3000], b"580.159\0");
    assert_eq!(memory[&0x5000], b"Simulat\0");
}

#[test]
fn a_gpu_tells_its_name_and_identity() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut name = NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS {
        gpuNameStringFlags: 0,
        gpuNameString: [1; 128],
    };
    assert_eq!(
        control.control(client, 0x11, NV2080_CTRL_CMD_GPU_GET_NAME_STRING, &mut name),
        NV_OK
    );
    assert_eq!(&name.gpuNameString[..12], b"NVIDIA H100 ");
    name.gpuNameStringFlags = 1;
    assert_eq!(
        control.control(client, 0x11, NV2080_CTRL_CMD_GPU_GET_NAME_STRING, &mut name),
        NV_OK
    );
    assert_eq!(&name.gpuNameString[..6], b"N\0V\0I\0");

    let identify = |identity: &mut NV2080_CTRL_GPU_GET_GID_INFO_PARAMS| {
        control.control(client, 0x11, NV2080_CTRL_CMD_GPU_GET_GID_INFO, identity)
    };
    let mut identity = NV2080_CTRL_GPU_GET_GID_INFO_PARAMS::new_zeroed();
    identity.flags = 2;
    assert_eq!(identify(&mut identity), NV_OK);
    assert_eq!(
        (identity.length, &identity.data[..16]),
        (16, &b"simulated GPU \0\0"[..])
    );
    identity.flags = 0;
    assert_eq!(identify(&mut identity), NV_OK);
    assert_eq!(
        (identity.length, &identity.data[..41]),
        (41, &b"GPU-73696d75-6c61-7465-6420-475055200000\0"[..])
    );
    identity.index = 1;
    assert_eq!(identify(&mut identity), NV_ERR_INVALID_PARAM_STRUCT);

    let mut bus = NV2080_CTRL_BUS_GET_PCI_INFO_PARAMS::new_zeroed();
    assert_eq!(
        control.control(client, 0x11, NV2080_CTRL_CMD_BUS_GET_PCI_INFO, &mut bus),
        NV_OK
    );
    assert_eq!(bus.pciDeviceId, 0x2330_10de);
}

#[test]
fn free_memory_follows_allocations() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let free = || {
        let mut info = NV2080_CTRL_FB_GET_INFO_V2_PARAMS::new_zeroed();
        info.fbInfoListSize = 2;
        (info.fbInfoList[0].index, info.fbInfoList[1].index) = (0x08, 0x16);
        assert_eq!(
            control.control(client, 0x11, NV2080_CTRL_CMD_FB_GET_INFO_V2, &mut info),
            NV_OK
        );
        (info.fbInfoList[0].data, info.fbInfoList[1].data)
    };
    let total = (MEMORY >> 10) as u32;
    assert_eq!(free(), (total, total));
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, 1 << 20),
        NV_OK
    );
    assert_eq!(free(), (total, total - 1024));
    let mut info = NV2080_CTRL_FB_GET_INFO_V2_PARAMS::new_zeroed();
    info.fbInfoListSize = 129;
    assert_eq!(
        control.control(client, 0x11, NV2080_CTRL_CMD_FB_GET_INFO_V2, &mut info),
        NV_ERR_INVALID_ARGUMENT
    );
}

#[test]
fn nested_lists_are_answered() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut memory = TaskMemory::new();
    memory.insert(0x3000, [0x0c_u32, 0, 0x0e, 7].as_bytes().to_vec());
    let mut parameters = NV2080_CTRL_GR_GET_INFO_PARAMS::new_zeroed();
    (parameters.grInfoListSize, parameters.grInfoList) = (2, 0x3000);
    assert_eq!(
        control.control_with(
            client,
            0x11,
            NV2080_CTRL_CMD_GR_GET_INFO,
            &mut parameters,
            &mut memory
        ),
        NV_OK
    );
    assert_eq!(memory[&0x3000], [0x0c_u32, 0x900, 0x0e, 32].as_bytes());

    let mut channel = NV_CHANNEL_ALLOC_PARAMS::new_zeroed();
    assert_eq!(
        control.allocate(client, 0x10, 0x20, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_OK
    );
    let mut token = 0u32;
    assert_eq!(
        control.control(
            client,
            0x20,
            NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN,
            &mut token
        ),
        NV_OK
    );
    memory.insert(0x3000, [0x20_u32, 0x11].as_bytes().to_vec());
    memory.insert(0x4000, vec![0; 8]);
    let mut parameters = NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS::new_zeroed();
    (
        parameters.numChannels,
        parameters.pChannelHandleList,
        parameters.pChannelList,
    ) = (2, 0x3000, 0x4000);
    let command = NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST;
    assert_eq!(
        control.control_with(client, 0x10, command, &mut parameters, &mut memory),
        NV_OK
    );
    assert_eq!(memory[&0x4000], [token, u32::MAX].as_bytes());

    assert_eq!(
        control.memory(client, 0x10, 0x21, NV01_MEMORY_LOCAL_USER, 65536),
        NV_OK
    );
    memory.insert(0x3000, [0x2_u32, 0, 0x9, 0].as_bytes().to_vec());
    let mut parameters = NV0041_CTRL_GET_SURFACE_INFO_PARAMS::new_zeroed();
    (parameters.surfaceInfoListSize, parameters.surfaceInfoList) = (2, 0x3000);
    let command = NV0041_CTRL_CMD_GET_SURFACE_INFO;
    assert_eq!(
        control.control_with(client, 0x21, command, &mut parameters, &mut memory),
        NV_OK
    );
    assert_eq!(memory[&0x3000], [0x2_u32, 65536, 0x9, 2].as_bytes());
}

#[test]
fn memory_tells_where_it_is() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 4096),
        NV_OK
    );
    assert_eq!(
        control.memory(client, 0x10, 0x21, NV01_MEMORY_LOCAL_USER, 4096),
        NV_OK
    );
    assert_eq!(
        control.memory(client, 0x10, 0x22, NV50_MEMORY_VIRTUAL, 4096),
        NV_OK
    );
    assert_eq!(
        control
            .allocate_bytes(client, 0x11, 0x23, HOPPER_USERMODE_A, None)
            .0,
        NV_OK
    );
    let place = |object| {
        let mut parameters = [object, 0, 0];
        let status = control.control(
            client,
            client,
            NV0000_CTRL_CMD_CLIENT_GET_ADDR_SPACE_TYPE,
            &mut parameters,
        );
        (status, parameters[2])
    };
    assert_eq!(place(0x20), (NV_OK, 1));
    assert_eq!(place(0x21), (NV_OK, 2));
    assert_eq!(place(0x23), (NV_OK, 3));
    assert_eq!(place(0x22).0, NV_ERR_INVALID_ARGUMENT);
    assert_eq!(place(client).0, NV_ERR_INVALID_OBJECT);
    assert_eq!(place(0x99).0, NV_ERR_OBJECT_NOT_FOUND);
}

#[test]
fn the_version_is_checked() {
    let driver = driver();
    let control = open(&driver, Node::Control);
    let check = |cmd: u8, version: &[u8]| {
        let mut argument = nv_ioctl_rm_api_version_t::new_zeroed();
        argument.cmd = cmd.into();
        argument.versionString[..version.len()].copy_from_slice(version);
        let result = control.ioctl(NV_ESC_CHECK_VERSION_STR, &mut argument);
        assert_eq!(argument.reply, 1);
        (result, argument.versionString.starts_with(b"580.159.04\0"))
    };
    assert_eq!(check(0, b"580.159.04"), (Ok(0), true));
    assert_eq!(check(0, b"580.142"), (Err(Errno::EINVAL), true));
    assert_eq!(check(0, b"580.159.04.1"), (Err(Errno::EINVAL), true));
    assert_eq!(check(b'1', b"580.142"), (Ok(0), false));
    assert_eq!(check(b'1', b"570.142"), (Err(Errno::EINVAL), true));
    assert_eq!(check(b'2', b""), (Ok(0), true));
}

#[test]
fn lesser_ioctls_are_answered() {
    let driver = driver();
    let (control, gpu) = (open(&driver, Node::Control), open(&driver, Node::Gpu(0)));
    assert_eq!(
        control.ioctl(
            NV_ESC_SYS_PARAMS,
            &mut nv_ioctl_sys_params_t {
                memblock_size: 1 << 27
            }
        ),
        Ok(0)
    );
    assert_eq!(
        control.ioctl(
            NV_ESC_SYS_PARAMS,
            &mut nv_ioctl_sys_params_t {
                memblock_size: 1 << 26
            }
        ),
        Err(Errno::EBUSY)
    );
    let mut numa = nv_ioctl_numa_info_t::new_zeroed();
    assert_eq!(gpu.ioctl(NV_ESC_NUMA_INFO, &mut numa), Ok(0));
    assert_eq!((numa.nid, numa.memblock_size), (-1, 1 << 27));
    let mut opened = nv_ioctl_wait_open_complete_t {
        rc: 5,
        adapterStatus: 5,
    };
    assert_eq!(gpu.ioctl(NV_ESC_WAIT_OPEN_COMPLETE, &mut opened), Ok(0));
    assert_eq!((opened.rc, opened.adapterStatus), (0, NV_OK));
    assert_eq!(
        control.ioctl(NV_ESC_ATTACH_GPUS_TO_FD, &mut [FIRST, 0, SECOND]),
        Ok(0)
    );
    assert_eq!(
        control.ioctl(NV_ESC_ATTACH_GPUS_TO_FD, &mut [FIRST, 0x200]),
        Err(Errno::EINVAL)
    );
}
