//! Parts of a GPU (MIG): the nodes that show that a program may use one, and what their descriptors are good for.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvproxy_abi::node::of_part;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::{
    NVC637_ALLOCATION_PARAMETERS, NVC638_ALLOCATION_PARAMETERS, NVC639_ALLOCATION_PARAMETERS,
};
use ringfence::guest::{Error, Result, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{Gpu, MEMORY, SUBDEVICE, word};

/// The whole GPU, for profilers (NVC637_DEVICE_PROFILING_SWIZZID).
const WHOLE: u32 = 0xffff_fffe;
/// Handles of objects; any numbers do.
const INSTANCE: u32 = MEMORY;
const COMPUTE: u32 = MEMORY + 1;
/// The nodes of instance 1 of the first simulated GPU and its compute instance 0, and of instance 2.
const NODES: [u16; 3] = [12, 13, 21];

/// Opens a node: to be written, too, by which the server does it; or to be read, as NVIDIA's libraries do.
fn node(number: u16, by_server: bool) -> Result<File> {
    if by_server && let Some(node) = of_part(number) {
        return open(node);
    }
    let opened = File::open(format!("/dev/nvidia-caps/nvidia-cap{number}"));
    opened.map_err(|error| Error::Errno(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
}

/// The GPU, of which a part is to be used.
struct Divided(Gpu);

impl Divided {
    fn instance(&self, instance: u32, descriptor: i32) -> Result<()> {
        let mut wanted = NVC637_ALLOCATION_PARAMETERS::new_zeroed();
        wanted.capDescriptor = descriptor as u64;
        wanted.swizzId = instance;
        let class = AMPERE_SMC_PARTITION_REF;
        self.0
            .client
            .allocate(SUBDEVICE, INSTANCE, class, &mut wanted)
    }

    fn compute(&self, compute: u32, descriptor: i32) -> Result<()> {
        let mut wanted = NVC638_ALLOCATION_PARAMETERS::new_zeroed();
        wanted.capDescriptor = descriptor as u64;
        wanted.execPartitionId = compute;
        let class = AMPERE_SMC_EXEC_PARTITION_REF;
        self.0
            .client
            .allocate(INSTANCE, COMPUTE, class, &mut wanted)
    }

    fn session(&self, class: u32, descriptor: i32) -> Result<()> {
        let mut wanted = NVC639_ALLOCATION_PARAMETERS::new_zeroed();
        wanted.capDescriptor = descriptor as u64;
        let client = &self.0.client;
        client.allocate(client.root, MEMORY + 2, class, &mut wanted)
    }
}

/// Which nodes there are.
fn list() {
    let entries = fs::read_dir("/dev/nvidia-caps").into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    println!("nodes {names:?}");
}

/// Opens the nodes, and names each where it is wanted, where it is not, and what is none.
pub fn named(arguments: &[String]) -> Outcome {
    let by_server = arguments.iter().any(|word| word == "by-server");
    list();
    let say = |what: &str, outcome: Result<()>| println!("{what}: {}", word(outcome));
    let [instance, compute, _] = NODES.map(|number| {
        let opened = node(number, by_server);
        println!(
            "nvidia-cap{number}: {}",
            word(opened.as_ref().map_err(|error| *error))
        );
        opened
    });
    let (Ok(instance), Ok(compute)) = (instance, compute) else {
        return Ok(());
    };
    let null = File::open("/dev/null")?;
    let [first, second, null] = [&instance, &compute, &null].map(AsRawFd::as_raw_fd);
    let gpu = Divided(Gpu::open()?);
    say("instance 1 by the other's node", gpu.instance(1, second));
    say("by no node", gpu.instance(1, null));
    say("by the GPU's", gpu.instance(1, gpu.0.node.as_raw_fd()));
    say("by a number that is not open", gpu.instance(1, 999));
    say("by no number", gpu.instance(1, -1));
    say("instance 2 by the node of 1", gpu.instance(2, first));
    say("the whole GPU", gpu.instance(WHOLE, first));
    say("an instance that is not there", gpu.instance(7, first));
    say("instance 1", gpu.instance(1, first));
    say(
        "compute instance 0 by the other's node",
        gpu.compute(0, first),
    );
    say("by no number", gpu.compute(0, -1));
    say("one that is not there", gpu.compute(1, second));
    say("compute instance 0", gpu.compute(0, second));
    let [configure, monitor] = [AMPERE_SMC_CONFIG_SESSION, AMPERE_SMC_MONITOR_SESSION]
        .map(|class| gpu.session(class, first));
    say("dividing GPUs", configure);
    say("watching all parts", monitor);
    say("freed", gpu.0.client.free(SUBDEVICE, INSTANCE));
    let again = of_part(NODES[0]).ok_or("no node")?;
    let again = open(again)?;
    say(
        "by a node opened to be written",
        gpu.instance(1, again.as_raw_fd()),
    );
    Ok(())
}

/// Names a node of a part that the sandbox was not given, by what the simulated driver takes for it.
pub fn forged(_: &[String]) -> Outcome {
    let mut file = File::from(memfd_create("forged", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(b"nvidia-caps/nvidia-cap21\n")?;
    file.rewind()?;
    let gpu = Divided(Gpu::open()?);
    println!("instance 2: {}", word(gpu.instance(2, file.as_raw_fd())));
    Ok(())
}
