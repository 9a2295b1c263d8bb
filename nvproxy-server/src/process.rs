//! The server as a process: what it does to itself before it answers the sentry.
//!
//! It is started by the launcher with two descriptors: its end of the control socket, with which it ends, and a socket
//! to the launcher itself, which may tell it to make room for another.
//!
//! `unsafe` is here because the action of a signal is the whole process's.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nvproxy_abi::{Abi, NoTables};
use nvproxy_protocol::options::Options;
use ringfence_faults::{Act, CONTROLS, Point, at};
use ringfence_ipc::{HandshakeError, Socket, SocketError, Spin, handshake};

use crate::backend::{self, BackendFactory};
use crate::confinement;
use crate::ledger::Books;
use crate::ledger::limits::Limits;
use crate::reactor::Ring;
use crate::server::{self, End, Own, Server, accept_succession, obey};
use nvproxy_protocol::supervision::{refused, send};

/// What it is to serve, and how.
struct Service<'a> {
    options: &'a Options,
    /// How it comes to the driver.
    factory: &'a dyn BackendFactory,
}

/// The descriptors that the launcher gives a server.
pub struct Given {
    /// The control socket; or, for a server that takes another's place, the socket to that one.
    pub input: OwnedFd,
    /// Where the launcher says what to do.
    pub supervision: OwnedFd,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It may not have as many descriptors as it needs.
    #[error("the limit of descriptors: {0}")]
    Descriptors(#[source] Errno),
    /// It does not end with the launcher, or can be traced.
    #[error("prctl: {0}")]
    Prctl(#[source] Errno),
    /// A signal is not ignored.
    #[error("signal: {0}")]
    Signal(#[source] Errno),
    /// A thread did not start.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
    /// Nothing is known of the driver's release.
    #[error(transparent)]
    Tables(#[from] NoTables),
    /// There is no driver.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// It is not confined.
    #[error(transparent)]
    Confinement(#[from] confinement::Error),
    /// It has no channel to the sentry, and could not say so.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It does not begin to serve.
    #[error(transparent)]
    Server(#[from] server::Error),
}

/// Serves until the sentry is gone, and ends the process. Returns only if it could not start and nobody was told so. It
/// comes to the driver that the options name by `factory`.
pub fn run(
    options: &Options,
    factory: &dyn BackendFactory,
    given: Given,
) -> Result<Infallible, Error> {
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
        .map_err(Error::Thread)?;
    server.watch(end).map_err(Error::Thread)?;
    if at(Point::FirstThread) == Some(Act::Garbage) {
        eprintln!("{CONTROLS}");
    }
    server.run(end)
}

/// The sandbox's first server, or one in the place of one that was lost. What comes from the sentry is read after the
/// process is confined.
fn begin(service: &Service<'_>, control: OwnedFd) -> Result<Arc<Server>, Error> {
    let prepared = prepare(service.options).and_then(|(abi, ring)| {
        let backend = service.factory.make(abi)?;
        confine(service, abi)?;
        Ok((abi, ring, backend))
    });
    let ready = prepared.as_ref().map(|_| ());
    let ready = ready.map_err(|error| error as &dyn fmt::Display);
    let channel =
        handshake::accept(Socket::from(control), ready).inspect_err(|error| match error {
            HandshakeError::TimedOut
            | HandshakeError::Socket(SocketError::WrongKind | SocketError::System(..)) => {}
            // The sentry was told, and tells the user; or the sandbox ended before its server had started, and whoever
            // ended it says why.
            _ => std::process::exit(1),
        })?;
    let (abi, ring, backend) = prepared?;
    let server = Server::new(
        backend,
        abi,
        Books::new(Limits::of(&service.options.settings)),
        channel,
        ring,
    )?;
    Ok(server)
}

/// Takes the place of another server. If that fails the other one serves on, whoever is to know was told, and the
/// process ends. What comes from the other one is read after the process is confined.
fn succeed(service: &Service<'_>, predecessor: OwnedFd, supervision: &Socket) -> Arc<Server> {
    let prepared = prepare(service.options).and_then(|(abi, ring)| {
        let restore = service.factory.prepare_to_restore(abi)?;
        confine(service, abi)?;
        let limits = Limits::of(&service.options.settings);
        Ok((Own { abi, limits, ring }, restore))
    });
    let prepared = prepared.inspect_err(|error| {
        // A launcher that is gone needs no reason.
        let _ = send(supervision, &refused(error), None);
    });
    let Ok((own, restore)) = prepared else {
        std::process::exit(1)
    };
    accept_succession(predecessor, supervision, own, restore)
        .unwrap_or_else(|_| std::process::exit(1))
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
fn prepare(options: &Options) -> Result<(&'static Abi, Option<Ring>), Error> {
    let ring = Ring::new()
        .inspect_err(|error| {
            tracing::debug!("no io_uring: {error}: waiting for futexes by themselves")
        })
        .ok();
    Spin::automatic();
    let abi = Abi::of_release(&options.driver.tables, options.driver.granted())?;
    Ok((abi, ring))
}

/// Confines the process, which must have one thread, once all is open that is opened in advance.
fn confine(service: &Service<'_>, abi: &Abi) -> Result<(), confinement::Error> {
    confinement::enter(&service.factory.nodes(), abi)
}

/// Allows this process as many descriptors as it may have: it holds some for each that a task holds, whose own limit
/// stays what it was.
pub fn raise_descriptor_limit() -> Result<(), Error> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    raised.map_err(Error::Descriptors)
}

/// Ctrl-C is the program's business, and a server must not outlive its sentry or be inspected by its tasks.
fn isolate_from_the_terminal() -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(Error::Prctl)?;
    prctl::set_dumpable(false).map_err(Error::Prctl)?;
    for interruption in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGTERM,
        Signal::SIGTSTP,
        Signal::SIGPIPE,
    ] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { signal(interruption, SigHandler::SigIgn) }.map_err(Error::Signal)?;
    }
    Ok(())
}
