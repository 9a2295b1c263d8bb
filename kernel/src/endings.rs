//! How a command ends: by a status, or by a signal, and never with part of its output lost unsaid.
//!
//! A shell that runs commands in a loop goes by how they end. After Ctrl-C it ends the loop if the command has died of SIGINT,
//! and goes on if that has ended by itself, whatever its status. So Ringfence, whose program has died of SIGINT or SIGQUIT,
//! dies of it as well.
//!
//! Rust's runtime ignores SIGPIPE, since `run` must not die of it while it has a sandbox. So who prints sees EPIPE where
//! nobody reads any more, and dies of SIGPIPE then, as is expected of commands: `ringfence drivers list | head`.
//!
//! `unsafe` is here because the action of a signal is the whole process's.

#![allow(unsafe_code)]

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, raise, signal, sigprocmask};
use ringfence_sentry::failure::Failure;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Status(u8),
    /// By this signal, of which its program has died.
    Signal(Signal),
}

impl From<u8> for Ending {
    fn from(status: u8) -> Ending {
        Ending::Status(status)
    }
}

impl Ending {
    /// That of a program which ended with `status`, as a shell would give it, after it was seen to have died of `signal`, if
    /// of any.
    pub fn of_program(status: u8, signal: Option<Signal>) -> Ending {
        match signal {
            Some(signal @ (Signal::SIGINT | Signal::SIGQUIT)) if status == status_of(signal) => {
                Ending::Signal(signal)
            }
            _ => Ending::Status(status),
        }
    }

    /// The status, as a shell would give it.
    pub fn status(self) -> u8 {
        match self {
            Ending::Status(status) => status,
            Ending::Signal(signal) => status_of(signal),
        }
    }

    /// Ends the process by the signal, or returns what it is to end with.
    pub fn take(self) -> ExitCode {
        if let Ending::Signal(signal) = self {
            die_of(signal);
        }
        ExitCode::from(self.status())
    }
}

fn status_of(signal: Signal) -> u8 {
    128 + signal as u8
}

/// Has this process die of a signal, and leave no core file. Returns if it cannot, as process 1 of a container cannot.
fn die_of(fatal: Signal) {
    // If that fails there may be a core file. The process dies all the same.
    let _ = prctl::set_dumpable(false);
    let set: SigSet = [fatal].into_iter().collect();
    // SAFETY: the default action installs no handler.
    let _ = unsafe { signal(fatal, SigHandler::SigDfl) };
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None);
    let _ = raise(fatal);
}

/// Prints all of `text` to stdout. If nobody reads that any more, the process dies of SIGPIPE.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    taken(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
        "stdout",
    )
}

/// What becomes of a command whose output came to this `outcome`.
pub fn taken(outcome: io::Result<()>, to: &str) -> Result<(), Failure> {
    outcome.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            die_of(Signal::SIGPIPE);
        }
        Failure::setup(format!("{to}: {error}"))
    })
}
