//! `--trace`: the file that a trace is written to.
//!
//! The launcher opens it before the program starts, so that a file that cannot be written is known at once. The sentry,
//! which cannot reach the file system, writes to it while the program runs.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::failure::Failure;
use crate::launch::grants::Bind;
use crate::outputs::Place;

/// How a trace begins: it is an array of the Trace Event Format, whose end may be missing.
const BEGINNING: &[u8] = b"[";

/// Where a trace goes.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Empties the file at `path`, or makes it, and writes the beginning of a trace of a program with these binds.
    pub fn create(path: &Path, binds: &[Bind]) -> Result<Output, Failure> {
        let cannot = |reason: &dyn std::fmt::Display| {
            Failure::setup(format!(
                "--trace {}: {reason}: name a file that you may write to, where there is room",
                path.display()
            ))
        };
        let opened = Place::find(path, binds).and_then(|place| place.open(OFlags::TRUNC));
        let mut file = opened.map_err(|problem| cannot(&problem))?;
        file.write_all(BEGINNING).map_err(|error| cannot(&error))?;
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
