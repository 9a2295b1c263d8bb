//! How the launcher sees to it that a sandbox can be ended, and ends with its program, whatever becomes of its sentry.
//!
//! The idea: a sentry that was taken over, or that stands still, passes nothing on and need not end. So the launcher asks
//! nothing of it for this. It has a descriptor of the program, which hands that over before it becomes hostile: by that it
//! sends the program what it is sent itself, and sees that the program has ended.
//!
//! A sandbox is over when its program has ended, or when its server has and it is to end with that. Then it has some time to
//! end by itself, since there may be much to write, and less when somebody asks for its end. What the launcher itself is kept
//! waiting for, by who reads what it writes, is not held against the sentry. After that the launcher kills the sentry, and
//! the kernel ends all below it.
//!
//! Nor does who reads that keep the sandbox. Messages that nobody takes are given up (`copying.rs`). What the program has
//! written to its terminal is waited for as the program would have waited, which could not have ended before: until somebody
//! asks for the end, or for a moment only, if that is how the program has ended.
//!
//! Time in which the launcher did not run, since it or the machine was stopped, counts little: others had none, either.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use ringfence_faults::{Point, number};
use ringfence_sentry::failure::{Failure, SETUP};
use ringfence_sentry::system_calls::pidfd_signal;

use super::copying::Pace;

/// How many seconds a sandbox may take to end after its program: as long as it takes to write a recording, and more.
const AFTER_PROGRAM: u32 = 60;
/// How long it may take after its server, and when somebody asks for its end.
const AT_ONCE: Duration = Duration::from_secs(5);
/// At most so much time counts between two looks, and so long signals wait for init to have sent earlier ones.
const LOOK: Duration = Duration::from_secs(1);

/// Why a sandbox is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Program,
    Server,
}

/// A sandbox that is over and has not ended yet.
pub struct Departure {
    reason: Reason,
    left: Duration,
    looked: Instant,
    is_hurried: bool,
}

impl Departure {
    pub fn new(reason: Reason) -> Departure {
        Departure {
            reason,
            left: match reason {
                Reason::Program => after_program(),
                Reason::Server => AT_ONCE,
            },
            looked: Instant::now(),
            is_hurried: false,
        }
    }

    /// Somebody asks for the end.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
        self.left = self.left.min(AT_ONCE);
    }

    /// How long to wait until the next look; `None` if the time is over. It is not while the launcher `is_held_up` itself.
    pub fn look(&mut self, pace: &Pace, is_held_up: bool) -> Option<Duration> {
        let now = Instant::now();
        let elapsed = now.duration_since(self.looked).min(LOOK);
        self.left = self.left.saturating_sub(elapsed);
        self.looked = now;
        pace.look(elapsed);
        let is_held_up = is_held_up || pace.is_writing();
        if self.left.is_zero() && is_held_up && !self.is_hurried {
            self.left = after_program();
        }
        (!self.left.is_zero()).then(|| self.left.min(LOOK))
    }

    /// How the launcher fails if it has ended the sandbox.
    pub fn failure(&self) -> Option<Failure> {
        if !self.left.is_zero() {
            return None;
        }
        let message = match self.reason {
            Reason::Program => "the sentry did not end after the program, and was ended",
            Reason::Server => "the server ended unexpectedly, and the sandbox with it",
        };
        Some(Failure {
            status: SETUP,
            message: message.to_owned(),
        })
    }
}

fn after_program() -> Duration {
    Duration::from_secs(number(Point::Over, AFTER_PROGRAM).into())
}

/// The program, as the launcher has it.
#[derive(Default)]
pub struct Program {
    /// `None` until it was started.
    process: Option<OwnedFd>,
    /// What it is still to be sent, in order, and since when there is any.
    held: Vec<Signal>,
    since: Option<Instant>,
}

impl Program {
    /// Takes the descriptor, once.
    pub fn adopt(&mut self, process: OwnedFd) {
        self.process.get_or_insert(process);
    }

    /// Holds a signal for it. A second one of a kind is lost, as the kernel does it with those that wait (signal(7)).
    pub fn hold(&mut self, signal: Signal) {
        if !self.held.contains(&signal) {
            self.held.push(signal);
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Sends it what is held, if it is there and everything that came before was done, or takes too long. Else returns how
    /// long that may still take.
    pub fn deliver(&mut self, is_turn: bool) -> Option<Duration> {
        let (Some(process), Some(since)) = (&self.process, self.since) else {
            return None;
        };
        let left = LOOK.saturating_sub(since.elapsed());
        if !is_turn && !left.is_zero() {
            return Some(left);
        }
        for signal in self.held.drain(..) {
            // It has ended, perhaps, which the launcher is about to see.
            let _ = pidfd_signal(process.as_fd(), signal);
        }
        self.since = None;
        None
    }

    /// What to wait for, to learn of its end.
    pub fn process(&self) -> Option<&OwnedFd> {
        self.process.as_ref()
    }

    pub fn has_ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
        })
    }
}
