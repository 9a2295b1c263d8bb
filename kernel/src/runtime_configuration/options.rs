//! The command line of `ringfence runtime configure`.

use std::path::PathBuf;

use clap::Args;
use ringfence_sentry::failure::Failure;

use super::engines::Engine;

/// Names that engines keep for their own runtimes: dockerd refuses `runc`, and the others would lose theirs.
const TAKEN: [&str; 2] = ["runc", "crun"];

#[derive(Args)]
pub struct Configure {
    /// The engine whose configuration is written
    #[arg(value_enum)]
    pub engine: Engine,
    /// The file, instead of the one that the engine reads where nothing else is said
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The runtime's program, instead of ringfence-runtime beside this executable
    #[arg(long, value_name = "PATH")]
    pub runtime_path: Option<PathBuf>,
    /// What to call the runtime
    #[arg(long, value_name = "NAME", default_value = "ringfence", value_parser = name)]
    pub name: String,
    /// Have the engine use it for every container that names no runtime
    #[arg(long)]
    pub set_as_default: bool,
    /// Of containerd's format, for a file that is not there yet, instead of what the installed containerd writes: 2, 3 or 4
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(2..=4))]
    pub version: Option<u8>,
    /// Take the runtime's entry out again
    #[arg(long, conflicts_with_all = ["set_as_default", "version"])]
    pub remove: bool,
    /// Show the difference, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask, on a terminal, before the file is written
    #[arg(long, short)]
    pub yes: bool,
}

impl Configure {
    /// Fails if options were given that do not go together.
    pub fn check(&self) -> Result<(), Failure> {
        if self.version.is_some() && self.engine != Engine::Containerd {
            return Err(Failure::setup(
                "--version is of containerd's format: leave it out",
            ));
        }
        Ok(())
    }

    /// The file that is to be edited.
    pub fn file(&self) -> Result<PathBuf, Failure> {
        match &self.config {
            Some(file) => Ok(file.clone()),
            None => self.engine.file(),
        }
    }
}

/// Reads a runtime's name. Each engine takes such names, and no syntax needs quotes for them.
fn name(text: &str) -> Result<String, String> {
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if !begins || !text.chars().all(is_plain) {
        return Err("write letters, digits, _ and -, beginning with a letter or digit".to_owned());
    }
    if TAKEN.contains(&text) {
        return Err("engines have a runtime of their own by this name: choose another".to_owned());
    }
    Ok(text.to_owned())
}
