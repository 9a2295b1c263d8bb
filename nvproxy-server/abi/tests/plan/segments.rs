//! Which parts of a task's memory belong to a request.

use nvproxy_abi::table::ForcedBits;

use super::*;

#[test]
fn a_flat_request_is_its_argument() {
    let word = ioctl_word(NV_ESC_RM_FREE, 16);
    let (plan, payload) = plan(
        Node::Control,
        word,
        Memory::default().with(ARGUMENT, &[7u8; 16]),
    );
    assert_eq!(payload, [7; 16]);
    assert_eq!(plan.segments[..], [segment(0, 16, None)]);
    assert!(plan.descriptors.is_empty());
    assert_eq!(
        (plan.family, plan.request.name),
        (Family::Frontend, "NV_ESC_RM_FREE")
    );
    assert_eq!(plan.status_at(), Some(12));
    assert!(!plan.pins() && !plan.makes_event() && plan.forced_bits().is_none());
}

#[test]
fn an_argument_of_any_size_has_the_size_in_the_command_word() {
    for cards in [0, 1, 32] {
        let memory = Memory::default().with(ARGUMENT, &vec![0u8; 72 * cards][..]);
        let (plan, _) = plan(
            Node::Control,
            ioctl_word(NV_ESC_CARD_INFO, 72 * cards),
            memory,
        );
        assert_eq!(plan.segments[..], [segment(0, 72 * cards as u32, None)]);
        assert_eq!(plan.status_at(), None);
    }
}

#[test]
fn the_direction_in_the_command_word_does_not_matter() {
    let word = ioctl_word(NV_ESC_SYS_PARAMS, 8) & 0x3fff_ffff;
    let (plan, _) = plan(
        Node::Control,
        word,
        Memory::default().with(ARGUMENT, &[0u8; 8]),
    );
    assert_eq!(plan.request.name, "NV_ESC_SYS_PARAMS");
}

#[test]
fn a_control_command_has_its_parameters_behind_a_pointer() {
    let parameters = NV2080_CTRL_GPU_GET_NAME_STRING_PARAMS::new_zeroed();
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(
                NV2080_CTRL_CMD_GPU_GET_NAME_STRING,
                0x1000,
                size_of_val(&parameters),
            ),
        )
        .with(0x1000, &parameters);
    let (plan, _) = plan(Node::Control, CONTROL, memory);
    // 132 bytes, padded to 136.
    assert_eq!(
        plan.segments[..],
        [segment(0, 32, None), segment(32, 132, 16)]
    );
    assert_eq!(plan.total_length(), 168);
    assert_eq!(
        (plan.family, plan.request.id),
        (Family::Control, NV2080_CTRL_CMD_GPU_GET_NAME_STRING)
    );
    assert_eq!(plan.status_at(), Some(28));
    assert!(!plan.may_block());
}

#[test]
fn a_control_command_that_takes_long_may_block() {
    let memory = Memory::default()
        .with(ARGUMENT, &control(NV2080_CTRL_CMD_PERF_BOOST, 0x1000, 8))
        .with(0x1000, &[0u8; 8]);
    assert!(plan(Node::Control, CONTROL, memory).0.may_block());
}

#[test]
fn lists_behind_parameters_follow_them() {
    let parameters = NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS {
        numChannels: 3,
        pChannelHandleList: 0x2000,
        pChannelList: 0x3000,
        ..FromZeros::new_zeroed()
    };
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST, 0x1000, 24),
        )
        .with(0x1000, &parameters)
        .with(0x2000, &[1u32, 2, 3])
        .with(0x3000, &[4u32, 5, 6]);
    let (plan, payload) = plan(Node::Control, CONTROL, memory);
    assert_eq!(
        plan.segments[..],
        [
            segment(0, 32, None),
            segment(32, 24, 16),
            segment(56, 12, 40),
            segment(72, 12, 48)
        ]
    );
    assert_eq!(payload[56..68], *[1u32, 2, 3].as_bytes());
    assert_eq!(payload[72..84], *[4u32, 5, 6].as_bytes());
}

