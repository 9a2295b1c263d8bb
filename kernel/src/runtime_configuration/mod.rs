//! `ringfence runtime configure`: a container engine's configuration that names Ringfence as one of its runtimes.
//!
//! The idea: people wrote these files, so no more of them changes than has to. What is to be written is computed as text, by
//! editing the text that is there, and shown as a difference before anything is touched. The same computation takes the
//! entry out again: if a kept copy, configured anew, is what the file has, then the copy is what was there before.
//!
//! The caller may be root and the files are its own: whoever can write to them rules the engine, and so the machine. They are
//! trusted as the engine trusts them.
//!
//! | module | subject |
//! |---|---|
//! | `options` | the command line |
//! | `engines` | the table: where each engine has its configuration, and how it takes a new one |
//! | `layout` | where in a configuration a runtime's entry is, and what belongs into it |
//! | `containerd` | versions of containerd's format, and files that it merges |
//! | `crio` | the monitor that CRI-O's other runtimes have |
//! | `document` | what is read and changed of a file, whatever its syntax |
//! | `syntax`, `json`, `toml` | the two syntaxes |
//! | `edit` | an entry put in, and taken out |
//! | `file` | how a file is read, kept and replaced |
//! | `program` | which program the entry names |

mod containerd;
mod crio;
mod document;
mod edit;
mod engines;
mod file;
mod json;
mod layout;
mod options;
mod program;
mod syntax;
mod toml;

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::log;
use similar::TextDiff;

pub use self::engines::Engine;
pub use self::options::Configure;

use self::edit::{Outcome, Request};
use self::file::ConfigurationFile;
use crate::endings;

/// The status of a command that did not do what it was asked to.
const FAILED: u8 = 1;

/// Does what the command line asks for. Returns the exit status: 0 if the configuration is as asked, 1 if not.
pub fn run(options: &Configure) -> Result<u8, Failure> {
    configure(options).map_err(|failure| Failure {
        status: FAILED,
        ..failure
    })
}

fn configure(options: &Configure) -> Result<u8, Failure> {
    let engine = options.engine;
    options.check()?;
    let path = options.file()?;
    let file = ConfigurationFile::read(&path, engine)?;
    let request = Request {
        engine,
        name: options.name.clone(),
        program: program::choose(options)?,
        is_default: options.set_as_default,
        version: options.version,
    };
    let outcome = match options.remove {
        true => edit::remove(&request, &file)?,
        false => edit::add(&request, &file)?,
    };
    if !options.remove
        && let Some(warning) = program::warning(&request.program)
    {
        warn(&warning);
    }
    for warning in &outcome.warnings {
        warn(warning);
    }
    if !outcome.changes(&file) {
        let state = match options.remove {
            true => "has no",
            false => "is configured already:",
        };
        let name = &options.name;
        let path = path.display();
        endings::print(&format!("{path} {state} runtime {name}\n"))?;
        return Ok(0);
    }
    endings::print(&difference(&path, &file, &outcome))?;
    if options.dry_run {
        return Ok(0);
    }
    if !options.yes && is_conversation() && !confirmed()? {
        log::print("ringfence: nothing was written\n");
        return Ok(FAILED);
    }
    write(&file, &outcome)?;
    if options.set_as_default {
        endings::print(&about_privileged(engine))?;
    }
    let next_step = engine.next_step(options.remove);
    endings::print(&format!("{next_step}\n"))?;
    Ok(0)
}

/// What becomes of privileged containers where Ringfence is the runtime of all: root's engines give them every node of the machine.
fn about_privileged(engine: Engine) -> String {
    let own = engine.facts().own_runtime;
    format!(
        "note: on a machine with GPUs a privileged container has them all, and is refused: give it the engine's own runtime ({own})\n"
    )
}

fn write(file: &ConfigurationFile, outcome: &Outcome) -> Result<(), Failure> {
    if outcome.keep_copy
        && let Some(copy) = file.keep_copy()?
    {
        endings::print(&format!("what was there is kept in {}\n", copy.display()))?;
    }
    match &outcome.text {
        Some(text) => file.replace(text),
        None => file.remove(),
    }
}

/// The difference as `diff -u` prints it.
fn difference(path: &Path, file: &ConfigurationFile, outcome: &Outcome) -> String {
    let path = path.display().to_string();
    let name = |text: Option<&str>| text.map_or("/dev/null", |_| path.as_str()).to_owned();
    let (before, after) = (file.text(), outcome.text.as_deref());
    let (from, to) = (name(before), name(after));
    let diff = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
    diff.unified_diff().header(&from, &to).to_string()
}

/// Whether somebody is there to be asked.
fn is_conversation() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn confirmed() -> Result<bool, Failure> {
    log::print("Write this? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.attempt("stdin")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn warn(warning: &str) {
    log::print(&format!("ringfence: {warning}\n"));
}
