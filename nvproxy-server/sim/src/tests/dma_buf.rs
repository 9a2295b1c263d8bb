//! Memory as a dma-buf, by the driver's own checks: what the tables refuse is issued here all the same.

use std::fs::File;

use nvproxy_server::backend::Made;

use super::*;
use crate::structs::frontend::nv_ioctl_export_to_dma_buf_fd_t;

/// Memory that another tenant has.
const ANOTHERS: (u32, u32) = (0xc1d0_0040, 0x5c00_0001);

/// Two pages of an object.
fn request(client: u32, object: u32) -> nv_ioctl_export_to_dma_buf_fd_t {
    let mut request = nv_ioctl_export_to_dma_buf_fd_t::new_zeroed();
    (request.fd, request.hClient) = (-1, client);
    (request.totalObjects, request.numObjects) = (1, 1);
    request.totalSize = 0x2000;
    (request.handles[0], request.sizes[0]) = (object, 0x2000);
    request
}

/// The size of what is made, or the status.
fn export(on: &Open, request: &nv_ioctl_export_to_dma_buf_fd_t) -> Result<u64, u32> {
    let mut payload = request.as_bytes().to_vec();
    let segments = [nvproxy_abi::plan::Segment {
        offset: 0,
        length: payload.len() as u32,
        pointer_at: None,
    }];
    let mut descriptor = None;
    let issued = on.file.ioctl(Call {
        request: ioctl_word(NV_ESC_EXPORT_TO_DMABUF_FD, payload.len()),
        payload: &mut payload,
        segments: &segments,
        descriptors: &[],
        made: Some(Made {
            at: 0,
            descriptor: &mut descriptor,
        }),
    });
    assert_eq!(issued, Ok(0));
    let answer = nv_ioctl_export_to_dma_buf_fd_t::read_from_bytes(&payload).expect("an answer");
    match descriptor {
        Some(made) => {
            assert_eq!(answer.status, NV_OK);
            Ok(File::from(made).metadata().expect("a file").len())
        }
        None => Err(answer.status),
    }
}

#[test]
fn memory_of_a_gpu_is_exported() {
    let driver = driver();
    let (control, gpu, client) = device(&driver);
    let class = NV01_MEMORY_LOCAL_USER;
    assert_eq!(control.memory(client, 0x10, 0x20, class, 0x4000), NV_OK);
    assert_eq!(control.memory(client, 0x10, 0x21, class, 0x4000), NV_OK);
    let whole = request(client, 0x20);
    assert_eq!(export(&gpu, &whole), Ok(0x2000));
    let mut two = whole;
    (two.totalObjects, two.numObjects) = (2, 2);
    (two.handles[1], two.offsets[1], two.sizes[1]) = (0x21, 0x1000, 0x3000);
    two.totalSize = 0x5000;
    assert_eq!(export(&gpu, &two), Ok(0x5000));
    // One that others are to be added to.
    two.numObjects = 1;
    assert_eq!(export(&gpu, &two), Ok(0x5000));
    // Whoever's it is.
    assert_eq!(export(&gpu, &request(ANOTHERS.0, ANOTHERS.1)), Ok(0x2000));
}

#[test]
fn what_is_no_such_memory_is_refused_in_the_drivers_words() {
    type Change = fn(&mut nv_ioctl_export_to_dma_buf_fd_t);
    let driver = driver();
    let (control, gpu, client) = device(&driver);
    let class = NV01_MEMORY_LOCAL_USER;
    assert_eq!(control.memory(client, 0x10, 0x20, class, 0x4000), NV_OK);
    let class = NV01_MEMORY_SYSTEM;
    assert_eq!(control.memory(client, 0x10, 0x21, class, 0x4000), NV_OK);
    let cases: [(u32, Change); 19] = [
        (NV_ERR_INVALID_ARGUMENT, |request| request.totalSize = 0),
        (NV_ERR_INVALID_ARGUMENT, |request| request.totalObjects = 0),
        (NV_ERR_INVALID_ARGUMENT, |request| request.numObjects = 0),
        (NV_ERR_INVALID_ARGUMENT, |request| request.numObjects = 2),
        (NV_ERR_INVALID_ARGUMENT, |request| {
            (request.totalObjects, request.numObjects) = (129, 129);
        }),
        (NV_ERR_INVALID_ARGUMENT, |request| request.index = 1),
        (NV_ERR_INVALID_ARGUMENT, |request| request.fd = -2),
        (NV_ERR_OPERATING_SYSTEM, |request| request.fd = 3),
        (NV_ERR_NOT_SUPPORTED, |request| request.mappingType = 1),
        (NV_ERR_INVALID_ARGUMENT, |request| request.mappingType = 2),
        (NV_ERR_NOT_SUPPORTED, |request| request.bAllowMmap = 1),
        (NV_ERR_INVALID_ARGUMENT, |request| request.sizes[0] = 0x1800),
        (NV_ERR_INVALID_ARGUMENT, |request| request.sizes[0] = 0x1000),
        (NV_ERR_INVALID_ARGUMENT, |request| {
            request.offsets[0] = 1 << 30;
        }),
        (NV_ERR_INVALID_ARGUMENT, |request| {
            request.offsets[0] = !0xfff;
        }),
        (NV_ERR_INVALID_ARGUMENT, |request| request.handles[0] = 0x21),
        (NV_ERR_INVALID_OBJECT, |request| request.handles[0] = 0x10),
        (NV_ERR_OBJECT_NOT_FOUND, |request| request.handles[0] = 0x22),
        (NV_ERR_INVALID_OBJECT_HANDLE, |request| request.hClient = 9),
    ];
    for (index, (status, change)) in cases.into_iter().enumerate() {
        let mut request = request(client, 0x20);
        change(&mut request);
        assert_eq!(export(&gpu, &request), Err(status), "{index}");
    }
    let other = open(&driver, Node::Gpu(3));
    let elsewhere = export(&other, &request(client, 0x20));
    assert_eq!(elsewhere, Err(NV_ERR_INVALID_OBJECT_PARENT));
    let mut argument = request(client, 0x20);
    let on_control = control.ioctl(NV_ESC_EXPORT_TO_DMABUF_FD, &mut argument);
    assert_eq!(on_control, Err(Errno::EINVAL));
}
