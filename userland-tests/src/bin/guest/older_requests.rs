//! The older requests by which graphics programs ask for memory, and ask how much there is: NV_ESC_RM_VID_HEAP_CONTROL, further
//! classes of NV_ESC_RM_ALLOC_MEMORY, NV2080_CTRL_CMD_FB_GET_INFO and NV01_EVENT.

use std::os::fd::AsRawFd;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::NV0005_ALLOC_PARAMETERS;
use nvproxy_sim::structs::control::{NV2080_CTRL_FB_GET_INFO_PARAMS, NVXXXX_CTRL_XXX_INFO};
use nvproxy_sim::structs::frontend::{NVOS32_PARAMETERS, nv_ioctl_nvos02_parameters_with_fd};
use ringfence::guest::{Nothing, Result, check, frontend, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{DEVICE, GIB, Gpu, MEMORY, MIB, SUBDEVICE, word};
use crate::host_memory::{allocate_up_to, until_refused};
use crate::memory_limit::say;

/// NVOS32_FUNCTION_ALLOC_SIZE.
const ALLOC_SIZE: u32 = 2;
/// NVOS32_ALLOC_FLAGS_MEMORY_HANDLE_PROVIDED, _VIRTUAL and _PREFER_PTES_IN_SYSMEMORY; NVOS32_ATTR_LOCATION_PCI with
/// _PHYSICALITY_NONCONTIGUOUS; NVOS32_ATTR2_USE_EGM (nvos.h).
const PROVIDED: u32 = 0x4000;
const VIRTUAL: u32 = 0x8_0000;
const TABLES_OF_THE_HOST: u32 = 0x2000_0000;
const OF_THE_HOST: u32 = 1 << 25 | 1 << 27;
const EXTENDED: u32 = 1 << 24;

/// Classes of NV_ESC_RM_ALLOC_MEMORY.
const NV01_MEMORY_LOCAL_PRIVILEGED: u32 = 0x3f;

/// NV01_EVENT_KERNEL_CALLBACK_EX.
const KERNEL_CALLBACK: u32 = 0x7e;

fn heap(gpu: &Gpu, parent: u32, words: [u32; 3], size: u64) -> NVOS32_PARAMETERS {
    let mut request = NVOS32_PARAMETERS::new_zeroed();
    request.hRoot = gpu.client.root;
    request.hObjectParent = parent;
    request.function = ALLOC_SIZE;
    request.hMemory = MEMORY;
    [request.flags, request.attr, request.attr2] = words;
    request.size = size;
    request
}

/// Issues it, and answers with the object's handle.
fn issue(gpu: &Gpu, mut request: NVOS32_PARAMETERS) -> Result<u32> {
    let number = NV_ESC_RM_VID_HEAP_CONTROL;
    frontend(&gpu.client.control, number, &mut request)?;
    check(request.status).map(|()| request.hMemory)
}

/// Memory by flags, of a GPU and of the host, and what is refused.
pub fn by_flags(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let allocate = |memory: u32, words, size| {
        let mut request = heap(&gpu, DEVICE, words, size);
        request.hMemory = memory;
        issue(&gpu, request).map(drop)
    };
    let of_gpu = [PROVIDED, 0, 0];
    say("3 GiB", allocate(MEMORY, of_gpu, 3 * GIB));
    say("2 GiB more", allocate(MEMORY + 1, of_gpu, 2 * GIB));
    say("by the newer request", gpu.allocate(MEMORY + 2, 2 * GIB));
    println!("{} MiB are free", gpu.free_memory()? / MIB);
    gpu.client.free(gpu.client.root, DEVICE)?;
    gpu.client.device(0, DEVICE, SUBDEVICE)?;
    let chosen = issue(&gpu, heap(&gpu, DEVICE, [0; 3], 4 * GIB))?;
    say("a byte more", allocate(MEMORY, of_gpu, 1));
    gpu.free(chosen)?;
    say("4 GiB, freed", allocate(MEMORY, of_gpu, 4 * GIB));
    gpu.free(MEMORY)?;
    say("2^64 - 1", allocate(MEMORY, of_gpu, u64::MAX));
    let nowhere = heap(&gpu, gpu.client.root, of_gpu, 1);
    say("of no GPU", issue(&gpu, nowhere).map(drop));

    let of_host = [PROVIDED, OF_THE_HOST, 0];
    say("48 MiB of the host", allocate(MEMORY, of_host, 48 * MIB));
    say("32 MiB more", allocate(MEMORY + 1, of_host, 32 * MIB));
    gpu.free(MEMORY)?;
    say("freed", allocate(MEMORY, of_host, 48 * MIB));
    let extended = [PROVIDED, OF_THE_HOST, EXTENDED];
    say("of a node of the host", allocate(MEMORY + 1, extended, 1));
    let virtually = [PROVIDED | VIRTUAL, 0, 0];
    let addresses = allocate(MEMORY + 2, virtually, 1 << 40);
    say("addresses", addresses);
    let tables = [PROVIDED | VIRTUAL | TABLES_OF_THE_HOST, 0, 0];
    let addresses = allocate(MEMORY + 3, tables, 1 << 40);
    say("with tables of the host", addresses);

    for function in [3, 5, 6, 14, 15, 16, 18, 19, 20, 27] {
        let mut request = heap(&gpu, DEVICE, of_gpu, 1);
        request.function = function;
        let outcome = issue(&gpu, request).map(drop);
        say(&format!("function {function}"), outcome);
    }
    let mut request = heap(&gpu, DEVICE, of_gpu, 1);
    let elsewhere = frontend(&gpu.node, NV_ESC_RM_VID_HEAP_CONTROL, &mut request);
    say("on a GPU's node", elsewhere.map(drop));
    Ok(())
}

/// The classes of NV_ESC_RM_ALLOC_MEMORY that have no memory: what a GPU has, and its registers.
pub fn without_memory(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let allocate = |memory, class| {
        let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
        request.params.hRoot = gpu.client.root;
        request.params.hObjectParent = DEVICE;
        request.params.hObjectNew = memory;
        request.params.hClass = class;
        // NVOS02_FLAGS_ALLOC_NONE
        request.params.flags = 1 << 16;
        request.fd = -1;
        frontend(&gpu.node, NV_ESC_RM_ALLOC_MEMORY, &mut request)?;
        check(request.params.status).map(|()| request.params.limit)
    };
    let size = allocate(MEMORY, NV01_MEMORY_LOCAL_USER)?;
    println!("the GPU has {} MiB", (size + 1) / MIB);
    say("4 GiB of it", gpu.allocate(MEMORY + 1, 4 * GIB));
    let registers = allocate(MEMORY + 2, NV01_MEMORY_LOCAL_PRIVILEGED);
    say("registers", registers.map(drop));
    for (what, memory) in [("all of it", MEMORY), ("the registers", MEMORY + 2)] {
        let mapped = gpu.client.map(DEVICE, memory, 4096, Node::Gpu(0));
        println!("{what} mapped: {}", word(mapped));
    }
    Ok(())
}

/// Memory of the host by NV_ESC_RM_ALLOC_MEMORY under a handle that the driver chooses and does not tell, again and again.
pub fn untold(_: &[String]) -> Outcome {
    /// NVOS02_FLAGS_MAPPING_NO_MAP, and _PHYSICALITY_NONCONTIGUOUS.
    const UNMAPPED: u32 = 1 << 30 | 1 << 4;
    let gpu = Gpu::open()?;
    let (times, then) = until_refused(20, |_| allocate_up_to(&gpu, 0, 8 * MIB - 1, UNMAPPED));
    println!("{times} times 8 MiB, then {}", word(then));
    Ok(())
}

/// What the older command tells of the memory, in MiB.
pub fn shown(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, GIB)?;
    let indices = [("ram", 0x07), ("heap", 0x09), ("free", 0x16)];
    let mut list = indices.map(|(_, index)| NVXXXX_CTRL_XXX_INFO { index, data: 0 });
    let mut parameters = NV2080_CTRL_FB_GET_INFO_PARAMS::new_zeroed();
    parameters.fbInfoListSize = list.len() as u32;
    parameters.fbInfoList = list.as_mut_ptr() as u64;
    let command = NV2080_CTRL_CMD_FB_GET_INFO;
    gpu.client.control(SUBDEVICE, command, &mut parameters)?;
    for (info, (name, _)) in list.iter().zip(indices) {
        println!("{name} {}", info.data >> 10);
    }
    Ok(())
}

/// Events by the class that stands for all of them, and the watchdog, which others have a say in.
pub fn events(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let events = open(Node::Control)?;
    gpu.client.register_event_descriptor(&events)?;
    let event = |object, class| {
        let mut parameters = NV0005_ALLOC_PARAMETERS::new_zeroed();
        parameters.hParentClient = gpu.client.root;
        parameters.hClass = class;
        parameters.data = events.as_raw_fd() as u64;
        let made = gpu
            .client
            .allocate(SUBDEVICE, object, NV01_EVENT, &mut parameters);
        word(made)
    };
    println!("an event: {}", event(MEMORY, NV01_EVENT_OS_EVENT));
    println!("a callback: {}", event(MEMORY + 1, KERNEL_CALLBACK));
    println!("of itself: {}", event(MEMORY + 1, NV01_EVENT));
    let command = NV2080_CTRL_CMD_RC_ENABLE_WATCHDOG;
    let enabled = gpu.client.control(SUBDEVICE, command, &mut Nothing {});
    say("the watchdog", enabled);
    let enabled = gpu.client.control(DEVICE, command, &mut Nothing {});
    say("the watchdog of another object", enabled);
    Ok(())
}
