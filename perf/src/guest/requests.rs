//! A program that makes requests of the driver, one at a time.
//!
//! Two requests, both of which change nothing however often they are made:
//!
//! - NV_ESC_CHECK_VERSION_STR, which asks for the driver's version: 72 bytes and no pointer. It is the cheapest that every
//!   release has and the server does not answer itself. The driver copies a string, so what it takes is all Ringfence's.
//! - NV0000_CTRL_CMD_GPU_GET_PROBED_IDS (0x214) by NV_ESC_RM_CONTROL: 32 bytes that point to 384 others.

use std::fs::File;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::{NV_ESC_CHECK_VERSION_STR, NV0000_CTRL_CMD_GPU_GET_PROBED_IDS};
use nvproxy_sim::structs::control::NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS;
use nvproxy_sim::structs::frontend::nv_ioctl_rm_api_version_t;
use ringfence::guest::{Client, frontend, open};
use zerocopy::FromZeros;

use super::{Outcome, answer, times};

/// What `guest requests` calls NV_ESC_CHECK_VERSION_STR.
pub const VERSION: &str = "version";
/// What it calls the control command 0x214.
pub const PROBED_IDS: &str = "probed-ids";

/// NV_RM_API_VERSION_CMD_QUERY (kernel-open/common/inc/nv-ioctl.h): nothing is compared.
const QUERY: u32 = b'2' as u32;

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
    Version(File),
    ProbedIds(Client),
}

impl Request {
    pub fn new(kind: &str) -> Outcome<Request> {
        match kind {
            VERSION => Ok(Request::Version(open(Node::Control)?)),
            PROBED_IDS => Ok(Request::ProbedIds(Client::new()?)),
            _ => Err(format!("no request is called {kind}").into()),
        }
    }

    /// Makes it once.
    pub fn make(&mut self) -> Outcome {
        match self {
            Request::Version(control) => {
                let mut parameters = nv_ioctl_rm_api_version_t {
                    cmd: QUERY,
                    ..nv_ioctl_rm_api_version_t::new_zeroed()
                };
                frontend(control, NV_ESC_CHECK_VERSION_STR, &mut parameters)?;
            }
            Request::ProbedIds(client) => {
                let mut probed = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
                client.control(client.root, NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, &mut probed)?;
            }
        }
        Ok(())
    }
}
