//! Pinning of the task's memory: the task issues the ioctl on the lent descriptor, and the server tells the outcome.
//!
//! `unsafe` is here because ioctl takes an address.

#![allow(unsafe_code)]

use super::*;
use std::os::fd::AsRawFd;

const NO_MAP: u32 = 1 << 30;

pub(super) fn pin(
    gpu: &Open,
    client: u32,
    object: u32,
    way: Way,
    change: impl FnOnce(&mut NVOS02_PARAMETERS),
) -> u32 {
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    argument.fd = -1;
    let parameters = &mut argument.params;
    (
        parameters.hRoot,
        parameters.hObjectParent,
        parameters.hObjectNew,
    ) = (client, 0x10, object);
    parameters.hClass = NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
    (parameters.flags, parameters.pMemory, parameters.limit) = (NO_MAP, 0x7f00_0000_0000, 8191);
    change(parameters);
    let request = ioctl_word(NV_ESC_RM_ALLOC_MEMORY, size_of_val(&argument));
    assert_eq!(
        gpu.issue_bytes(
            way,
            request,
            argument.as_mut_bytes(),
            &mut TaskMemory::new()
        ),
        Ok(0)
    );
    argument.params.status
}

#[test]
fn the_lent_descriptor_answers_that_it_is_no_device() {
    let lent = open(&driver(), Node::Gpu(0))
        .file
        .lend()
        .expect("a descriptor");
    let request = ioctl_word(
        NV_ESC_RM_ALLOC_MEMORY,
        size_of::<nv_ioctl_nvos02_parameters_with_fd>(),
    );
    let mut argument = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    // SAFETY: the argument is as large as the request's word says.
    let answered = unsafe { libc::ioctl(lent.as_raw_fd(), request.into(), &mut argument) };
    assert_eq!(Errno::result(answered), Err(Errno::ENOTTY));
}

#[test]
fn memory_is_pinned_from_the_task_only() {
    let driver = driver();
    let (control, gpu, client) = registered(&driver);
    assert_eq!(
        pin(&gpu, client, 0x20, Way::Server, |_| ()),
        NV_ERR_INVALID_ADDRESS
    );
    assert_eq!(pin(&gpu, client, 0x20, Way::Task, |_| ()), NV_OK);
    let target = open(&driver, Node::Control);
    assert_eq!(
        control
            .map(client, 0x10, 0x20, (0, 4096), target.number())
            .0,
        NV_ERR_NOT_SUPPORTED
    );
    assert_eq!(control.free(client, 0x20), NV_OK);
}

#[test]
fn flags_and_addresses_of_pinned_memory_are_checked() {
    let driver = driver();
    let (_control, gpu, client) = registered(&driver);
    let pinned = |change: fn(&mut NVOS02_PARAMETERS)| pin(&gpu, client, 0x20, Way::Task, change);
    assert_eq!(
        pinned(|parameters| parameters.flags = 0),
        NV_ERR_INVALID_FLAGS
    );
    assert_eq!(
        pinned(|parameters| parameters.flags |= 2 << 8),
        NV_ERR_INVALID_FLAGS
    );
    assert_eq!(
        pinned(|parameters| parameters.flags |= 2 << 12),
        NV_ERR_INVALID_FLAGS
    );
    assert_eq!(
        pinned(|parameters| parameters.pMemory += 1),
        NV_ERR_NOT_SUPPORTED
    );
    assert_eq!(
        pinned(|parameters| parameters.limit = u64::MAX),
        NV_ERR_INVALID_LIMIT
    );
    assert_eq!(
        pinned(|parameters| parameters.hObjectParent = 0x11),
        NV_ERR_INVALID_OBJECT_PARENT
    );
    assert_eq!(
        pinned(|parameters| parameters.hRoot = 1),
        NV_ERR_INVALID_OBJECT_HANDLE
    );
    assert_eq!(pinned(|_| ()), NV_OK);
}

#[test]
fn what_the_tasks_ioctl_returned_is_passed_on() {
    let driver = driver();
    let gpu = open(&driver, Node::Gpu(0));
    let call = || Call {
        request: 0,
        payload: &mut [],
        segments: &[],
        descriptors: &[],
        made: None,
    };
    assert_eq!(
        gpu.file.pinned(Err(Errno::EINTR), call()),
        Err(Errno::EINTR)
    );
    assert_eq!(gpu.file.pinned(Ok(7), call()), Ok(7));
}
