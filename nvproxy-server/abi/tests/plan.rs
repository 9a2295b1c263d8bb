//! What the planner finds in requests of every shape, and what it answers to those it refuses.

use std::sync::LazyLock;

use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::plan::{
    DescriptorField, Fetch, MAXIMUM_BUFFER, MAXIMUM_PAYLOAD, Plan, Planner, Segment, Step,
};
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::refusal::{Answer, EFAULT, EINVAL, ENOSYS, Refusal, What};
use nvproxy_abi::status::*;
use nvproxy_abi::structs::class::*;
use nvproxy_abi::structs::control::*;
use nvproxy_abi::structs::frontend::*;
use nvproxy_abi::structs::uvm::*;
use nvproxy_abi::table::{Family, Role};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Where a task's requests start.
const ARGUMENT: u64 = 0x7000_0000;

static ABI: LazyLock<&'static Abi> = LazyLock::new(|| {
    let version = "580.142".parse().expect("a version");
    Abi::of_release(&version, Capabilities::ALL).expect("tables")
});

fn abi() -> &'static Abi {
    &ABI
}

/// The memory of a task: what lies at which address.
#[derive(Default)]
struct Memory(Vec<(u64, Vec<u8>)>);

impl Memory {
    fn with(mut self, address: u64, contents: &(impl IntoBytes + Immutable + ?Sized)) -> Memory {
        self.0.push((address, contents.as_bytes().to_vec()));
        self
    }

    /// Exactly the bytes that were asked for, or nothing.
    fn read(&self, fetch: Fetch) -> Option<&[u8]> {
        let (_, bytes) = self
            .0
            .iter()
            .find(|(address, _)| *address == fetch.address)?;
        bytes.get(..fetch.length as usize)
    }
}

/// Runs the walk as the sentry does. Panics where a test's memory lacks what is asked for.
fn gather(node: Node, ioctl: u32, memory: &Memory) -> Result<(Plan, Vec<u8>), Refusal> {
    let mut planner = Planner::new(abi(), node, ioctl, ARGUMENT)?;
    let mut payload = Vec::new();
    while let Step::Fetch(fetch) = planner.step(&payload)? {
        assert_eq!(
            fetch.offset as usize,
            payload.len(),
            "the payload grows at its end"
        );
        payload.extend_from_slice(memory.read(fetch).expect("memory that was asked for"));
        payload.resize(payload.len().next_multiple_of(8), 0);
    }
    Ok((planner.finish(), payload))
}

/// Runs the walk as the server does, over a payload that came from the sentry.
fn check(node: Node, ioctl: u32, payload: &[u8]) -> Result<Plan, Refusal> {
    let mut planner = Planner::new(abi(), node, ioctl, 0)?;
    let mut seen = 0;
    while let Step::Fetch(fetch) = planner.step(&payload[..seen])? {
        seen = (fetch.offset + fetch.length).next_multiple_of(8) as usize;
    }
    assert_eq!(seen, payload.len());
    Ok(planner.finish())
}

/// The plan of a request that both sides must accept and find the same in.
fn plan(node: Node, ioctl: u32, memory: Memory) -> (Plan, Vec<u8>) {
    let (plan, payload) = gather(node, ioctl, &memory).expect("a request that is known");
    let checked = check(node, ioctl, &payload).expect("a request that is known");
    assert_eq!(checked.segments, plan.segments);
    assert_eq!(checked.descriptors, plan.descriptors);
    assert_eq!(plan.total_length(), payload.len());
    (plan, payload)
}

fn refusal(node: Node, ioctl: u32, memory: Memory) -> Refusal {
    match gather(node, ioctl, &memory) {
        Err(refusal) => refusal,
        Ok((plan, _)) => panic!("planned: {plan:?}"),
    }
}

fn segment(offset: u32, length: u32, pointer_at: impl Into<Option<u32>>) -> Segment {
    Segment {
        offset,
        length,
        pointer_at: pointer_at.into(),
    }
}

const CONTROL: u32 = ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>());
const ALLOC: u32 = ioctl_word(NV_ESC_RM_ALLOC, size_of::<NVOS64_PARAMETERS>());

/// NVOS54_PARAMETERS of a command whose parameters are at `params`.
fn control(cmd: u32, params: u64, params_size: usize) -> NVOS54_PARAMETERS {
    NVOS54_PARAMETERS {
        cmd,
        params,
        paramsSize: params_size as u32,
        ..NVOS54_PARAMETERS::new_zeroed()
    }
}

/// NVOS64_PARAMETERS of a class whose parameters are at `parameters`. As libcuda does, it leaves their size out.
fn alloc(class: u32, parameters: u64) -> NVOS64_PARAMETERS {
    NVOS64_PARAMETERS {
        hClass: class,
        pAllocParms: parameters,
        ..NVOS64_PARAMETERS::new_zeroed()
    }
}

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
    assert!(!plan.pins() && !plan.makes_event() && plan.set_bits().is_none());
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
fn a_key_of_an_event_is_no_pointer() {
    let event = NV0005_ALLOC_PARAMETERS {
        data: 9,
        ..FromZeros::new_zeroed()
    };
    let memory = Memory::default()
        .with(ARGUMENT, &alloc(NV01_EVENT_OS_EVENT, 0x1000))
        .with(0x1000, &event);
    let (event, _) = plan(Node::Gpu(0), ALLOC, memory);
    assert_eq!(event.segments.len(), 2);
    assert!(event.descriptors.is_empty());

    let word = ioctl_word(NV_ESC_ALLOC_OS_EVENT, 16);
    let (os_event, _) = plan(
        Node::Gpu(0),
        word,
        Memory::default().with(ARGUMENT, &[0u8; 16]),
    );
    assert!(os_event.makes_event() && os_event.descriptors.is_empty());
}

