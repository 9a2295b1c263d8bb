//! The server as a process: what it does to itself before it answers the sentry.
//!
//! It is started by the launcher with two descriptors: its end of the control socket, with which it ends, and a socket
//! to the launcher itself, which may tell it to make room for another.
//!
//! `unsafe` is here because the action of a signal is the whole process's.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nvproxy_abi::Abi;
use nvproxy_protocol::options::Options;
use ringfence_faults::{Act, CONTROLS, Point, at};
use ringfence_ipc::{HandshakeError, Socket, SocketError, Spin, handshake};

use crate::confinement;
use crate::host::HostFactory;
use crate::ledger::Books;
use crate::ledger::limits::Limits;
use crate::reactor::Ring;
use crate::server::{End, Own, Server, accept_succession, obey};
use nvproxy_protocol::supervision::{refused, send};

/// What it is to serve, and how.
struct Service<'a> {
    options: &'a Options,
    /// How it comes to the driver.
    factory: &'a dyn HostFactory,
}

/// The descriptors that the launcher gives a server.
pub struct Given {
    /// The control socket; or, for a server that takes another's place, the socket to that one.
    pub input: OwnedFd,
    /// Where the launcher says what to do.
    pub supervision: OwnedFd,
}

/// Serves until the sentry is gone, and ends the process. Returns, with a sentence for the user, only if it could not
/// start and nobody was told so. It comes to the driver that the options name by `factory`.
pub fn run(
    options: &Options,
    factory: &dyn HostFactory,
    given: Given,
) -> Result<Infallible, String> {
    ringfence_faults::act_as(ringfence_faults::Role::Server);
    isolate_from_the_terminal()?;
    raise_descriptor_limit()?;
    let supervision = Socket::from(given.supervision);
    let service = Service { options, factory };
    let server = if options.left.takes_over {
        succeed(&service, given.input, &supervision)
    } else {
        begin(&service, given.input)?
    };
    let obedient = Arc::clone(&server);
    thread::Builder::new()
        .name("supervision".to_owned())
        .spawn(move || {
            obey(&obedient, &supervision);
            // The kernel ends this process with the launcher, unless that was over before it was asked to.
            end(End::LauncherGone)
        })
        .map_err(|error| format!("starting a thread: {error}"))?;
    server
        .watch(end)
        .map_err(|error| format!("starting a thread: {error}"))?;
    if at(Point::FirstThread) == Some(Act::Garbage) {
        eprintln!("{CONTROLS}");
    }
    server.run(end)
}

/// The sandbox's first server, or one in the place of one that was lost. What comes from the sentry is read after the
/// process is confined.
fn begin(service: &Service<'_>, control: OwnedFd) -> Result<Arc<Server>, String> {
    let prepared = prepare(service.options).and_then(|(abi, ring)| {
        let host = service.factory.make(abi)?;
        confine(service, abi)?;
        Ok((abi, ring, host))
    });
    let ready = prepared.as_ref().map(|_| ()).map_err(String::clone);
    let channel = handshake::accept(Socket::from(control), ready).map_err(|error| match error {
        HandshakeError::TimedOut
        | HandshakeError::Socket(SocketError::WrongKind | SocketError::System(..)) => {
            error.to_string()
        }
        // The sentry was told, and tells the user; or the sandbox ended before its server had started, and whoever
        // ended it says why.
        _ => std::process::exit(1),
    })?;
    let (abi, ring, host) = prepared?;
    Server::new(
        host,
        abi,
        Books::new(Limits::of(&service.options.settings)),
        channel,
        ring,
    )
}

/// Takes the place of another server. If that fails the other one serves on, whoever is to know was told, and the
/// process ends. What comes from the other one is read after the process is confined.
fn succeed(service: &Service<'_>, predecessor: OwnedFd, supervision: &Socket) -> Arc<Server> {
    let succeeded = prepare(service.options)
        .and_then(|(abi, ring)| {
            let restore = service.factory.prepare_to_restore(abi)?;
            confine(service, abi)?;
            let limits = Limits::of(&service.options.settings);
            Ok((Own { abi, limits, ring }, restore))
        })
        .inspect_err(|reason| {
            // A launcher that is gone needs no reason.
            let _ = send(supervision, &refused(reason), None);
        })
        .and_then(|(own, restore)| accept_succession(predecessor, supervision, own, restore));
    succeeded.unwrap_or_else(|_| std::process::exit(1))
}

fn end(end: End) -> ! {
    match end {
        End::SentryGone | End::LauncherGone => std::process::exit(0),
        End::Failed(reason) => {
            tracing::error!("the server cannot go on: {reason}");
            std::process::exit(1)
        }
    }
}

/// What every server starts with.
fn prepare(options: &Options) -> Result<(&'static Abi, Option<Ring>), String> {
    let ring = Ring::new()
        .inspect_err(|error| {
            tracing::debug!("no io_uring: {error}: waiting for futexes by themselves")
        })
        .ok();
    Spin::automatic();
    let abi = Abi::of_release(&options.driver.tables, options.driver.capabilities)
        .map_err(|error| error.to_string())?;
    Ok((abi, ring))
}

/// Confines the process, which must have one thread, once all is open that is opened in advance.
fn confine(service: &Service<'_>, abi: &Abi) -> Result<(), String> {
    confinement::enter(&service.factory.nodes(), abi)
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
