//! GPU memory up to a limit (`--gpu-memory 4GiB`), and all the ways in which it is given back.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::NV_MEMORY_ALLOCATION_PARAMS;
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::NVOS55_PARAMETERS;
use ringfence::guest::{Client, Result, check, frontend, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{DEVICE, GIB, Gpu, MEMORY, MIB, SUBDEVICE, word};

/// How much there is.
const LIMIT: u64 = 4 * GIB;

pub fn say(what: &str, outcome: Result<()>) {
    println!("{what}: {}", word(outcome));
}

/// Allocates all that there is, once what was given back behind the program's back has been.
pub fn eventually_all(what: &str, gpu: &Gpu) -> Outcome {
    let deadline = Instant::now() + crate::gpu::LIMIT;
    while let Err(error) = gpu.allocate(MEMORY, LIMIT) {
        assert!(Instant::now() < deadline, "{what}: still {error}");
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("{what}: ok");
    gpu.free(MEMORY)?;
    Ok(())
}

/// Up to the limit and beyond, by object, device, client, description and process.
pub fn ways(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    say("5 GiB", gpu.allocate(MEMORY, 5 * GIB));
    say("3 GiB", gpu.allocate(MEMORY, 3 * GIB));
    say("2 GiB more", gpu.allocate(MEMORY + 1, 2 * GIB));
    say("1 GiB more", gpu.allocate(MEMORY + 1, GIB));
    say("one more byte", gpu.allocate(MEMORY + 2, 1));
    say("of the host's", gpu.allocate_system(MEMORY + 2, 8 * GIB));
    say("a handle in use", gpu.allocate(MEMORY, 1));
    gpu.free(MEMORY)?;
    say("3 GiB, freed", gpu.allocate(MEMORY, 3 * GIB));

    gpu.client.free(gpu.client.root, DEVICE)?;
    gpu.client.device(0, DEVICE, SUBDEVICE)?;
    say("4 GiB, freed with the device", gpu.allocate(MEMORY, LIMIT));
    // What the driver refuses is not charged.
    gpu.free(MEMORY)?;
    let nowhere = gpu
        .client
        .memory(0x7777, MEMORY, NV01_MEMORY_LOCAL_USER, LIMIT);
    say("under nothing", nowhere);
    say("4 GiB, after a refusal", gpu.allocate(MEMORY, LIMIT));

    let other = Gpu::open()?;
    say("another client", other.allocate(MEMORY, 1));
    gpu.client.free(gpu.client.root, gpu.client.root)?;
    say(
        "4 GiB, freed with the client",
        other.allocate(MEMORY, LIMIT),
    );

    let last = Gpu::open()?;
    drop(other);
    eventually_all("4 GiB, freed with the description", &last)?;
    let holder = child(|| Ok(Gpu::open()?.allocate(MEMORY, LIMIT)?))?;
    expect_success(holder)?;
    eventually_all("4 GiB, freed with the process", &last)
}

/// What the driver tells of the memory, in MiB.
pub fn shown(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let tell = |when: &str| -> Outcome {
        let mut parameters = NV2080_CTRL_FB_GET_INFO_V2_PARAMS::new_zeroed();
        let indices = [
            ("ram", 0x07),
            ("total", 0x08),
            ("heap", 0x09),
            ("bus width", 0x0b),
            ("largest", 0x12),
            ("free", 0x16),
            ("usable", 0x20),
        ];
        parameters.fbInfoListSize = indices.len() as u32;
        for (info, (_, index)) in parameters.fbInfoList.iter_mut().zip(indices) {
            info.index = index;
        }
        let command = NV2080_CTRL_CMD_FB_GET_INFO_V2;
        gpu.client.control(SUBDEVICE, command, &mut parameters)?;
        let values = parameters.fbInfoList.iter().zip(indices);
        let values = values.map(|(info, (name, _))| match name {
            "bus width" => format!("{name} {}", info.data),
            _ => format!("{name} {}", info.data >> 10),
        });
        println!("{when}: {}", values.collect::<Vec<_>>().join(", "));
        Ok(())
    };
    tell("nothing allocated")?;
    gpu.allocate(MEMORY, GIB)?;
    tell("1 GiB allocated")?;
    gpu.free(MEMORY)?;
    tell("freed")
}

pub fn duplicate(to: &Client, object: u32, from: &Client) -> Result<()> {
    let mut request = NVOS55_PARAMETERS::new_zeroed();
    request.hClient = to.root;
    request.hParent = DEVICE;
    request.hObject = object;
    request.hClientSrc = from.root;
    request.hObjectSrc = MEMORY;
    frontend(&to.control, NV_ESC_RM_DUP_OBJECT, &mut request)?;
    check(request.status)
}

/// A copy is not charged again, and keeps the memory that it is a copy of.
pub fn copies(_: &[String]) -> Outcome {
    let (first, second) = (Gpu::open()?, Gpu::open()?);
    let orders: [(&str, [&Gpu; 2]); 2] = [
        ("the original first", [&first, &second]),
        ("the copy first", [&second, &first]),
    ];
    for (order, [one, other]) in orders {
        first.allocate(MEMORY, 3 * GIB)?;
        say("copied", duplicate(&second.client, MEMORY, &first.client));
        say("1 GiB more", first.allocate(MEMORY + 1, GIB));
        say("and more", first.allocate(MEMORY + 2, MIB));
        one.free(MEMORY)?;
        say(order, first.allocate(MEMORY + 2, MIB));
        other.free(MEMORY)?;
        say("then the other", first.allocate(MEMORY + 2, 3 * GIB));
        first.free(MEMORY + 1)?;
        first.free(MEMORY + 2)?;
    }
    say(
        "copied, of nothing",
        duplicate(&second.client, MEMORY, &first.client),
    );
    Ok(())
}

/// Memory in a description is charged until it is closed, and what is imported is not charged again.
pub fn exports(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, 3 * GIB)?;
    let parcel = open(Node::Control)?;
    let mut export = NV0000_CTRL_OS_UNIX_EXPORT_OBJECTS_TO_FD_PARAMS::new_zeroed();
    export.fd = parcel.as_raw_fd();
    export.hDevice = DEVICE;
    export.maxObjects = 4;
    export.numObjects = 2;
    export.index = 1;
    export.objects[1] = MEMORY;
    let root = gpu.client.root;
    let command = NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECTS_TO_FD;
    gpu.client.control(root, command, &mut export)?;
    gpu.free(MEMORY)?;
    say("in the description", gpu.allocate(MEMORY, 2 * GIB));
    let mut import = NV0000_CTRL_OS_UNIX_IMPORT_OBJECTS_FROM_FD_PARAMS::new_zeroed();
    import.fd = parcel.as_raw_fd();
    import.hParent = DEVICE;
    import.numObjects = 3;
    import.index = 1;
    import.objects[1] = MEMORY + 5;
    let command = NV0000_CTRL_CMD_OS_UNIX_IMPORT_OBJECTS_FROM_FD;
    gpu.client.control(root, command, &mut import)?;
    say("imported besides", gpu.allocate(MEMORY, 2 * GIB));
    say("1 GiB", gpu.allocate(MEMORY, GIB));
    gpu.free(MEMORY)?;
    drop(parcel);
    gpu.wait_for_free_memory(GIB)?;
    say("imported alone", gpu.allocate(MEMORY, 2 * GIB));
    gpu.free(MEMORY + 5)?;
    eventually_all("all", &gpu)
}

/// Each GPU has the limit.
pub fn gpus(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let _node = open(Node::Gpu(1))?;
    let (device, subdevice) = (DEVICE + 0x100, SUBDEVICE + 0x100);
    gpu.client.device(1, device, subdevice)?;
    let on_second = |memory, bytes| {
        let class = NV01_MEMORY_LOCAL_USER;
        gpu.client.memory(device, memory, class, bytes)
    };
    say("first", gpu.allocate(MEMORY, LIMIT));
    say("second", on_second(MEMORY + 1, LIMIT));
    say("first again", gpu.allocate(MEMORY + 2, 1));
    say("second again", on_second(MEMORY + 2, 1));
    gpu.client.free(gpu.client.root, DEVICE)?;
    say("second still", on_second(MEMORY + 2, 1));
    println!("free {}", gpu.client.free_memory(subdevice)?);
    Ok(())
}

/// Threads that allocate at once get together what one would get, with one client or with one each.
pub fn threads(_: &[String]) -> Outcome {
    const PIECE: u64 = 16 * MIB;
    let shared = Gpu::open()?;
    for own in [false, true] {
        let allocated = AtomicU32::new(0);
        let gpus: Result<Vec<Gpu>> = (0..8).map(|_| Gpu::open()).collect();
        let gpus = gpus?;
        std::thread::scope(|scope| {
            for (index, gpu) in (0..).zip(&gpus) {
                let (gpu, allocated) = (if own { gpu } else { &shared }, &allocated);
                scope.spawn(move || {
                    let first = MEMORY + 0x1000 * index;
                    for memory in first.. {
                        if gpu.allocate(memory, PIECE).is_err() {
                            break;
                        }
                        allocated.fetch_add(1, Ordering::Relaxed);
                        // Some are freed meanwhile.
                        if memory % 3 == 0 {
                            gpu.free(memory).expect("freed");
                            allocated.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let mut allocated = u64::from(allocated.into_inner());
        // What others freed after a thread had given up is still there.
        while shared.allocate(0x10_0000 + allocated as u32, PIECE).is_ok() {
            allocated += 1;
        }
        println!("{} MiB", allocated * PIECE / MIB);
        println!("free {}", shared.free_memory()?);
        shared.client.free(shared.client.root, DEVICE)?;
        shared.client.device(0, DEVICE, SUBDEVICE)?;
    }
    Ok(())
}

/// All that there is, until stdin is closed.
pub fn held(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    say("all", gpu.allocate(MEMORY, LIMIT));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    say("more", gpu.allocate(MEMORY + 1, 1));
    Ok(())
}

/// What the driver takes for an object, which can be more than its size.
pub fn taken(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let mut tiny = 0;
    while gpu.allocate(MEMORY + 0x100 + tiny, 1).is_ok() {
        tiny += 1;
    }
    println!("{tiny} objects of 1 byte");
    gpu.client.free(gpu.client.root, DEVICE)?;
    gpu.client.device(0, DEVICE, SUBDEVICE)?;

    /// NVOS32_ALLOC_FLAGS_FIXED_ADDRESS_ALLOCATE and _ALIGNMENT_FORCE, NVOS32_ATTR_PAGE_SIZE_4KB and _HUGE, and
    /// NVOS32_ATTR2_PAGE_SIZE_HUGE_512MB (nvos.h).
    const FIXED: u32 = 0x10 | 0x100;
    const SMALL: u32 = 1 << 23;
    const HUGE: u32 = 3 << 23;
    const HALF_GIB: u32 = 2 << 20;
    let outcome = |words: [u32; 3], alignment, size| {
        let mut parameters = NV_MEMORY_ALLOCATION_PARAMS::new_zeroed();
        [parameters.flags, parameters.attr, parameters.attr2] = words;
        (parameters.alignment, parameters.size) = (alignment, size);
        let class = NV01_MEMORY_LOCAL_USER;
        gpu.client
            .allocate(DEVICE, MEMORY, class, &mut parameters)?;
        gpu.free(MEMORY)?;
        Ok(parameters.size)
    };
    for (what, words, alignment, size) in [
        ("a small page", [0, SMALL, 0], 0, 1),
        ("1 byte at a fixed address", [FIXED, 0, 0], 64 * MIB, 1),
        ("the same, aligned to 128 MiB", [FIXED, 0, 0], 128 * MIB, 1),
        ("1 byte in a page of 512 MiB", [0, HUGE, HALF_GIB], 0, 1),
        ("all but 1 byte", [0; 3], 0, 64 * MIB - 1),
        ("1 byte more than all", [0; 3], 0, 64 * MIB + 1),
        ("2^64 - 1", [0; 3], 0, u64::MAX),
    ] {
        match outcome(words, alignment, size) {
            Ok(size) => println!("{what}: {size} bytes"),
            Err(error) => say(what, Err(error)),
        }
    }

    // It would be the first GPU's, and in that one's own address space.
    let client = &gpu.client;
    client.free(client.root, DEVICE)?;
    let without = client.allocate(client.root, DEVICE, NV01_DEVICE_0, &mut ());
    say("a device without parameters", without);
    client.device(0, DEVICE, SUBDEVICE)?;
    say("all, of the first GPU", gpu.allocate(MEMORY, 64 * MIB));
    let (other, class) = (Gpu::open()?, NV01_MEMORY_LOCAL_USER);
    say("more of it", other.allocate(MEMORY, 1));
    // What belongs to no GPU has no memory of one.
    let nowhere = other.client.memory(other.client.root, MEMORY, class, 1);
    say("of no GPU", nowhere);
    let without = other.client.allocate(DEVICE, MEMORY, class, &mut ());
    say("of a size that is not said", without);
    Ok(())
}
