//! The command line.
//!
//! `unsafe` is here because descriptors are inherited as bare numbers.

mod complaint;
mod mark;
mod settings;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::driver::{Asker, Choice, Demand, Selection, choose};
use crate::endings::{self, Ending};
use crate::launch::descriptors;
use crate::launch::grants::Grants;
use crate::outputs::{expect_different, open_log};
use crate::record::Output;
use crate::replay;
use crate::runtime_configuration::{self, Configure};
use crate::sandboxes::Name;
use crate::server_exit::WhenServerEnds;
use crate::{arguments, drivers, launch, memory, runtime, sandboxes, serve, survey, trace};
use clap::{Args, Parser, Subcommand};
use nix::unistd::{AccessFlags, access};
use nvproxy_abi::policy::{Capabilities, FirmwareCommands};
use nvproxy_abi::version::DriverVersion;
use nvproxy_protocol::size;
use ringfence_sentry::failure::{Attempt, Failure, SETUP};
use ringfence_sentry::{log, signals, visible};

use self::settings::ServerSettings;

/// Run GPU programs that you do not trust.
///
/// The program runs in a sandbox. Every request that it makes of the NVIDIA driver is checked and issued by a separate
/// process.
#[derive(Parser)]
#[command(name = "ringfence", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// Of a command that was not given nothing is built but its name: each start of a sandbox parses two command lines.
#[derive(Subcommand)]
#[command(defer = true)]
enum Command {
    /// Run a program in a sandbox
    ///
    /// The exit status is the program's own, 128+N if signal N ended it, 125 if the sandbox could not be set up, 126
    /// if the program could not be executed, and 127 if it was not found.
    #[command(override_usage = "ringfence run [OPTIONS] [--] CMD [ARGUMENT...]", after_long_help = size::FORM)]
    Run(Run),
    /// Run a program in a sandbox and record every request that it makes of the driver
    ///
    /// The exit status is that of `run`. The file is written when the program has ended; `ringfence replay` issues its
    /// requests again.
    #[command(
        override_usage = "ringfence record --out FILE [OPTIONS] [--] CMD [ARGUMENT...]",
        after_long_help = size::FORM
    )]
    Record(Record),
    /// Issue the requests of a recording again, from inside a sandbox, and compare every byte
    ///
    /// The exit status is 0 if nothing differs, 1 if anything does, and 125 if it could not be replayed.
    Replay(Replay),
    /// The program that a replay runs
    #[command(hide = true)]
    ReplayGuest(ReplayGuest),
    /// Run a program WITHOUT a sandbox, and list the requests of the driver that a sandbox would refuse
    ///
    /// For programs and cards that nobody has tried: what is found goes to stderr when all that the program has started has
    /// ended, and with --out to a file for a report (docs/DRIVERS.md). The program has all of your rights. It cannot
    /// gain others, by sudo for instance.
    ///
    /// The exit status is the program's own, 128+N if signal N ended it, and 125, 126 and 127 as of `run`.
    #[command(override_usage = "ringfence survey [OPTIONS] [--] CMD [ARGUMENT...]")]
    Survey(Survey),
    /// Show in a few seconds, on any machine, what a sandboxed program can do with a GPU
    ///
    /// Runs a small program in a sandbox that enumerates GPUs, allocates and maps memory, waits for an event and frees
    /// everything, and prints what each step came to and what it cost.
    Demo(Demo),
    /// List the sandboxes that are running
    Ps {
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Replace a running sandbox's server by a new process, of this executable, while its programs run
    ///
    /// The exit status is 0 if it was replaced, 1 if not, when the old one serves on, and 125 if there is no such
    /// sandbox.
    ServerUpgrade {
        /// The sandbox's name or process, as `ringfence ps` shows them. Of a container's id the first 12 characters are enough, if no
        /// other begins so
        sandbox: Name,
        /// The executable of the new server, instead of this one
        #[arg(long, value_name = "FILE")]
        executable: Option<PathBuf>,
    },
    /// Check that this machine has what Ringfence needs, and say what to do where it has not
    ///
    /// The exit status is 0 if `ringfence run` can work here, and 1 if not.
    Doctor {
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of the driver's releases
    #[command(subcommand)]
    Drivers(Drivers),
    /// Ringfence as a runtime of container engines
    #[command(subcommand)]
    Runtime(Runtime),
    /// For those who come from runsc
    #[command(subcommand)]
    Nvproxy(Nvproxy),
    /// The program that the demonstration runs
    #[command(hide = true)]
    DemoGuest,
}

#[derive(Subcommand)]
enum Drivers {
    /// List every release whose tables are known, and the driver of this machine
    List {
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Show the requests of a release, or the layout of one of them
    Show {
        /// A release, as in 580.142
        version: String,
        /// A request, by name or number, or a structure, as in NVOS54_PARAMETERS
        name: Option<String>,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Show what changed from one release to another
    Diff {
        #[arg(value_name = "A")]
        from: String,
        #[arg(value_name = "B")]
        to: String,
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Runtime {
    /// Have a container engine know Ringfence as one of its runtimes
    ///
    /// Shows how the engine's configuration changes, and writes it; on a terminal it asks before. What was there is kept
    /// beside it, in FILE.before-ringfence. Then `docker run --runtime ringfence`, or what is like it, uses Ringfence.
    ///
    /// The exit status is 0 if the configuration is as asked, and 1 if not.
    Configure(Configure),
}

#[derive(Subcommand)]
enum Nvproxy {
    /// Print the versions of the driver whose tables are known, one a line
    ListSupportedDrivers,
}

// What a program may ask of the driver. (A documentation comment would be the help of each command that has these options.)
#[derive(Args, Default)]
struct Asked {
    /// Treat the driver as this release, whose tables are known, whatever it says that it is
    #[arg(long, value_name = "VERSION", allow_negative_numbers = true, value_parser = arguments::text::<DriverVersion>())]
    driver_abi: Option<DriverVersion>,
    #[arg(long, value_name = "LIST", default_value_t, help = about_capabilities())]
    driver_capabilities: Capabilities,
    /// Which of the commands that the GPU's firmware answers it may ask: all but those for administrators, or the listed ones
    ///
    /// They are in no header, and each GPU and each release has its own. The lists have those that programs were seen to ask on an
    /// H100; of others the parameters are bounded in size, and go to the firmware as they are.
    #[arg(long, value_name = "all|listed", default_value_t, value_parser = arguments::text::<FirmwareCommands>())]
    firmware_commands: FirmwareCommands,
}

#[derive(Args)]
struct Run {
    /// Which driver the program gets
    #[arg(long, value_enum, default_value = "auto")]
    driver: Choice,
    #[command(flatten)]
    asked: Asked,
    /// Which GPUs it gets: all, none, or a list of indices, UUIDs, and parts of GPUs (MIG) as in 0/1/0
    #[arg(long, value_name = "all|none|0,1|GPU-uuid", default_value = "all", allow_negative_numbers = true, value_parser = arguments::text::<Selection>())]
    gpus: Selection,
    #[command(flatten)]
    settings: ServerSettings,
    /// Write Ringfence's own log to this file instead of warnings to stderr
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// When the program ends, print to stderr what it asked of the driver and how long that took
    #[arg(long)]
    stats: bool,
    /// Write to this file what became of each request, and when, for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// What becomes of the sandbox if its server ends before it
    #[arg(long, value_enum, default_value = "fail")]
    on_server_exit: WhenServerEnds,
    #[command(flatten)]
    grants: Grants,
    /// What to call the sandbox, for `ps` and `server-upgrade`; by default, the number of this process
    #[arg(long, value_name = "NAME", value_parser = arguments::text::<Name>())]
    name: Option<Name>,
    /// The program and its arguments; all that follows CMD is the program's
    ///
    /// The -- before it can be left out where no argument of the program is called like an option of Ringfence.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Args)]
struct Record {
    /// Where to write the recording
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Do not replace the UUIDs, serial and chip numbers and PCI addresses of this machine
    #[arg(long)]
    keep_identifiers: bool,
    #[command(flatten)]
    run: Run,
}

#[derive(Args)]
struct Survey {
    /// Write the findings to this file, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    /// The program and its arguments; all that follows CMD is the program's
    ///
    /// The -- before it can be left out where no argument of the program is called like an option of Ringfence.
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Args)]
struct Replay {
    /// A file that `ringfence record` made
    file: PathBuf,
    /// Which driver answers
    #[arg(long, value_enum, default_value = "recorded")]
    driver: replay::Choice,
    /// Answer as was recorded in this other file, of the same run
    #[arg(long, hide = true)]
    answers: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Write Ringfence's own log to this file instead of warnings to stderr
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

// The command line of a replay's program, which only the launcher writes.
#[derive(Args)]
struct ReplayGuest {
    #[arg(long)]
    translate: bool,
    #[arg(long)]
    progress: PathBuf,
    #[arg(long)]
    report: PathBuf,
    file: PathBuf,
}

#[derive(Args)]
struct Demo {
    /// Which driver the program gets
    #[arg(long, value_enum, default_value = "auto")]
    driver: Choice,
}

/// Does what the command line says. The status is what the process is to end with.
pub fn main() -> ExitCode {
    if let Some(status) = runtime::if_asked(std::env::args_os()) {
        return status;
    }
    launch::container::if_asked(std::env::args_os());
    launch::container::seat::if_asked(std::env::args_os());
    if let Err(failure) = signals::take_actions() {
        return finish(Err(failure));
    }
    if let Some(outcome) = serve::if_asked(std::env::args_os()) {
        return finish(outcome.map(Ending::from));
    }
    let line: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let outcome = match cli.command {
        Command::Run(arguments) => mark::check::<Run>(&line, &arguments.command)
            .and_then(|()| inherit(&arguments.grants))
            .and_then(|kept| run(arguments, kept, None)),
        Command::Record(arguments) => {
            mark::check::<Record>(&line, &arguments.run.command).and_then(|()| record(arguments))
        }
        Command::Survey(arguments) => {
            mark::check::<Survey>(&line, &arguments.command).and_then(|()| look_around(arguments))
        }
        Command::Replay(arguments) => issue_again(arguments),
        Command::ReplayGuest(arguments) => with_status(replay::run_guest(&replay::Paths {
            recording: arguments.file,
            progress: arguments.progress,
            report: arguments.report,
            translate: arguments.translate,
        })),
        Command::Demo(arguments) => demonstrate(&arguments),
        Command::Ps { json } => with_status(list_sandboxes(json)),
        Command::ServerUpgrade {
            sandbox,
            executable,
        } => with_status(upgrade(&sandbox, executable.as_deref())),
        Command::Doctor { json } => with_status(crate::doctor::run(json)),
        Command::Drivers(Drivers::List { json }) => with_status(drivers::list(json)),
        Command::Drivers(Drivers::Show {
            version,
            name,
            json,
        }) => with_status(drivers::show(&version, name.as_deref(), json)),
        Command::Drivers(Drivers::Diff { from, to, json }) => {
            with_status(drivers::diff(&from, &to, json))
        }
        Command::Runtime(Runtime::Configure(options)) => {
            with_status(runtime_configuration::run(&options))
        }
        Command::Nvproxy(Nvproxy::ListSupportedDrivers) => with_status(drivers::list_versions()),
        Command::DemoGuest => with_status(crate::demo::run()),
    };
    finish(outcome)
}

/// Says what is wrong with the command line, or what it asks for: help and version are no errors.
fn refuse(error: &clap::Error) -> ExitCode {
    if let Some(line) = complaint::line(error) {
        return finish(Err(Failure::setup(line)));
    }
    let printed = match error.use_stderr() {
        // Nobody is left to tell if this cannot be printed.
        true => error.print().map(|()| SETUP).or(Ok(SETUP)),
        false => endings::taken(error.print(), "stdout").map(|()| 0),
    };
    finish(printed.map(Ending::from))
}

fn with_status(outcome: Result<u8, Failure>) -> Result<Ending, Failure> {
    outcome.map(Ending::Status)
}

fn finish(outcome: Result<Ending, Failure>) -> ExitCode {
    match outcome {
        Ok(ending) => ending.take(),
        Err(failure) => {
            log::print_last(&log::failing(&failure), log::UNTAKEN);
            ExitCode::from(failure.status)
        }
    }
}

fn about_capabilities() -> String {
    let names: Vec<&str> = Capabilities::ALL.names().collect();
    let names = names.join(", ");
    format!("What the program may ask of the driver: all, or a list of {names}")
}

/// Takes over the descriptors that the program is to have, and closes what else the caller left open.
#[allow(unsafe_code)]
fn inherit(grants: &Grants) -> Result<Vec<OwnedFd>, Failure> {
    // SAFETY: the command line was read, and nothing was opened yet.
    unsafe { descriptors::take(grants) }
}

fn run(
    arguments: Run,
    descriptors: Vec<OwnedFd>,
    record: Option<Output>,
) -> Result<Ending, Failure> {
    launch::linux::expect_new_enough()?;
    let outputs = [
        ("--out", record.as_ref().map(Output::path)),
        ("--log", arguments.log.as_deref()),
        ("--trace", arguments.trace.as_deref()),
    ];
    expect_different(&outputs, &arguments.grants.binds)?;
    let log = arguments.log.as_deref();
    let log = log.map(|path| open_log(path, &arguments.grants.binds));
    log::write_to(log.transpose()?);
    let chosen = choose(&Demand {
        choice: arguments.driver,
        gpus: arguments.gpus,
        parts: Vec::new(),
        abi: arguments.asked.driver_abi,
        capabilities: arguments.asked.driver_capabilities,
        firmware_commands: arguments.asked.firmware_commands,
        asker: Asker::CommandLine,
    })?;
    for warning in chosen.warnings() {
        tracing::warn!("{warning}");
    }
    let driver = chosen.driver;
    if arguments.driver == Choice::Auto {
        log::print(&format!("ringfence: {}\n", driver.describe()));
    }
    let trace = arguments.trace.as_deref();
    let trace = trace.map(|path| trace::Output::create(path, &arguments.grants.binds));
    let mut settings = arguments.settings.0;
    let host_memory = settings.host_memory;
    settings.host_memory = host_memory.or_else(|| Some(memory::default_for_the_driver()));
    launch::run(&launch::Options {
        driver,
        settings,
        command: arguments.command,
        grants: arguments.grants,
        descriptors,
        log: arguments.log,
        stats: arguments.stats,
        on_server_exit: arguments.on_server_exit.into(),
        name: arguments.name,
        container: None,
        record,
        trace: trace.transpose()?,
        replay: None,
    })
}

fn issue_again(arguments: Replay) -> Result<Ending, Failure> {
    inherit(&Grants::default())?;
    let log = arguments.log.as_deref();
    for read in [Some(&arguments.file), arguments.answers.as_ref()] {
        let read = read.map(PathBuf::as_path);
        expect_different(&[("the recording", read), ("--log", log)], &[])?;
    }
    log::write_to(log.map(|path| open_log(path, &[])).transpose()?);
    replay::run(&replay::Options {
        recording: arguments.file,
        answers: arguments.answers,
        driver: arguments.driver,
        json: arguments.json,
        log: arguments.log,
    })
}

fn record(arguments: Record) -> Result<Ending, Failure> {
    let kept = inherit(&arguments.run.grants)?;
    let output = Output::create(
        &arguments.out,
        arguments.keep_identifiers,
        &arguments.run.grants.binds,
    )?;
    run(arguments.run, kept, Some(output))
}

fn look_around(arguments: Survey) -> Result<Ending, Failure> {
    survey::run(&survey::Options {
        command: arguments.command,
        capabilities: arguments.asked.driver_capabilities,
        firmware_commands: arguments.asked.firmware_commands,
        abi: arguments.asked.driver_abi,
        out: arguments.out,
    })
}

fn demonstrate(arguments: &Demo) -> Result<Ending, Failure> {
    let demonstration = Run {
        driver: arguments.driver,
        asked: Asked::default(),
        gpus: Selection::All,
        settings: ServerSettings::default(),
        log: None,
        stats: true,
        trace: None,
        on_server_exit: WhenServerEnds::default(),
        grants: Grants {
            workdir: Some("/".into()),
            ..Grants::default()
        },
        name: None,
        command: vec!["/proc/self/exe".into(), "demo-guest".into()],
    };
    let kept = inherit(&demonstration.grants)?;
    run(demonstration, kept, None)
}

fn list_sandboxes(json: bool) -> Result<u8, Failure> {
    let sandboxes::Running {
        mut found,
        silent,
        elsewhere,
    } = sandboxes::list()?;
    for stopped in found.iter_mut().filter(|listed| listed.is_stopped) {
        if let Some(program) = program_of(&stopped.command) {
            stopped.command = program;
        }
    }
    for name in silent {
        log::print(&format!(
            "ringfence: sandbox {name}: its ringfence process does not answer: continue it, if it is stopped\n"
        ));
    }
    if elsewhere > 0 {
        log::print(&in_another_namespace(elsewhere));
    }
    let text = if json {
        serde_json::to_string_pretty(&found).attempt("JSON")? + "\n"
    } else {
        // Containers are called by ids of 64 characters.
        let width = found.iter().map(|listed| listed.name.to_string().len());
        let width = width.fold(16, usize::max);
        let heading = format!("{:<width$}  PROCESS  DRIVER       COMMAND\n", "NAME");
        found.iter().fold(heading, |mut text, listed| {
            let command = listed.command.join(" ");
            let command = visible::escaped(&command);
            let (name, process) = (&listed.name, listed.process);
            let driver = visible::escaped(listed.driver.as_deref().unwrap_or("stopped"));
            text.push_str(&format!(
                "{name:<width$} {process:>8}  {driver:<12} {command}\n"
            ));
            text
        })
    };
    endings::print(&text).map(|()| 0)
}

/// What is said of sandboxes that are not listed, since their launchers live in another user namespace.
fn in_another_namespace(count: usize) -> String {
    let which = match count {
        1 => "1 sandbox is".to_owned(),
        count => format!("{count} sandboxes are"),
    };
    format!(
        "ringfence: {which} in another user namespace, as containers of a rootless engine are: podman unshare ringfence ps lists those of podman\n"
    )
}

/// What a launcher with this command line runs, if it is one that is understood: it may be of another release.
fn program_of(line: &[String]) -> Option<Vec<String>> {
    let command = match Cli::try_parse_from(line).ok()?.command {
        Command::Run(arguments) => arguments.command,
        Command::Record(arguments) => arguments.run.command,
        _ => return None,
    };
    let words = command
        .iter()
        .map(|word| word.to_string_lossy().into_owned());
    Some(words.collect())
}

/// Opens what is to be a server, if it can be one.
fn open_executable(path: &Path) -> Result<File, Failure> {
    let cannot = |reason: String| {
        let path = path.display();
        Failure::setup(format!(
            "--executable {path}: {reason}: name a file that you may read and execute"
        ))
    };
    let opened = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let is_file = opened.metadata().is_ok_and(|status| status.is_file());
    if !is_file {
        return Err(cannot("it is no ordinary file".to_owned()));
    }
    access(path, AccessFlags::X_OK).map_err(|errno| cannot(errno.to_string()))?;
    Ok(opened)
}

fn upgrade(sandbox: &Name, executable: Option<&Path>) -> Result<u8, Failure> {
    let opened = match executable {
        None => File::open("/proc/self/exe").attempt("/proc/self/exe")?,
        Some(path) => open_executable(path)?,
    };
    let (name, upgrade) = sandboxes::upgrade(sandbox, opened.as_fd())?;
    endings::print(&format!(
        "{name}: server {} was replaced by {} in {:.1} ms\n",
        upgrade.from,
        upgrade.to,
        upgrade.microseconds as f64 / 1000.0
    ))
    .map(|()| 0)
}
