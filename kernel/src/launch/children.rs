//! The launcher's children: whatever becomes of a start or of a sandbox, they are ended and waited for, once.
//!
//! The kernel ends everything in a sandbox with the sentry, and that can take as long as one of its processes is in a call
//! that cannot be given up, as a driver's that hangs. Nobody can shorten that. So the launcher, which has blocked the signals
//! that it takes one by one, lets them in after a while: whoever wants it to end has it end then.

use std::cell::{Cell, OnceCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::signals;
use ringfence_sentry::system_calls::{pidfd_open_process, pidfd_signal};

/// How long a child that was killed may take to end until the launcher heeds signals.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sentry, as its launcher has it. When this is dropped, it has ended, and all of its sandbox with it.
pub struct Sentry {
    kind: Kind,
    /// Whether it was waited for, so that its number may be another's; or has let go of its launcher, if it is no child.
    is_gone: Cell<bool>,
}

enum Kind {
    /// A child of the launcher's.
    Child(Pid),
    /// The first process of a container, which the low-level runtime has started. By this it is ended, once it has sent it.
    Elsewhere(OnceCell<OwnedFd>),
}

impl Sentry {
    /// A child of this process that was just started.
    pub fn new(pid: Pid) -> Sentry {
        Sentry {
            kind: Kind::Child(pid),
            is_gone: Cell::new(false),
        }
    }

    /// One that is no child, and not there yet.
    pub fn elsewhere() -> Sentry {
        Sentry {
            kind: Kind::Elsewhere(OnceCell::new()),
            is_gone: Cell::new(false),
        }
    }

    /// Its number, as the launcher sees it; 0 of one that is no child.
    pub fn pid(&self) -> Pid {
        match self.kind {
            Kind::Child(pid) => pid,
            Kind::Elsewhere(_) => Pid::from_raw(0),
        }
    }

    /// Whether it is a child, of which the kernel says how it has ended.
    pub fn is_child(&self) -> bool {
        matches!(self.kind, Kind::Child(_))
    }

    /// Takes a descriptor for one that is no child.
    pub fn adopt(&self, process: BorrowedFd<'_>) {
        if let (Kind::Elsewhere(adopted), Ok(process)) = (&self.kind, process.try_clone_to_owned())
        {
            adopted.get_or_init(|| process);
        }
    }

    /// Takes one that is no child for gone, since it has let go of its launcher.
    pub fn has_let_go(&self) {
        if let Kind::Elsewhere(_) = self.kind {
            self.kill();
            self.is_gone.set(true);
        }
    }

    /// How it has ended; `None` if it has not. To be asked until it says so.
    pub fn ending(&self) -> Result<Option<WaitStatus>, Failure> {
        let Kind::Child(pid) = self.kind else {
            let ended = WaitStatus::Exited(self.pid(), 0);
            return Ok(self.is_gone.get().then_some(ended));
        };
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG));
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
        let is_running = || match self.kind {
            Kind::Child(pid) => waitid(Id::Pid(pid), flags) == Ok(WaitStatus::StillAlive),
            Kind::Elsewhere(_) => true,
        };
        self.is_gone.get() || !is_running()
    }

    /// Kills it, if it has not been waited for.
    pub fn kill(&self) {
        match &self.kind {
            _ if self.is_gone.get() => {}
            Kind::Child(pid) => drop(kill(*pid, Signal::SIGKILL)),
            Kind::Elsewhere(process) => {
                if let Some(process) = process.get() {
                    let _ = pidfd_signal(process.as_fd(), Signal::SIGKILL);
                }
            }
        }
    }

    /// Kills it, if need be, and waits for it.
    pub fn end(&self) {
        self.kill();
        if !self.is_gone.replace(true)
            && let Kind::Child(pid) = self.kind
        {
            wait_for(pid);
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
