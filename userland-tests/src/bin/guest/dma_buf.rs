//! Memory of a GPU's as a dma-buf, of which the program gets a descriptor (`--driver-capabilities compute,utility,rdma`).

use std::fs::{self, File};
use std::io::BufRead;

use nix::fcntl::OFlag;
use nix::unistd::{close, geteuid};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::NV_ESC_EXPORT_TO_DMABUF_FD;
use nvproxy_sim::structs::frontend::nv_ioctl_export_to_dma_buf_fd_t;
use ringfence::guest::{Result, check, frontend, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, end_of, expect_success};
use crate::gpu::{DEVICE, GIB, Gpu, MEMORY, MIB, word};
use crate::memory_limit::say;
use crate::tenants::ANOTHERS;
use crate::users::become_user;

/// Memory that the client [`ANOTHERS`] has of the simulated driver.
const ANOTHERS_MEMORY: u32 = 0x5c00_0001;

/// The first bytes of as many objects of a client.
fn request(client: u32, objects: &[(u32, u64)]) -> nv_ioctl_export_to_dma_buf_fd_t {
    let mut request = nv_ioctl_export_to_dma_buf_fd_t::new_zeroed();
    (request.fd, request.hClient) = (-1, client);
    (request.totalObjects, request.numObjects) = (objects.len() as u32, objects.len() as u32);
    for (index, (object, bytes)) in objects.iter().enumerate() {
        (request.handles[index], request.sizes[index]) = (*object, *bytes);
        request.totalSize += bytes;
    }
    request
}

/// The number of the descriptor that is made.
fn issue(on: &File, mut request: nv_ioctl_export_to_dma_buf_fd_t) -> Result<i32> {
    let before = request.fd;
    frontend(on, NV_ESC_EXPORT_TO_DMABUF_FD, &mut request)?;
    match check(request.status) {
        Ok(()) => Ok(request.fd),
        Err(error) => {
            assert_eq!(request.fd, before, "nothing is made with {error}");
            Err(error)
        }
    }
}

/// One object of the program's own.
pub fn export(gpu: &Gpu, object: u32, bytes: u64) -> Result<i32> {
    issue(&gpu.node, request(gpu.client.root, &[(object, bytes)]))
}

/// What a descriptor is of.
fn describe(number: i32) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let size = fs::metadata(format!("/proc/self/fd/{number}"))?.len();
    let information = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags = information
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .ok_or("no flags")?;
    let flags = OFlag::from_bits_retain(i32::from_str_radix(flags.trim(), 8)?);
    let is_closed = flags.contains(OFlag::O_CLOEXEC);
    Ok(format!("{size} bytes, closed on execve: {is_closed}"))
}

/// What is made, and what is not.
pub fn made(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, 4 * MIB)?;
    gpu.allocate(MEMORY + 1, 2 * MIB)?;
    gpu.allocate_system(MEMORY + 2, MIB)?;
    let one = match export(&gpu, MEMORY, 4 * MIB) {
        Ok(number) => number,
        Err(error) => {
            println!("one object: {error}");
            return Ok(());
        }
    };
    println!("one object: {}", describe(one)?);
    let root = gpu.client.root;
    let both = [(MEMORY, 3 * MIB), (MEMORY + 1, 2 * MIB)];
    let two = issue(&gpu.node, request(root, &both))?;
    println!("two objects: {}", describe(two)?);
    assert!(two > one, "{two} is not free beside {one}");
    close(one)?;
    let again = export(&gpu, MEMORY, 4 * MIB)?;
    println!("the free number is used again: {}", again == one);
    let other = Gpu::open()?;
    let for_other = issue(&other.node, request(root, &[(MEMORY, MIB)]));
    println!("on another node: {}", word(for_other.map(drop)));

    type Change = fn(&mut nv_ioctl_export_to_dma_buf_fd_t);
    let changes: [(&str, Change); 8] = [
        ("added to", |request| request.fd = 9),
        ("in parts", |request| request.totalObjects = 129),
        ("without end", |request| request.totalObjects = u32::MAX),
        ("to be mapped", |request| request.bAllowMmap = 1),
        ("of the host's memory", |request| {
            request.handles[0] = MEMORY + 2;
        }),
        ("of a device", |request| request.handles[0] = DEVICE),
        ("of nothing", |request| request.handles[0] = 0x7777),
        ("beyond its end", |request| request.offsets[0] = GIB),
    ];
    for (what, change) in changes {
        let mut request = request(root, &[(MEMORY, MIB)]);
        change(&mut request);
        say(what, issue(&gpu.node, request).map(drop));
    }
    let on_control = issue(&gpu.client.control, request(root, &[(MEMORY, MIB)]));
    say("on nvidiactl", on_control.map(drop));
    Ok(())
}

