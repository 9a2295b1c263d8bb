//! Which fields of a request are descriptors, and what is pinned or made besides.

use super::*;

#[test]
fn a_key_of_an_event_is_no_pointer() {
    let event = NV0005_ALLOC_PARAMETERS {
        hClass: NV01_EVENT_OS_EVENT,
        data: 9,
        ..FromZeros::new_zeroed()
    };
    for class in [NV01_EVENT_OS_EVENT, NV01_EVENT] {
        let memory = Memory::default()
            .with(ARGUMENT, &alloc(class, 0x1000))
            .with(0x1000, &event);
        let (event, _) = plan(Node::Gpu(0), ALLOC, memory);
        assert_eq!(event.segments.len(), 2);
        assert!(event.descriptors.is_empty());
    }

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
            role: Role::Held
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
            role: Role::Held
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
fn memory_of_the_task_is_pinned_from_the_task() {
    let word = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56);
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    argument.params.hClass = NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
    argument.params.pMemory = 0x5000;
    argument.params.hObjectNew = 7;
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
            role: Role::Held
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
