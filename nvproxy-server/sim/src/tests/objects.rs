//! Clients, objects, handles, and what is freed when.

use super::*;

/// That a program asks for one of its own choice is refused before the driver sees it.
#[test]
fn clients_get_handles_in_turn() {
    let driver = driver();
    let control = open(&driver, Node::Control);
    assert_eq!(control.client(), 0xc1d0_0000);
    assert_eq!(control.client(), 0xc1d0_0001);
}

#[test]
fn the_shorter_form_of_alloc_is_answered_alike() {
    let driver = driver();
    let control = open(&driver, Node::Control);
    let mut argument = NVOS21_PARAMETERS::new_zeroed();
    argument.status = 0xdead;
    assert_eq!(control.ioctl(NV_ESC_RM_ALLOC, &mut argument), Ok(0));
    assert_eq!(
        (argument.status, argument.hObjectNew, argument.hClass),
        (NV_OK, 0xc1d0_0000, NV01_ROOT_CLIENT)
    );
}

#[test]
fn a_client_is_used_only_through_its_description() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let other = open(&driver, Node::Control);
    assert_eq!(
        other.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 4096),
        NV_ERR_INVALID_CLIENT
    );
    assert_eq!(other.free(client, client), NV_ERR_INVALID_CLIENT);
    assert_eq!(
        other.control(client, client, NV0000_CTRL_CMD_NULL, &mut ()),
        NV_ERR_INVALID_CLIENT
    );
    assert_eq!(control.free(client, client), NV_OK);
    assert_eq!(control.free(client, client), NV_ERR_INVALID_OBJECT_HANDLE);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 4096),
        NV_ERR_INVALID_OBJECT_HANDLE
    );
    assert_eq!(
        control.control(client, client, NV0000_CTRL_CMD_NULL, &mut ()),
        NV_ERR_INVALID_CLIENT
    );
}

#[test]
fn a_registered_description_uses_the_clients_of_another() {
    let driver = driver();
    let (control, gpu, client) = device(&driver);
    let second = open(&driver, Node::Control);
    assert_eq!(
        second.ioctl(
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t {
                ctl_fd: gpu.number()
            }
        ),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        second.ioctl(
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t {
                ctl_fd: second.number()
            }
        ),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        second.ioctl(
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t {
                ctl_fd: control.number()
            }
        ),
        Ok(0)
    );
    assert_eq!(
        second.ioctl(
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t {
                ctl_fd: control.number()
            }
        ),
        Err(Errno::EINVAL)
    );
    let third = open(&driver, Node::Control);
    assert_eq!(
        third.ioctl(
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t {
                ctl_fd: second.number()
            }
        ),
        Err(Errno::EINVAL)
    );
    // The clients live until the last description that may use them is closed.
    drop(control);
    assert_eq!(
        second.memory(client, 0x10, 0x20, NV01_MEMORY_SYSTEM, 4096),
        NV_OK
    );
    drop(second);
    assert_eq!(
        third.control(client, client, NV0000_CTRL_CMD_NULL, &mut ()),
        NV_ERR_INVALID_CLIENT
    );
}

#[test]
fn a_device_needs_an_open_description_of_its_gpu() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut second = NV0080_ALLOC_PARAMETERS::new_zeroed();
    second.deviceId = 1;
    let allocate = |parameters: &mut NV0080_ALLOC_PARAMETERS| {
        control.allocate(client, client, 0x30, NV01_DEVICE_0, parameters)
    };
    assert_eq!(allocate(&mut second), NV_ERR_INSUFFICIENT_PERMISSIONS);
    let _other = open(&driver, Node::Gpu(3));
    assert_eq!(allocate(&mut second), NV_OK);
    second.deviceId = 2;
    assert_eq!(allocate(&mut second), NV_ERR_INSERT_DUPLICATE_NAME);
    assert_eq!(control.free(client, 0x30), NV_OK);
    assert_eq!(allocate(&mut second), NV_ERR_INVALID_STATE);
    second.deviceId = 32;
    assert_eq!(allocate(&mut second), NV_ERR_INVALID_ARGUMENT);
}

#[test]
fn a_gpu_that_does_not_exist_cannot_be_opened() {
    assert_eq!(
        driver().open(Node::Gpu(1), OpenFlags::default()).err(),
        Some(Errno::ENODEV)
    );
}

