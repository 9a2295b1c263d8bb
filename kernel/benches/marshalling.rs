//! What it costs to copy a request out of a task's memory and back, by the sentry's own functions.
//!
//! The task is this process, so that there is no filter and no waiting in the figure.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::structs::control::NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS;
use nvproxy_abi::structs::frontend::{NVOS54_PARAMETERS, nv_ioctl_sys_params_t};
use ringfence::sentry::descriptions::{Description, Descriptions, Handle};
use ringfence::sentry::marshalling::{Target, marshal, write_back};
use zerocopy::{FromZeros, IntoBytes};

/// The sandbox's server.
const SERVER: u32 = 1;

fn round_trips(criterion: &mut Criterion) {
    let version = "580.142".parse().expect("a version");
    let abi = Abi::of_release(&version, Capabilities::default()).expect("tables");
    let descriptions = Descriptions::new(None);
    let target = Target::Device(Arc::new(Description {
        handle: Handle {
            server: SERVER,
            number: 1,
        },
        node: Node::Control,
        room: None,
    }));
    let mut payload = Vec::new();
    let mut there_and_back = |command: u32, argument: u64| {
        let task = Pid::this();
        let marshalled = marshal(
            abi,
            &descriptions,
            task,
            SERVER,
            &target,
            command,
            argument,
            &mut payload,
        );
        let Ok(marshalled) = marshalled else {
            panic!("a request that passes");
        };
        write_back(task, &marshalled.parts, &payload).expect("memory");
    };
    let mut group = criterion.benchmark_group("marshalling");

    let mut flat = nv_ioctl_sys_params_t { memblock_size: 0 };
    let command = ioctl_word(NV_ESC_SYS_PARAMS, flat.as_bytes().len());
    let argument = flat.as_mut_bytes().as_mut_ptr() as u64;
    group.bench_function("8 bytes (NV_ESC_SYS_PARAMS)", |bencher| {
        bencher.iter(|| there_and_back(black_box(command), argument));
    });

    let mut parameters = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
    let mut control = NVOS54_PARAMETERS {
        cmd: NV0000_CTRL_CMD_GPU_GET_PROBED_IDS,
        params: parameters.as_mut_bytes().as_mut_ptr() as u64,
        paramsSize: size_of_val(&parameters) as u32,
        ..NVOS54_PARAMETERS::new_zeroed()
    };
    let command = ioctl_word(NV_ESC_RM_CONTROL, size_of_val(&control));
    let argument = control.as_mut_bytes().as_mut_ptr() as u64;
    group.bench_function(
        "32 bytes and 384 that they point to (RM_CONTROL 0x214)",
        |bencher| bencher.iter(|| there_and_back(black_box(command), argument)),
    );
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
