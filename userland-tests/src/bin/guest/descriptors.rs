//! Descriptors that are closed or not what they should be, as targets of requests and in their fields.
//!
//! `unsafe` is here because a descriptor is named that nobody has.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::*;
use ringfence::guest::{Client, Result, check, frontend, ioctl, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB, word};

/// A number that no descriptor of this program has.
const CLOSED: RawFd = 500;

/// A closed descriptor, as the target of a request.
struct Closed;

impl AsFd for Closed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: nothing is done with it but an ioctl that fails because it is closed.
        unsafe { BorrowedFd::borrow_raw(CLOSED) }
    }
}

/// Wrong descriptors in every place.
pub fn bad(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let foreign = File::options().read(true).write(true).open("/dev/null")?;
    let (pipe, _writer) = std::io::pipe()?;
    let uvm = open(Node::Uvm)?;
    targets(&foreign, &pipe, &uvm);
    fields(&gpu, &foreign, &uvm)?;
    println!("after all that: {}", word(gpu.allocate(MEMORY + 9, MIB)));
    Ok(())
}

fn targets(foreign: &File, pipe: &impl AsFd, uvm: &File) {
    let say = |what: &str, outcome: Result<i32>| println!("{what}: {}", word(outcome));
    say(
        "client on a closed one",
        frontend(&Closed, NV_ESC_RM_ALLOC, &mut [0u8; 32]),
    );
    say(
        "UVM on a closed one",
        ioctl(&Closed, UVM_INITIALIZE, &mut [0u8; 16]),
    );
    say(
        "client on /dev/null",
        frontend(foreign, NV_ESC_RM_ALLOC, &mut [0u8; 32]),
    );
    say(
        "client on a pipe",
        frontend(pipe, NV_ESC_RM_ALLOC, &mut [0u8; 32]),
    );
    say("UVM on a pipe", ioctl(pipe, UVM_INITIALIZE, &mut [0u8; 16]));
    say(
        "client on UVM",
        frontend(uvm, NV_ESC_RM_ALLOC, &mut [0u8; 32]),
    );
}

fn fields(gpu: &Gpu, foreign: &File, uvm: &File) -> Outcome {
    gpu.allocate(MEMORY, MIB)?;
    gpu.allocate_system(MEMORY + 1, MIB)?;
    let closed_before = open(Node::Control)?;
    let reused = closed_before.as_raw_fd();
    drop(closed_before);
    let wrong = [
        ("none", -1),
        ("a closed one", CLOSED),
        ("a number that was one", reused),
        ("/dev/null", foreign.as_raw_fd()),
        ("UVM", uvm.as_raw_fd()),
        ("a GPU", gpu.node.as_raw_fd()),
    ];
    for (what, number) in wrong {
        let again = open(Node::Gpu(0))?;
        // The number may have been taken for this very description.
        let number = if number == again.as_raw_fd() {
            CLOSED
        } else {
            number
        };
        let registered = frontend(
            &again,
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t { ctl_fd: number },
        );
        println!("registered with {what}: {}", word(registered));
        println!(
            "mapped through {what}: {}",
            word(map(&gpu.client, MEMORY + 1, number))
        );
        println!("exported to {what}: {}", word(export(&gpu.client, number)));
    }
    Ok(())
}

fn map(client: &Client, memory: u32, number: RawFd) -> Result<()> {
    let mut request = nv_ioctl_nvos33_parameters_with_fd::new_zeroed();
    (
        request.params.hClient,
        request.params.hDevice,
        request.params.hMemory,
    ) = (client.root, DEVICE, memory);
    (request.params.length, request.fd) = (4096, number);
    frontend(&client.control, NV_ESC_RM_MAP_MEMORY, &mut request)?;
    check(request.params.status)
}

fn export(client: &Client, number: RawFd) -> Result<()> {
    let mut parameters = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT_TO_FD_PARAMS::new_zeroed();
    parameters.object = NV0000_CTRL_OS_UNIX_EXPORT_OBJECT {
        r#type: 1,
        data: [DEVICE, DEVICE, MEMORY],
    };
    parameters.fd = number;
    client.control(
        client.root,
        NV0000_CTRL_CMD_OS_UNIX_EXPORT_OBJECT_TO_FD,
        &mut parameters,
    )
}
