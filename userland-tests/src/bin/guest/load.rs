//! Threads that keep the driver busy with everything that a program does, and check every answer, while the test does
//! something to the sandbox.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::NV_MEMORY_ALLOCATION_PARAMS;
use nvproxy_sim::structs::frontend::{NVOS64_PARAMETERS, nv_ioctl_free_os_event_t};
use ringfence::guest::{Client, Result, check, frontend};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{ALL, DEVICE, Gpu, MEMORY, MIB, SUBDEVICE};
use crate::pinning::{Pages, pin};
use crate::walk::ready;

const EVENT: u32 = MEMORY + 1;
const LENGTH: usize = 16 << 10;

/// Allocates memory under a handle of the driver's choice, which it returns.
fn allocate_unnamed(gpu: &Gpu) -> Result<u32> {
    let mut parameters = NV_MEMORY_ALLOCATION_PARAMS::new_zeroed();
    (parameters.owner, parameters.size) = (gpu.client.root, MIB);
    let mut request = NVOS64_PARAMETERS::new_zeroed();
    request.hRoot = gpu.client.root;
    request.hObjectParent = DEVICE;
    request.hClass = NV01_MEMORY_SYSTEM;
    request.pAllocParms = std::ptr::from_mut(&mut parameters) as u64;
    frontend(&gpu.client.control, NV_ESC_RM_ALLOC, &mut request)?;
    check(request.status)?;
    Ok(request.hObjectNew)
}

/// Writes through one mapping and reads through another.
fn write_and_read_back(gpu: &Gpu, memory: u32, mark: u8) -> Result<()> {
    let pattern: Vec<u8> = (0..LENGTH).map(|index| index as u8 ^ mark).collect();
    let mut mapping = gpu.client.map(DEVICE, memory, LENGTH, Node::Control)?;
    mapping.write(0, &pattern);
    let again = gpu.client.map(DEVICE, memory, LENGTH, Node::Control)?;
    assert!(again.read(0, LENGTH) == pattern, "other bytes are read");
    Ok(())
}

/// Triggers an event and gets it. The `first` time, notifications have to be enabled, and only then.
fn wake(gpu: &Gpu, first: bool) -> Outcome {
    let events = gpu.hear_software(EVENT)?;
    if first {
        gpu.enable_software()?;
    }
    gpu.trigger_software()?;
    assert_eq!(ready(&events, 20_000)?, 1, "the event did not come");
    gpu.client.free(SUBDEVICE, EVENT)?;
    // A later description may get the same number before the driver has noticed that this one is closed.
    let mut request = nv_ioctl_free_os_event_t::new_zeroed();
    request.hClient = gpu.client.root;
    request.fd = events.as_raw_fd() as u32;
    frontend(&events, NV_ESC_FREE_OS_EVENT, &mut request)?;
    Ok(check(request.Status)?)
}

/// One thread's work: what each round asks for, and the last generated handle, which the driver counts up. A request
/// that were lost, or issued twice, would show in it.
struct Worker {
    gpu: Gpu,
    gpus: Vec<u32>,
    handle: u32,
    mark: u8,
}

impl Worker {
    fn new(mark: u8) -> Result<Worker> {
        let gpu = Gpu::open()?;
        let gpus = gpu.client.probed_gpus()?;
        let handle = allocate_unnamed(&gpu)?;
        gpu.free(handle)?;
        wake(&gpu, true).expect("an event");
        Ok(Worker {
            gpu,
            gpus,
            handle,
            mark,
        })
    }

    fn round(&mut self) -> Outcome {
        let memory = allocate_unnamed(&self.gpu)?;
        assert_eq!(memory, self.handle + 1, "a request was lost or repeated");
        self.handle = memory;
        write_and_read_back(&self.gpu, memory, self.mark)?;
        self.gpu.free(memory)?;
        assert_eq!(self.gpu.client.probed_gpus()?, self.gpus);
        wake(&self.gpu, false)?;
        drop(Client::new()?);
        Ok(())
    }

    /// What takes the driver long, or more than one step of Ringfence.
    fn rare_round(&mut self) -> Outcome {
        match self.mark {
            0 => Ok(register_gpu(&address_space()?)?),
            1 => {
                let pages = Pages::new(libc::MAP_PRIVATE)?;
                pin(&self.gpu, MEMORY, &pages)?;
                Ok(self.gpu.free(MEMORY)?)
            }
            _ => Ok(()),
        }
    }
}

/// Works until stdin ends.
pub fn load(_: &[String]) -> Outcome {
    const THREADS: u8 = 8;
    let observer = Gpu::open()?;
    let mut workers = (0..THREADS).map(Worker::new).collect::<Result<Vec<_>>>()?;
    let (over, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    println!("ready");
    std::thread::scope(|scope| {
        for worker in &mut workers {
            let (over, rounds) = (&over, &rounds);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..10 {
                        worker.round().expect("a round");
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                    worker.rare_round().expect("a rare round");
                }
            });
        }
        let ended = std::io::stdin().read_line(&mut String::new());
        over.store(true, Ordering::Relaxed);
        ended
    })?;
    drop(workers);
    observer.wait_for_free_memory(ALL)?;
    assert!(rounds.into_inner() > 0);
    println!("every answer was right");
    Ok(())
}
