//! The command: reads the options, measures, and reports.

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ringfence::driver::{self, Demand, Kind};
use ringfence_perf::command_line::{self, Asked};
use ringfence_perf::machine::Machine;
use ringfence_perf::options::Options;
use ringfence_perf::report::{Entry, Report, page, terminal};
use ringfence_perf::session::Session;
use ringfence_perf::value::NotMeasured;
use ringfence_perf::{claims, guest};
use ringfence_programs::leftovers;

/// The exit status if a bar was missed, with `--check`.
const MISSED: u8 = 1;
/// The exit status if nothing could be measured, or a result could not be written.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    match command_line::parse(env::args_os()) {
        Ok(Asked::Guest(arguments)) => guest::run(&arguments),
        Ok(Asked::Measure { claim, options }) => match measure(claim, &options) {
            Ok(status) => ExitCode::from(status),
            Err(reason) => {
                eprintln!("ringfence-perf: {reason}");
                ExitCode::from(FAILED)
            }
        },
        Err(error) => {
            // Nobody is left to tell if this cannot be printed.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { FAILED } else { 0 })
        }
    }
}

fn measure(only: Option<&str>, options: &Options) -> Result<u8, String> {
    leftovers::heed_signals().map_err(|error| format!("signals: {error}"))?;
    let ringfence = ringfence(options)?;
    let demand = Demand {
        choice: options.driver,
        ..Demand::default()
    };
    let chosen = driver::choose(&demand).map_err(|failure| failure.to_string())?;
    // Before anything is measured, lest what took minutes has nowhere to go.
    let outputs = Outputs::create(options)?;
    let mut session = Session::new(options, chosen.driver.kind, ringfence, runsc(options)?)
        .map_err(|error| format!("a directory for temporary files: {error}"))?;
    let mut machine = Machine::examine(&session.ringfence);
    let chosen = claims::ALL
        .iter()
        .filter(|claim| only.is_none_or(|name| claim.name == name));
    let entries = chosen
        .map(|claim| {
            session.begin(claim.name);
            let outcome = if claim.needs_gpu && session.driver != Kind::Host {
                Err(no_gpu())
            } else {
                (claim.measure)(&mut session)
            };
            session.end();
            Entry::new(claim, outcome, options.slack)
        })
        .collect();
    machine.finish(&session.others());
    let report = Report {
        machine,
        quick: options.quick,
        slack: options.slack,
        claims: entries,
    };
    outputs.publish(&report)?;
    Ok(match report.passes() {
        _ if !report.has_values() => FAILED,
        false if options.check => MISSED,
        _ => 0,
    })
}

fn no_gpu() -> NotMeasured {
    NotMeasured::lacking(
        "this takes a GPU and NVIDIA's driver",
        "run it on a machine that has them, without --driver sim",
    )
}

/// The files that results are written to.
struct Outputs<'a> {
    json: Option<Output<'a>>,
    html: Option<Output<'a>>,
}

impl Outputs<'_> {
    fn create(options: &Options) -> Result<Outputs<'_>, String> {
        Ok(Outputs {
            json: Output::create("--json", &options.json)?,
            html: Output::create("--html", &options.html)?,
        })
    }

    /// Prints the table, and writes the files.
    fn publish(self, report: &Report) -> Result<(), String> {
        print!("{}", terminal::table(report));
        if let Some(output) = self.json {
            let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
            output.write(&(text + "\n"))?;
        }
        if let Some(output) = self.html {
            output.write(&page::page(report))?;
        }
        Ok(())
    }
}

struct Output<'a> {
    /// What names it on the command line.
    option: &'static str,
    path: &'a Path,
    file: File,
}

impl Output<'_> {
    /// Makes the file, if one was asked for.
    fn create<'a>(
        option: &'static str,
        path: &'a Option<PathBuf>,
    ) -> Result<Option<Output<'a>>, String> {
        let Some(path) = path else {
            return Ok(None);
        };
        let created = File::create(path);
        let file = created.map_err(|error| format!("{option} {}: {error}", path.display()))?;
        Ok(Some(Output { option, path, file }))
    }

    fn write(mut self, text: &str) -> Result<(), String> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| format!("{} {}: {error}", self.option, self.path.display()))
    }
}

/// The executable that is measured: the one that was named; or under `cargo run`, which would leave an older one as it
/// is, the one that cargo builds; or the one beside this program.
fn ringfence(options: &Options) -> Result<PathBuf, String> {
    if let Some(path) = &options.ringfence {
        let found = path.canonicalize();
        return found.map_err(|error| format!("--ringfence {}: {error}", path.display()));
    }
    let own = env::current_exe().map_err(|error| error.to_string())?;
    let directory = own.parent().ok_or("this program lies nowhere")?;
    let beside = directory.join("ringfence");
    if let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR"))
    {
        build(Path::new(&cargo), Path::new(&manifest), directory)?;
    }
    if beside.is_file() {
        Ok(beside)
    } else {
        Err(format!(
            "{} is not there: build it with `cargo build --release`, or name one with --ringfence PATH",
            beside.display()
        ))
    }
}

/// The runsc that was named, as it is called from anywhere.
fn runsc(options: &Options) -> Result<Option<PathBuf>, String> {
    let Some(path) = &options.runsc else {
        return Ok(None);
    };
    let found = path.canonicalize().map(Some);
    found.map_err(|error| format!("--runsc {}: {error}", path.display()))
}

/// Has cargo bring `ringfence` in this directory up to date.
fn build(cargo: &Path, manifest: &Path, directory: &Path) -> Result<(), String> {
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    // `.cargo/config.toml` names a target, which has a directory of its own.
    let target = directory.ancestors().nth(2).ok_or("no target directory")?;
    let status = Command::new(cargo)
        .args(["build", "--package", "ringfence", "--bin", "ringfence"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(manifest.join("Cargo.toml"))
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("building ringfence: {status}")),
        Err(error) => Err(format!("{}: {error}", cargo.display())),
    }
}