#[test]
fn a_null_list_has_no_segment_and_an_empty_one_has() {
    let parameters = NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS {
        pChannelList: 0x3000,
        ..FromZeros::new_zeroed()
    };
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST, 0x1000, 24),
        )
        .with(0x1000, &parameters);
    let (plan, payload) = plan(Node::Control, CONTROL, memory);
    assert_eq!(
        plan.segments[..],
        [
            segment(0, 32, None),
            segment(32, 24, 16),
            segment(56, 0, 48)
        ]
    );
    assert_eq!(payload.len(), 56);
}

#[test]
fn elements_have_the_size_of_the_driver_s() {
    let graphics = NV2080_CTRL_GR_GET_INFO_PARAMS {
        grInfoListSize: 2,
        grInfoList: 0x2000,
        ..FromZeros::new_zeroed()
    };
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(NV2080_CTRL_CMD_GR_GET_INFO, 0x1000, size_of_val(&graphics)),
        )
        .with(0x1000, &graphics)
        .with(0x2000, &[0u64; 2]);
    let (graphics, _) = plan(Node::Control, CONTROL, memory);
    assert_eq!(graphics.segments[2], segment(64, 16, 40));

    let version = NV0000_CTRL_SYSTEM_GET_BUILD_VERSION_PARAMS {
        sizeOfStrings: 5,
        pDriverVersionBuffer: 0x2000,
        pVersionBuffer: 0x2000,
        pTitleBuffer: 0x2000,
        ..FromZeros::new_zeroed()
    };
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(
                NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION,
                0x1000,
                size_of_val(&version),
            ),
        )
        .with(0x1000, &version)
        .with(0x2000, b"12345");
    let (version, _) = plan(Node::Control, CONTROL, memory);
    assert_eq!(
        version.segments[2..],
        [segment(72, 5, 40), segment(80, 5, 48), segment(88, 5, 56)]
    );
}

#[test]
fn a_matrix_has_the_square_of_its_side() {
    let mut parameters = [0u8; 176];
    parameters[128..132].copy_from_slice(3u32.as_bytes());
    parameters[160..168].copy_from_slice(0x2000u64.as_bytes());
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS, 0x1000, 176),
        )
        .with(0x1000, &parameters)
        .with(0x2000, &[0u32; 9]);
    let (plan, _) = plan(Node::Control, CONTROL, memory);
    assert_eq!(plan.segments[2..], [segment(208, 36, 192)]);
}

#[test]
fn the_parameters_of_an_allocation_have_the_size_of_its_class() {
    let (allocation, parameters) = (
        alloc(NV01_DEVICE_0, 0x1000),
        NV0080_ALLOC_PARAMETERS::new_zeroed(),
    );
    let memory = || Memory::default().with(0x1000, &parameters);
    let (longer, _) = plan(Node::Control, ALLOC, memory().with(ARGUMENT, &allocation));
    assert_eq!(
        longer.segments[..],
        [segment(0, 48, None), segment(48, 56, 16)]
    );
    assert_eq!(
        (longer.family, longer.request.name),
        (Family::Alloc, "NV01_DEVICE_0")
    );
    assert_eq!(longer.status_at(), Some(40));
    assert!(longer.may_block());

    let allocation = NVOS21_PARAMETERS {
        hClass: NV01_DEVICE_0,
        pAllocParms: 0x1000,
        ..NVOS21_PARAMETERS::new_zeroed()
    };
    let word = ioctl_word(NV_ESC_RM_ALLOC, 32);
    let (shorter, _) = plan(Node::Control, word, memory().with(ARGUMENT, &allocation));
    assert_eq!(
        shorter.segments[..],
        [segment(0, 32, None), segment(32, 56, 16)]
    );
    assert_eq!(shorter.status_at(), Some(28));
}

