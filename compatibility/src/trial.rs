//! One program: built, run outside, run inside, and run under a survey.
//!
//! It runs in the same folder each time, which the sandbox has, too. Inside it is run with `--trace`, which has every request and
//! its answer. What goes wrong with one program is what came of it, and no reason not to try the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nvproxy_abi::Abi;
use ringfence::driver::Kind;
use ringfence_programs::leftovers::Directory;
use ringfence_programs::running::{End, Ran, run, run_all, run_and};

use crate::command_line::WATCHED;
use crate::outside;
use crate::programs::{Compare, Need, Program};
use crate::refusals::Refusals;
use crate::scrub::Scrub;
use crate::seen::{SUCCESS, Side, Tried};
use crate::surveys::{Finding, Survey};

/// How long a build may take.
const BUILD: Duration = Duration::from_secs(600);
/// How many lines are kept of what was printed, and of what was complained of.
const PRINTED: usize = 8;
const COMPLAINED: usize = 4;
/// And how many characters of each.
const WIDTH: usize = 200;
/// Options of `ringfence run` that `ringfence survey` has, too.
const OF_SURVEYS: [&str; 3] = [
    "--driver-capabilities",
    "--firmware-commands",
    "--driver-abi",
];

/// What programs are tried with.
pub struct Bench {
    pub ringfence: PathBuf,
    /// This executable, which becomes each program that is watched.
    pub own: PathBuf,
    /// Where programs are, and run.
    pub work: PathBuf,
    pub driver: Kind,
    /// Where the driver's nodes are.
    pub devices: PathBuf,
    pub abi: &'static Abi,
    pub scrub: Scrub,
    /// For what is read and not kept.
    pub directory: Directory,
}

/// By the lines that build programs, why they have not.
pub type Built = BTreeMap<String, String>;

/// A program on one side.
struct Run {
    ran: Ran,
    refusals: Option<Refusals>,
}

impl Bench {
    /// Tries a program, of which `built` says why it could not be built if that is so.
    pub fn try_program(&self, program: &Program, built: &Built) -> Tried {
        let mut tried = self.described(program);
        let unbuilt = || built.get(program.build.as_ref()?).cloned();
        let lacking = program.lacking().or_else(unbuilt);
        tried.not_run = lacking.map(|reason| self.scrub.text(&reason));
        if tried.not_run.is_none()
            && let Err(error) = self.run(program, &mut tried)
        {
            tried.failed = Some(self.scrub.text(&error));
        }
        tried
    }

    fn described(&self, program: &Program) -> Tried {
        Tried {
            name: program.name.clone(),
            shows: program.shows.clone(),
            build: program.build.clone(),
            command: program.command.shown(),
            options: program.options.clone(),
            compared: program.compare.shown(),
            because: program.because.clone(),
            not_run: None,
            failed: None,
            equal: None,
            notes: Vec::new(),
            outside: None,
            inside: None,
            survey: None,
            survey_unreadable: 0,
            survey_failed: None,
            refused: None,
        }
    }

    /// Builds all programs that are not there yet, at the same time.
    pub fn build(&self, programs: &[Program]) -> Built {
        let mut built = Built::new();
        let mut lines = BTreeSet::new();
        for program in programs
            .iter()
            .filter(|program| program.lacking().is_none())
        {
            let is_there = |name: &String| self.work.join(name).exists();
            let Some(line) = &program.build else {
                continue;
            };
            if program.makes.as_ref().is_some_and(is_there) {
                continue;
            }
            match program.build_needs.iter().find_map(Need::lacking) {
                Some(lacking) => drop(built.insert(line.clone(), lacking)),
                None => drop(lines.insert(line)),
            }
        }
        let command = |line: &&String| {
            let mut command = self.command("sh");
            command.args(["-c", line.as_str()]);
            command
        };
        let mut commands: Vec<Command> = lines.iter().map(command).collect();
        match run_all(&mut commands, BUILD) {
            Ok(ran) => built.extend(lines.into_iter().zip(&ran).filter_map(not_built)),
            Err(error) => {
                let reason = format!("building: {error}");
                built.extend(lines.into_iter().map(|line| (line.clone(), reason.clone())));
            }
        }
        built
    }

    fn run(&self, program: &Program, tried: &mut Tried) -> Result<(), String> {
        let failed = |what: &str, error: io::Error| format!("{what}: {error}");
        let outside = match program.outside {
            true => {
                let outside = self.outside(program, tried);
                Some(outside.map_err(|it| failed("outside", it))?)
            }
            false => None,
        };
        // Each run is told of before the next is begun, which may fail.
        let alone = |run: &Run| self.side(program, &run.ran, None);
        tried.outside = outside.as_ref().map(alone);
        let inside = self.inside(program, tried);
        let inside = inside.map_err(|it| failed("inside", it))?;
        self.tell(program, tried, outside.as_ref(), &inside);
        if program.survey && self.driver == Kind::Host {
            let refusals = outside.as_ref().and_then(|run| run.refusals.as_ref());
            self.survey(program, tried, refusals);
        }
        Ok(())
    }

