//! Host memory that the driver takes, up to a limit (`--host-memory 64MiB`), by every request by which it takes some.
//!
//! `unsafe` is here because mmap takes addresses.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::status::NV_ERR_NO_MEMORY;
use nvproxy_sim::structs::class::NV_MEMORY_ALLOCATION_PARAMS;
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::{
    nv_ioctl_alloc_os_event_t, nv_ioctl_free_os_event_t, nv_ioctl_nvos02_parameters_with_fd,
};
use nvproxy_sim::structs::uvm::*;
use ringfence::guest::{Client, Result, check, frontend, ioctl, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, end_of, expect_success};
use crate::concurrency::address_space;
use crate::gpu::{DEVICE, GIB, Gpu, MEMORY, MIB, SUBDEVICE, word};
use crate::lent::answer;
use crate::mapped_memory::{Space, gpu_for_unified_memory};
use crate::memory_limit::{duplicate, say};
use crate::pinning::patiently;

/// Where a semaphore pool lies.
const POOL: u64 = 0x20_0000_0000;

/// NVOS32_ATTR_LOCATION_PCI with an NVOS32_ATTR_PHYSICALITY (nvos.h).
pub const SCATTERED: u32 = 1 << 25 | 1 << 27;
const CONTIGUOUS: u32 = 1 << 25 | 2 << 27;
/// NVOS02_FLAGS_PHYSICALITY_NONCONTIGUOUS and NVOS02_FLAGS_MAPPING_NO_MAP.
const OLDER_SCATTERED: u32 = 1 << 4 | 1 << 30;
const OLDER_CONTIGUOUS: u32 = 1 << 30;

pub fn allocate(gpu: &Gpu, memory: u32, bytes: u64, attr: u32) -> Result<()> {
    let mut parameters = NV_MEMORY_ALLOCATION_PARAMS::new_zeroed();
    parameters.owner = gpu.client.root;
    parameters.size = bytes;
    parameters.attr = attr;
    let class = NV01_MEMORY_SYSTEM;
    gpu.client.allocate(DEVICE, memory, class, &mut parameters)
}

/// By NV_ESC_RM_ALLOC_MEMORY: a byte more than `limit`.
pub fn allocate_up_to(gpu: &Gpu, memory: u32, limit: u64, flags: u32) -> Result<()> {
    let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    request.params.hRoot = gpu.client.root;
    request.params.hObjectParent = DEVICE;
    request.params.hObjectNew = memory;
    request.params.hClass = NV01_MEMORY_SYSTEM;
    request.params.limit = limit;
    request.params.flags = flags;
    request.fd = -1;
    frontend(&gpu.node, NV_ESC_RM_ALLOC_MEMORY, &mut request)?;
    check(request.params.status)
}

/// Makes something again and again, `most` times or until it is refused: how often it was made, and the refusal.
pub fn until_refused(most: u32, mut make: impl FnMut(u32) -> Result<()>) -> (u32, Result<()>) {
    for made in 0..most {
        let outcome = make(made);
        if outcome.is_err() {
            return (made, outcome);
        }
    }
    (most, Ok(()))
}

fn make_pool(uvm: &File, length: u64) -> Result<()> {
    let mut parameters = UVM_ALLOC_SEMAPHORE_POOL_PARAMS::new_zeroed();
    parameters.base = POOL;
    parameters.length = length;
    ioctl(uvm, UVM_ALLOC_SEMAPHORE_POOL, &mut parameters)?;
    check(parameters.rmStatus)
}

fn free_pool(uvm: &File, length: u64) -> Result<()> {
    let mut parameters = UVM_FREE_PARAMS::new_zeroed();
    parameters.base = POOL;
    parameters.length = length;
    ioctl(uvm, UVM_FREE, &mut parameters)?;
    check(parameters.rmStatus)
}

/// Whether 32 MiB can be had besides: there are not while 48 MiB are taken.
pub fn say_what_is_left(when: &str, gpu: &Gpu) -> Outcome {
    let outcome = allocate(gpu, MEMORY + 0x10, 32 * MIB, SCATTERED);
    if outcome.is_ok() {
        gpu.free(MEMORY + 0x10)?;
    }
    say(when, outcome);
    Ok(())
}