/// Memory of a client of another sandbox, which the driver would export.
pub fn foreign(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let foreign = issue(&gpu.node, request(ANOTHERS, &[(ANOTHERS_MEMORY, MIB)]));
    let foreign = match foreign {
        Ok(number) => describe(number)?,
        Err(error) => error.to_string(),
    };
    println!("another's: {foreign}");
    let nobodys = issue(&gpu.node, request(0x7777, &[(MEMORY, MIB)]));
    say("nobody's", nobodys.map(drop));
    Ok(())
}

/// Memory is exported while the description of its client is closed.
pub fn closing(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, MIB)?;
    let (node, root) = (open(Node::Gpu(0))?, gpu.client.root);
    let exporting = std::thread::spawn(move || {
        let made = issue(&node, request(root, &[(MEMORY, MIB)]));
        (word(made.map(drop)), node)
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    drop(gpu);
    let (exported, node) = exporting.join().map_err(|_| "a panic")?;
    println!("meanwhile: {exported}");
    let afterwards = issue(&node, request(root, &[(MEMORY, MIB)]));
    say("afterwards", afterwards.map(drop));
    Ok(())
}

/// What was exported counts, with 4 GiB of the GPU's memory.
pub fn limit(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, 3 * GIB)?;
    for what in ["exported", "exported again"] {
        let made = export(&gpu, MEMORY, MIB);
        say(what, made.map(drop));
        close(made?)?;
    }
    say("1 GiB more", gpu.allocate(MEMORY + 1, GIB));
    gpu.free(MEMORY + 1)?;
    gpu.free(MEMORY)?;
    println!("{} MiB are free", gpu.free_memory()? / MIB);
    say("2 GiB, freed and closed", gpu.allocate(MEMORY, 2 * GIB));
    say("1 GiB", gpu.allocate(MEMORY, GIB));
    gpu.client.free(gpu.client.root, gpu.client.root)?;
    let other = Gpu::open()?;
    let freed = other.allocate(MEMORY, 2 * GIB);
    say("2 GiB, freed with the client", freed);
    say("1 GiB", other.allocate(MEMORY, GIB));
    Ok(())
}

/// Exports until there is no more memory of the host for the records.
pub fn records(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, 64 * MIB)?;
    for size in [64 * MIB, MIB] {
        let (times, then) = crate::host_memory::until_refused(4096, |_| {
            close(export(&gpu, MEMORY, size)?)?;
            Ok(())
        });
        println!("{} MiB {times} times, then {}", size / MIB, word(then));
    }
    Ok(())
}

/// Does what each line of its input says, and says when it has.
pub fn on_demand(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, MIB)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "keep" => {
                export(&gpu, MEMORY, MIB)?;
                println!("kept");
            }
            "close" => {
                for _ in 0..200 {
                    close(export(&gpu, MEMORY, MIB)?)?;
                }
                println!("closed");
            }
            "full" => println!("full: {}", full(&gpu)?),
            "doomed" => println!("doomed: {}", doomed(&gpu)?),
            other => return Err(other.into()),
        }
    }
    Ok(())
}

/// What comes of it where there is no room in the program's table.
fn full(gpu: &Gpu) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let null = File::open("/dev/null")?;
    let mut all = Vec::new();
    while let Ok(copy) = null.try_clone() {
        all.push(copy);
    }
    let mut outcomes: Vec<String> = Vec::new();
    outcomes.extend((0..50).map(|_| word(export(gpu, MEMORY, MIB).map(drop))));
    outcomes.dedup();
    all.pop();
    let made = export(gpu, MEMORY, MIB);
    outcomes.push(word(made.map(drop)));
    close(made?)?;
    Ok(outcomes.join(", then "))
}

/// Children that export and are killed meanwhile, how they end.
fn doomed(gpu: &Gpu) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut ends = Vec::new();
    for _ in 0..50 {
        let doomed = child(|| {
            export(gpu, MEMORY, MIB)?;
            Ok(())
        });
        ends.push(end_of(doomed?)?);
    }
    ends.dedup();
    Ok(ends.join(", "))
}

/// Makes a client with memory, of which a child of the same user, a child of another and the program itself make a dma-buf, by
/// its handles alone.
pub fn apart(arguments: &[String]) -> Outcome {
    let [user] = arguments else {
        return Err("a user".into());
    };
    let user = user.parse()?;
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, 4 * MIB)?;
    for (who, number) in [("a child", geteuid().as_raw()), ("a stranger", user)] {
        let own = child(|| {
            become_user(number)?;
            let own = Gpu::open()?;
            let made = issue(&own.node, request(gpu.client.root, &[(MEMORY, MIB)]));
            println!("{who} exports: {}", word(made.map(drop)));
            Ok(())
        });
        expect_success(own?)?;
    }
    println!("itself: {}", word(export(&gpu, MEMORY, MIB).map(drop)));
    Ok(())
}
