//! How Ringfence itself fails: one line for the user and an exit status for scripts.

use std::fmt;
use std::io::{PipeReader, Read};

use crate::visible::escaped;

/// The sandbox could not be set up.
pub const SETUP: u8 = 125;
/// The program was found but could not be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
pub const NOT_FOUND: u8 = 127;

/// A failure of Ringfence, as opposed to one of the program that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status: [`SETUP`], [`NOT_EXECUTABLE`] or [`NOT_FOUND`].
    pub status: u8,
    /// One line: the thing, the reason, the remedy.
    pub message: String,
}

impl Failure {
    /// The sandbox could not be set up because of `message`.
    pub fn setup(message: impl Into<String>) -> Failure {
        Failure {
            status: SETUP,
            message: message.into(),
        }
    }

    /// One line of text that [`Failure::parse`] reads back, to carry a failure from one process to another.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.status, self.message.replace('\n', " "))
    }

    /// Reads a failure that a process below reported. `None` if it became the program instead.
    pub fn reported(mut report: PipeReader) -> Option<Failure> {
        let mut line = String::new();
        // A report that is no text is no report of ours; the process that made it is gone anyway.
        let _ = report.read_to_string(&mut line);
        (!line.is_empty()).then(|| Failure::parse(line.trim_end()))
    }

    /// The inverse of [`Failure::to_line`]; text that it did not make is taken for the message.
    pub fn parse(line: &str) -> Failure {
        let parsed = line
            .split_once(' ')
            .and_then(|(status, message)| Some((status.parse().ok()?, message)));
        match parsed {
            Some((status, message)) => Failure {
                status,
                message: message.to_owned(),
            },
            None => Failure::setup(line),
        }
    }
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
        self.map_err(|error| Failure::setup(format!("{doing}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_way_between_processes() {
        let failure = Failure {
            status: NOT_FOUND,
            message: "true-ish: not found".into(),
        };
        assert_eq!(Failure::parse(&failure.to_line()), failure);
        assert_eq!(Failure::parse("nonsense"), Failure::setup("nonsense"));
    }
}