/// The same once what was given back behind the program's back has been.
pub fn wait_for_room(when: &str, gpu: &Gpu) -> Outcome {
    let deadline = Instant::now() + crate::gpu::LIMIT;
    while let Err(error) = allocate(gpu, MEMORY + 0x10, 32 * MIB, SCATTERED) {
        assert!(Instant::now() < deadline, "{when}: still {error}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    println!("{when}: ok");
    gpu.free(MEMORY + 0x10)?;
    Ok(())
}

/// By class and by request, and all sizes that are too much.
pub fn requests(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let memory = MEMORY;
    say("48 MiB", allocate(&gpu, memory, 48 * MIB, SCATTERED));
    say_what_is_left("32 MiB more", &gpu)?;
    say("8 MiB more", allocate(&gpu, memory + 1, 8 * MIB, SCATTERED));
    gpu.free(memory)?;
    gpu.free(memory + 1)?;
    say_what_is_left("freed", &gpu)?;
    let whole = allocate(&gpu, memory, 33 * MIB, CONTIGUOUS);
    say("33 MiB in one piece", whole);
    for size in [u64::MAX, u64::MAX - 4095, 1 << 63] {
        say(
            &format!("{size:#x}"),
            allocate(&gpu, memory, size, SCATTERED),
        );
        let up_to = allocate_up_to(&gpu, memory, size, OLDER_SCATTERED);
        say(&format!("up to {size:#x}"), up_to);
    }
    say_what_is_left("after refusals", &gpu)?;
    let older = allocate_up_to(&gpu, memory, 48 * MIB - 1, OLDER_SCATTERED);
    say("48 MiB by the older request", older);
    say_what_is_left("32 MiB more", &gpu)?;
    gpu.free(memory)?;
    let whole = allocate_up_to(&gpu, memory, 33 * MIB - 1, OLDER_CONTIGUOUS);
    say("33 MiB in one piece", whole);
    say_what_is_left("freed", &gpu)?;

    let uvm = address_space()?;
    say("a pool of 48 MiB", make_pool(&uvm, 48 * MIB));
    say_what_is_left("32 MiB more", &gpu)?;
    free_pool(&uvm, 48 * MIB)?;
    say_what_is_left("freed", &gpu)?;
    say("a pool of 80 MiB", make_pool(&uvm, 80 * MIB));
    make_pool(&uvm, 48 * MIB)?;
    say_what_is_left("another pool", &gpu)?;
    drop(uvm);
    wait_for_room("its address space closed", &gpu)
}

/// Whatever keeps the memory keeps it charged, once; whatever frees it gives it back.
pub fn keepers(_: &[String]) -> Outcome {
    let (gpu, other) = (gpu_for_unified_memory()?, Gpu::open()?);
    let take = |gpu: &Gpu| allocate(gpu, MEMORY, 48 * MIB, SCATTERED);
    take(&gpu)?;
    say("copied", duplicate(&other.client, MEMORY, &gpu.client));
    say("8 MiB more", allocate(&gpu, MEMORY + 1, 8 * MIB, SCATTERED));
    gpu.free(MEMORY + 1)?;
    gpu.free(MEMORY)?;
    say_what_is_left("the original freed", &gpu)?;
    other.client.free(other.client.root, DEVICE)?;
    say_what_is_left("the copy's device freed", &gpu)?;

    take(&gpu)?;
    let parcel = open(Node::Control)?;
    let mut export = NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS::new_zeroed();
    export.fd = parcel.as_raw_fd();
    export.hDevice = DEVICE;
    export.maxObjects = 1;
    export.numObjects = 1;
    export.objects[0] = MEMORY;
    let command = NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD;
    gpu.client.control(gpu.client.root, command, &mut export)?;
    gpu.free(MEMORY)?;
    say_what_is_left("exported and freed", &gpu)?;
    drop(parcel);
    wait_for_room("the description closed", &gpu)?;

    let space = Space::new(&gpu)?;
    take(&gpu)?;
    space.map(MEMORY)?;
    gpu.free(MEMORY)?;
    say_what_is_left("mapped and freed", &gpu)?;
    space.free()?;
    say_what_is_left("the range freed", &gpu)?;

    drop(other);
    let holder = child(|| Ok(take(&Gpu::open()?)?))?;
    expect_success(holder)?;
    wait_for_room("the process ended", &gpu)
}

/// Objects that take nothing of their own count as well, until there is no more room for the driver's records.
pub fn records(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let mut made = 0;
    let refusal = loop {
        let class = GF100_SUBDEVICE_MASTER;
        let object = MEMORY + 0x100 + made;
        match gpu.client.allocate(SUBDEVICE, object, class, &mut ()) {
            Ok(()) => made += 1,
            refusal => break refusal,
        }
    };
    println!("{made} objects");
    say("one more", refusal);
    say("a client", Gpu::open().map(drop));
    gpu.client.free(gpu.client.root, SUBDEVICE)?;
    say("freed", allocate(&gpu, MEMORY, 48 * MIB, SCATTERED));
    Ok(())
}

/// Records of events, of which there may be so many in a sandbox. Each is gone with what it belongs to.
pub fn events(_: &[String]) -> Outcome {
    let (client, other) = (Client::new()?, Client::new()?);
    let make = |on: &File, key: u32| {
        let mut request = nv_ioctl_alloc_os_event_t::new_zeroed();
        (request.hClient, request.fd) = (client.root, 1_000_000 + key);
        frontend(on, NV_ESC_ALLOC_OS_EVENT, &mut request)?;
        check(request.Status)
    };
    let (made, refusal) = until_refused(5000, |key| make(&client.control, key));
    println!("{made} events");
    say("one more", refusal);
    let mut request = nv_ioctl_free_os_event_t::new_zeroed();
    (request.hClient, request.fd) = (client.root, 1_000_000);
    frontend(&client.control, NV_ESC_FREE_OS_EVENT, &mut request)?;
    say("one freed", check(request.Status));
    let description = open(Node::Control)?;
    say("another, elsewhere", make(&description, 5000));
    say("one more", make(&client.control, 5001));
    drop(description);
    let deadline = Instant::now() + crate::gpu::LIMIT;
    while let Err(error) = make(&client.control, 5002) {
        assert!(Instant::now() < deadline, "closed: still {error}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    println!("closed: ok");
    client.free(client.root, client.root)?;
    let mut request = nv_ioctl_alloc_os_event_t::new_zeroed();
    request.hClient = other.root;
    frontend(&other.control, NV_ESC_ALLOC_OS_EVENT, &mut request)?;
    say("the client freed", check(request.Status));
    Ok(())
}

/// How many range groups there can be beside one address space.
const GROUPS: usize = 16_255;

/// Address spaces of UVM, and range groups in one: both are records, and come back.
pub fn spaces(_: &[String]) -> Outcome {
    let mut spaces = Vec::new();
    let (made, refusal) = until_refused(200, |_| address_space().map(|space| spaces.push(space)));
    println!("{made} address spaces");
    say("one more", refusal);
    drop(spaces);
    let deadline = Instant::now() + crate::gpu::LIMIT;
    let uvm = loop {
        match address_space() {
            Ok(uvm) => break uvm,
            Err(error) => assert!(Instant::now() < deadline, "closed: still {error}"),
        }
    };
    let make = |_| {
        let mut parameters = UVM_CREATE_RANGE_GROUP_PARAMS::new_zeroed();
        ioctl(&uvm, UVM_CREATE_RANGE_GROUP, &mut parameters)?;
        check(parameters.rmStatus)
    };
    // Of the spaces that were closed some may not have been given back yet.
    let (mut made, mut outcome) = (0, Ok(()));
    while made < 16 << 10 {
        outcome = make(made);
        match outcome {
            Ok(()) => made += 1,
            Err(_) if made < GROUPS && Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Err(_) => break,
        }
    }
    println!("{made} range groups");
    say("one more", outcome);
    let mut parameters = UVM_DESTROY_RANGE_GROUP_PARAMS::new_zeroed();
    parameters.rangeGroupId = 1;
    ioctl(&uvm, UVM_DESTROY_RANGE_GROUP, &mut parameters)?;
    say("one destroyed", check(parameters.rmStatus));
    say("another", make(0));
    say("one more", make(0));
    Ok(())
}

/// Ranges of UVM for kernels that start kernels: each is a record.
pub fn regions(_: &[String]) -> Outcome {
    let gpu = gpu_for_unified_memory()?;
    let space = Space::new(&gpu)?;
    let (_, refusal) = until_refused(20_000, |index| space.map_region(index));
    say("regions", refusal);
    Ok(())
}

/// What is mapped can be unmapped when there is no room for a further record.
pub fn unmapping(_: &[String]) -> Outcome {
    let gpu = gpu_for_unified_memory()?;
    let space = Space::new(&gpu)?;
    allocate(&gpu, MEMORY, 48 * MIB, SCATTERED)?;
    space.map(MEMORY)?;
    let make = |index| {
        let (class, object) = (GF100_SUBDEVICE_MASTER, MEMORY + 0x1000 + index);
        gpu.client.allocate(SUBDEVICE, object, class, &mut ())
    };
    let (_, refusal) = until_refused(16 << 10, make);
    say("full", refusal);
    say("unmapped", space.unmap_all());
    Ok(())
}

/// Memory that the older request allocates and then fails to make ready to be mapped, for want of a descriptor.
pub fn left(_: &[String]) -> Outcome {
    /// NVOS02_FLAGS_PHYSICALITY_NONCONTIGUOUS, to be mapped.
    const MAPPED: u32 = 1 << 4;
    let gpu = Gpu::open()?;
    let mut word = String::new();
    let (made, _) = until_refused(20, |index| {
        let outcome = allocate_up_to(&gpu, MEMORY + 0x100 + index, 8 * MIB - 1, MAPPED);
        word = crate::gpu::word(outcome);
        match word.as_str() {
            "EINVAL" => Ok(()),
            _ => check(NV_ERR_NO_MEMORY),
        }
    });
    println!("{made} times EINVAL, then {word}");
    say_what_is_left("32 MiB more", &gpu)?;
    for index in 0..made {
        gpu.free(MEMORY + 0x100 + index)?;
    }
    say_what_is_left("freed", &gpu)
}

/// Children pin a GiB each, of whose pages the driver keeps 16 MiB, and are killed while they do: by a filter of their own
/// that lets no thread end, if an argument says so. Then what they pinned is freed, as far as the driver has it.
pub fn unheard(arguments: &[String]) -> Outcome {
    const MOST: u32 = 8;
    let gpu = Gpu::open()?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), GIB as usize, protection, flags, -1, 0) };
    let mut killed = 0;
    while killed < MOST {
        let pinning = child(|| {
            if !arguments.is_empty() {
                answer(libc::SYS_exit as u32, 0)?;
            }
            let memory = MEMORY + killed;
            let client = &gpu.client;
            Ok(patiently(|| {
                client.pin(&gpu.node, DEVICE, memory, pages.cast(), GIB as usize)
            })?)
        })?;
        if end_of(pinning)? != "SIGKILL" {
            break;
        }
        killed += 1;
    }
    println!("{killed} killed");
    say_what_is_left("32 MiB more", &gpu)?;
    for memory in MEMORY..MEMORY + killed {
        say("freed", gpu.free(memory));
    }
    say_what_is_left("then", &gpu)?;
    drop(gpu);
    wait_for_room("of another client", &Gpu::open()?)
}

/// Pins a GiB again and again, of whose pages the driver keeps 16 MiB; the driver cannot write its answer.
pub fn unwritten(_: &[String]) -> Outcome {
    const MOST: u32 = 8;
    let gpu = Gpu::open()?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), GIB as usize, protection, flags, -1, 0) };
    let mut unanswered = 0;
    while unanswered < MOST {
        let (client, memory) = (&gpu.client, MEMORY + unanswered);
        let pin = || client.pin(&gpu.node, DEVICE, memory, pages.cast(), GIB as usize);
        if word(patiently(pin)) != "EFAULT" {
            break;
        }
        unanswered += 1;
    }
    println!("{unanswered} unanswered");
    say_what_is_left("32 MiB more", &gpu)
}

/// Threads that take what there is at once get no more than that.
pub fn threads(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let had: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|index| {
                let gpu = &gpu;
                scope.spawn(move || {
                    let first = MEMORY + 0x1000 * (index + 1);
                    let mine = (first..)
                        .take_while(|memory| allocate(gpu, *memory, MIB, SCATTERED).is_ok());
                    mine.count() as u32
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0))
            .sum()
    });
    println!("{had} MiB");
    Ok(())
}

/// How many MiB the machine has, and how many of them the driver takes at most, in pieces of 256.
pub fn default(_: &[String]) -> Outcome {
    const PIECE: u64 = 256;
    let gpu = Gpu::open()?;
    let mut had = 0;
    while allocate(&gpu, MEMORY + had, PIECE * MIB, SCATTERED).is_ok() {
        had += 1;
    }
    let machine = std::fs::read_to_string("/proc/meminfo")?;
    let total = machine
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    println!("{}", total.ok_or("no MemTotal")? >> 10);
    println!("{}", PIECE * u64::from(had));
    Ok(())
}
