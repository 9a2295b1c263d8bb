//! A program that makes requests of the driver, one at a time.
//!
//! Two requests, both of which change nothing however often they are made:
//!
//! - NV_ESC_SYS_PARAMS, the cheapest that there is: 8 bytes and no pointer. The simulated driver compares a number, so
//!   what it takes is all Ringfence's.
//! - NV0000_CTRL_CMD_GPU_GET_PROBED_IDS (0x214) by NV_ESC_RM_CONTROL: 32 bytes that point to 384 others.

use std::fs::File;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::{NV_ESC_SYS_PARAMS, NV0000_CTRL_CMD_GPU_GET_PROBED_IDS};
use nvproxy_abi::structs::control::NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS;
use nvproxy_abi::structs::frontend::nv_ioctl_sys_params_t;
use ringfence::guest::{Client, frontend, open};
use zerocopy::FromZeros;

use super::{Outcome, answer, times};

/// What `guest requests` calls NV_ESC_SYS_PARAMS.
pub const SYSTEM_PARAMETERS: &str = "system-parameters";
/// What it calls the control command 0x214.
pub const PROBED_IDS: &str = "probed-ids";

/// The size of a block of memory that can be plugged in, which the driver wants to hear the same each time. This is
/// Linux's smallest on x86-64 (`MIN_MEMORY_BLOCK_SIZE`, arch/x86/include/asm/sparsemem.h).
const MEMORY_BLOCK: u64 = 128 << 20;

/// Answers the question how long N requests of this kind take each.
pub fn serve(kind: &str) -> Outcome {
    let mut request = Request::new(kind)?;
    answer(|question| match question {
        [count] => times(*count, || request.make()),
        _ => Err("a question is one number".into()),
    })
}

/// A kind of request and what it is made on.
pub enum Request {
    SystemParameters { control: File, block: u64 },
    ProbedIds(Client),
}

impl Request {
    pub fn new(kind: &str) -> Outcome<Request> {
        match kind {
            SYSTEM_PARAMETERS => Ok(Request::SystemParameters {
                control: open(Node::Control)?,
                block: memory_block(),
            }),
            PROBED_IDS => Ok(Request::ProbedIds(Client::new()?)),
            _ => Err(format!("no request is called {kind}").into()),
        }
    }

    /// Makes it once.
    pub fn make(&mut self) -> Outcome {
        match self {
            Request::SystemParameters { control, block } => {
                let mut parameters = nv_ioctl_sys_params_t {
                    memblock_size: *block,
                };
                frontend(control, NV_ESC_SYS_PARAMS, &mut parameters)?;
            }
            Request::ProbedIds(client) => {
                let mut probed = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
                client.control(client.root, NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, &mut probed)?;
            }
        }
        Ok(())
    }
}

/// What the kernel says, as libcuda asks it; where it does not say, one that it could.
fn memory_block() -> u64 {
    let text = std::fs::read_to_string("/sys/devices/system/memory/block_size_bytes");
    text.ok()
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(MEMORY_BLOCK)
}
