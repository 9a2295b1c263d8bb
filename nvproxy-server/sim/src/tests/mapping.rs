//! Memory as tasks and GPUs map it.

use super::*;

#[test]
fn a_mapping_shows_the_memory() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 3 * 4096),
        NV_OK
    );
    let first = open(&driver, Node::Control);
    let (status, _) = control.map(client, 0x10, 0x20, (0, 3 * 4096), first.number());
    assert_eq!((status, first.length()), (NV_OK, 3 * 4096));
    first.write(4096, b"page");
    // The bytes outlive the descriptor and are there wherever the memory is mapped next.
    drop(first);
    let (second, third) = (open(&driver, Node::Control), open(&driver, Node::Control));
    assert_eq!(
        control
            .map(client, 0x10, 0x20, (4096, 4096), second.number())
            .0,
        NV_OK
    );
    assert_eq!((second.read(0), second.length()), (*b"page", 4096));
    second.write(0, b"PA");
    assert_eq!(
        control
            .map(client, 0x10, 0x20, (0, 3 * 4096), third.number())
            .0,
        NV_OK
    );
    assert_eq!(third.read(4096), *b"PAge");
    assert_eq!(third.read(8192), [0; 4]);
}

#[test]
fn a_copy_of_memory_shows_the_same_bytes() {
    let driver = driver();
    let (control, gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, 65536),
        NV_OK
    );
    assert_eq!(
        control.map(client, 0x10, 0x20, (0, 65536), gpu.number()).0,
        NV_OK
    );
    gpu.write(100, b"shared");
    let other = open(&driver, Node::Control);
    let theirs = other.client();
    other.device(theirs, 0x10, 0);
    assert_eq!(other.duplicate(theirs, 0x10, 0x40, (client, 0x20)).0, NV_OK);
    let target = open(&driver, Node::Gpu(0));
    assert_eq!(
        other.map(theirs, 0x11, 0x40, (0, 65536), target.number()).0,
        NV_OK
    );
    assert_eq!(target.read(100), *b"shared");
}

