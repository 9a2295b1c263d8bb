//! Generations of tasks, one for each line of the input: they work, some are killed, and nothing is left of them.

use std::io::BufRead;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nvproxy_abi::node::Node;
use ringfence::guest::open;

use crate::Outcome;
use crate::children::child;
use crate::concurrency::{address_space, work};
use crate::gpu::{ALL, DEVICE, Gpu, MEMORY, MIB};
use crate::pinning::patiently;

const TASKS: u64 = 16;

/// A line is a number, which says who is killed when.
pub fn generations_on_demand(_: &[String]) -> Outcome {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let mut seed: u64 = line?.parse()?;
        generation(|limit| {
            // Knuth's linear congruential generator; its upper half is the better one.
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (seed >> 33) % limit
        })?;
        Gpu::open()?.wait_for_free_memory(ALL)?;
        println!("gone");
    }
    Ok(())
}

fn generation(mut random: impl FnMut(u64) -> u64) -> Outcome {
    let mut tasks = Vec::new();
    for index in 0..TASKS {
        let kind = random(4);
        tasks.push(child(move || task(kind, index as u8))?);
    }
    for task in &tasks {
        if random(2) == 0 {
            std::thread::sleep(Duration::from_micros(random(2000)));
            // It may have ended already, which is no less a killing.
            let _ = kill(*task, Signal::SIGKILL);
        }
    }
    for task in tasks {
        match waitpid(task, None)? {
            WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGKILL, _) => {}
            other => return Err(format!("a task ended with {other:?}").into()),
        }
    }
    Ok(())
}

fn task(kind: u64, mark: u8) -> Outcome {
    let gpu = Gpu::open()?;
    match kind {
        0 => (0..4).try_for_each(|_| work(&gpu, MEMORY, mark))?,
        1 => {
            let pages = vec![0u8; 8192];
            let page = pages
                .as_ptr()
                .map_addr(|address| address.next_multiple_of(4096));
            patiently(|| gpu.client.pin(&gpu.node, DEVICE, MEMORY, page, 4096))?;
        }
        2 => drop(address_space()?),
        _ => {
            gpu.allocate(MEMORY, MIB)?;
            let events = open(Node::Control)?;
            gpu.client.register_event_descriptor(&events)?;
        }
    }
    Ok(())
}
