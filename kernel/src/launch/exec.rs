//! The last steps before the program runs: give up every privilege, enter the filter, hand the listener to the
//! sentry, execute.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::execvp;
use ringfence_ipc::Socket;

use super::{credentials, devices};
use crate::driver::Driver;
use crate::failure::{Attempt, Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::seccomp::listener;
use crate::signals::{self, Mask};

/// The program, and what it starts with.
pub struct Program<'a> {
    pub command: &'a [CString],
    pub driver: &'a Driver,
    /// The signal mask to start the program with.
    pub mask: &'a Mask,
    /// Takes the listener of the program's filter to the sentry.
    pub listener: Socket,
}

/// Becomes the program. Returns only if that failed.
pub fn run(program: &Program<'_>) -> Result<Infallible, Failure> {
    let harmless = devices::harmless_paths();
    let harmless: Vec<&str> = harmless.iter().map(String::as_str).collect();
    credentials::drop_capabilities()?;
    credentials::withhold_device_ioctls(&harmless)?;
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
    let status = if errno == Errno::ENOENT {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    };
    Err(Failure {
        status,
        message: format!("{name}: {}", errno.desc()),
    })
}

/// Installs the filter, and hands the listener to the sentry.
fn enter_filter(listener: &Socket) -> Result<(), Failure> {
    let filter = listener::install().map_err(|errno| {
        Failure::setup(format!(
            "the seccomp filter: {errno}; user notification with killable waits takes Linux 5.19"
        ))
    })?;
    listener
        .send(0, filter.as_fd())
        .attempt("handing over the listener")
}
