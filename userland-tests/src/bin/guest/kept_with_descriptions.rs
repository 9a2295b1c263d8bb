//! What the driver keeps with a description itself (`--host-memory 64MiB`): tables of what is exported to it, lists of GPUs, and
//! events.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::control::NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS;
use ringfence::guest::{Result, ioctl, open};
use rustix::event::{Timespec, epoll};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{DEVICE, Gpu, LIMIT, MEMORY, MIB};
use crate::host_memory::{SCATTERED, allocate, until_refused};
use crate::memory_limit::say;

/// Words in a list of GPUs that is as long as an ioctl's argument can be.
const LONGEST: usize = 4095;

fn export(gpu: &Gpu, parcel: &File) -> Result<()> {
    let mut export = NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS::new_zeroed();
    export.fd = parcel.as_raw_fd();
    export.hDevice = DEVICE;
    export.maxObjects = u16::MAX;
    export.numObjects = 1;
    export.objects[0] = MEMORY;
    let command = NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD;
    gpu.client.control(gpu.client.root, command, &mut export)
}

/// Says how many descriptions there are until one is refused, and that they give back what they took.
fn until_full(gpu: &Gpu, what: &str, mut make: impl FnMut(&File) -> Result<()>) -> Outcome {
    let mut descriptions = Vec::new();
    let (made, refusal) = until_refused(500, |_| {
        let description = open(Node::Control)?;
        make(&description)?;
        descriptions.push(description);
        Ok(())
    });
    println!("{made} {what}");
    say("one more", refusal);
    drop(descriptions);
    let deadline = Instant::now() + LIMIT;
    while let Err(error) = allocate(gpu, MEMORY + 1, 3 * MIB, SCATTERED) {
        assert!(Instant::now() < deadline, "closed: still {error}");
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("closed: ok");
    Ok(gpu.free(MEMORY + 1)?)
}

pub fn tables(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    allocate(&gpu, MEMORY, 60 * MIB, SCATTERED)?;
    let twice = |parcel: &File| {
        // There is one table, however often something is exported.
        export(&gpu, parcel)?;
        export(&gpu, parcel)
    };
    until_full(&gpu, "tables", twice)?;
    until_full(&gpu, "lists", |description| {
        let mut list = [0u32; LONGEST];
        let size = size_of_val(&list) as u32;
        let word = 3 << 30 | size << 16 | 0x46 << 8 | NV_ESC_ATTACH_GPUS_TO_FD;
        ioctl(description, word, &mut list).map(drop)
    })
}

/// An event of which the program wants data, which nobody can fetch: whether it is still pending when it was taken.
pub fn event_data(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let events = gpu.hear_software(MEMORY)?;
    gpu.enable_software()?;
    gpu.trigger_software()?;
    for (when, milliseconds) in [("posted", 20_000), ("taken", 0)] {
        let mut room = [MaybeUninit::uninit()];
        let timeout = Timespec::try_from(Duration::from_millis(milliseconds))?;
        // In a sandbox of the simulated driver an event descriptor is an epoll instance.
        let (pending, _) = epoll::wait(&events, &mut room, Some(&timeout))?;
        println!("{when}: {} pending", pending.len());
    }
    Ok(())
}
