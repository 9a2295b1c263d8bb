//! `--trace`: the file that a trace is written to.
//!
//! The launcher opens it before the program starts, so that a file that cannot be written is known at once. What the sentry
//! writes while the program runs reaches it by a pipe (`launch/pipes.rs`).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ringfence_sentry::failure::Failure;
use ringfence_sentry::tracer;
use ringfence_sentry::warnings::warn_once;
use rustix::fs::OFlags;

use crate::binds::Bind;
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

    /// What the sentry needs to know of it.
    pub fn for_sentry(&self) -> tracer::Output<'_> {
        tracer::Output {
            file: &self.file,
            path: &self.path,
            written: BEGINNING.len() as u64,
        }
    }

    /// The open file, or in the sentry the way to it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Ends the trace behind `bytes` that the sentry has written, because of `error`: half an event would keep the rest from
    /// being read.
    pub fn cut(&self, bytes: u64, error: &io::Error) {
        // What is no file on a disk cannot be cut.
        let _ = self.file.set_len(BEGINNING.len() as u64 + bytes);
        let path = self.path.display();
        warn_once(
            "--trace",
            format_args!("{path}: {error}: what follows is missing"),
        );
    }
}
