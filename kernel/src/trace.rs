//! `--trace`: the file that a trace is written to.
//!
//! The launcher opens it before the program starts, so that a file that cannot be written is known at once. The sentry,
//! which cannot reach the file system, writes to it while the program runs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// How a trace begins: it is an array of the Trace Event Format, whose end may be missing.
const BEGINNING: &[u8] = b"[";

/// Where a trace goes.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Empties the file at `path`, or makes it, and writes the beginning of a trace.
    pub fn create(path: &Path) -> Result<Output, Failure> {
        let written = File::create(path).and_then(|mut file| {
            file.write_all(BEGINNING)?;
            Ok(file)
        });
        let file = written.map_err(|error| {
            Failure::setup(format!(
                "--trace {}: {error}: name a file that you may write to, where there is room",
                path.display()
            ))
        })?;
        Ok(Output {
            path: path.to_owned(),
            file,
        })
    }

    /// What it was called by the user.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, and how many bytes of it are written.
    pub fn file(&self) -> (&File, u64) {
        (&self.file, BEGINNING.len() as u64)
    }
}
