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

/// NV_ESC_EXPORT_TO_DMABUF_FD of 580.142: one object of a client.
fn export() -> nv_ioctl_export_to_dma_buf_fd_t {
    let mut export = nv_ioctl_export_to_dma_buf_fd_t::new_zeroed();
    (export.fd, export.hClient) = (-1, 7);
    (export.totalObjects, export.numObjects) = (1, 1);
    export
}

fn export_word() -> u32 {
    ioctl_word(
        NV_ESC_EXPORT_TO_DMABUF_FD,
        size_of::<nv_ioctl_export_to_dma_buf_fd_t>(),
    )
}

#[test]
fn what_the_driver_makes_is_found() {
    let memory = Memory::default().with(ARGUMENT, &export());
    let (export, _) = plan(Node::Gpu(0), export_word(), memory);
    assert_eq!(
        export.descriptors[..],
        [DescriptorField {
            at: 0,
            role: Role::Result
        }]
    );
    assert_eq!(export.result_at(), Some(0));
    assert_eq!(export.status_at(), Some(2600));
    assert!(export.names_clients() && export.may_block());
}

#[test]
fn nothing_is_added_to_what_the_driver_has_made_and_nothing_mapped() {
    type Change = fn(&mut nv_ioctl_export_to_dma_buf_fd_t);
    let changes: [(&str, Change); 5] = [
        ("fd = 0x3", |export| export.fd = 3),
        ("fd = 0xfffffffe", |export| export.fd = -2),
        ("totalObjects = 0x81", |export| export.totalObjects = 129),
        ("totalObjects = 0xffffffff", |export| {
            export.totalObjects = u32::MAX;
        }),
        ("bAllowMmap = 0x1", |export| export.bAllowMmap = 1),
    ];
    for (with, change) in changes {
        let mut export = export();
        change(&mut export);
        let memory = Memory::default().with(ARGUMENT, &export);
        let refusal = gather(Node::Gpu(0), export_word(), &memory).expect_err(with);
        let name = "ioctl 0xd9 (NV_ESC_EXPORT_TO_DMABUF_FD) is not passed with";
        assert_eq!(refusal.what.to_string(), format!("{name} {with}"));
        let answer = Answer::Status {
            at: 2600,
            status: NV_ERR_NOT_SUPPORTED,
        };
        assert_eq!(refusal.answer, answer);
    }
    let mut export = export();
    export.totalObjects = 128;
    let memory = Memory::default().with(ARGUMENT, &export);
    gather(Node::Gpu(0), export_word(), &memory).expect("as many as there is room for");
}

/// The structure has grown twice.
#[test]
fn what_the_driver_makes_is_found_in_every_release() {
    for version in nvproxy_abi::releases() {
        let tables = Abi::of_release(&version, Capabilities::ALL).expect("tables");
        let mut rows = tables.granted(Family::Frontend);
        let row = rows.find(|row| row.name == "NV_ESC_EXPORT_TO_DMABUF_FD");
        let row = row.unwrap_or_else(|| panic!("{version} lacks it"));
        let [descriptor] = row.descriptors else {
            panic!("{version}: {:?}", row.descriptors);
        };
        assert_eq!((descriptor.at, descriptor.role), (0, Role::Result));
        let handles = match row.size {
            2600 => 32,
            2608 => 36,
            size => panic!("{version}: {size} bytes"),
        };
        let Some(Effect::DmaBuf {
            memory,
            sizes,
            count,
        }) = row.effect
        else {
            panic!("{version}: {:?}", row.effect);
        };
        assert_eq!((memory.at, memory.stride, memory.most), (handles, 4, 128));
        // The status lies behind them.
        let from = row.size as u16 - 8 - 8 * 128;
        assert_eq!((sizes.at, sizes.stride, sizes.most), (from, 8, 128));
        assert_eq!(count, 12);
        let status = row.status_at.map(u32::from);
        assert_eq!(status, Some(row.size - 8), "{version}");
        let passed: Vec<&str> = row.passed.iter().map(|passed| passed.field).collect();
        assert!(passed.starts_with(&["fd", "totalObjects"]), "{version}");
    }
}
