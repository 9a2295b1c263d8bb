//! How Ringfence itself fails: one line for the user and an exit status for scripts.

use std::fmt;

use ringfence_ipc::typed::{self, shortened};
use ringfence_ipc::{Message, Socket, SocketError};
use serde::{Deserialize, Serialize};

use crate::remedies;
use crate::visible::escaped;

/// The sandbox could not be set up.
pub const SETUP: u8 = 125;
/// The program was found but could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const NOT_FOUND: u8 = 127;

/// What it says who cannot start a thread of Ringfence's own.
pub const A_THREAD: &str = "starting a thread";

/// The longest line that goes from one process to another, in bytes. A path in it may have 4096.
const MAXIMUM_LINE: usize = 16 << 10;

/// A failure of Ringfence, as opposed to one of the program that it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit status: [`SETUP`], [`NOT_EXECUTABLE`] or [`NOT_FOUND`].
    pub status: u8,
    /// One line: the thing, the reason, the remedy.
    pub message: String,
}

impl Failure {
    /// The sandbox could not be set up because of `message`. Errors in it are spelled in one way; if it ends in one for which
    /// there is a remedy, it gets that.
    pub fn setup(message: impl fmt::Display) -> Failure {
        Failure {
            status: SETUP,
            message: remedies::complete(&message.to_string()),
        }
    }

    /// Tells it to the process above, which is at the other end of `report`. By a plain write, which is what every filter
    /// permits.
    pub fn tell(&self, report: &Socket) {
        let line = self.message.replace('\n', " ");
        let failure = Failure {
            status: self.status,
            message: shortened(&line, MAXIMUM_LINE).to_owned(),
        };
        let mut buffer = vec![0; Failure::MAXIMUM_BYTES];
        if let Ok(message) = typed::write(&failure, &mut buffer) {
            // If nobody reads it any more, nobody is left to tell.
            let _ = nix::unistd::write(report, message);
        }
    }

    /// Waits for a failure that a process below tells. `None` if it became the program instead.
    pub fn reported(report: Socket) -> Option<Failure> {
        match report.hear() {
            Ok((failure, _)) => Some(failure),
            Err(SocketError::Closed) => None,
            Err(error) => Some(Failure::setup(format!("what failed was not told: {error}"))),
        }
    }
}

impl Message for Failure {
    const MAXIMUM_BYTES: usize = 8 + MAXIMUM_LINE;
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever failed may not be who says so.
        formatter.write_str(&escaped(&self.message))
    }
}

/// Adds to a failed system call what was being attempted.
pub trait Attempt<T> {
    /// `doing` reads as in "mounting /proc".
    fn attempt(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Attempt<T> for Result<T, E> {
    fn attempt(self, doing: impl fmt::Display) -> Result<T, Failure> {
        let failure = |error: &dyn fmt::Display| Failure::setup(format!("{doing}: {error}"));
        let value = self.map_err(|error| failure(&error))?;
        match ringfence_faults::step() {
            Some(error) => Err(failure(&error)),
            None => Ok(value),
        }
    }
}

/// The same for what a test that has it fail must not have begun, as the start of a process.
pub fn attempt_first<T, E: fmt::Display>(
    doing: &str,
    run: impl FnOnce() -> Result<T, E>,
) -> Result<T, Failure> {
    let failure = |error: &dyn fmt::Display| Failure::setup(format!("{doing}: {error}"));
    match ringfence_faults::step() {
        Some(error) => Err(failure(&error)),
        None => run().map_err(|error| failure(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_way_between_processes() {
        let failure = Failure {
            status: NOT_FOUND,
            message: "true-ish: not\nfound".into(),
        };
        let (above, below) = Socket::pair().expect("a pair");
        failure.tell(&below);
        let told = Failure {
            message: "true-ish: not found".into(),
            ..failure
        };
        assert_eq!(Failure::reported(above), Some(told));

        let (above, below) = Socket::pair().expect("a pair");
        Failure::setup("ä".repeat(MAXIMUM_LINE)).tell(&below);
        let told = Failure::reported(above).expect("a failure");
        assert_eq!(told.message.len(), MAXIMUM_LINE);

        let (above, below) = Socket::pair().expect("a pair");
        nix::unistd::write(&below, b"nonsense").expect("written");
        let told = Failure::reported(above).expect("a failure");
        assert_eq!(told.status, SETUP);
        let expected = "what failed was not told: it does not keep to the protocol: ";
        assert!(told.message.starts_with(expected), "{told}");

        let (above, below) = Socket::pair().expect("a pair");
        drop(below);
        assert_eq!(Failure::reported(above), None);
    }
}
