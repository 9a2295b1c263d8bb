//! Everything once, in the order in which a program does it.

use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nvproxy_abi::node::Node;

use crate::Outcome;
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB};

const SYSTEM_MEMORY: u32 = MEMORY + 1;
const EVENT: u32 = MEMORY + 2;
const LENGTH: usize = 64 << 10;

/// Enumerates, allocates, maps, waits for an event and frees.
pub fn walk(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    println!("gpus {:x?}", gpu.client.probed_gpus()?);
    let free = gpu.free_memory()?;
    gpu.allocate(MEMORY, 64 * MIB)?;
    println!(
        "allocated {} bytes of GPU memory",
        free - gpu.free_memory()?
    );
    gpu.allocate_system(SYSTEM_MEMORY, LENGTH as u64)?;
    write_and_read_back(&gpu, SYSTEM_MEMORY, Node::Control)?;
    write_and_read_back(&gpu, MEMORY, Node::Gpu(0))?;
    wake(&gpu)?;
    gpu.free(MEMORY)?;
    println!("freed all but {} bytes", free - gpu.free_memory()?);
    Ok(())
}

/// Maps memory, writes through the mapping, and reads through a second one.
fn write_and_read_back(gpu: &Gpu, memory: u32, node: Node) -> Outcome {
    let pattern: Vec<u8> = (0..LENGTH)
        .map(|index| (index * 7 + index / 256) as u8)
        .collect();
    let mut mapping = gpu.client.map(DEVICE, memory, LENGTH, node)?;
    mapping.write(0, &pattern);
    drop(mapping);
    let again = gpu.client.map(DEVICE, memory, LENGTH, node)?;
    assert!(
        again.read(0, LENGTH) == pattern,
        "other bytes are read than were written"
    );
    println!("read back {LENGTH} bytes through {}", node.file_name());
    Ok(())
}

fn wake(gpu: &Gpu) -> Outcome {
    let events = gpu.hear_software(EVENT)?;
    gpu.enable_software()?;
    println!("before the trigger {} ready", ready(&events, 0)?);
    let waiting =
        std::thread::spawn(move || ready(&events, 20_000).map_err(|errno| errno.to_string()));
    gpu.trigger_software()?;
    println!(
        "after the trigger {} ready",
        waiting.join().expect("the waiting thread")?
    );
    Ok(())
}

/// Waits for an event: 1 if there is one.
pub fn ready(events: &File, milliseconds: u16) -> nix::Result<i32> {
    let mut polled = [PollFd::new(
        events.as_fd(),
        PollFlags::POLLIN | PollFlags::POLLPRI,
    )];
    poll(&mut polled, PollTimeout::from(milliseconds))
}
