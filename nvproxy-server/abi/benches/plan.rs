//! What it costs to plan a request, which the sentry and the server both do for each.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::plan::{Plan, Planner, Step};
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::structs::control::NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS;
use nvproxy_abi::structs::frontend::{NVOS54_PARAMETERS, nv_ioctl_sys_params_t};
use zerocopy::{FromZeros, IntoBytes};

/// Plans a request on `/dev/nvidiactl` whose payload is there already, as the server does.
fn plan(abi: &'static Abi, command: u32, payload: &[u8]) -> Plan {
    let mut planner = Planner::new(abi, Node::Control, command, 0).expect("a row");
    let mut seen = 0;
    while let Step::Fetch(fetch) = planner
        .step(&payload[..seen])
        .expect("a request that passes")
    {
        seen = (fetch.offset + fetch.length).next_multiple_of(8) as usize;
    }
    planner.finish()
}

fn plans(criterion: &mut Criterion) {
    let version = "580.142".parse().expect("a version");
    let abi = Abi::of_release(&version, Capabilities::default()).expect("tables");
    let mut group = criterion.benchmark_group("plan");

    let flat = nv_ioctl_sys_params_t { memblock_size: 0 };
    let command = ioctl_word(NV_ESC_SYS_PARAMS, flat.as_bytes().len());
    group.bench_function("8 bytes (NV_ESC_SYS_PARAMS)", |bencher| {
        bencher.iter(|| plan(abi, black_box(command), flat.as_bytes()));
    });

    let parameters = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
    let control = NVOS54_PARAMETERS {
        cmd: NV0000_CTRL_CMD_GPU_GET_PROBED_IDS,
        params: 0x7000_0000,
        paramsSize: parameters.as_bytes().len() as u32,
        ..NVOS54_PARAMETERS::new_zeroed()
    };
    let payload = [control.as_bytes(), parameters.as_bytes()].concat();
    let command = ioctl_word(NV_ESC_RM_CONTROL, control.as_bytes().len());
    group.bench_function(
        "32 bytes and 384 that they point to (RM_CONTROL 0x214)",
        |bencher| {
            bencher.iter(|| plan(abi, black_box(command), &payload));
        },
    );
}

criterion_group!(benches, plans);
criterion_main!(benches);
