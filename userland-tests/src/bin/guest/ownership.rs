//! Clients that are not the sandbox's own, and as many of its own as it may have.

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::*;
use nvproxy_sim::structs::frontend::*;
use nvproxy_sim::structs::uvm::{UVM_REGISTER_GPU_PARAMS, UVM_REGISTER_GPU_VASPACE_PARAMS};
use ringfence::guest::{Client, Result, check, frontend, ioctl, open};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::Outcome;
use crate::concurrency::address_space;
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB, SUBDEVICE, word};
use crate::mapped_memory::{Space, gpu_for_unified_memory};
use crate::tenants::ANOTHERS;

/// NV2080_CTRL_CMD_FIFO_DISABLE_CHANNELS (ctrl2080fifo.h).
const DISABLE_CHANNELS: u32 = 0x2080_110b;

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
#[allow(non_snake_case)]
struct NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS {
    bDisable: u32,
    numChannels: u32,
    flags: u64,
    pRunlistPreemptEvent: u64,
    hClientList: [u32; 64],
    hChannelList: [u32; 64],
}

fn say<T>(what: &str, outcome: Result<T>) {
    println!("{what}: {}", word(outcome.map(drop)));
}

/// Issues a frontend ioctl and returns the status that `of` reads.
fn status<P: FromBytes + IntoBytes>(
    gpu: &Gpu,
    number: u32,
    mut request: P,
    of: impl Fn(&P) -> u32,
) -> Result<()> {
    frontend(&gpu.client.control, number, &mut request)?;
    check(of(&request))
}

/// Every field that can hold the handle of a client, with one that is not the sandbox's.
pub fn foreign_clients(_: &[String]) -> Outcome {
    let gpu = gpu_for_unified_memory()?;
    gpu.allocate(MEMORY, 4 * MIB)?;
    let foreign = ANOTHERS;
    let stranger = Client {
        control: gpu.client.control.try_clone()?,
        root: foreign,
    };
    say(
        "control",
        stranger.control(SUBDEVICE, NV2080_CTRL_CMD_GPU_GET_ID, &mut [0u32; 1]),
    );
    say(
        "allocate",
        stranger.memory(DEVICE, MEMORY + 1, NV01_MEMORY_LOCAL_USER, MIB),
    );
    say("free", stranger.free(DEVICE, MEMORY));
    say("free the client", stranger.free(foreign, foreign));
    say("map", stranger.map(DEVICE, MEMORY, 4096, Node::Gpu(0)));
    let of = |request: &NVOS34_PARAMETERS| request.status;
    let mut request = NVOS34_PARAMETERS::new_zeroed();
    request.hClient = foreign;
    say("unmap", status(&gpu, NV_ESC_RM_UNMAP_MEMORY, request, of));
    let of = |request: &NVOS57_PARAMETERS| request.status;
    let mut request = NVOS57_PARAMETERS::new_zeroed();
    request.hClient = foreign;
    say("share", status(&gpu, NV_ESC_RM_SHARE, request, of));
    for (what, to, from) in [
        ("copy from", gpu.client.root, foreign),
        ("copy to", foreign, gpu.client.root),
        ("copy within", gpu.client.root, gpu.client.root),
    ] {
        let mut request = NVOS55_PARAMETERS::new_zeroed();
        (request.hClient, request.hClientSrc) = (to, from);
        (request.hParent, request.hObjectSrc) = (DEVICE, MEMORY);
        say(
            what,
            status(&gpu, NV_ESC_RM_DUP_OBJECT, request, |request| {
                request.status
            }),
        );
    }
    say(
        "register for events",
        stranger.register_event_descriptor(&gpu.node),
    );

    let mut device = NV0080_ALLOC_PARAMETERS::new_zeroed();
    device.hClientShare = foreign;
    let shared = gpu
        .client
        .allocate(gpu.client.root, DEVICE + 9, NV01_DEVICE_0, &mut device);
    say("share an address space", shared);
    let mut event = NV0005_ALLOC_PARAMETERS::new_zeroed();
    event.hParentClient = foreign;
    event.hSrcResource = SUBDEVICE;
    event.hClass = NV01_EVENT_OS_EVENT;
    let heard = gpu
        .client
        .allocate(SUBDEVICE, MEMORY + 2, NV01_EVENT_OS_EVENT, &mut event);
    say("hear its events", heard);
    disable_channels(&gpu, foreign);
    unified_memory(&gpu, foreign)?;
    say("after all that", gpu.free(MEMORY));
    Ok(())
}