#[test]
fn an_allocation_can_ask_for_rights() {
    let allocation = NVOS64_PARAMETERS {
        pRightsRequested: 0x2000,
        ..alloc(NV01_ROOT_CLIENT, 0)
    };
    let memory = Memory::default()
        .with(ARGUMENT, &allocation)
        .with(0x2000, &1u32);
    let (plan, _) = plan(Node::Control, ALLOC, memory);
    assert_eq!(
        plan.segments[..],
        [segment(0, 48, None), segment(48, 4, 24)]
    );
    assert_eq!(plan.request.id, NV01_ROOT_CLIENT);
}

#[test]
fn uvm_takes_its_sizes_from_the_table() {
    let memory = Memory::default().with(ARGUMENT, &UVM_REGISTER_GPU_PARAMS::new_zeroed());
    let (register, _) = plan(Node::Uvm, UVM_REGISTER_GPU, memory);
    assert_eq!(register.segments[..], [segment(0, 40, None)]);
    assert_eq!(
        register.descriptors[..],
        [DescriptorField {
            at: 24,
            role: Role::Command
        }]
    );
    assert_eq!(
        (register.family, register.status_at()),
        (Family::Uvm, Some(36))
    );
    assert!(register.may_block());

    let memory =
        Memory::default().with(ARGUMENT, &UVM_MAP_EXTERNAL_ALLOCATION_PARAMS::new_zeroed());
    let (map, _) = plan(Node::Uvm, UVM_MAP_EXTERNAL_ALLOCATION, memory);
    assert_eq!(map.segments[..], [segment(0, 9264, None)]);
    assert_eq!(
        map.descriptors[..],
        [DescriptorField {
            at: 9248,
            role: Role::Command
        }]
    );

    let (end, payload) = plan(Node::Uvm, UVM_DEINITIALIZE, Memory::default());
    assert_eq!(end.segments[..], [segment(0, 0, None)]);
    assert!(payload.is_empty());
}

fn set(bits: u64) -> ForcedBits {
    ForcedBits {
        set: bits,
        cleared: 0,
    }
}

/// NV0080_ALLOC_PARAMETERS.hClientShare, where the driver is told hRoot instead of none. Of other classes there is no such field.
#[test]
fn a_device_names_the_client_that_makes_it() {
    let device = NV0080_ALLOC_PARAMETERS::new_zeroed();
    let memory = Memory::default()
        .with(ARGUMENT, &alloc(NV01_DEVICE_0, 0x1000))
        .with(0x1000, &device);
    let (plan, _) = plan(Node::Control, ALLOC, memory);
    let start = plan.request_at.expect("parameters");
    let filled_in: Vec<(u32, u32)> = plan.filled_in().collect();
    assert_eq!(filled_in, [(start + 4, 0)]);
}

/// NV_DEVICE_ALLOCATION_FLAGS_RETRY_PTE_ALLOC_IN_SYS and NV_VASPACE_ALLOCATION_FLAGS_RETRY_PTE_ALLOC_IN_SYS (nvos.h): page
/// tables in host memory would take memory that nobody counts.
#[test]
fn no_page_tables_are_put_in_host_memory_where_a_gpu_has_none_left() {
    let device = NV0080_ALLOC_PARAMETERS {
        flags: 0x100c,
        ..FromZeros::new_zeroed()
    };
    let space = NV_VASPACE_ALLOCATION_PARAMETERS {
        flags: 0x2,
        ..FromZeros::new_zeroed()
    };
    for (class, parameters, field, cleared) in [
        (NV01_DEVICE_0, device.as_bytes(), 16, 0x4),
        (FERMI_VASPACE_A, space.as_bytes(), 4, 0x2),
    ] {
        let memory = Memory::default()
            .with(ARGUMENT, &alloc(class, 0x1000))
            .with(0x1000, parameters);
        let (plan, payload) = plan(Node::Control, ALLOC, memory);
        let (at, bits) = plan.forced_bits().expect("bits that are cleared");
        assert_eq!(bits, ForcedBits { set: 0, cleared });
        assert_eq!(Some(at), plan.request_at.map(|start| start + field));
        let value = u64::from_le_bytes(payload[at as usize..][..8].try_into().expect("a field"));
        assert_eq!(value & cleared, cleared);
        assert_eq!(bits.in_place_of(value), value & !cleared);
    }
}