#[test]
fn a_device_has_one_subdevice() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut parameters = NV2080_ALLOC_PARAMETERS { subDeviceId: 0 };
    let allocate = |parameters: &mut NV2080_ALLOC_PARAMETERS| {
        control.allocate(client, 0x10, 0x12, NV20_SUBDEVICE_0, parameters)
    };
    assert_eq!(allocate(&mut parameters), NV_ERR_INSUFFICIENT_RESOURCES);
    parameters.subDeviceId = 1;
    assert_eq!(allocate(&mut parameters), NV_ERR_INVALID_CLASS);
}

#[test]
fn parents_classes_and_handles_are_checked_in_the_drivers_order() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut channel = NV_CHANNEL_ALLOC_PARAMS::new_zeroed();
    assert_eq!(
        control
            .allocate_bytes(client, 0x10, 0x20, HOPPER_CHANNEL_GPFIFO_A, None)
            .0,
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(
        control.allocate(client, 0x99, 0x20, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_ERR_OBJECT_NOT_FOUND
    );
    assert_eq!(
        control.allocate(client, 0x11, 0x20, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_ERR_INVALID_OBJECT_PARENT
    );
    assert_eq!(
        control.allocate(client, 0x10, client, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_ERR_INVALID_OBJECT_PARENT
    );
    assert_eq!(
        control.allocate(client, 0x10, 0x11, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_ERR_INSERT_DUPLICATE_NAME
    );
    assert_eq!(
        control.allocate(
            client,
            0x10,
            0xc9f0_0001,
            HOPPER_CHANNEL_GPFIFO_A,
            &mut channel
        ),
        NV_ERR_INVALID_OBJECT_HANDLE
    );
    assert_eq!(
        control.allocate(client, 0x10, 0x20, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_OK
    );
    // A class of another generation of GPUs.
    assert_eq!(
        control.allocate(client, 0x10, 0x21, AMPERE_CHANNEL_GPFIFO_A, &mut channel),
        NV_ERR_NOT_SUPPORTED
    );
}

#[test]
fn a_handle_of_zero_is_replaced() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut parameters = NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS::new_zeroed();
    let mut allocate = || {
        control.allocate_bytes(
            client,
            0x10,
            0,
            KEPLER_CHANNEL_GROUP_A,
            Some(parameters.as_mut_bytes()),
        )
    };
    assert_eq!(allocate(), (NV_OK, 0xcaf0_0000));
    assert_eq!(allocate(), (NV_OK, 0xcaf0_0001));
}

#[test]
fn a_class_for_single_objects_is_allocated_once() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let allocate = |object| {
        control
            .allocate_bytes(client, 0x11, object, NV50_THIRD_PARTY_P2P, None)
            .0
    };
    assert_eq!(allocate(0x20), NV_OK);
    assert_eq!(allocate(0x21), NV_ERR_STATE_IN_USE);
    assert_eq!(control.free(client, 0x20), NV_OK);
    assert_eq!(allocate(0x21), NV_OK);
}

#[test]
fn freeing_takes_all_that_is_under_an_object() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let mut group = NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS::new_zeroed();
    let mut channel = NV_CHANNEL_ALLOC_PARAMS::new_zeroed();
    let mut engine = NVB0B5_ALLOCATION_PARAMETERS::new_zeroed();
    assert_eq!(
        control.allocate(client, 0x10, 0x20, KEPLER_CHANNEL_GROUP_A, &mut group),
        NV_OK
    );
    assert_eq!(
        control.allocate(client, 0x20, 0x21, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_OK
    );
    assert_eq!(
        control.allocate(client, 0x21, 0x22, HOPPER_DMA_COPY_A, &mut engine),
        NV_OK
    );
    assert_eq!(control.free(client, 0x20), NV_OK);
    assert_eq!(
        control.allocate(client, 0x21, 0x23, HOPPER_DMA_COPY_A, &mut engine),
        NV_ERR_OBJECT_NOT_FOUND
    );
    // The driver frees what does not exist with success.
    assert_eq!(control.free(client, 0x22), NV_OK);
    assert_eq!(
        control.memory(client, 0x10, 0x22, NV01_MEMORY_SYSTEM, 4096),
        NV_OK
    );
}

#[test]
fn memory_of_a_gpu_runs_out_and_comes_back() {
    let driver = driver();
    let (control, gpu, client) = device(&driver);
    let video = |object, size| control.memory(client, 0x10, object, NV01_MEMORY_LOCAL_USER, size);
    assert_eq!(video(0x20, 0), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(video(0x20, MEMORY + 1), NV_ERR_NO_MEMORY);
    assert_eq!(video(0x20, u64::MAX), NV_ERR_NO_MEMORY);
    // From 2 MiB on, an allocation has whole pages of 2 MiB.
    const REST: u64 = (2 << 20) - 1;
    assert_eq!(video(0x20, MEMORY - (3 << 20)), NV_OK);
    assert_eq!(video(0x21, REST), NV_OK);
    assert_eq!(video(0x22, 1), NV_ERR_NO_MEMORY);
    // A copy keeps the memory.
    assert_eq!(
        control.duplicate(client, 0x10, 0x30, (client, 0x21)),
        (NV_OK, 0x30)
    );
    assert_eq!(control.free(client, 0x21), NV_OK);
    assert_eq!(video(0x22, 1), NV_ERR_NO_MEMORY);
    assert_eq!(control.free(client, 0x30), NV_OK);
    assert_eq!(video(0x22, REST), NV_OK);
    // So does closing the description of the client that has it.
    drop((control, gpu));
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, MEMORY),
        NV_OK
    );
    assert_eq!(
        control.memory(client, 0x10, 0x21, NV01_MEMORY_SYSTEM, u64::MAX),
        NV_ERR_NO_MEMORY
    );
}

#[test]
fn copies_are_made_into_ones_own_client() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x20, NV01_MEMORY_LOCAL_USER, 4096),
        NV_OK
    );
    let other = open(&driver, Node::Control);
    let theirs = other.client();
    other.device(theirs, 0x10, 0);
    assert_eq!(
        other.duplicate(theirs, 0x10, 0x40, (client, 0x20)),
        (NV_OK, 0x40)
    );
    assert_eq!(
        other.duplicate(client, 0x10, 0x40, (theirs, 0x40)).0,
        NV_ERR_INVALID_CLIENT
    );
    assert_eq!(
        other.duplicate(theirs, 0x10, 0x41, (0x99, 0x20)).0,
        NV_ERR_INVALID_OBJECT_HANDLE
    );
    assert_eq!(
        other.duplicate(theirs, 0x10, 0x41, (client, 0x99)).0,
        NV_ERR_OBJECT_NOT_FOUND
    );
    assert_eq!(
        other.duplicate(theirs, theirs, 0x41, (client, 0x20)).0,
        NV_ERR_INVALID_OBJECT_PARENT
    );
    assert_eq!(
        other.duplicate(theirs, 0x10, 0x41, (client, 0x11)).0,
        NV_ERR_INVALID_ARGUMENT
    );
    assert_eq!(
        other.duplicate(theirs, 0x10, 0x40, (client, 0x20)).0,
        NV_ERR_INSERT_DUPLICATE_NAME
    );
}

