//! What tasks let go of is freed, however they do: seen by the GPU's free memory.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::NV01_MEMORY_LOCAL_USER;
use ringfence::guest::open;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{ALL, DEVICE, GIB, Gpu, MEMORY, MIB, SUBDEVICE};

/// Closing the client's only descriptor frees its memory.
pub fn close(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    for _ in 0..50 {
        let gpu = Gpu::open()?;
        gpu.allocate(MEMORY, GIB)?;
        assert_eq!(observer.free_memory()?, ALL - GIB);
        drop(gpu);
        observer.wait_for_free_memory(ALL)?;
    }
    println!("freed 50 times");
    Ok(())
}

/// A description whose descriptor was replaced when it was registered for events is neither closed by that nor by the
/// closing of one of its descriptors.
pub fn close_events(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    let Gpu { client, node } = Gpu::open()?;
    client.memory(DEVICE, MEMORY, NV01_MEMORY_LOCAL_USER, GIB)?;
    drop(node);
    let before = client.control.try_clone()?;
    client.register_event_descriptor(&client.control)?;
    client.event(SUBDEVICE, MEMORY + 1, 0, &client.control)?;
    let after = client.control.try_clone()?;
    drop(client);
    for last in [before, after] {
        // Descriptions like this one are all looked after at once. So when one that is closed now was seen to be gone, the
        // look before it has begun; and that has freed what it found when the next one was seen.
        for _ in 0..2 {
            let other = Gpu::open()?;
            other.allocate(MEMORY, GIB)?;
            let control = &other.client.control;
            other.client.register_event_descriptor(control)?;
            drop(other);
            observer.wait_for_free_memory(ALL - GIB)?;
        }
        println!("kept {} GiB", (ALL - observer.free_memory()?) / GIB);
        drop(last);
    }
    observer.wait_for_free_memory(ALL)?;
    println!("freed");
    Ok(())
}

/// Generations of processes that open and never close.
pub fn generations(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    for generation in 0..20 {
        let process = child(|| {
            for _ in 0..16 {
                let gpu = Gpu::open()?;
                gpu.allocate(MEMORY, GIB)?;
                std::mem::forget((gpu, open(Node::Uvm)?, open(Node::Gpu(1))?));
            }
            Ok(())
        })?;
        expect_success(process)?;
        observer
            .wait_for_free_memory(ALL)
            .inspect_err(|_| eprintln!("generation {generation}"))?;
    }
    println!("freed 20 times");
    Ok(())
}

/// A hundred tasks are killed while they make requests, each at another moment of its life.
pub fn killed(_: &[String]) -> Outcome {
    let observer = Gpu::open()?;
    for round in 0..100u32 {
        let process = child(|| {
            let gpu = Gpu::open()?;
            loop {
                gpu.allocate(MEMORY, MIB)?;
                gpu.client.map(DEVICE, MEMORY, 4096, Node::Gpu(0))?;
                gpu.free(MEMORY)?;
            }
        })?;
        // From before its first request to hundreds of requests later, and never twice the same.
        std::thread::sleep(Duration::from_micros(u64::from(round * 37 % 100) * 50));
        kill(process, Signal::SIGKILL)?;
        waitpid(process, None)?;
    }
    observer.wait_for_free_memory(ALL)?;
    println!("freed after 100 were killed");
    Ok(())
}