/// RS_SHARE_TYPE_PID (4) in the place of RS_SHARE_TYPE_OS_SECURITY_TOKEN (2) and RS_SHARE_TYPE_CLIENT (3). The type has 2 bytes, and 8 that end with
/// them are looked at.
#[test]
fn a_share_with_a_user_or_a_client_is_one_with_the_process() {
    for kind in [0, 2, 3, 4u64] {
        let mut policy = [0u8; 12];
        policy[3] = 0xff;
        policy[8] = kind as u8;
        let command = NV0000_CTRL_CMD_CLIENT_SET_INHERITED_SHARE_POLICY;
        let memory = Memory::default()
            .with(ARGUMENT, &control(command, 0x1000, 12))
            .with(0x1000, &policy);
        let (plan, payload) = plan(Node::Control, CONTROL, memory);
        let forced = plan.forced_bits();
        let Some((at, bits)) = forced.filter(|_| [2, 3].contains(&kind)) else {
            assert_eq!(forced, None, "{kind}");
            continue;
        };
        assert_eq!(Some(at), plan.request_at.map(|start| start + 2));
        let value = u64::from_le_bytes(payload[at as usize..][..8].try_into().expect("a field"));
        assert_eq!(value, kind << 48 | 0xff00);
        assert_eq!(bits.in_place_of(value), 4 << 48 | 0xff00);
    }
}

#[test]
fn uvm_is_initialized_for_several_processes() {
    let memory = Memory::default().with(ARGUMENT, &UVM_INITIALIZE_PARAMS::new_zeroed());
    assert_eq!(
        plan(Node::Uvm, UVM_INITIALIZE, memory).0.forced_bits(),
        Some((0, set(2)))
    );
}

/// NV0073_CTRL_CMD_SYSTEM_GET_CONNECT_STATE: the driver tells what it found last.
#[test]
fn displays_are_not_looked_for_anew() {
    for flags in [0, 1] {
        let request = control(0x0073_0108, 0x1000, 16);
        let memory = Memory::default().with(ARGUMENT, &request);
        let (plan, _) = plan(
            Node::Control,
            CONTROL,
            memory.with(0x1000, &[0u32, flags, 0xff, 0]),
        );
        assert_eq!(plan.forced_bits(), Some((36, set(1))));
    }
}

#[test]
fn events_of_either_class_have_no_data() {
    for class in [NV01_EVENT, NV01_EVENT_OS_EVENT] {
        let mut parameters = NV0005_ALLOC_PARAMETERS::new_zeroed();
        parameters.hClass = NV01_EVENT_OS_EVENT;
        let memory = Memory::default().with(ARGUMENT, &alloc(class, 0x1000));
        let (plan, _) = plan(Node::Control, ALLOC, memory.with(0x1000, &parameters));
        assert_eq!(plan.forced_bits(), Some((60, set(0x1000_0000))));
    }
}

#[test]
fn registers_of_a_gpu_are_answered_and_nothing_else_of_that_request_is() {
    let number = NV_ESC_RM_ALLOC_MEMORY;
    let word = ioctl_word(number, size_of::<nv_ioctl_nvos02_parameters_with_fd>());
    for (class, is_answered) in [
        (0x3f, true),
        (NV01_MEMORY_SYSTEM, false),
        (NV01_MEMORY_LOCAL_USER, false),
    ] {
        let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
        (request.params.hClass, request.fd) = (class, -1);
        request.params.hObjectNew = 7;
        let memory = Memory::default().with(ARGUMENT, &request);
        let (plan, _) = plan(Node::Gpu(0), word, memory);
        assert_eq!(plan.is_answered(), is_answered, "{class:#x}");
    }
}

#[test]
fn a_size_without_parameters_is_left_to_the_driver() {
    let request = control(NV2080_CTRL_CMD_GPU_GET_NAME_STRING, 0, 132);
    let (plan, _) = plan(
        Node::Control,
        CONTROL,
        Memory::default().with(ARGUMENT, &request),
    );
    assert_eq!(plan.segments[..], [segment(0, 32, None)]);
}
