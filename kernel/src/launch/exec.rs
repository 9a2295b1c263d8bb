//! The last steps before the program runs: give up every privilege, enter the filter, hand the listener to the
//! sentry, execute.
//!
//! `unsafe` is here because descriptors, variables of the environment and actions of signals are the whole process's.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;
use ringfence_faults::{Act, Point};
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, NOT_EXECUTABLE, NOT_FOUND};
use ringfence_sentry::ready;
use ringfence_sentry::seccomp::listener;
use ringfence_sentry::{signals, streams};

use super::grants::Grants;
use super::search::Refused;
use super::{
    Job, credentials, descriptors, devices, environment, format, given, inherited, interpreter,
    jobs, root, search,
};
use crate::driver::Driver;

/// The program, and what it starts with.
pub struct Program<'a> {
    pub command: &'a [CString],
    pub driver: &'a Driver,
    pub grants: &'a Grants,
    /// What it inherits besides the standard streams.
    pub descriptors: &'a [OwnedFd],
    /// Where the caller is; `None` if that is nowhere any more.
    pub working_directory: Option<&'a PathBuf>,
    pub job: Job<'a>,
    /// Takes the listener of the program's filter to the sentry.
    pub listener: Socket,
}

/// Becomes the program, with `terminal` in the place of its caller's. Returns only if that failed.
pub fn run(program: &Program<'_>, terminal: Option<&OwnedFd>) -> Result<Infallible, Failure> {
    let grants = program.grants;
    // A group of its own, which init makes as well: whoever is first, both can rely on it.
    jobs::lead_group(Pid::this())?;
    program.job.end.hand_over_this_process()?;
    if let (Some(terminal), Some(likeness)) = (terminal, program.job.likeness) {
        for number in &likeness.descriptors {
            // SAFETY: the number is of a descriptor that the program inherits and that nothing reads any more but by it.
            unsafe { descriptors::put_in_place(terminal, *number) }?;
        }
        if likeness.is_given {
            jobs::take_terminal(terminal);
        }
    }
    given::replace_devices(program.descriptors)?;
    credentials::drop_capabilities()?;
    credentials::enter_domain(
        &devices::harmless_paths(),
        &root::writable_places(grants),
        &inherited(program.descriptors),
    )?;
    root::enter_working_directory(grants, program.working_directory)?;
    // SAFETY: this process has one thread.
    unsafe { environment::apply(grants.clear_env, &grants.variables) }?;
    program
        .descriptors
        .iter()
        .try_for_each(descriptors::pass_on)?;
    signals::restore(program.job.signals).attempt("the program's signals")?;
    if program.job.likeness.is_some_and(|it| !it.is_given) {
        signals::stop_for_terminal().attempt("the program's signals")?;
    }
    descriptors::send_and_leave_some(|| {
        // For the test of what holds without the filter.
        if ringfence_faults::is_unfiltered() {
            return Ok(());
        }
        enter_filter(&program.listener)
    })?;
    let Some(name) = program.command.first() else {
        return Err(Failure::setup("no program given"));
    };
    // SAFETY: why it cannot be executed is reported through a socket.
    unsafe { streams::close_again() };
    search::execute(name, program.command)
        .map_err(|refused| not_executed(name, refused, program.working_directory))
}

/// Why a program, whose caller is at `from`, could not be executed.
fn not_executed(name: &CStr, refused: Refused, from: Option<&PathBuf>) -> Failure {
    let Refused { errno, file } = refused;
    let name = OsStr::from_bytes(name.to_bytes());
    let interpreter = file.as_ref();
    let interpreter = interpreter.and_then(|file| interpreter::to_blame(file, errno));
    let missing = interpreter.as_ref().map_or(name, |path| path.as_os_str());
    let remedy = match errno {
        Errno::ENOENT if missing.as_bytes().ends_with(b"\r") => {
            ": the carriage return at the end of the line is taken for part of the name: remove it"
        }
        Errno::ENOENT if is_hidden(missing, from) => {
            " in the sandbox: use --bind to show it what the host has there"
        }
        _ => "",
    };
    let refused = interpreter.as_ref().or(file.as_ref());
    let reason = refused.map_or_else(|| errno.desc().into(), |file| reason(file, errno));
    let whose = interpreter.map_or_else(String::new, |path| {
        format!("its interpreter {}: ", path.display())
    });
    Failure {
        status: match errno {
            Errno::ENOENT => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        },
        message: format!("{}: {whose}{reason}{remedy}", name.display()),
    }
}

/// Why the kernel did not execute this file.
fn reason(file: &Path, errno: Errno) -> Cow<'static, str> {
    let start = Some(file).filter(|_| errno == Errno::ENOEXEC);
    let start = start.and_then(format::start);
    match start.and_then(|(_, start)| format::other_architecture(&start)) {
        Some(other) => format!("it is for another architecture ({other})").into(),
        None => errno.desc().into(),
    }
}

/// Installs the filter, hands the listener to the sentry, and waits until the sentry has all that it needs: a program may take
/// every process that the user may have, and what Ringfence itself has to start comes first.
fn enter_filter(listener: &Socket) -> Result<(), Failure> {
    listener
        .send(0, listener::install()?.as_fd())
        .attempt("handing over the listener")?;
    // A test leaves this out, to show that it would notice.
    if ringfence_faults::at(Point::Ready) == Some(Act::Drop) {
        return Ok(());
    }
    match ready::wait(listener).attempt("waiting for the sentry")? {
        true => Ok(()),
        // It says why.
        false => Err(Failure::setup("the sentry has ended")),
    }
}

/// Whether the caller, who is at `from`, means by `name` a place where the sandbox has files of its own.
fn is_hidden(name: &OsStr, from: Option<&PathBuf>) -> bool {
    let from = from.map_or(Path::new("/"), PathBuf::as_path);
    name.as_bytes().contains(&b'/') && root::is_own(&from.join(name))
}
