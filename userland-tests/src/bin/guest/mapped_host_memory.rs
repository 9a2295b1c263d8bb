//! Host memory that the driver takes and that this process maps: it counts until nothing can hold its pages any more
//! (`--host-memory 64MiB`).
//!
//! `unsafe` is here because mmap takes addresses.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::frontend::{
    NVOS34_PARAMETERS, nv_ioctl_nvos02_parameters_with_fd, nv_ioctl_nvos33_parameters_with_fd,
};
use ringfence::guest::{Mapping, Result, check, frontend, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB};
use crate::host_memory::{SCATTERED, allocate, say_what_is_left, until_refused, wait_for_room};
use crate::memory_limit::say;

/// NVOS02_FLAGS_PHYSICALITY_NONCONTIGUOUS, to be mapped.
const OLDER_MAPPED: u32 = 1 << 4;

fn map(gpu: &Gpu, memory: u32, bytes: u64) -> Result<Mapping> {
    gpu.client
        .map(DEVICE, memory, bytes as usize, Node::Control)
}

/// Lets `target` be mapped, and says at which address the driver knows the mapping.
pub fn show(gpu: &Gpu, memory: u32, bytes: u64, target: &File) -> Result<u64> {
    let mut request = nv_ioctl_nvos33_parameters_with_fd::new_zeroed();
    request.params.hClient = gpu.client.root;
    request.params.hDevice = DEVICE;
    request.params.hMemory = memory;
    request.params.length = bytes;
    request.fd = target.as_raw_fd();
    frontend(&gpu.client.control, NV_ESC_RM_MAP_MEMORY, &mut request)?;
    check(request.params.status)?;
    Ok(request.params.pLinearAddress)
}

pub fn unmap(gpu: &Gpu, memory: u32, address: u64) -> Result<()> {
    let mut request = NVOS34_PARAMETERS::new_zeroed();
    request.hClient = gpu.client.root;
    request.hDevice = DEVICE;
    request.hMemory = memory;
    request.pLinearAddress = address;
    frontend(&gpu.client.control, NV_ESC_RM_UNMAP_MEMORY, &mut request)?;
    check(request.status)
}

/// By NV_ESC_RM_ALLOC_MEMORY, which lets `target` be mapped at once.
fn allocate_shown(gpu: &Gpu, memory: u32, bytes: u64, target: &File) -> Result<()> {
    let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    request.params.hRoot = gpu.client.root;
    request.params.hObjectParent = DEVICE;
    request.params.hObjectNew = memory;
    request.params.hClass = NV01_MEMORY_SYSTEM;
    request.params.limit = bytes - 1;
    request.params.flags = OLDER_MAPPED;
    request.fd = target.as_raw_fd();
    frontend(&gpu.node, NV_ESC_RM_ALLOC_MEMORY, &mut request)?;
    check(request.params.status)
}

/// Memory is allocated and mapped, and all of it left to the end of the process.
pub fn once(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    allocate(&gpu, MEMORY, MIB, SCATTERED)?;
    let mut mapping = map(&gpu, MEMORY, MIB)?;
    mapping.write(0, b"a");
    Ok(())
}

/// Memory is allocated, mapped and freed again and again, and the mappings stay.
pub fn again_and_again(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let mut mappings = Vec::new();
    let (made, refusal) = until_refused(20, |_| {
        allocate(&gpu, MEMORY, 8 * MIB, SCATTERED)?;
        mappings.push(map(&gpu, MEMORY, 8 * MIB)?);
        gpu.free(MEMORY)
    });
    println!("{made} times 8 MiB");
    say("one more", refusal);
    drop(mappings);
    say_what_is_left("unmapped", &gpu)
}

/// Whichever way the object goes, the mapping keeps the memory; and whatever can still be mapped, or is by another process, does.
pub fn kept(_: &[String]) -> Outcome {
    let bytes = 48 * MIB;
    type Way = (&'static str, fn(Gpu) -> Result<Option<Gpu>>);
    let ways: [Way; 4] = [
        ("the object", |gpu| gpu.free(MEMORY).map(|()| Some(gpu))),
        ("its device", |gpu| {
            gpu.client.free(gpu.client.root, DEVICE).map(|()| None)
        }),
        ("its client", |gpu| {
            gpu.client
                .free(gpu.client.root, gpu.client.root)
                .map(|()| None)
        }),
        ("its description", |_| Ok(None)),
    ];
    let other = Gpu::open()?;
    for (way, free) in ways {
        let gpu = Gpu::open()?;
        allocate(&gpu, MEMORY, bytes, SCATTERED)?;
        let mapping = map(&gpu, MEMORY, bytes)?;
        let gpu = free(gpu)?;
        say_what_is_left(&format!("{way} freed"), &other)?;
        drop((gpu, mapping));
        wait_for_room("and unmapped", &other)?;
    }

    let target = open(Node::Control)?;
    allocate(&other, MEMORY, bytes, SCATTERED)?;
    let address = show(&other, MEMORY, bytes, &target)?;
    unmap(&other, MEMORY, address)?;
    other.free(MEMORY)?;
    say_what_is_left("what the driver has unmapped", &other)?;
    let mapping = Mapping::of(&target, bytes as usize)?;
    drop(target);
    let heir = child(|| {
        say_what_is_left("in a child", &other)?;
        Ok(())
    })?;
    expect_success(heir)?;
    drop(mapping);
    say_what_is_left("unmapped", &other)?;

    let target = open(Node::Control)?;
    allocate_shown(&other, MEMORY, bytes, &target)?;
    other.free(MEMORY)?;
    say_what_is_left("mapped by the older request", &other)?;
    drop(target);
    say_what_is_left("and closed", &other)
}

/// What programs do leaves nothing behind: memory is allocated, mapped, unmapped and freed, in both orders, a thousand times.
pub fn given_back(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let bytes = 40 * MIB;
    for round in 0..1000 {
        allocate(&gpu, MEMORY, bytes, SCATTERED)?;
        let target = open(Node::Control)?;
        let address = show(&gpu, MEMORY, bytes, &target)?;
        let mapping = Mapping::of(&target, bytes as usize)?;
        drop(target);
        if round % 2 == 0 {
            drop(mapping);
            unmap(&gpu, MEMORY, address)?;
            gpu.free(MEMORY)?;
        } else {
            gpu.free(MEMORY)?;
            drop(mapping);
        }
    }
    println!("1000 times 40 MiB");
    Ok(())
}

/// What is pinned holds the pages of a mapping that it was made of, after that and the object are gone.
pub fn pinned(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let (bytes, pin) = (48 * MIB, MEMORY + 1);
    let length = bytes as usize;
    let target = open(Node::Control)?;
    allocate(&gpu, MEMORY, bytes, SCATTERED)?;
    show(&gpu, MEMORY, bytes, &target)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (anywhere, file) = (std::ptr::null_mut(), target.as_raw_fd());
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let pages = unsafe { libc::mmap(anywhere, length, protection, libc::MAP_SHARED, file, 0) };
    assert_ne!(pages, libc::MAP_FAILED);
    gpu.client
        .pin(&gpu.node, DEVICE, pin, pages.cast(), length)?;
    gpu.free(MEMORY)?;
    // SAFETY: nothing refers to the mapping.
    assert_eq!(unsafe { libc::munmap(pages, length) }, 0);
    drop(target);
    say_what_is_left("pinned, freed and unmapped", &gpu)?;
    gpu.free(pin)?;
    say_what_is_left("unpinned", &gpu)
}
