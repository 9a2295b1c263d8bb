//! Requests whose memory is not there.
//!
//! `unsafe` is here because the addresses are made up.

#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::control::NV2080_CTRL_GR_GET_INFO_PARAMS;
use nvproxy_sim::structs::frontend::NVOS54_PARAMETERS;
use ringfence::guest::{Error, Result, check, frontend, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::gpu::{Gpu, MEMORY, MIB, SUBDEVICE, word};

const PAGE: usize = 4096;
const CONTROL: u32 = ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>());

/// Two pages of which the second is not there.
struct HalfMapped(*mut libc::c_void);

impl HalfMapped {
    fn new() -> Result<HalfMapped> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), 2 * PAGE, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(Error::Errno(Errno::last()));
        }
        // SAFETY: the second page of the mapping that was just made, to which nothing refers.
        Errno::result(unsafe { libc::mprotect(address.byte_add(PAGE), PAGE, libc::PROT_NONE) })?;
        Ok(HalfMapped(address))
    }

    /// The address `before` bytes before the end of what is there.
    fn end(&self, before: usize) -> u64 {
        self.0 as u64 + (PAGE - before) as u64
    }

    /// Puts an argument at the start and lets it be read only.
    fn read_only(&self, argument: &NVOS54_PARAMETERS) -> Result<u64> {
        // SAFETY: the first page is there, writable, aligned and large enough.
        unsafe { self.0.cast::<NVOS54_PARAMETERS>().write(*argument) };
        // SAFETY: nothing writes to the page any more.
        Errno::result(unsafe { libc::mprotect(self.0, PAGE, ProtFlags::PROT_READ.bits()) })?;
        Ok(self.0 as u64)
    }
}

/// Issues an ioctl with its argument at any address.
fn issue(file: &std::fs::File, command: u32, address: u64) -> Result<()> {
    // SAFETY: a bad address is the kernel's to refuse; where the address is good, nothing else refers to the memory.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), command as libc::Ioctl, address) };
    Ok(Errno::result(result).map(drop)?)
}

/// Arguments, parameters and lists that cannot be read or written.
pub fn bad(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = HalfMapped::new()?;
    let uvm = open(Node::Uvm)?;
    let control = &gpu.client.control;
    let say = |what: &str, outcome: Result<()>| println!("{what}: {}", word(outcome));
    say("argument nowhere", issue(control, CONTROL, 0));
    say(
        "argument in the kernel",
        issue(control, CONTROL, 0xffff_8000_0000_0000),
    );
    say(
        "argument on a page without access",
        issue(control, CONTROL, pages.end(0)),
    );
    say(
        "argument that ends on one",
        issue(control, CONTROL, pages.end(8)),
    );
    say(
        "argument of UVM's on one",
        issue(&uvm, UVM_INITIALIZE, pages.end(8)),
    );

    say(
        "parameters nowhere",
        with_parameters(&gpu, NV2080_CTRL_CMD_GPU_GET_NAME_STRING, 8, 132),
    );
    say(
        "parameters on a page without access",
        with_parameters(&gpu, NV2080_CTRL_CMD_GPU_GET_NAME_STRING, pages.end(0), 132),
    );
    say(
        "parameters that end on one",
        with_parameters(
            &gpu,
            NV2080_CTRL_CMD_GPU_GET_NAME_STRING,
            pages.end(100),
            132,
        ),
    );
    let mut information = NV2080_CTRL_GR_GET_INFO_PARAMS::new_zeroed();
    (information.grInfoListSize, information.grInfoList) = (4, pages.end(16));
    say(
        "list that ends on one",
        gpu.client
            .control(SUBDEVICE, NV2080_CTRL_CMD_GR_GET_INFO, &mut information),
    );
    say("list that ends in time", {
        information.grInfoList = pages.end(32);
        gpu.client
            .control(SUBDEVICE, NV2080_CTRL_CMD_GR_GET_INFO, &mut information)
    });

    let mut argument = NVOS54_PARAMETERS::new_zeroed();
    (argument.hClient, argument.hObject) = (gpu.client.root, SUBDEVICE);
    argument.cmd = NV2080_CTRL_CMD_EVENT_SET_TRIGGER;
    say(
        "argument that cannot be written",
        issue(control, CONTROL, pages.read_only(&argument)?),
    );
    say("after all that", gpu.allocate(MEMORY, MIB));
    Ok(())
}

fn with_parameters(gpu: &Gpu, command: u32, address: u64, length: u32) -> Result<()> {
    let mut argument = NVOS54_PARAMETERS::new_zeroed();
    (argument.hClient, argument.hObject, argument.cmd) = (gpu.client.root, SUBDEVICE, command);
    (argument.params, argument.paramsSize) = (address, length);
    frontend(&gpu.client.control, NV_ESC_RM_CONTROL, &mut argument)?;
    check(argument.status)
}
