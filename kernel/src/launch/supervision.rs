//! What the launcher does while a sandbox runs: it passes signals on, starts the servers that the sentry asks for, and
//! waits.
//!
//! The servers are its children. When the sentry ends, the kernel ends all of the sandbox with it, and keeps the sentry
//! until the launcher has waited for every server.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use ringfence_ipc::Socket;

use super::liaison::LauncherEnd;
use super::servers::{Server, Starter};
use crate::failure::{Attempt, Failure, SETUP};
use crate::signals;

/// A sandbox gets at most this many servers within [`RESTART_PERIOD`] in the place of lost ones.
const MAXIMUM_RESTARTS: usize = 5;
const RESTART_PERIOD: Duration = Duration::from_secs(60);

/// The launcher of a sandbox whose sentry runs.
pub struct Launcher<'a> {
    sentry: Pid,
    starter: Starter<'a>,
    liaison: LauncherEnd,
    /// Those that were not waited for yet; the last one serves.
    servers: Vec<Server>,
    /// When servers were started in the place of lost ones, the last few times.
    restarts: Vec<Instant>,
}

impl<'a> Launcher<'a> {
    /// Starts the sandbox's first server.
    pub fn new(
        sentry: Pid,
        starter: Starter<'a>,
        liaison: LauncherEnd,
    ) -> Result<Launcher<'a>, Failure> {
        let mut launcher = Launcher {
            sentry,
            starter,
            liaison,
            servers: Vec::new(),
            restarts: Vec::new(),
        };
        launcher.start_server()?;
        Ok(launcher)
    }

    /// Waits for the sentry, and returns its exit status.
    pub fn wait(mut self) -> Result<u8, Failure> {
        let signals = signals::descriptor()?;
        loop {
            self.servers.retain(|server| !server.has_ended());
            let sentry = waitpid(self.sentry, Some(WaitPidFlag::WNOHANG));
            match sentry.attempt("waiting for the sentry")? {
                WaitStatus::Exited(_, status) => return Ok(status as u8),
                WaitStatus::Signaled(_, signal, _) => {
                    return Err(Failure {
                        status: SETUP,
                        message: format!(
                            "the sentry was ended by {signal}, and the sandbox with it"
                        ),
                    });
                }
                _ => {}
            }
            let mut polled = [signals.as_fd(), self.liaison.as_fd()]
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).attempt("poll"),
            }
            let [signalled, asked] = polled.map(|polled| polled.any().unwrap_or(false));
            if signalled {
                signals.forward(self.sentry)?;
            }
            if asked && self.liaison.is_another_wanted() {
                self.restart_server();
            }
        }
    }

    fn start_server(&mut self) -> Result<(), Failure> {
        let (control, server_control) = Socket::pair().attempt("socketpair")?;
        let server = self.starter.start(server_control.as_fd())?;
        let told = self.liaison.started(server.pidfd.as_fd(), &control);
        self.servers.push(server);
        told.attempt("telling the sentry of a server")
    }

    /// Starts a server in the place of one that was lost, if there were not too many.
    fn restart_server(&mut self) {
        let now = Instant::now();
        self.restarts
            .retain(|restart| now.duration_since(*restart) < RESTART_PERIOD);
        let started = if self.restarts.len() < MAXIMUM_RESTARTS {
            self.restarts.push(now);
            self.start_server()
        } else {
            Err(Failure::setup(format!(
                "{MAXIMUM_RESTARTS} servers were started within {RESTART_PERIOD:?}"
            )))
        };
        // A sentry that is gone needs none.
        if let Err(failure) = started
            && self.liaison.no_further().is_ok()
        {
            tracing::warn!("no other server: {failure}");
        }
    }
}

impl Server {
    /// Whether it has ended; then it was waited for, too.
    fn has_ended(&self) -> bool {
        !matches!(
            waitpid(self.pid, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive)
        )
    }
}

/// Ends a sentry whose sandbox could not be set up.
pub fn abandon(sentry: Pid) {
    let _ = kill(sentry, Signal::SIGKILL);
    let _ = waitpid(sentry, None);
}