    /// Puts down what came of both runs.
    fn tell(&self, program: &Program, tried: &mut Tried, outside: Option<&Run>, inside: &Run) {
        if let Some(refusals) = &inside.refusals {
            let beside = outside.and_then(|run| run.refusals.as_ref());
            tried.refused = Some(refusals.beyond(beside));
        }
        tried.equal = outside.map(|outside| are_equal(program, &outside.ran, &inside.ran));
        let differs = tried.equal == Some(false);
        let of = |run: &Run, other: Option<&Run>| {
            let other = other.filter(|_| differs);
            self.side(program, &run.ran, other.map(|run| &run.ran))
        };
        tried.outside = outside.map(|run| of(run, Some(inside)));
        tried.inside = Some(of(inside, outside));
    }

    /// Tells who waits how long a run took.
    fn told(&self, what: &str, ran: io::Result<Ran>) -> io::Result<Ran> {
        if let Ok(ran) = &ran {
            eprint!("{what} {:.1} s, ", ran.took.as_secs_f64());
        }
        ran
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.work);
        command
    }

    fn outside(&self, program: &Program, tried: &mut Tried) -> io::Result<Run> {
        if program.watched {
            match self.watched(program) {
                // Some containers have no ptrace(2).
                Err(error) => {
                    let error = self.scrub.text(&error.to_string());
                    let note = format!("Nobody could watch its requests outside: {error}.");
                    tried.notes.push(note);
                }
                run => return run,
            }
        }
        let words = program.command.words();
        let (first, rest) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let ran = run(self.command(first).args(rest), limit(program));
        Ok(Run {
            ran: self.told("outside", ran)?,
            refusals: None,
        })
    }

    fn watched(&self, program: &Program) -> io::Result<Run> {
        let mut command = self.command(&self.own);
        command.arg(WATCHED).arg("--").args(program.command.words());
        let mut refusals = Refusals::default();
        let ran = run_and(&mut command, limit(program), |child| {
            outside::watch(child, self.abi, &self.devices, &mut refusals)
        });
        Ok(Run {
            ran: self.told("outside", ran)?,
            refusals: Some(refusals),
        })
    }

    fn inside(&self, program: &Program, tried: &mut Tried) -> io::Result<Run> {
        let trace = self.directory.path().join("trace");
        let _ = fs::remove_file(&trace);
        let driver = match self.driver {
            Kind::Host => "host",
            Kind::Simulated | Kind::Recorded => "sim",
        };
        let mut command = self.command(&self.ringfence);
        command
            .args(["run", "--driver", driver, "--bind"])
            .arg(&self.work)
            .arg("--workdir")
            .arg(&self.work)
            .arg("--trace")
            .arg(&trace)
            .args(&program.options)
            .arg("--")
            .args(program.command.words());
        let ran = self.told("inside", run(&mut command, limit(program)))?;
        let text = fs::read_to_string(&trace).map_err(|error| error.to_string());
        let refusals = match text.and_then(|text| Refusals::of_trace(&text)) {
            Ok(refusals) => {
                if refusals.incomplete {
                    tried.notes.push("The trace lacks requests.".to_owned());
                }
                Some(refusals)
            }
            Err(_) => {
                tried
                    .notes
                    .push("There is no trace of its requests.".to_owned());
                None
            }
        };
        Ok(Run { ran, refusals })
    }

    /// Puts down what a sandbox would refuse, or why that is not known. What the driver has refused outside as often is a note.
    fn survey(&self, program: &Program, tried: &mut Tried, outside: Option<&Refusals>) {
        match self.surveyed(program, tried) {
            Ok(survey) => {
                let by_the_driver = |finding: &&Finding| {
                    outside.is_some_and(|outside| finding.is_refused_outside(outside))
                };
                let (refused, found): (Vec<_>, Vec<_>) =
                    survey.refused.iter().partition(by_the_driver);
                let line = |finding: &Finding| self.scrub.text(&finding.line());
                tried.notes.extend(refused.into_iter().map(|finding| {
                    let line = line(finding);
                    format!("The survey found what the driver refuses outside as often: {line}.")
                }));
                tried.survey = Some(found.into_iter().map(line).collect());
                tried.survey_unreadable = survey.unreadable;
            }
            Err(reason) => tried.survey_failed = Some(self.scrub.text(&reason)),
        }
    }

    fn surveyed(&self, program: &Program, tried: &mut Tried) -> Result<Survey, String> {
        let out = self.directory.path().join("survey");
        let _ = fs::remove_file(&out);
        let mut command = self.command(&self.ringfence);
        command
            .arg("survey")
            .args(options_of_survey(&program.options))
            .arg("--out")
            .arg(&out)
            .arg("--")
            .args(program.command.words());
        let ran = self.told("survey", run(&mut command, limit(program)));
        let ran = ran.map_err(|error| error.to_string())?;
        let text = fs::read_to_string(&out).map_err(|error| error.to_string());
        let survey = text.and_then(|text| Survey::parse(&text));
        let survey = survey.map_err(|error| {
            let complaint = last_lines(&ran.stderr, 1).pop();
            format!("{}: {}", ended(ran.end), complaint.unwrap_or(error))
        })?;
        if ran.end != End::Status(0) {
            let note = format!("Under the survey it ended with {}.", ended(ran.end));
            tried.notes.push(note);
        }
        Ok(survey)
    }

    /// What is told of a side: of one that differs from another, what that has not.
    fn side(&self, program: &Program, ran: &Ran, other: Option<&Ran>) -> Side {
        let compared = |ran: &Ran| program.compare.of(&String::from_utf8_lossy(&ran.stdout));
        let mut printed = compared(ran);
        if let Some(other) = other {
            printed = without(printed, &compared(other));
        }
        let ended = ended(ran.end);
        let complained = match ended == SUCCESS {
            true => Vec::new(),
            false => last_lines(&ran.stderr, COMPLAINED),
        };
        Side {
            ended,
            printed: self.shortened(printed),
            complained: self.shortened(complained),
        }
    }

    fn shortened(&self, lines: Vec<String>) -> Vec<String> {
        let further = lines.len().saturating_sub(PRINTED);
        let first = lines.into_iter().take(PRINTED);
        let shorten = |line: String| {
            let line = self.scrub.text(line.trim_end());
            let visible = line.chars().filter(|character| !character.is_control());
            visible.take(WIDTH).collect()
        };
        let mut kept: Vec<String> = first.map(shorten).collect();
        if further > 0 {
            kept.push(format!("... and {further} more lines"));
        }
        kept
    }
}

