//! What the planner finds in requests of every shape, and what it answers to those it refuses.

mod descriptors;
mod refusals;
mod segments;

use std::sync::LazyLock;

use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::plan::{DescriptorField, Fetch, Plan, Planner, Segment, Step};
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::refusal::{Answer, Refusal};
use nvproxy_abi::status::*;
use nvproxy_abi::table::{Effect, Family, Role};
use nvproxy_sim::structs::class::*;
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::*;
use nvproxy_sim::structs::uvm::*;
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// Where a task's requests start.
const ARGUMENT: u64 = 0x7000_0000;

static ABI: LazyLock<&'static Abi> = LazyLock::new(|| {
    let version = "580.142".parse().expect("a version");
    Abi::of_release(&version, Capabilities::ALL).expect("tables")
});

fn abi() -> &'static Abi {
    &ABI
}

/// The memory of a task: what lies at which address.
#[derive(Default)]
struct Memory(Vec<(u64, Vec<u8>)>);

impl Memory {
    fn with(mut self, address: u64, contents: &(impl IntoBytes + Immutable + ?Sized)) -> Memory {
        self.0.push((address, contents.as_bytes().to_vec()));
        self
    }

    /// Exactly the bytes that were asked for, or nothing.
    fn read(&self, fetch: Fetch) -> Option<&[u8]> {
        let (_, bytes) = self
            .0
            .iter()
            .find(|(address, _)| *address == fetch.address)?;
        bytes.get(..fetch.length as usize)
    }
}

/// Runs the walk as the sentry does. Panics where a test's memory lacks what is asked for.
fn gather(node: Node, ioctl: u32, memory: &Memory) -> Result<(Plan, Vec<u8>), Refusal> {
    let mut planner = Planner::new(abi(), node, ioctl, ARGUMENT)?;
    let mut payload = Vec::new();
    while let Step::Fetch(fetch) = planner.step(&payload)? {
        assert_eq!(
            fetch.offset as usize,
            payload.len(),
            "the payload grows at its end"
        );
        payload.extend_from_slice(memory.read(fetch).expect("memory that was asked for"));
        payload.resize(payload.len().next_multiple_of(8), 0);
    }
    Ok((planner.finish(), payload))
}

/// Runs the walk as the server does, over a payload that came from the sentry.
fn check(node: Node, ioctl: u32, payload: &[u8]) -> Result<Plan, Refusal> {
    let mut planner = Planner::new(abi(), node, ioctl, 0)?;
    let mut seen = 0;
    while let Step::Fetch(fetch) = planner.step(&payload[..seen])? {
        seen = (fetch.offset + fetch.length).next_multiple_of(8) as usize;
    }
    assert_eq!(seen, payload.len());
    Ok(planner.finish())
}

/// The plan of a request that both sides must accept and find the same in.
fn plan(node: Node, ioctl: u32, memory: Memory) -> (Plan, Vec<u8>) {
    let (plan, payload) = gather(node, ioctl, &memory).expect("a request that is known");
    let checked = check(node, ioctl, &payload).expect("a request that is known");
    assert_eq!(checked.segments, plan.segments);
    assert_eq!(checked.descriptors, plan.descriptors);
    assert_eq!(plan.total_length(), payload.len());
    (plan, payload)
}

fn refusal(node: Node, ioctl: u32, memory: Memory) -> Refusal {
    match gather(node, ioctl, &memory) {
        Err(refusal) => refusal,
        Ok((plan, _)) => panic!("planned: {plan:?}"),
    }
}

fn segment(offset: u32, length: u32, pointer_at: impl Into<Option<u32>>) -> Segment {
    Segment {
        offset,
        length,
        pointer_at: pointer_at.into(),
    }
}

const CONTROL: u32 = ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>());
const ALLOC: u32 = ioctl_word(NV_ESC_RM_ALLOC, size_of::<NVOS64_PARAMETERS>());

/// NVOS54_PARAMETERS of a command whose parameters are at `params`.
fn control(cmd: u32, params: u64, params_size: usize) -> NVOS54_PARAMETERS {
    NVOS54_PARAMETERS {
        cmd,
        params,
        paramsSize: params_size as u32,
        ..NVOS54_PARAMETERS::new_zeroed()
    }
}

/// NVOS64_PARAMETERS of a class whose parameters are at `parameters`. As libcuda does, it leaves their size out.
fn alloc(class: u32, parameters: u64) -> NVOS64_PARAMETERS {
    NVOS64_PARAMETERS {
        hClass: class,
        pAllocParms: parameters,
        ..NVOS64_PARAMETERS::new_zeroed()
    }
}