/// Devices that use another client's address space, as OpenGL and Vulkan make them.
pub fn shared_spaces(_: &[String]) -> Outcome {
    let (first, _node) = Client::of_first_gpu(DEVICE, SUBDEVICE)?;
    let controls = (first.control.try_clone()?, first.control.try_clone()?);
    let (second, third) = (Client::on(controls.0)?, Client::on(controls.1)?);
    let elsewhere = Client::new()?;
    let device = |client: &Client, named: &Client, handle: u32| {
        let mut device = NV0080_ALLOC_PARAMETERS::new_zeroed();
        device.hClientShare = named.root;
        client.allocate(client.root, handle, NV01_DEVICE_0, &mut device)
    };
    say("another description's", device(&second, &elsewhere, DEVICE));
    say("the first's", device(&second, &first, DEVICE));
    say("free a device of it", first.free(first.root, DEVICE));
    say("by one that is named", device(&first, &third, DEVICE + 1));
    say("of one that names another", device(&third, &second, DEVICE));
    say("free who is named", first.free(first.root, first.root));
    say("free who names", second.free(second.root, second.root));
    say("free who was named", first.free(first.root, first.root));
    say("free it again", first.free(first.root, first.root));
    say("its own", device(&third, &third, DEVICE));
    // The description is closed with both.
    let fourth = Client::on(first.control.try_clone()?)?;
    say("the third's", device(&fourth, &third, DEVICE));
    Ok(())
}

/// As many of the list as the number says are looked at.
fn disable_channels(gpu: &Gpu, foreign: u32) {
    for (what, count) in [("disable one's own channel", 1), ("disable its channel", 2)] {
        let mut parameters = NV2080_CTRL_FIFO_DISABLE_CHANNELS_PARAMS::new_zeroed();
        parameters.numChannels = count;
        parameters.hClientList[0] = gpu.client.root;
        parameters.hClientList[1] = foreign;
        say(
            what,
            gpu.client
                .control(SUBDEVICE, DISABLE_CHANNELS, &mut parameters),
        );
    }
}

fn unified_memory(gpu: &Gpu, foreign: u32) -> Outcome {
    use std::os::fd::AsRawFd;
    let uvm = address_space()?;
    let mut request = UVM_REGISTER_GPU_PARAMS::new_zeroed();
    request.gpu_uuid.uuid = *b"simulated GPU \0\0";
    request.rmCtrlFd = gpu.client.control.as_raw_fd();
    request.hClient = foreign;
    ioctl(&uvm, UVM_REGISTER_GPU, &mut request)?;
    say("register with UVM", check(request.rmStatus));
    let mut request = UVM_REGISTER_GPU_VASPACE_PARAMS::new_zeroed();
    request.rmCtrlFd = gpu.client.control.as_raw_fd();
    request.hClient = foreign;
    ioctl(&uvm, UVM_REGISTER_GPU_VASPACE, &mut request)?;
    say("tie its address space", check(request.rmStatus));
    let space = Space::new(gpu)?;
    say("map its memory", space.map_of(foreign, MEMORY));
    say("map one's own memory", space.map(MEMORY));
    Ok(space.unmap_all()?)
}

/// Clients until there may be no more.
pub fn many_clients(_: &[String]) -> Outcome {
    let control = open(Node::Control)?;
    let mut roots = Vec::new();
    let refused = loop {
        match Client::on(control.try_clone()?) {
            Ok(client) => roots.push(client.root),
            Err(error) => break error,
        }
    };
    println!("{} clients, then {refused}", roots.len());
    let root = roots.first().copied().unwrap_or_default();
    let first = Client {
        control: control.try_clone()?,
        root,
    };
    say("freed", first.free(root, root));
    say("another", Client::on(control.try_clone()?));
    say("and another", Client::on(control));
    Ok(())
}
