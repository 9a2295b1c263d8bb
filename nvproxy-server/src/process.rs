//! The server as a process: what it does to itself before it answers the sentry.
//!
//! It is started by the launcher with one descriptor, its end of the control socket, and ends when the other end does.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::version::DriverVersion;
use ringfence_ipc::{HandshakeError, Socket, Spin, handshake};

use crate::confinement;
use crate::driver::Driver;
use crate::host::Host;
use crate::reactor::Ring;
use crate::recorded::{Recorded, Replay};
use crate::server::{End, Server};
use crate::sim::{Configuration, Simulator};

/// Which driver the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA's kernel modules on this machine.
    Host,
    /// The simulated one.
    Simulated,
    /// One that was recorded.
    Recorded,
}

/// What the launcher decides for the server.
pub struct Options {
    pub kind: Kind,
    /// The release that the driver is.
    pub version: DriverVersion,
    /// The release whose tables serve it.
    pub tables: DriverVersion,
    /// What the sandbox may ask of it.
    pub capabilities: Capabilities,
    /// Minor numbers of the GPUs that the sandbox may use.
    pub gpus: Vec<u8>,
    /// What [`Kind::Recorded`] answers from.
    pub replay: Option<Replay>,
}

/// Serves until the sentry is gone, and ends the process. Returns, with a sentence for the user, only if it could not
/// start and the sentry was not told so.
pub fn run(options: &Options, socket: OwnedFd) -> Result<Infallible, String> {
    ringfence_faults::act_as(ringfence_faults::Role::Server);
    isolate_from_the_terminal()?;
    raise_descriptor_limit()?;
    let prepared = prepare(options);
    let ready = prepared.as_ref().map(|_| ()).map_err(String::clone);
    let channel = match handshake::accept(Socket::from(socket), ready) {
        // The sentry was told, and tells the user.
        Err(HandshakeError::NotReady(_)) => std::process::exit(1),
        accepted => accepted.map_err(|error| error.to_string())?,
    };
    let Prepared { abi, host, ring } = prepared?;
    Server::new(host, abi, channel, ring)?.run(end)
}

fn end(end: End) -> ! {
    match end {
        End::SentryGone => std::process::exit(0),
        End::Failed(reason) => {
            tracing::error!("the server cannot go on: {reason}");
            std::process::exit(1)
        }
    }
}

/// What a server serves with.
struct Prepared {
    abi: &'static Abi,
    host: Arc<dyn Host>,
    ring: Ring,
}

/// Opens all that is opened in advance, and confines the process: what comes from the sentry is read after that.
fn prepare(options: &Options) -> Result<Prepared, String> {
    let ring = Ring::new().map_err(|error| {
        format!("io_uring: {error}: allow it (sysctl kernel.io_uring_disabled=0), or use Linux 6.7 or later")
    })?;
    Spin::automatic();
    let abi = Abi::of_release(&options.tables, options.capabilities)
        .map_err(|error| error.to_string())?;
    let host: Arc<dyn Host> = match options.kind {
        Kind::Recorded => {
            let replay = options
                .replay
                .as_ref()
                .ok_or("no recording to answer from")?;
            Arc::new(Recorded::new(replay, abi)?)
        }
        Kind::Host => Arc::new(Driver::new(
            &ringfence_faults::device_directory(),
            &options.gpus,
        )),
        Kind::Simulated => {
            let configuration = Configuration::new(options.version, abi, options.gpus.clone());
            Arc::new(
                Simulator::new(configuration).map_err(|error| format!("the simulator: {error}"))?,
            )
        }
    };
    let nodes = match options.kind {
        Kind::Host => nodes(&options.gpus),
        Kind::Simulated | Kind::Recorded => Vec::new(),
    };
    confinement::enter(&nodes, abi)?;
    Ok(Prepared { abi, host, ring })
}

/// The nodes of a sandbox with these GPUs.
fn nodes(gpus: &[u8]) -> Vec<Node> {
    let gpus = gpus.iter().map(|gpu| Node::Gpu(*gpu));
    [Node::Control, Node::Uvm].into_iter().chain(gpus).collect()
}

/// Allows this process as many descriptors as it may have: it holds some for each that a task holds, whose own limit
/// stays what it was.
pub fn raise_descriptor_limit() -> Result<(), String> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    raised.map_err(|errno| format!("the limit of descriptors: {errno}"))
}

/// Ctrl-C is the program's business, and a server must not outlive its sentry or be inspected by its tasks.
fn isolate_from_the_terminal() -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("prctl: {errno}"))?;
    prctl::set_dumpable(false).map_err(|errno| format!("prctl: {errno}"))?;
    for interruption in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGTERM,
        Signal::SIGTSTP,
        Signal::SIGPIPE,
    ] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal(interruption, SigHandler::SigIgn) }
            .map_err(|errno| format!("signal: {errno}"))?;
    }
    Ok(())
}
