//! Requests that are refused, and with which answer.

use nvproxy_abi::plan::{MAXIMUM_BUFFER, MAXIMUM_PAYLOAD};
use nvproxy_abi::refusal::{Answer, EFAULT, EINVAL, ENOSYS, What};

use super::*;

#[test]
fn unknown_ioctls_are_einval() {
    let unknown = |node, word| refusal(node, word, Memory::default());
    let family = Family::Frontend;
    let what = What::Unknown {
        family,
        id: 0x39,
        name: Some("NV_ESC_RM_I2C_ACCESS"),
    };
    let bus = unknown(Node::Control, ioctl_word(0x39, 32));
    assert_eq!(
        bus,
        Refusal {
            what,
            answer: Answer::Errno(EINVAL)
        }
    );
    assert_eq!(
        bus.what.to_string(),
        "unknown ioctl 0x39 (NV_ESC_RM_I2C_ACCESS)"
    );

    let what = What::Unknown {
        family,
        id: 0x99,
        name: None,
    };
    assert_eq!(
        unknown(Node::Gpu(0), ioctl_word(0x99, 8)),
        Refusal {
            what,
            answer: Answer::Errno(EINVAL)
        }
    );

    // TCGETS, an ioctl of terminals. The driver does not look at its type.
    let what = What::Unknown {
        family,
        id: 0x01,
        name: None,
    };
    assert_eq!(
        unknown(Node::Control, 0x5401),
        Refusal {
            what,
            answer: Answer::Errno(EINVAL)
        }
    );
}

#[test]
fn ioctls_of_another_size_are_einval() {
    for size in [0, 31, 33, 40, 47, 49] {
        let what = What::BadSize {
            family: Family::Frontend,
            id: NV_ESC_RM_ALLOC,
            name: "NV_ESC_RM_ALLOC",
            size,
        };
        assert_eq!(
            refusal(
                Node::Control,
                ioctl_word(NV_ESC_RM_ALLOC, size as usize),
                Memory::default()
            ),
            Refusal {
                what,
                answer: Answer::Errno(EINVAL)
            }
        );
    }
}

#[test]
fn unknown_uvm_ioctls_are_enosys() {
    let what = What::Unknown {
        family: Family::Uvm,
        id: 62,
        name: Some("UVM_TOOLS_READ_PROCESS_MEMORY"),
    };
    let tools = refusal(Node::Uvm, 62, Memory::default());
    assert_eq!(
        tools,
        Refusal {
            what,
            answer: Answer::Errno(ENOSYS)
        }
    );
    assert_eq!(
        tools.what.to_string(),
        "unknown UVM ioctl 0x3e (UVM_TOOLS_READ_PROCESS_MEMORY)"
    );
    assert_eq!(
        refusal(Node::Uvm, CONTROL, Memory::default()).answer,
        Answer::Errno(ENOSYS)
    );
}

#[test]
fn unknown_control_commands_are_not_supported() {
    // With parameters or without.
    for parameters in [0, 0x1000] {
        let memory = Memory::default().with(ARGUMENT, &control(0x130, parameters, 56));
        let method = refusal(Node::Control, CONTROL, memory);
        let name = Some("NV0000_CTRL_CMD_SYSTEM_EXECUTE_ACPI_METHOD");
        let what = What::Unknown {
            family: Family::Control,
            id: 0x130,
            name,
        };
        let answer = Answer::Status {
            at: 28,
            status: NV_ERR_NOT_SUPPORTED,
        };
        assert_eq!(method, Refusal { what, answer });
        assert_eq!(
            method.what.to_string(),
            "unknown control command 0x130 (NV0000_CTRL_CMD_SYSTEM_EXECUTE_ACPI_METHOD)"
        );
    }
}

