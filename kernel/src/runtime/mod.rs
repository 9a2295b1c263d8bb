//! The container runtime: what this executable is under the name `ringfence-runtime`.
//!
//! The idea: it is a front of the low-level runtime, runc or crun, as NVIDIA's runtime is one. An engine is given its
//! path, and starts it with runc's command line. What is not about a container with GPUs the low-level runtime does, in
//! this process's place and with the same words, so that it costs little and cannot differ. A container with GPUs goes
//! into a sandbox (`sandbox.rs`).
//!
//! The caller is an engine, mostly as root: its command line, environment and bundle are trusted. What is in the
//! container is not: the image, and variables that come from it.
//!
//! Commands that make a container read its specification, and `exec` that of one that may be in a sandbox. So `state`, which
//! engines ask for all the time, costs the start of an executable and the reading of a short file.
//!
//! Errors have status 1, as runc's have.

mod annotations;
mod bundles;
mod caller;
mod command_line;
mod entering;
mod examination;
mod gpus;
mod handed;
mod low_level;
mod nearest;
mod process;
mod refusals;
mod report;
mod sandbox;
mod selection;
mod settings;
mod shadow;
mod specification;
mod toolkit;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use ringfence_sentry::failure::Failure;

pub use self::examination::{Examined, Kept, LowLevelFound, examine};

use self::command_line::CommandLine;
use self::entering::Found;
use self::gpus::Asked;
use self::settings::Settings;
use self::specification::Specification;
use crate::endings;

/// The executable's name as this runtime.
const NAME: &str = "ringfence-runtime";

/// The status of every failure.
const FAILED: u8 = 1;

const HELP: &str = "\
Run containers by runc or crun, and those with GPUs in a sandbox of Ringfence's

Usage: ringfence-runtime [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENT...]

The command line is that of runc. A container engine calls it: name the path of ringfence-runtime in
the engine's configuration as that of a runtime, and choose this runtime for a container
(docker run --runtime=ringfence).

A container has GPUs if its specification has nodes of NVIDIA's driver, edits of CDI, or NVIDIA's hook
together with NVIDIA_VISIBLE_DEVICES. Its create, run and exec are Ringfence's: the low-level runtime
makes it, with Ringfence's sentry as the first process, and starts further programs by a process of
Ringfence's that enters the sandbox. Its checkpoint and restore are refused. All else is done by the
low-level runtime, with the command line as it was given: start, state, kill, delete, ps, list, pause,
resume, update, events, features, and whatever else it knows.

Settings are in /etc/ringfence/config.toml, which only root may be able to write; those of an ordinary
user in ~/.config/ringfence/config.toml, if it is there; or in the file that RINGFENCE_CONFIG in the
engine's environment names. (Podman does not pass the variable on.) These are all, with examples:

  [runtime]
  low-level = \"runc\"                runc, crun or a path; without it the first of these that is found
  driver = \"host\"                   host, auto or sim, which simulates a GPU
  driver-abi = \"580.142\"            the release to take the driver for, if the tables lack its own
  log = \"/var/log/ringfence.log\"    a file for refusals and messages of sandboxes
  [containers]
  driver-capabilities = [\"video\", \"compute\", \"utility\"]
                                    what they may have of the driver; without it, compute and utility
  firmware-commands = \"all\"         all or listed: which of the commands of the GPU's firmware's
  annotations = [\"gpu-memory\"]      which of the five below they may set; without it, all
  on-server-exit = \"fail\"           fail, kill or restart: what becomes of one that loses its server
  [gpu-memory]
  default = \"4g\"                    on each GPU, for who asks for nothing; without it, the maximum
  maximum = \"16g\"                   the most that one can ask for; without it, all
  [host-memory]
  default = \"1g\"                    the same of the host's memory that the driver takes for a container
  maximum = \"4g\"                    without it, half of the machine's

A container asks for less or more, within these bounds, by the annotations dev.ringfence.gpu-memory,
dev.ringfence.host-memory, dev.ringfence.driver-capabilities, dev.ringfence.firmware-commands and
dev.ringfence.on-server-exit. Without the third it has the capabilities that
NVIDIA_DRIVER_CAPABILITIES in its environment names, or else compute and utility.

Options:
  -h, --help     Print help
  -v, --version  Print the versions of Ringfence and of the low-level runtime

The low-level runtime's own help: ringfence-runtime help, ringfence-runtime COMMAND --help
";

/// What of GPUs a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Concern {
    /// It makes a container from a specification.
    Makes,
    /// It makes one from what `Saves` has saved, and a specification.
    Restores,
    /// It saves the state of a container that runs.
    Saves,
    /// It starts a further program in one that runs.
    Enters,
}

/// The commands that are not always the low-level runtime's.
const CONCERNS: &[(&str, Concern)] = &[
    ("create", Concern::Makes),
    ("run", Concern::Makes),
    ("restore", Concern::Restores),
    ("checkpoint", Concern::Saves),
    ("exec", Concern::Enters),
];

/// Whether the line's command makes a container.
fn makes_container(line: &CommandLine) -> bool {
    let mut concerns = CONCERNS.iter();
    let concern = concerns.find(|(name, _)| line.command.as_deref() == Some(name));
    matches!(concern, Some((_, Concern::Makes | Concern::Restores)))
}

/// Acts as the runtime, if this was started by its name. Returns only then, and only if the low-level runtime has not taken over.
pub fn if_asked(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = words.next()?;
    (Path::new(&name).file_name() == Some(OsStr::new(NAME))).then(|| {
        let line = CommandLine::read(words.collect());
        if line.asks_for_help || line.given.is_empty() {
            return print_help(&line);
        }
        let settings = match Settings::read() {
            Ok(settings) => settings,
            Err(failure) => return fail(&failure, &line, None),
        };
        match act(&line, &settings) {
            Ok(never) => match never {},
            Err(failure) => fail(&failure, &line, Some(&settings)),
        }
    })
}

fn print_help(line: &CommandLine) -> ExitCode {
    match endings::print(HELP) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure, line, None),
    }
}