/// Why a line has not built what it was to, if so.
fn not_built((line, ran): (&String, &Ran)) -> Option<(String, String)> {
    let complaint = || {
        let text = String::from_utf8_lossy(&ran.stderr);
        let error = text.lines().find(|line| line.contains("error"));
        error.map_or_else(|| last_lines(&ran.stderr, 1).join(""), str::to_owned)
    };
    let reason = || format!("it could not be built: {}: {}", ended(ran.end), complaint());
    (ran.end != End::Status(0)).then(|| (line.clone(), reason()))
}

fn limit(program: &Program) -> Duration {
    Duration::from_secs(program.timeout)
}

/// Whether a program did the same. One that succeeds has to have printed something that is compared, if anything is.
fn are_equal(program: &Program, outside: &Ran, inside: &Ran) -> bool {
    let is_late = matches!(outside.end, End::Late(_));
    let says_nothing = || match &program.compare {
        Compare::Lines(_) => {
            let printed = String::from_utf8_lossy(&outside.stdout);
            outside.end == End::Status(0) && program.compare.of(&printed).is_empty()
        }
        Compare::Output | Compare::Status => false,
    };
    !is_late
        && ended(outside.end) == ended(inside.end)
        && program.compare.equal(&outside.stdout, &inside.stdout)
        && !says_nothing()
}

/// How a program ended, in words. A sandbox's end by a signal is told as a status, so that of a program is, too.
fn ended(end: End) -> String {
    match end {
        End::Status(status) => format!("status {status}"),
        End::Signal(signal) => format!("status {}", 128 + signal),
        End::Late(limit) => format!("killed after {} s", limit.as_secs()),
    }
}

fn last_lines(bytes: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(count);
    lines
        .iter()
        .skip(first)
        .map(|line| (*line).to_owned())
        .collect()
}

/// The lines that `other` does not have, or not so often.
fn without(lines: Vec<String>, other: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for line in other {
        *counts.entry(line).or_default() += 1;
    }
    let is_missing = |line: &String| match counts.get_mut(line) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    lines.into_iter().filter(is_missing).collect()
}

/// Those of the options of a run that a survey has, too.
fn options_of_survey(options: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if OF_SURVEYS.contains(&name) {
            kept.push(option.clone());
            if value.is_empty() {
                kept.extend(rest.next().cloned());
            }
        }
    }
    kept
}

/// Copies the sources of programs to where they are built, those that are not there as they are.
pub fn copy_sources(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_file() {
            let content = fs::read(&path)?;
            if fs::read(&copy).ok().as_ref() != Some(&content) {
                fs::write(&copy, content)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_survey_gets_the_options_that_it_has() {
        let options = strings(&[
            "--net",
            "--driver-capabilities",
            "graphics,compute",
            "--env",
            "A=B",
            "--firmware-commands=listed",
        ]);
        let kept = [
            "--driver-capabilities",
            "graphics,compute",
            "--firmware-commands=listed",
        ];
        assert_eq!(options_of_survey(&options), kept);
    }

    #[test]
    fn what_differs_is_what_the_other_has_not() {
        let (one, other) = (strings(&["a", "b", "b", "c"]), strings(&["c", "b"]));
        assert_eq!(without(one, &other), ["a", "b"]);
    }
}
