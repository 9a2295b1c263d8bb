//! What an import fails with: one text that names the file, the reason and, where there is one, the remedy.

use std::fmt;

/// A failure, told for the person who runs the importer.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    pub fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }

    /// Puts what was being done before the text.
    pub fn within(self, what: impl fmt::Display) -> Error {
        Error(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