fn fail(failure: &Failure, line: &CommandLine, settings: Option<&Settings>) -> ExitCode {
    report::tell(failure, line, settings);
    ExitCode::from(FAILED)
}

/// Does what the line says, or has the low-level runtime do it.
fn act(line: &CommandLine, settings: &Settings) -> Result<Infallible, Failure> {
    if line.asks_for_version {
        endings::print(&format!("{NAME} version {}\n", env!("CARGO_PKG_VERSION")))?;
    }
    expect_a_name(line)?;
    let low_level = low_level::find(settings)?;
    if line.command.as_deref() == Some("delete") {
        bundles::tidy();
    }
    if makes_container(line) {
        settings.expect_right()?;
    }
    match task(line, &low_level)? {
        Some(Task::Make(specification, asked)) => sandbox::begin(&sandbox::Demand {
            line,
            settings,
            low_level: &low_level,
            specification: &specification,
            asked: &asked,
        }),
        Some(Task::Enter(found)) => entering::begin(line, &low_level, &found),
        None => Err(low_level::hand_over(&low_level, &line.given)),
    }
}

/// Fails if the container has no name but a place: crun 1.8.1, told to delete `..`, removes the directory around that of its containers.
fn expect_a_name(line: &CommandLine) -> Result<(), Failure> {
    let container = line.container.as_deref();
    let place = container.filter(|name| [".", ".."].map(OsStr::new).contains(name));
    match place {
        None => Ok(()),
        Some(place) => Err(Failure::setup(format!(
            "container {}: this is a directory and no container: give its name",
            place.display()
        ))),
    }
}

/// What is not the low-level runtime's alone.
enum Task {
    /// A container with GPUs is to be made.
    Make(Specification, Asked),
    /// A further program is to be started in a sandbox.
    Enter(Found),
}

/// What the line is about, if that is a container with GPUs. Fails if it cannot be made, or be saved.
fn task(line: &CommandLine, low_level: &Path) -> Result<Option<Task>, Failure> {
    let Some(command) = line.command.as_deref().filter(|_| !line.asks_for_version) else {
        return Ok(None);
    };
    let Some((_, concern)) = CONCERNS.iter().find(|(name, _)| *name == command) else {
        return Ok(None);
    };
    let specification = match concern {
        Concern::Makes | Concern::Restores => Specification::read(&line.specification_path())?,
        // The low-level runtime is asked only if there may be something: an exec is to cost what it costs.
        Concern::Enters if !bundles::may_exist(line.container.as_deref()) => None,
        Concern::Enters => {
            let found = Found::look_for(line, low_level)?;
            // What has GPUs and no sandbox was made by another runtime.
            return Ok(found.filter(Found::is_sandbox).map(Task::Enter));
        }
        Concern::Saves => match Found::look_for(line, low_level)? {
            Some(found) => found.specification()?,
            None => None,
        },
    };
    let Some(specification) = specification else {
        return Ok(None);
    };
    let container = line.shown_container();
    let is_sandbox = sandbox::is_shadow(&specification);
    let asked = gpus::recognise(&specification, &gpus::This);
    let Some(asked) = asked.or_else(|| is_sandbox.then(Asked::default)) else {
        return Ok(None);
    };
    match concern {
        Concern::Enters => Ok(None),
        Concern::Makes => {
            refusals::expect_possible(&container, &specification, &asked)?;
            Ok(Some(Task::Make(specification, asked)))
        }
        Concern::Restores | Concern::Saves => {
            Err(refusals::of_checkpoint(&container, command, &asked))
        }
    }
}