#[test]
fn unknown_classes_are_invalid() {
    for (word, at) in [(ALLOC, 40), (ioctl_word(NV_ESC_RM_ALLOC, 32), 28)] {
        let memory = Memory::default().with(ARGUMENT, &alloc(0x0f, 0x1000));
        let what = What::Unknown {
            family: Family::Alloc,
            id: 0x0f,
            name: Some("FABRIC_MANAGER_SESSION"),
        };
        let answer = Answer::Status {
            at,
            status: NV_ERR_INVALID_CLASS,
        };
        assert_eq!(
            refusal(Node::Control, word, memory),
            Refusal { what, answer }
        );
    }
    // NV_ESC_RM_ALLOC_MEMORY knows fewer: not a list of pages, for one.
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    argument.params.hClass = 0x81;
    let memory = Memory::default().with(ARGUMENT, &argument);
    let what = What::Unknown {
        family: Family::Alloc,
        id: 0x81,
        name: Some("NV01_MEMORY_LIST_SYSTEM"),
    };
    let answer = Answer::Status {
        at: 40,
        status: NV_ERR_INVALID_CLASS,
    };
    assert_eq!(
        refusal(Node::Gpu(0), ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56), memory),
        Refusal { what, answer }
    );
}

#[test]
fn what_the_sandbox_was_not_given_is_as_if_it_were_unknown() {
    let version = "580.142".parse().expect("a version");
    let abi = Abi::of_release(&version, Capabilities::default()).expect("tables");
    let refused = |memory: Memory, word| {
        let mut planner = Planner::new(abi, Node::Control, word, ARGUMENT).expect("a known ioctl");
        let Ok(Step::Fetch(argument)) = planner.step(&[]) else {
            panic!("the argument was not asked for");
        };
        let payload = memory.read(argument).expect("the argument");
        planner.step(payload).expect_err("a refusal")
    };

    let memory = Memory::default().with(ARGUMENT, &control(0x2080_0122, 0x1000, 48));
    let registers = refused(memory, CONTROL);
    let expected = Answer::Status {
        at: 28,
        status: NV_ERR_NOT_SUPPORTED,
    };
    assert_eq!(registers.answer, expected);
    assert_eq!(
        registers.what.to_string(),
        "control command 0x20800122 (NV2080_CTRL_CMD_GPU_EXEC_REG_OPS) needs a capability that the sandbox lacks: \
         profiling"
    );

    let memory = Memory::default().with(ARGUMENT, &alloc(0xb2cc, 0x1000));
    let device = refused(memory, ALLOC);
    let expected = Answer::Status {
        at: 40,
        status: NV_ERR_INVALID_CLASS,
    };
    assert_eq!(device.answer, expected);
    assert_eq!(
        device.what.to_string(),
        "class 0xb2cc (MAXWELL_PROFILER_DEVICE) needs a capability that the sandbox lacks: profiling"
    );
}

#[test]
fn control_parameters_of_another_size_are_invalid() {
    for size in [0, 131, 133, MAXIMUM_BUFFER + 1, u32::MAX] {
        let request = control(NV2080_CTRL_CMD_GPU_GET_NAME_STRING, 0x1000, size as usize);
        let what = What::BadSize {
            family: Family::Control,
            id: NV2080_CTRL_CMD_GPU_GET_NAME_STRING,
            name: "NV2080_CTRL_CMD_GPU_GET_NAME_STRING",
            size,
        };
        let answer = Answer::Status {
            at: 28,
            status: NV_ERR_INVALID_ARGUMENT,
        };
        assert_eq!(
            refusal(
                Node::Control,
                CONTROL,
                Memory::default().with(ARGUMENT, &request)
            ),
            Refusal { what, answer }
        );
    }
}

#[test]
fn serialized_parameters_are_refused() {
    let request = NVOS54_PARAMETERS {
        flags: 4,
        ..control(NV0000_CTRL_CMD_SYSTEM_GET_FEATURES, 0x1000, 4)
    };
    let refused = refusal(
        Node::Control,
        CONTROL,
        Memory::default().with(ARGUMENT, &request),
    );
    assert_eq!(
        refused.answer,
        Answer::Status {
            at: 28,
            status: NV_ERR_NOT_SUPPORTED
        }
    );
    assert_eq!(
        refused.what.to_string(),
        "ioctl 0x2a (NV_ESC_RM_CONTROL) with unsupported flags 0x4"
    );

    let request = NVOS64_PARAMETERS {
        flags: 1,
        ..alloc(NV01_ROOT_CLIENT, 0)
    };
    let refused = refusal(
        Node::Control,
        ALLOC,
        Memory::default().with(ARGUMENT, &request),
    );
    assert_eq!(
        refused.answer,
        Answer::Status {
            at: 40,
            status: NV_ERR_NOT_SUPPORTED
        }
    );
}

/// NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST with `channels` channels.
fn channels(channels: u32) -> Memory {
    let parameters = NV0080_CTRL_FIFO_GET_CHANNELLIST_PARAMS {
        numChannels: channels,
        pChannelHandleList: 0x2000,
        pChannelList: 0x3000,
        ..FromZeros::new_zeroed()
    };
    Memory::default()
        .with(
            ARGUMENT,
            &control(NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST, 0x1000, 24),
        )
        .with(0x1000, &parameters)
        .with(0x2000, &vec![0u8; MAXIMUM_BUFFER as usize][..])
        .with(0x3000, &vec![0u8; MAXIMUM_BUFFER as usize][..])
}

#[test]
fn what_is_too_large_is_invalid() {
    let too_large = |memory, length| {
        let what = What::TooLarge {
            family: Family::Control,
            id: NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST,
            name: "NV0080_CTRL_CMD_FIFO_GET_CHANNELLIST",
            length,
        };
        let answer = Answer::Status {
            at: 28,
            status: NV_ERR_INVALID_ARGUMENT,
        };
        assert_eq!(
            refusal(Node::Control, CONTROL, memory),
            Refusal { what, answer }
        );
    };
    // A list that the driver would not take, and one whose length has more than 32 bits.
    too_large(
        channels(MAXIMUM_BUFFER / 4 + 1),
        u64::from(MAXIMUM_BUFFER) + 4,
    );
    too_large(channels(u32::MAX), u64::from(u32::MAX) * 4);
    // Two that it would take one at a time.
    too_large(channels(MAXIMUM_BUFFER / 4), u64::from(MAXIMUM_BUFFER));

    // As many channels as make both lists fit, exactly.
    let half = (MAXIMUM_PAYLOAD - 56) / 2 / 8 * 2;
    let (plan, _) = plan(Node::Control, CONTROL, channels(half as u32));
    assert_eq!(plan.total_length(), MAXIMUM_PAYLOAD - 8);
    too_large(channels(half as u32 + 2), 4 * (half as u64 + 2));
}

#[test]
fn the_sides_of_a_matrix_do_not_overflow() {
    let mut parameters = [0xffu8; 176];
    parameters[168..].fill(0);
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS, 0x1000, 176),
        )
        .with(0x1000, &parameters);
    let refused = refusal(Node::Control, CONTROL, memory);
    assert_eq!(
        refused.answer,
        Answer::Status {
            at: 28,
            status: NV_ERR_INVALID_ARGUMENT
        }
    );
    assert!(
        matches!(
            refused.what,
            What::TooLarge {
                length: u64::MAX,
                ..
            }
        ),
        "{:?}",
        refused.what
    );
}

#[test]
fn a_payload_of_another_length_is_malformed() {
    for length in [0, 8, 24, 31, 33, 40] {
        let mut planner = Planner::new(abi(), Node::Control, CONTROL, 0).expect("a known ioctl");
        let step = planner.step(&[]).expect("a first step");
        assert_eq!(
            step,
            Step::Fetch(Fetch {
                address: 0,
                offset: 0,
                length: 32
            })
        );
        let malformed = Refusal {
            what: What::Malformed,
            answer: Answer::Errno(EINVAL),
        };
        assert_eq!(planner.step(&vec![0; length]), Err(malformed), "{length}");
    }
}

#[test]
fn unreadable_memory_is_what_the_driver_says() {
    let mut planner = Planner::new(abi(), Node::Control, CONTROL, ARGUMENT).expect("a known ioctl");
    planner.step(&[]).expect("a first step");
    assert_eq!(planner.unreadable(), Answer::Errno(EFAULT));
    let request = control(NV0000_CTRL_CMD_SYSTEM_GET_FEATURES, 0x1000, 4);
    let step = planner.step(request.as_bytes());
    assert_eq!(
        step,
        Ok(Step::Fetch(Fetch {
            address: 0x1000,
            offset: 32,
            length: 4
        }))
    );
    assert_eq!(
        planner.unreadable(),
        Answer::Status {
            at: 28,
            status: NV_ERR_INVALID_ADDRESS
        }
    );

    let mut planner = Planner::new(abi(), Node::Uvm, UVM_FREE, ARGUMENT).expect("a known ioctl");
    planner.step(&[]).expect("a first step");
    assert_eq!(planner.unreadable(), Answer::Errno(EFAULT));
}

