//! How a configuration is read, kept and replaced.
//!
//! An engine that reads the file at any moment finds what was there or what is new, and never a part. Mode and owner stay, and
//! a link stays one: what it leads to is replaced. What was there is kept beside it, and no kept copy is overwritten.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf, absolute};

use ringfence_sentry::failure::Failure;

use super::engines::Engine;

/// What is behind the name of a kept copy, and perhaps a number behind that.
const KEPT: &str = "before-ringfence";

/// The mode of a new file: engines run as root, and whoever wants to know how they are configured can.
const NEW: u32 = 0o644;

/// A configuration, as it was when it was read.
#[derive(Debug)]
pub struct ConfigurationFile {
    /// Where it is, behind all links.
    path: PathBuf,
    engine: Engine,
    /// `None` if it is not there.
    found: Option<(String, Metadata)>,
}

impl ConfigurationFile {
    pub fn read(path: &Path, engine: Engine) -> Result<ConfigurationFile, Failure> {
        let failure = |error: io::Error| cannot(path, engine, &error);
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                absolute(path).map_err(failure)?
            }
            found => found.map_err(failure)?,
        };
        let found = find(&path).map_err(failure)?;
        Ok(ConfigurationFile {
            path,
            engine,
            found,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it has. `None` if it is not there.
    pub fn text(&self) -> Option<&str> {
        self.found.as_ref().map(|(text, _)| text.as_str())
    }

    /// What the kept copies have, the newest first.
    pub fn copies(&self) -> Vec<String> {
        let names = (0..).map(|number| self.copy(number));
        let copies = names.take_while(|copy| copy.exists());
        // One that cannot be read is none that could be put back.
        let mut texts: Vec<String> = copies
            .filter_map(|copy| fs::read_to_string(copy).ok())
            .collect();
        texts.reverse();
        texts
    }

    /// Keeps what it has in a file of its own, and returns where. `None` if that is kept already, or there is nothing.
    pub fn keep_copy(&self) -> Result<Option<PathBuf>, Failure> {
        let Some((text, status)) = &self.found else {
            return Ok(None);
        };
        if self.copies().contains(text) {
            return Ok(None);
        }
        let mut number = 0;
        loop {
            let copy = self.copy(number);
            match write_new(&copy, text, Some(status)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
                written => {
                    written.map_err(|error| cannot(&copy, self.engine, &error))?;
                    return Ok(Some(copy));
                }
            }
        }
    }

    /// Has the file have this text.
    pub fn replace(&self, text: &str) -> Result<(), Failure> {
        self.expect_unchanged()?;
        let failure = |error: io::Error| cannot(&self.path, self.engine, &error);
        if let Some(directory) = self.path.parent() {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o755).create(directory);
            made.map_err(failure)?;
        }
        let part = self.beside(&format!("{}.part", std::process::id()));
        let status = self.found.as_ref().map(|(_, status)| status);
        let put = write_new(&part, text, status).and_then(|()| fs::rename(&part, &self.path));
        if put.is_err() {
            let _ = fs::remove_file(&part);
        }
        put.and_then(|()| self.sync_directory()).map_err(failure)
    }

    /// Has the file not be there.
    pub fn remove(&self) -> Result<(), Failure> {
        self.expect_unchanged()?;
        let removed = fs::remove_file(&self.path).and_then(|()| self.sync_directory());
        removed.map_err(|error| cannot(&self.path, self.engine, &error))
    }

    /// Somebody may have written to it while the user was asked.
    fn expect_unchanged(&self) -> Result<(), Failure> {
        let found = find(&self.path).map_err(|error| cannot(&self.path, self.engine, &error))?;
        if found.as_ref().map(|(text, _)| text.as_str()) == self.text() {
            return Ok(());
        }
        let path = self.path.display();
        Err(Failure::setup(format!(
            "{path}: somebody else wrote to it meanwhile, and nothing was written: try again"
        )))
    }

    fn copy(&self, number: u32) -> PathBuf {
        self.beside(&match number {
            0 => KEPT.to_owned(),
            number => format!("{KEPT}.{number}"),
        })
    }

    /// A file beside this one that the engine does not read: with this behind its name, and in the directory above if it
    /// reads all of this one.
    fn beside(&self, behind: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{behind}"));
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let is_of_drop_ins = directory.extension().is_some_and(|end| end == "d");
        match (
            self.engine.facts().reads_every_file && is_of_drop_ins,
            directory.parent(),
        ) {
            (true, Some(above)) => above.join(name),
            _ => directory.join(name),
        }
    }

    /// So that the new name outlives a loss of power.
    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn find(path: &Path) -> io::Result<Option<(String, Metadata)>> {
    let status = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if !status.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let text = fs::read(path)?;
    let text = String::from_utf8(text).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(valid);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line}: it is not text in UTF-8"))
    })?;
    Ok(Some((text, status)))
}

/// Writes a file that is not there, to the disk, with the mode and owner of another if there is one.
fn write_new(path: &Path, text: &str, like: Option<&Metadata>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Nobody reads it before it has its owner.
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let prepared = || -> io::Result<()> {
        if let Some(status) = like {
            fchown(&file, Some(status.uid()), Some(status.gid()))?;
        }
        let mode = like.map_or(NEW, |status| status.mode() & 0o7777);
        file.set_permissions(Permissions::from_mode(mode))
    };
    let written = prepared()
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn cannot(path: &Path, engine: Engine, error: &io::Error) -> Failure {
    let shown = path.display();
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => format!("run this as root{}", engine.facts().for_others),
        _ => "name another file with --config, or correct this one".to_owned(),
    };
    Failure::setup(format!("{shown}: {error}: {remedy}"))
}
