//! `ringfence record`: the file that a recording is written to.
//!
//! It is made before the program starts, under a name of its own, so that a file that cannot be written is known at
//! once; and it gets its right name when it is whole, so that nobody finds half a recording under that. What the sentry writes
//! reaches it by a pipe (`launch/pipes.rs`); the launcher gives it its name.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process;

use ringfence_sentry::failure::Failure;
use ringfence_sentry::recorder;

use crate::binds::Bind;
use crate::outputs::Place;

/// Where a recording goes. The launcher and the sentry each have a copy.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    place: Place,
    part: OsString,
    file: File,
    /// The process that made it, and removes what is left of it.
    maker: u32,
    /// Whether the machine's identifiers stay in the recording.
    pub keep_identifiers: bool,
}

impl Output {
    /// Makes the file that becomes `path`, for the run of a program with these binds.
    pub fn create(path: &Path, keep_identifiers: bool, binds: &[Bind]) -> Result<Output, Failure> {
        let cannot = |reason: &dyn std::fmt::Display| {
            Failure::setup(format!(
                "--out {}: {reason}: name a file in a directory that you may write to",
                path.display()
            ))
        };
        let place = Place::find(path, binds).map_err(|problem| cannot(&problem))?;
        if place.is_directory() {
            return Err(cannot(&"it is a directory"));
        }
        // A device's node would be gone.
        if !place.can_be_replaced() {
            return Err(cannot(&"it is no ordinary file"));
        }
        let (file, part) = place.make_part().map_err(|problem| cannot(&problem))?;
        Ok(Output {
            path: path.to_owned(),
            place,
            part,
            file,
            maker: process::id(),
            keep_identifiers,
        })
    }

    /// The name that it gets.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the sentry needs to know of it.
    pub fn for_sentry(&self) -> recorder::Output<'_> {
        recorder::Output {
            file: &self.file,
            path: &self.path,
            keep_identifiers: self.keep_identifiers,
        }
    }

    /// The open file, or in the sentry the way to it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// In the launcher, when the sentry has ended by itself, and all that it wrote is in the file: gives that its name, if
    /// there is a recording in it.
    pub fn publish(&self) -> Result<(), Failure> {
        let published = self.file.metadata().and_then(|status| {
            if status.len() == 0 {
                // The sentry has said why.
                return Ok(());
            }
            self.file.sync_all()?;
            self.place.put(&self.part, &self.file)
        });
        published.map_err(|error| self.failure(&error))
    }

    /// There is no recording, because of `reason`.
    pub fn failure(&self, reason: &dyn std::fmt::Display) -> Failure {
        self.for_sentry().failure(reason)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Once it has its right name nothing is left under the other. The sentry and what it forks have copies of this.
        if process::id() == self.maker {
            self.place.remove(&self.part);
        }
    }
}
