//! What a comparison fails with: one text that names the file, the line where there is one, and the reason.

use std::fmt;

/// A failure, told for the person who runs the comparison.
#[derive(Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    pub fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }

    /// What is wrong at a line of a file.
    pub fn at(file: &str, line: usize, text: impl fmt::Display) -> Error {
        Error(format!("{file}:{line}: {text}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
