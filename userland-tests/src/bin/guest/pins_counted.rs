//! What the driver takes of the host's memory for pins, up to a limit (`--host-memory 64MiB`), while nobody has said yet
//! what came of them.
//!
//! Of a GiB the driver keeps a list of pages of 16 MiB. Nobody touches the pages.
//!
//! `unsafe` is here for the memory to be pinned.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use ringfence::guest::{Result, open};

use crate::Outcome;
use crate::children::{child, end_of};
use crate::gpu::{DEVICE, GIB, Gpu, MEMORY, word};
use crate::host_memory::{say_what_is_left, wait_for_room};
use crate::memory_limit::duplicate;
use crate::pinning::patiently;

/// How often something is tried that is to end sooner.
const MOST: u32 = 8;

/// The address of a GiB.
struct Gibibyte(usize);

impl Gibibyte {
    fn new() -> nix::Result<Gibibyte> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let address = unsafe { libc::mmap(null, GIB as usize, protection, flags, -1, 0) };
        match address {
            libc::MAP_FAILED => Err(Errno::last()),
            address => Ok(Gibibyte(address as usize)),
        }
    }

    fn pin(&self, gpu: &Gpu, node: &std::fs::File, memory: u32) -> Result<()> {
        let address = self.0 as *const u8;
        patiently(|| gpu.client.pin(node, DEVICE, memory, address, GIB as usize))
    }
}

/// Another client copies what is pinned as soon as it is there, and the one that pinned it frees it. Says how many copies
/// were had, and what is left of the limit, with and without the copies.
pub fn copied(_: &[String]) -> Outcome {
    let (gpu, other) = (Gpu::open()?, Gpu::open()?);
    let pages = Gibibyte::new()?;
    let mut copies = 0;
    while copies < MOST && pin_and_copy(&gpu, &other, MEMORY + copies, &pages)? {
        gpu.free(MEMORY)?;
        copies += 1;
    }
    println!("{copies} copied");
    say_what_is_left("32 MiB more", &gpu)?;
    for copy in MEMORY..MEMORY + copies {
        other.free(copy)?;
    }
    say_what_is_left("then", &gpu)
}

/// Whether memory could be pinned, of which there is a copy then.
fn pin_and_copy(gpu: &Gpu, other: &Gpu, copy: u32, pages: &Gibibyte) -> Result<bool> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pinning = scope.spawn(|| {
            let outcome = pages.pin(gpu, &gpu.node, MEMORY);
            is_over.store(true, Ordering::SeqCst);
            outcome
        });
        let copied = loop {
            let was_over = is_over.load(Ordering::SeqCst);
            let copied = duplicate(&other.client, copy, &gpu.client);
            if copied.is_ok() || was_over {
                break copied;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        match pinning.join().expect("the thread that pins") {
            Ok(()) => copied.map(|()| true),
            Err(error) => {
                println!("refused: {}", word::<()>(Err(error)));
                Ok(false)
            }
        }
    })
}

/// Children pin with this process's client, on a description of their own, and are killed while they do. Says how many
/// did, and what is left of the limit, with the client and without.
pub fn on_a_closed_node(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Gibibyte::new()?;
    let mut killed = 0;
    while killed < MOST {
        let pinning = child(|| {
            let node = open(Node::Gpu(0))?;
            gpu.client.register(&node)?;
            Ok(pages.pin(&gpu, &node, MEMORY + killed)?)
        })?;
        if end_of(pinning)? != "SIGKILL" {
            break;
        }
        killed += 1;
        // The sentry notices that a description was closed, in its time.
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{killed} killed");
    say_what_is_left("32 MiB more", &gpu)?;
    drop(gpu);
    wait_for_room("of another client", &Gpu::open()?)
}