/// There would be no place for the client that the driver is told.
#[test]
fn a_device_without_parameters_is_refused() {
    let memory = Memory::default().with(ARGUMENT, &alloc(NV01_DEVICE_0, 0));
    let refused = refusal(Node::Control, ALLOC, memory);
    let what = What::BadSize {
        family: Family::Alloc,
        id: NV01_DEVICE_0,
        name: "NV01_DEVICE_0",
        size: 0,
    };
    let status = NV_ERR_INVALID_ARGUMENT;
    assert_eq!(refused.what, what);
    assert_eq!(refused.answer, Answer::Status { at: 40, status });
}

/// Page tables in host memory would take memory that nobody counts, and an address space for NVLink (FLA) is the GPU's.
#[test]
fn page_tables_in_host_memory_and_address_spaces_for_nvlink_are_refused() {
    /// NVOS32_ALLOC_FLAGS_PREFER_PTES_IN_SYSMEMORY, and NV_VASPACE_ALLOCATION_FLAGS_IS_FLA (nvos.h).
    const PREFER_PTES_IN_SYSMEMORY: u32 = 0x2000_0000;
    const IS_FLA: u32 = 0x200;
    let virtual_memory = NV_MEMORY_ALLOCATION_PARAMS {
        flags: PREFER_PTES_IN_SYSMEMORY,
        ..FromZeros::new_zeroed()
    };
    let for_nvlink = NV_VASPACE_ALLOCATION_PARAMETERS {
        flags: IS_FLA,
        ..FromZeros::new_zeroed()
    };
    for (class, parameters) in [
        (NV50_MEMORY_VIRTUAL, virtual_memory.as_bytes()),
        (FERMI_VASPACE_A, for_nvlink.as_bytes()),
    ] {
        let memory = Memory::default()
            .with(ARGUMENT, &alloc(class, 0x2000))
            .with(0x2000, parameters);
        let status = NV_ERR_NOT_SUPPORTED;
        assert_eq!(
            refusal(Node::Control, ALLOC, memory).answer,
            Answer::Status { at: 40, status }
        );
    }
}

/// A boost with `flags`, and what comes of it.
fn boost(flags: u8) -> Memory {
    let mut parameters = [0; 8];
    parameters[0] = flags;
    Memory::default()
        .with(ARGUMENT, &control(NV2080_CTRL_CMD_PERF_BOOST, 0x1000, 8))
        .with(0x1000, &parameters)
}

#[test]
fn a_field_is_only_passed_with_the_values_of_its_rule() {
    let word = ioctl_word(NV_ESC_RM_CONTROL, 32);
    for flags in [0, 0x2, 0x10, 0x12] {
        plan(Node::Control, word, boost(flags));
    }
    let refused = refusal(Node::Control, word, boost(0x52));
    let answer = Answer::Status {
        at: 28,
        status: NV_ERR_NOT_SUPPORTED,
    };
    assert_eq!(refused.answer, answer);
    assert_eq!(
        refused.what.to_string(),
        "control command 0x2080200a (NV2080_CTRL_CMD_PERF_BOOST) is not passed with flags = 0x52"
    );
}

