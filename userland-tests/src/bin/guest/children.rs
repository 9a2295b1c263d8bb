//! Child processes that scenarios run, and how they end.
//!
//! `unsafe` is here for fork.

#![allow(unsafe_code)]

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::Outcome;

/// Runs `body` in a child process, which must be forked while this one has one thread.
pub fn child(body: impl FnOnce() -> Outcome) -> nix::Result<Pid> {
    // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = match body() {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("guest: in a child: {error}");
                    1
                }
            };
            std::process::exit(status);
        }
    }
}

/// Waits for a child, which must succeed.
pub fn expect_success(child: Pid) -> Outcome {
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(format!("a child ended with {other:?}").into()),
    }
}

/// The way in which a child ended.
pub fn end_of(child: Pid) -> nix::Result<String> {
    Ok(match waitpid(child, None)? {
        WaitStatus::Signaled(_, signal, _) => signal.to_string(),
        WaitStatus::Exited(_, status) => format!("status {status}"),
        other => format!("{other:?}"),
    })
}
