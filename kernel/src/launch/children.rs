//! The launcher's children: whatever becomes of a start or of a sandbox, they are ended and waited for, once.
//!
//! The kernel ends everything in a sandbox with the sentry, and that can take as long as one of its processes is in a call
//! that cannot be given up, as a driver's that hangs. Nobody can shorten that. So the launcher, which has blocked the signals
//! that it takes one by one, lets them in after a while: whoever wants it to end has it end then.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::signals;
use ringfence_sentry::system_calls::pidfd_open_process;

/// How long a child that was killed may take to end until the launcher heeds signals.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sentry, as its parent has it. When this is dropped, it has ended, and all of its sandbox with it.
pub struct Sentry {
    pid: Pid,
    /// Whether it was waited for, so that its number may be another's.
    is_gone: Cell<bool>,
}

impl Sentry {
    /// A child of this process that was just started.
    pub fn new(pid: Pid) -> Sentry {
        let is_gone = Cell::new(false);
        Sentry { pid, is_gone }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it has ended; `None` if it has not. To be asked until it says so.
    pub fn ending(&self) -> Result<Option<WaitStatus>, Failure> {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        let ending = status.map(|status| {
            let has_ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
            self.is_gone.set(has_ended);
            has_ended.then_some(status)
        });
        ending.attempt("waiting for the sentry")
    }

    /// Whether it has ended. It is not waited for.
    pub fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        self.is_gone.get() || waitid(Id::Pid(self.pid), flags) != Ok(WaitStatus::StillAlive)
    }

    /// Kills it, if it has not been waited for.
    pub fn kill(&self) {
        if !self.is_gone.get() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Kills it, if need be, and waits for it.
    pub fn end(&self) {
        self.kill();
        if !self.is_gone.replace(true) {
            wait_for(self.pid);
        }
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends a child whose start has failed.
pub fn abandon(child: Pid) {
    // It was not waited for, so that the number is its own.
    let _ = kill(child, Signal::SIGKILL);
    wait_for(child);
}

/// Waits for a child that was killed, or is about to end.
pub fn wait_for(child: Pid) {
    if !ends_soon(child) {
        signals::let_in();
    }
    while waitpid(child, None) == Err(Errno::EINTR) {}
}

fn ends_soon(child: Pid) -> bool {
    let Ok(process) = pidfd_open_process(child) else {
        return false;
    };
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut polled, patience), Ok(1..))
}