#[test]
fn ioctls_are_accepted_on_their_nodes() {
    let driver = driver();
    let (control, gpu, client) = device(&driver);
    let mut free = NVOS00_PARAMETERS {
        hRoot: client,
        hObjectParent: 0,
        hObjectOld: client,
        status: 0,
    };
    assert_eq!(gpu.ioctl(NV_ESC_RM_FREE, &mut free), Err(Errno::EINVAL));
    assert_eq!(
        gpu.ioctl(NV_ESC_RM_ALLOC, &mut NVOS21_PARAMETERS::new_zeroed()),
        Err(Errno::EINVAL)
    );
    let mut memory = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    memory.params.hClass = NV01_MEMORY_SYSTEM;
    memory.params.hObjectNew = 7;
    assert_eq!(
        control.ioctl(NV_ESC_RM_ALLOC_MEMORY, &mut memory),
        Err(Errno::EINVAL)
    );
    let mut heap = NVOS32_PARAMETERS::new_zeroed();
    heap.function = 2;
    assert_eq!(
        gpu.ioctl(NV_ESC_RM_VID_HEAP_CONTROL, &mut heap),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        control.ioctl(NV_ESC_NUMA_INFO, &mut nv_ioctl_numa_info_t::new_zeroed()),
        Err(Errno::EINVAL)
    );
}