/// For every client of the GPU's arbitration (NV2080_CTRL_PERF_RATED_TDP_CLIENT, ctrl2080perf.h): 3 is the operating system.
#[test]
fn no_clock_is_held_for_all_who_use_a_gpu() {
    let word = ioctl_word(NV_ESC_RM_CONTROL, 32);
    let command = NV2080_CTRL_CMD_PERF_RATED_TDP_SET_CONTROL;
    for client in 0..6 {
        let memory = Memory::default()
            .with(ARGUMENT, &control(command, 0x1000, 12))
            .with(0x1000, &[client, 0u32, 0]);
        let refused = refusal(Node::Control, word, memory);
        let status = NV_ERR_INSUFFICIENT_PERMISSIONS;
        assert_eq!(refused.answer, Answer::Status { at: 28, status });
        let name = "NV2080_CTRL_CMD_PERF_RATED_TDP_SET_CONTROL";
        let text = format!(
            "control command {command:#x} ({name}) is not passed with client = {client:#x}"
        );
        assert_eq!(refused.what.to_string(), text);
    }
}

#[test]
fn no_client_is_made_with_a_handle_of_the_programs_choice() {
    let chosen = |root, object| {
        let request = NVOS64_PARAMETERS {
            hRoot: root,
            hObjectNew: object,
            ..alloc(NV01_ROOT_CLIENT, 0)
        };
        Memory::default().with(ARGUMENT, &request)
    };
    plan(Node::Control, ALLOC, chosen(0, 0));
    for (root, object, field) in [(5, 0, "hRoot"), (0, 5, "hObjectNew"), (5, 5, "hRoot")] {
        let refused = refusal(Node::Control, ALLOC, chosen(root, object));
        let answer = Answer::Status {
            at: 40,
            status: NV_ERR_INVALID_ARGUMENT,
        };
        assert_eq!(refused.answer, answer);
        let text = format!("ioctl 0x2b (NV_ESC_RM_ALLOC) is not passed with {field} = 0x5");
        assert_eq!(refused.what.to_string(), text);
    }
}

/// NV_ESC_RM_VID_HEAP_CONTROL with other functions than to allocate by a size, and with page tables in the host's memory.
#[test]
fn one_function_of_the_older_request_for_memory_is_passed() {
    let word = ioctl_word(NV_ESC_RM_VID_HEAP_CONTROL, size_of::<NVOS32_PARAMETERS>());
    let answer = Answer::Status {
        at: 20,
        status: NV_ERR_NOT_SUPPORTED,
    };
    for (function, flags, is_passed) in [
        (2, 0, true),
        (2, 0x2000_0000, false),
        (0, 0, false),
        (3, 0, false),
        (14, 0, false),
        (27, 0, false),
    ] {
        let mut request = NVOS32_PARAMETERS::new_zeroed();
        (request.function, request.flags) = (function, flags);
        let memory = Memory::default().with(ARGUMENT, &request);
        let outcome = gather(Node::Control, word, &memory);
        let refused = outcome.err().map(|refusal| refusal.answer);
        assert_eq!(refused, (!is_passed).then_some(answer), "{function}");
    }
}

/// Of the classes that NV01_EVENT can stand for, some have an address in the kernel in their parameters.
#[test]
fn no_callback_comes_in_as_an_event() {
    for class in [NV01_EVENT, 0x78, 0x7e, 0] {
        let mut parameters = NV0005_ALLOC_PARAMETERS::new_zeroed();
        parameters.hClass = class;
        let memory = Memory::default().with(ARGUMENT, &alloc(NV01_EVENT, 0x1000));
        let refused = refusal(Node::Control, ALLOC, memory.with(0x1000, &parameters));
        let expected = Answer::Status {
            at: 40,
            status: NV_ERR_INVALID_CLASS,
        };
        assert_eq!(refused.answer, expected, "{class:#x}");
    }
}

/// NV_ESC_RM_ALLOC_MEMORY does not tell which handle the driver chose.
#[test]
fn memory_by_the_older_request_has_a_handle_of_the_programs_choice() {
    let word = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56);
    for class in [
        NV01_MEMORY_SYSTEM,
        NV01_MEMORY_LOCAL_USER,
        NV01_MEMORY_SYSTEM_OS_DESCRIPTOR,
    ] {
        let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
        (request.params.hClass, request.fd) = (class, -1);
        let refused = refusal(
            Node::Gpu(0),
            word,
            Memory::default().with(ARGUMENT, &request),
        );
        let expected = Answer::Status {
            at: 40,
            status: NV_ERR_INVALID_OBJECT_HANDLE,
        };
        assert_eq!(refused.answer, expected, "{class:#x}");
    }
}
