//! The last steps before the program runs: give up every privilege, enter the filter, hand the listener to the
//! sentry, execute.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::execvp;
use ringfence_ipc::Socket;

use super::grants::Grants;
use super::{credentials, descriptors, devices, environment, root};
use crate::driver::Driver;
use crate::failure::{Attempt, Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::seccomp::listener;
use crate::signals::{self, Mask};

/// The program, and what it starts with.
pub struct Program<'a> {
    pub command: &'a [CString],
    pub driver: &'a Driver,
    pub grants: &'a Grants,
    /// What it inherits besides the standard streams.
    pub descriptors: &'a [OwnedFd],
    /// Where the caller is; `None` if that is nowhere any more.
    pub working_directory: Option<&'a PathBuf>,
    /// The signal mask to start the program with.
    pub mask: &'a Mask,
    /// Takes the listener of the program's filter to the sentry.
    pub listener: Socket,
}

impl Program<'_> {
    /// What it inherits.
    fn inherited(&self) -> Vec<BorrowedFd<'_>> {
        // SAFETY: nothing in this process closes the standard streams.
        let standard = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
        let others = self.descriptors.iter().map(OwnedFd::as_fd);
        standard.into_iter().chain(others).collect()
    }
}

/// Becomes the program. Returns only if that failed.
pub fn run(program: &Program<'_>) -> Result<Infallible, Failure> {
    let grants = program.grants;
    credentials::drop_capabilities()?;
    credentials::enter_domain(
        &devices::harmless_paths(),
        &root::writable_places(grants),
        &program.inherited(),
    )?;
    root::enter_working_directory(grants.workdir.as_deref(), program.working_directory)?;
    // SAFETY: this process has one thread.
    unsafe { environment::apply(grants.clear_env, &grants.variables) }?;
    program
        .descriptors
        .iter()
        .try_for_each(descriptors::pass_on)?;
    // Rust's runtime ignores SIGPIPE, which a program would inherit.
    // SAFETY: the default action installs no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.attempt("SIGPIPE")?;
    signals::restore(program.mask).attempt("the signal mask")?;
    // For the test of what holds without the filter.
    if !ringfence_faults::is_unfiltered() {
        enter_filter(&program.listener)?;
    }
    let Some(name) = program.command.first() else {
        return Err(Failure::setup("no program given"));
    };
    let Err(errno) = execvp(name, program.command);
    let name = name.to_string_lossy();
    let (status, remedy) = match errno {
        Errno::ENOENT if is_hidden(&name, program.working_directory) => (
            NOT_FOUND,
            " in the sandbox: use --bind to show it what the host has there",
        ),
        Errno::ENOENT => (NOT_FOUND, ""),
        _ => (NOT_EXECUTABLE, ""),
    };
    Err(Failure {
        status,
        message: format!("{name}: {}{remedy}", errno.desc()),
    })
}

/// Installs the filter, and hands the listener to the sentry.
fn enter_filter(listener: &Socket) -> Result<(), Failure> {
    listener
        .send(0, listener::install()?.as_fd())
        .attempt("handing over the listener")
}

/// Whether the caller, who is at `from`, means by `name` a place where the sandbox has files of its own.
fn is_hidden(name: &str, from: Option<&PathBuf>) -> bool {
    let from = from.map_or(Path::new("/"), PathBuf::as_path);
    name.contains('/') && root::is_own(&from.join(name))
}
