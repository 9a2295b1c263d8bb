//! Signals: which ones the processes of a sandbox pass on to the program, and how.
//!
//! Launcher, sentry and init block the signals that a user or a supervisor sends to end or notify a program, and take
//! them one by one. What the terminal sends (Ctrl-C, a hang-up) reaches the program without their help, because it
//! goes to the whole foreground process group; only what was sent to one process is passed on, hand over hand. The
//! program itself starts with the signal mask that the launcher was started with.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::failure::{Attempt, Failure};

/// Signals that are passed on.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A signal mask.
pub type Mask = SigSet;

/// Blocks the forwarded signals and `SIGCHLD`, and returns the mask that was in force.
pub fn block() -> Result<Mask, Failure> {
    let mut original = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&awaited()), Some(&mut original))
        .attempt("the signal mask")?;
    Ok(original)
}

/// Restores a mask, in a process that is about to execute the program.
pub fn restore(mask: &Mask) -> Result<(), Errno> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)
}

/// Where blocked signals are read from.
pub struct Descriptor(SignalFd);

/// A descriptor for the signals that [`block`] blocked.
pub fn descriptor() -> Result<Descriptor, Failure> {
    SignalFd::with_flags(&awaited(), SfdFlags::SFD_CLOEXEC)
        .map(Descriptor)
        .attempt("signalfd")
}

impl Descriptor {
    /// Waits for one signal and passes it on to `next` if it was sent to this process alone. Returns after any
    /// signal, so that the caller can look whether a child ended.
    pub fn forward(&self, next: Pid) -> Result<(), Failure> {
        let received = match self.0.read_signal() {
            Ok(received) => received,
            Err(Errno::EINTR) => None,
            Err(errno) => return Err(errno).attempt("waiting for a signal"),
        };
        let Some(received) = received else {
            return Ok(());
        };
        // What the terminal sends to the whole process group carries SI_KERNEL (sigaction(2)).
        let sent_to_this_process = received.ssi_code != libc::SI_KERNEL;
        if let Ok(signal) = Signal::try_from(received.ssi_signo as i32)
            && signal != Signal::SIGCHLD
            && sent_to_this_process
        {
            // ESRCH: it has just ended, which the caller is about to see.
            let _ = kill(next, signal);
        }
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The signals that are read from a [`Descriptor`].
fn awaited() -> SigSet {
    let mut set: SigSet = FORWARDED.into_iter().collect();
    set.add(Signal::SIGCHLD);
    set
}