#[test]
fn capabilities_are_found_in_nested_parameters() {
    let memory = Memory::default()
        .with(ARGUMENT, &alloc(AMPERE_SMC_MONITOR_SESSION, 0x1000))
        .with(0x1000, &NVC640_ALLOCATION_PARAMETERS::new_zeroed());
    let (plan, _) = plan(Node::Control, ALLOC, memory);
    assert_eq!(
        plan.descriptors[..],
        [DescriptorField {
            at: 48,
            role: Role::Capability
        }]
    );
}

#[test]
fn descriptors_are_found_in_ioctls_and_control_commands() {
    let word = ioctl_word(NV_ESC_RM_MAP_MEMORY, 56);
    let (map, _) = plan(
        Node::Control,
        word,
        Memory::default().with(ARGUMENT, &[0u8; 56]),
    );
    assert_eq!(
        map.descriptors[..],
        [DescriptorField {
            at: 48,
            role: Role::Mapping
        }]
    );

    let word = ioctl_word(NV_ESC_REGISTER_FD, 4);
    let (register, _) = plan(
        Node::Gpu(3),
        word,
        Memory::default().with(ARGUMENT, &[0u8; 4]),
    );
    assert_eq!(
        register.descriptors[..],
        [DescriptorField {
            at: 0,
            role: Role::Command
        }]
    );
    assert_eq!(register.total_length(), 8);

    let export = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS::new_zeroed();
    let memory = Memory::default()
        .with(
            ARGUMENT,
            &control(
                NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD,
                0x1000,
                size_of_val(&export),
            ),
        )
        .with(0x1000, &export);
    let (export, _) = plan(Node::Control, CONTROL, memory);
    assert_eq!(
        export.descriptors[..],
        [DescriptorField {
            at: 32 + 16,
            role: Role::Command
        }]
    );
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

#[test]
fn uvm_is_initialized_for_several_processes() {
    let memory = Memory::default().with(ARGUMENT, &UVM_INITIALIZE_PARAMS::new_zeroed());
    assert_eq!(
        plan(Node::Uvm, UVM_INITIALIZE, memory).0.set_bits(),
        Some((0, 2))
    );
}

#[test]
fn memory_of_the_task_is_pinned_from_the_task() {
    let word = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56);
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    argument.params.hClass = NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
    argument.params.pMemory = 0x5000;
    let (older, _) = plan(
        Node::Gpu(0),
        word,
        Memory::default().with(ARGUMENT, &argument),
    );
    assert!(older.pins() && older.may_block());
    assert_eq!(older.segments[..], [segment(0, 56, None)]);
    assert!(older.descriptors.is_empty());
    assert_eq!(
        (older.family, older.request.id),
        (Family::Alloc, NV01_MEMORY_SYSTEM_OS_DESCRIPTOR)
    );
    assert_eq!(older.status_at(), Some(40));

    argument.params.hClass = NV01_MEMORY_SYSTEM;
    let (mapped, _) = plan(
        Node::Gpu(0),
        word,
        Memory::default().with(ARGUMENT, &argument),
    );
    assert!(!mapped.pins());
    assert_eq!(
        mapped.descriptors[..],
        [DescriptorField {
            at: 48,
            role: Role::Mapping
        }]
    );

    // Whether or not there are parameters.
    for parameters in [0, 0x1000] {
        let memory = Memory::default()
            .with(
                ARGUMENT,
                &alloc(NV01_MEMORY_SYSTEM_OS_DESCRIPTOR, parameters),
            )
            .with(0x1000, &NV_OS_DESC_MEMORY_ALLOCATION_PARAMS::new_zeroed());
        assert!(plan(Node::Control, ALLOC, memory).0.pins());
    }
}

#[test]
fn unknown_ioctls_are_einval() {
    let unknown = |node, word| refusal(node, word, Memory::default());
    let family = Family::Frontend;
    let what = What::Unknown {
        family,
        id: 0x4a,
        name: Some("NV_ESC_RM_VID_HEAP_CONTROL"),
    };
    let heap = unknown(Node::Control, ioctl_word(0x4a, 184));
    assert_eq!(
        heap,
        Refusal {
            what,
            answer: Answer::Errno(EINVAL)
        }
    );
    assert_eq!(
        heap.what.to_string(),
        "unknown ioctl 0x4a (NV_ESC_RM_VID_HEAP_CONTROL)"
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

    // TCGETS, an ioctl of terminals.
    let what = What::Unknown {
        family,
        id: 0x5401,
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
fn a_size_without_parameters_is_left_to_the_driver() {
    let request = control(NV2080_CTRL_CMD_GPU_GET_NAME_STRING, 0, 132);
    let (plan, _) = plan(
        Node::Control,
        CONTROL,
        Memory::default().with(ARGUMENT, &request),
    );
    assert_eq!(plan.segments[..], [segment(0, 32, None)]);
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
