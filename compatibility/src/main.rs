//! The command: reads the options, runs programs, and prints tables.

#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use nvproxy_abi::Abi;
use nvproxy_abi::policy::Capabilities;
use ringfence::driver::{self, Chosen, Demand};
use ringfence_compatibility::command_line::{Arguments, Asked, RunArguments, TableArguments};
use ringfence_compatibility::document::{self, Sources};
use ringfence_compatibility::machine::{Machine, today};
use ringfence_compatibility::programs::Program;
use ringfence_compatibility::reasons::Reasons;
use ringfence_compatibility::scrub::Scrub;
use ringfence_compatibility::seen::{Seen, Tried, Verdict};
use ringfence_compatibility::trial::{Bench, copy_sources};
use ringfence_compatibility::{outside, programs, summary};
use ringfence_programs::leftovers;

/// The exit status if there is something to look into.
const DIFFERENT: u8 = 1;
/// The exit status if nothing could be run, or a result not be written.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let done = match Arguments::parse().asked {
        Asked::Run(arguments) => run(&arguments),
        Asked::Table(arguments) => table(&arguments),
        Asked::Watched { command } => {
            let (status, reason) = outside::become_program(&command);
            eprintln!("{reason}");
            Ok(status)
        }
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(reason) => {
            eprintln!("ringfence-compatibility: {reason}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: &RunArguments) -> Result<u8, String> {
    leftovers::heed_signals().map_err(|error| format!("signals: {error}"))?;
    let table = read(&arguments.programs)?;
    let in_table = |error| format!("{}: {error}", arguments.programs.display());
    let all = programs::parse(&table).map_err(in_table)?;
    let chosen = programs::select(all, &arguments.only)?;
    let driver = driver::choose(&Demand {
        choice: arguments.driver,
        ..Demand::default()
    });
    let driver = driver.map_err(|failure| failure.to_string())?;
    let bench = bench(arguments, &driver)?;
    let sources = programs::sources(&arguments.programs);
    copy_sources(&sources, &bench.work)
        .map_err(|error| format!("{}: {error}", sources.display()))?;
    let mut seen = seen(&bench, &driver);
    if !arguments.only.is_empty() {
        seen.programs = kept(&arguments.out, &seen, &chosen);
    }
    let kept = seen.programs.len();
    // Before anything is run, lest what took minutes has nowhere to go.
    let mut out = File::create(&arguments.out).map_err(|error| out_of(arguments, &error))?;
    write(&mut out, &seen).map_err(|error| out_of(arguments, &error))?;
    let built = bench.build(&chosen);
    for program in &chosen {
        eprint!("{}: ", program.name);
        let tried = bench.try_program(program, &built);
        eprintln!("{}", tried.result().replace('*', ""));
        seen.programs.push(tried);
        // Whoever is ended before the last one has the others.
        write(&mut out, &seen).map_err(|error| out_of(arguments, &error))?;
    }
    let ran = seen.programs.get(kept..).unwrap_or_default();
    print!("{}", summary::table(ran));
    Ok(status(ran))
}

/// The results of programs that are not run this time, if there are any of the same day, machine and Ringfence.
fn kept(out: &Path, now: &Seen, chosen: &[Program]) -> Vec<Tried> {
    let before = fs::read_to_string(out).ok();
    let before = before.and_then(|text| Seen::parse(&text).ok());
    let head = |seen: &Seen| {
        let Seen {
            date,
            ringfence,
            driver,
            gpu,
            architecture,
            programs: _,
        } = seen;
        [date, ringfence, driver, gpu, architecture].map(String::clone)
    };
    let before = before.filter(|before| head(before) == head(now));
    let programs = before.map(|before| before.programs);
    let mut programs = programs.unwrap_or_default();
    programs.retain(|tried| chosen.iter().all(|program| program.name != tried.name));
    programs
}

/// The exit status: what was not run tells nothing, neither good nor bad.
fn status(programs: &[Tried]) -> u8 {
    let was_run = |tried: &Tried| tried.verdict() != Verdict::NotRun;
    match programs.iter().all(Tried::is_as_it_should_be) {
        false => DIFFERENT,
        true if programs.iter().any(was_run) => 0,
        true => FAILED,
    }
}

fn bench(arguments: &RunArguments, driver: &Chosen) -> Result<Bench, String> {
    let named = |option: &str, path: &Path| {
        let found = path.canonicalize();
        found.map_err(|error| format!("{option} {}: {error}", path.display()))
    };
    fs::create_dir_all(&arguments.work)
        .map_err(|error| format!("--work {}: {error}", arguments.work.display()))?;
    let work = named("--work", &arguments.work)?;
    let tables = driver.driver.tables;
    Ok(Bench {
        ringfence: named("--ringfence", &arguments.ringfence)?,
        own: env::current_exe().map_err(|error| format!("this program: {error}"))?,
        scrub: Scrub::new(&work)?,
        work,
        driver: driver.driver.kind,
        devices: arguments.devices.clone(),
        abi: Abi::of_release(&tables, Capabilities::ALL).map_err(|error| error.to_string())?,
        directory: leftovers::Directory::new()
            .map_err(|error| format!("a directory for temporary files: {error}"))?,
    })
}

fn seen(bench: &Bench, driver: &Chosen) -> Seen {
    let Machine {
        driver,
        gpu,
        architecture,
    } = Machine::examine(driver);
    Seen {
        date: today(),
        ringfence: version(&bench.ringfence),
        driver,
        gpu,
        architecture,
        programs: Vec::new(),
    }
}

/// What `ringfence --version` says.
fn version(ringfence: &Path) -> String {
    let mut command = Command::new(ringfence);
    let output = command.arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let version = text.trim().rsplit(' ').next().unwrap_or_default();
    match version {
        "" => "unknown".to_owned(),
        version => version.to_owned(),
    }
}

/// Writes the results in the place of what is in the file.
fn write(out: &mut File, seen: &Seen) -> Result<(), String> {
    let text = seen.text()?;
    let written = out
        .set_len(0)
        .and_then(|()| out.rewind())
        .and_then(|()| out.write_all(text.as_bytes()));
    written.map_err(|error| error.to_string())
}

fn out_of(arguments: &RunArguments, error: &dyn std::fmt::Display) -> String {
    format!("--out {}: {error}", arguments.out.display())
}

fn table(arguments: &TableArguments) -> Result<u8, String> {
    let mut sources = Sources::default();
    for path in &arguments.files {
        let text = read(path)?;
        let name = path.to_string_lossy();
        sources.add(&name, &text)?;
    }
    let reasons = reasons_file(arguments).map(|path| {
        let parsed = Reasons::parse(&read(&path)?);
        parsed.map_err(|error| format!("{}: {error}", path.display()))
    });
    sources.reasons = reasons.transpose()?.unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    let document = document::document(&sources);
    let printed = stdout.write_all(document.as_bytes());
    printed.map_err(|error| format!("the document: {error}"))?;
    Ok(0)
}

/// The file with reasons: the one that was named, or the one beside the folder of the results.
fn reasons_file(arguments: &TableArguments) -> Option<PathBuf> {
    let beside = || {
        let folder = arguments.files.first()?.parent()?;
        let path = folder.join("..").join("reasons.toml");
        path.exists().then_some(path)
    };
    arguments.reasons.clone().or_else(beside)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