#[test]
fn a_description_is_the_target_of_one_mapping_of_its_own_kind() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let _other_gpu = open(&driver, Node::Gpu(3));
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 4096),
        NV_OK
    );
    assert_eq!(
        control.memory(client, 0x10, 0x21, NV01_MEMORY_LOCAL_USER, 4096),
        NV_OK
    );
    assert_eq!(
        control
            .allocate_bytes(client, 0x11, 0x22, HOPPER_USERMODE_A, None)
            .0,
        NV_OK
    );
    let [target, gpu, usermode, other, uvm] = [
        Node::Control,
        Node::Gpu(0),
        Node::Gpu(0),
        Node::Gpu(3),
        Node::Uvm,
    ]
    .map(|node| open(&driver, node));
    let map = |memory, target: &Open| {
        control
            .map(client, 0x11, memory, (0, 4096), target.number())
            .0
    };
    assert_eq!(map(0x20, &gpu), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(map(0x20, &uvm), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(map(0x21, &target), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(map(0x21, &other), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(
        control.map(client, 0x11, 0x20, (0, 4096), -1).0,
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(map(0x20, &target), NV_OK);
    assert_eq!(map(0x21, &gpu), NV_OK);
    assert_eq!(map(0x22, &usermode), NV_OK);
    assert_eq!(map(0x20, &target), NV_ERR_STATE_IN_USE);
    assert_eq!(map(0x21, &gpu), NV_ERR_STATE_IN_USE);
}

#[test]
fn ranges_devices_and_flags_of_a_mapping_are_checked() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 8192),
        NV_OK
    );
    assert_eq!(
        control.memory(client, 0x10, 0x21, NV50_MEMORY_VIRTUAL, 8192),
        NV_OK
    );
    let target = open(&driver, Node::Control);
    let map = |device, memory, range| {
        control
            .map(client, device, memory, range, target.number())
            .0
    };
    assert_eq!(map(0x10, 0x20, (8192, 4096)), NV_ERR_INVALID_BASE);
    assert_eq!(map(0x10, 0x20, (0, 0)), NV_ERR_INVALID_LIMIT);
    assert_eq!(map(0x10, 0x20, (4096, 8192)), NV_ERR_INVALID_LIMIT);
    assert_eq!(map(0x10, 0x20, (4096, u64::MAX)), NV_ERR_INVALID_LIMIT);
    assert_eq!(map(0x10, 0x99, (0, 4096)), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(map(0x99, 0x20, (0, 4096)), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(map(client, 0x20, (0, 4096)), NV_ERR_INVALID_OBJECT_PARENT);
    assert_eq!(map(0x20, 0x20, (0, 4096)), NV_ERR_INVALID_OBJECT_PARENT);
    assert_eq!(map(0x10, 0x21, (0, 4096)), NV_ERR_NOT_SUPPORTED);
    let mut argument = nv_ioctl_nvos33_parameters_with_fd::new_zeroed();
    argument.fd = target.number();
    argument.params = NVOS33_PARAMETERS {
        hClient: client,
        hDevice: 0x10,
        hMemory: 0x20,
        length: 4096,
        flags: 3,
        ..argument.params
    };
    assert_eq!(
        (
            control.ioctl(NV_ESC_RM_MAP_MEMORY, &mut argument),
            argument.params.status
        ),
        (Ok(0), NV_ERR_INVALID_FLAGS)
    );
    argument.params.flags = 1 << 4;
    assert_eq!(
        (
            control.ioctl(NV_ESC_RM_MAP_MEMORY, &mut argument),
            argument.params.status
        ),
        (Ok(0), NV_ERR_INVALID_FLAGS)
    );
    // None of it has used the target up.
    assert_eq!(map(0x10, 0x20, (0, 4096)), NV_OK);
}

#[test]
fn a_mapping_is_known_by_its_address() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 8192),
        NV_OK
    );
    let target = open(&driver, Node::Control);
    let (_, address) = control.map(client, 0x10, 0x20, (4096, 4096), target.number());
    let update = |from, to| {
        let mut argument = NVOS56_PARAMETERS::new_zeroed();
        (argument.hClient, argument.hDevice, argument.hMemory) = (client, 0x10, 0x20);
        (argument.pOldCpuAddress, argument.pNewCpuAddress) = (from, to);
        assert_eq!(
            control.ioctl(NV_ESC_RM_UPDATE_DEVICE_MAPPING_INFO, &mut argument),
            Ok(0)
        );
        argument.status
    };
    let unmap = |address| {
        let mut argument = NVOS34_PARAMETERS::new_zeroed();
        (argument.hClient, argument.hDevice, argument.hMemory) = (client, 0x10, 0x20);
        argument.pLinearAddress = address;
        assert_eq!(control.ioctl(NV_ESC_RM_UNMAP_MEMORY, &mut argument), Ok(0));
        argument.status
    };
    assert_eq!(update(address + 1, 0x7000), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(update(address, 0x7000), NV_OK);
    assert_eq!(unmap(address), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(unmap(0x7000), NV_OK);
    assert_eq!(unmap(0x7000), NV_ERR_OBJECT_NOT_FOUND);
}

#[test]
fn memory_allocated_by_the_older_ioctl_is_mapped_with_it() {
    let driver = driver();
    let (_control, gpu, client) = registered(&driver);
    let target = open(&driver, Node::Control);
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    argument.fd = target.number();
    let parameters = &mut argument.params;
    (
        parameters.hRoot,
        parameters.hObjectParent,
        parameters.hObjectNew,
    ) = (client, 0x10, 0x20);
    (parameters.hClass, parameters.limit) = (NV01_MEMORY_SYSTEM, 8191);
    assert_eq!(gpu.ioctl(NV_ESC_RM_ALLOC_MEMORY, &mut argument), Ok(0));
    assert_eq!((argument.params.status, target.length()), (NV_OK, 8192));
    assert_eq!(gpu.ioctl(NV_ESC_RM_ALLOC_MEMORY, &mut argument), Ok(0));
    assert_eq!(argument.params.status, NV_ERR_INSERT_DUPLICATE_NAME);
    // What cannot be mapped is there all the same.
    (argument.params.hObjectNew, argument.fd) = (0x21, -1);
    let unmapped = gpu.ioctl(NV_ESC_RM_ALLOC_MEMORY, &mut argument);
    assert_eq!(
        (unmapped, argument.params.status),
        (Err(Errno::EINVAL), NV_OK)
    );
    (argument.params.hObjectNew, argument.fd) = (0x21, target.number());
    assert_eq!(gpu.ioctl(NV_ESC_RM_ALLOC_MEMORY, &mut argument), Ok(0));
    assert_eq!(argument.params.status, NV_ERR_INSERT_DUPLICATE_NAME);
}

#[test]
fn gpus_map_memory_into_ranges_of_theirs() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV50_MEMORY_VIRTUAL, 3 * 4096),
        NV_OK
    );
    assert_eq!(
        control.memory(client, 0x10, 0x21, NV01_MEMORY_SYSTEM, 8192),
        NV_OK
    );
    let map = |range: u32, length, fixed: Option<u64>| {
        let mut argument = NVOS46_PARAMETERS::new_zeroed();
        (
            argument.hClient,
            argument.hDevice,
            argument.hDma,
            argument.hMemory,
        ) = (client, 0x10, range, 0x21);
        (argument.length, argument.dmaOffset) = (length, fixed.unwrap_or(0));
        argument.flags = u32::from(fixed.is_some()) << 15;
        assert_eq!(
            control.ioctl(NV_ESC_RM_MAP_MEMORY_DMA, &mut argument),
            Ok(0)
        );
        (argument.status, argument.dmaOffset)
    };
    let unmap = |address| {
        let mut argument = NVOS47_PARAMETERS::new_zeroed();
        (
            argument.hClient,
            argument.hDevice,
            argument.hDma,
            argument.hMemory,
        ) = (client, 0x10, 0x20, 0x21);
        argument.dmaOffset = address;
        assert_eq!(
            control.ioctl(NV_ESC_RM_UNMAP_MEMORY_DMA, &mut argument),
            Ok(0)
        );
        argument.status
    };
    let (status, base) = map(0x20, 8192, None);
    assert_eq!(status, NV_OK);
    assert_eq!(map(0x20, 1, None), (NV_OK, base + 8192));
    assert_eq!(map(0x20, 4096, None).0, NV_ERR_NO_MEMORY);
    assert_eq!(map(0x20, 4096, Some(base)).0, NV_ERR_INVALID_OFFSET);
    assert_eq!(map(0x20, 8193, None).0, NV_ERR_INVALID_LIMIT);
    assert_eq!(map(0x21, 4096, None).0, NV_ERR_NOT_SUPPORTED);
    assert_eq!(unmap(base), NV_OK);
    assert_eq!(unmap(base), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(map(0x20, 4096, Some(base + 4096)), (NV_OK, base + 4096));
    // Freeing the memory unmaps it.
    assert_eq!(control.free(client, 0x21), NV_OK);
    assert_eq!(
        control.memory(client, 0x10, 0x21, NV01_MEMORY_SYSTEM, 3 * 4096),
        NV_OK
    );
    assert_eq!(map(0x20, 3 * 4096, None), (NV_OK, base));
}

#[test]
fn a_descriptor_that_comes_back_is_recognized() {
    let driver = driver();
    let control = open(&driver, Node::Control);
    let number = driver.number_of(std::os::fd::AsFd::as_fd(&control.granted));
    assert_eq!(number, Ok(control.number()));
    let copy = control.granted.try_clone().expect("a copy");
    assert_eq!(
        driver.carried(copy).expect("a file").number(),
        Ok(control.number())
    );
    let stranger: OwnedFd = File::open("/dev/null").expect("/dev/null").into();
    assert_eq!(
        driver.number_of(std::os::fd::AsFd::as_fd(&stranger)),
        Err(Errno::EBADF)
    );
    assert_eq!(driver.carried(stranger).err(), Some(Errno::ENOTTY));
    // After the server has dropped the file the descriptor names nothing.
    let Open { file, granted, .. } = control;
    drop(file);
    assert_eq!(
        driver.number_of(std::os::fd::AsFd::as_fd(&granted)),
        Err(Errno::EBADF)
    );
}
