//! A sentry that was taken over: whatever it writes, the server issues nothing outside the tables, gives nothing away,
//! uses no more than it may, and goes on serving. What ends the server is said in each test; it then ends cleanly, by a
//! status and a line, and only its own sandbox has lost it.
//!
//! The test is the sentry here (`peer.rs`), and the server is a process of its own with the simulated driver. Where
//! nothing may reach the driver, the server has a rule to die when anything does (`ringfence_faults`).

mod endings;
mod floods;
mod messages;
mod peer;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_protocol::requests::{ARGUMENT_DESCRIPTORS, Kind};
use ringfence_ipc::Submission;

use peer::*;

const EPROTO: i64 = -(Errno::EPROTO as i64);
const EBADF: i64 = -(Errno::EBADF as i64);
const ENOTTY: i64 = -(Errno::ENOTTY as i64);

/// A server that ended because the sentry does not keep to the protocol.
fn failed(reason: &str) -> Ended {
    Ended {
        status: Some(1),
        stderr: format!("ERROR the server cannot go on: {reason}\n"),
    }
}

/// The ordinary end, after these warnings.
fn served(warnings: &[&str]) -> Ended {
    Ended {
        status: Some(0),
        stderr: warnings
            .iter()
            .map(|warning| format!(" WARN {warning}\n"))
            .collect(),
    }
}
