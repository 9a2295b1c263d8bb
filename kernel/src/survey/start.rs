//! Starts the program of a survey: under a filter that tells of its requests, and otherwise as the caller would start it.
//!
//! `unsafe` is here because the filter is installed between fork and exec. The calling process has one thread, so whatever may
//! be done there may be done in the child.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::unistd::Pid;
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, NOT_EXECUTABLE, NOT_FOUND};
use ringfence_sentry::seccomp::listener;
use ringfence_sentry::signals::{self, Found};

/// Starts the command with the signals that were `found`. The process is a child that the caller waits for; the descriptor tells of
/// its requests.
pub fn start(command: &[OsString], found: Found) -> Result<(Pid, OwnedFd), Failure> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Failure::setup("no program given"));
    };
    let (ours, theirs) = Socket::pair().attempt("socketpair")?;
    let mut program = Command::new(name);
    program.args(arguments);
    // SAFETY: this process has one thread, so its child may allocate and take locks.
    unsafe { program.pre_exec(move || watch_this_process(&theirs, &found)) };
    let child = program.spawn().map_err(|error| Failure {
        status: match error.kind() {
            ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: format!("{}: {error}", name.display()),
    })?;
    let (_, listener) = ours.receive().attempt("the listener")?;
    Ok((Pid::from_raw(child.id() as i32), listener))
}

/// Has this process, which is about to become the program, tell `to` of its requests.
fn watch_this_process(to: &Socket, found: &Found) -> io::Result<()> {
    let install = || {
        // Without it only who has CAP_SYS_ADMIN may install a filter (seccomp(2)).
        prctl::set_no_new_privs().attempt("prctl")?;
        let listener = listener::install_to_watch()?;
        to.send(0, listener.as_fd()).attempt("the listener")?;
        signals::restore(found).attempt("the program's signals")
    };
    // What the standard library carries back is an errno, so the reason is said here.
    install().map_err(|failure: Failure| {
        ringfence_sentry::log::print(&format!("ringfence: survey: {failure}\n"));
        io::Error::from_raw_os_error(nix::libc::EPERM)
    })
}
