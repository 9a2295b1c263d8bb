//! `ringfence replay`: issues the requests of a recording again, from inside a sandbox, and says what differs.
//!
//! The sandbox is an ordinary one. Its program is this executable once more (`guest`), which makes the recorded tasks
//! and threads and has each make its requests when their turn comes. The server's backend is the recorded driver, or the
//! simulated one. Program and backend report what differs to a file that the launcher made, and it tells the user.

mod guest;
mod outcome;
pub mod recorded;
mod translation;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nvproxy_abi::node::Node;
use nvproxy_protocol::options::{Replay, Settings};
use ringfence_recording::Recording;
use ringfence_recording::report::lines;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::server::OnServerExit;

pub use guest::Paths;
pub use guest::run as run_guest;

use self::outcome::Outcome;
use crate::driver::{Driver, Kind, device_directory};
use crate::endings::{self, Ending};
use crate::launch;
use crate::launch::grants::Grants;

/// `replay --driver`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// A driver that answers as recorded
    Recorded,
    /// The simulated driver
    Sim,
}

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub recording: PathBuf,
    /// Another recording whose answers are given, of the same run but for what is to be found.
    pub answers: Option<PathBuf>,
    pub driver: Choice,
    pub json: bool,
    pub log: Option<PathBuf>,
}

/// The largest file that is read as a recording.
const MAXIMUM_FILE: u64 = 256 << 20;

/// Reads a recording that there are tables for; a failure names the file, what is wrong with it, and what to do.
pub fn read(path: &Path) -> Result<Recording, Failure> {
    let named =
        |what: &dyn std::fmt::Display| Failure::setup(format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAXIMUM_FILE).read_to_end(&mut bytes));
    read.map_err(|error| {
        named(&format_args!(
            "{error}: name a file that ringfence record made"
        ))
    })?;
    let recording = Recording::from_bytes(&bytes).map_err(|error| named(&error))?;
    recording.header.abi().map_err(|error| named(&error))?;
    Ok(recording)
}

/// Replays a recording and prints what came of it. The status is 0 if nothing differs, and 1 if anything does. One that was
/// interrupted ends as its program.
pub fn run(options: &Options) -> Result<Ending, Failure> {
    launch::linux::expect_new_enough()?;
    let recording = read(&options.recording)?;
    let answers = options.answers.as_ref().unwrap_or(&options.recording);
    if options.answers.is_some() {
        read(answers)?;
    }
    let recorded = File::open(&options.recording)
        .attempt(options.recording.display())?
        .into();
    let progress = shared_file("progress")?;
    let report = shared_file("report")?;
    let mut reported = File::from(report.try_clone().attempt("the replay's report")?);
    let kind = match options.driver {
        Choice::Recorded => Kind::Recorded,
        Choice::Sim => Kind::Simulated,
    };
    let ending = launch::run(&launch::Options {
        driver: Driver {
            kind,
            version: recording.header.driver,
            tables: recording.header.tables,
            capabilities: recording.header.capabilities,
            firmware_commands: recording.header.firmware_commands,
            nodes: nodes(&recording),
            directory: device_directory(),
        },
        // What was granted when it was recorded is granted again.
        settings: Settings::WITHOUT_LIMITS,
        command: guest_command(options.driver, &progress, &report, &recorded),
        grants: Grants {
            workdir: Some("/".into()),
            ..Grants::default()
        },
        log: options.log.clone(),
        stats: false,
        on_server_exit: OnServerExit::Kill,
        name: None,
        container: None,
        record: None,
        trace: None,
        replay: (kind == Kind::Recorded).then(|| Replay {
            recording: answers.clone(),
            progress: path_of(&progress),
            report: path_of(&report),
        }),
        descriptors: vec![progress, report, recorded],
    })?;
    if let Ending::Signal(_) = ending {
        return Ok(ending);
    }
    let mut text = String::new();
    reported
        .read_to_string(&mut text)
        .attempt("the replay's report")?;
    let lines = lines(&text).attempt("the replay's report")?;
    let outcome = Outcome::new(&recording, &lines).map_err(|reason| {
        Failure::setup(format!(
            "{}: the replay did not come to its end (status {}): {reason}",
            options.recording.display(),
            ending.status()
        ))
    })?;
    let text = match (options.json, options.driver) {
        (true, _) => outcome.json(),
        (false, Choice::Recorded) => outcome.listed(),
        (false, Choice::Sim) => outcome.grouped(),
    };
    endings::print(&text)?;
    Ok(Ending::Status(u8::from(outcome.any())))
}

/// What the recorded sandbox had, of open-only nodes those that its program opened.
fn nodes(recording: &Recording) -> Vec<Node> {
    let opened: HashSet<Node> = recording.nodes().into_iter().collect();
    let is_open_only = |node: &Node| matches!(node, Node::OpenOnly(_));
    let open_only = opened.into_iter().filter(is_open_only);
    let others = Driver::nodes_of(&recording.header.gpus).into_iter();
    others.chain(open_only).collect()
}

fn guest_command(
    driver: Choice,
    progress: &OwnedFd,
    report: &OwnedFd,
    recording: &OwnedFd,
) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec!["/proc/self/exe".into(), "replay-guest".into()];
    if driver == Choice::Sim {
        command.push("--translate".into());
    }
    command.extend([
        "--progress".into(),
        path_of(progress).into(),
        "--report".into(),
        path_of(report).into(),
        "--".into(),
        path_of(recording).into(),
    ]);
    command
}

/// A file without a name, which program and server inherit.
fn shared_file(name: &str) -> Result<OwnedFd, Failure> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC).attempt("memfd_create")
}

/// The path by which a process that inherits `file` opens it anew, wherever the file is, if it is anywhere.
fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
