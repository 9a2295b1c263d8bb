//! What a measurement works with: the options, Ringfence, a directory of its own, and the progress that the user sees.

use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use indicatif::{ProgressBar, ProgressStyle};

use ringfence::driver::Kind;
use ringfence_programs::leftovers::Directory;

use crate::launch::Launch;
use crate::measure::Rounds;
use crate::options::Options;
use crate::subject::Subject;
use crate::value::NotMeasured;
use crate::ways::place::Place;
use crate::ways::{Setting, Work};

/// How much is measured of each kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Of what takes microseconds.
    pub prompt: Rounds,
    /// Of whole programs.
    pub programs: Rounds,
    /// Of whole programs that take milliseconds.
    pub brief: Rounds,
    /// Pairs of runs of programs that take long.
    pub long: usize,
    /// Requests of a throughput, in each round.
    pub requests: usize,
    /// How many sandboxes wait, and for how many seconds it is watched what they take.
    pub idle: (usize, u64),
}

impl Effort {
    const FULL: Effort = Effort {
        prompt: Rounds {
            rounds: 20,
            samples: 2_000,
            warm_up: 200,
        },
        programs: Rounds::of_programs(31),
        brief: Rounds::of_programs(201),
        long: 9,
        requests: 10_000,
        idle: (200, 10),
    };
    const QUICK: Effort = Effort {
        prompt: Rounds {
            rounds: 6,
            samples: 500,
            warm_up: 50,
        },
        programs: Rounds::of_programs(7),
        brief: Rounds::of_programs(7),
        long: 3,
        requests: 4_000,
        idle: (20, 2),
    };

    /// What the options ask for.
    pub fn of(options: &Options) -> Effort {
        let mut effort = if options.quick {
            Effort::QUICK
        } else {
            Effort::FULL
        };
        if let Some(samples) = options.samples {
            effort.prompt.samples = (samples / effort.prompt.rounds).max(1);
            effort.prompt.warm_up = effort.prompt.samples / 10;
        }
        effort
    }

    /// Of what takes microseconds in a program that is started for each turn, see [`Session::ask_anew`].
    pub fn anew(&self) -> Rounds {
        Rounds {
            warm_up: 0,
            ..self.prompt
        }
    }
}

/// What a measurement works with.
pub struct Session {
    pub effort: Effort,
    /// Which driver whole programs get, and whether what needs a GPU can be measured.
    pub driver: Kind,
    pub ringfence: PathBuf,
    /// The runsc to measure beside, if one was named.
    pub runsc: Option<PathBuf>,
    /// This executable, which is also the guest.
    pub own: PathBuf,
    pub directory: Directory,
    pub progress: ProgressBar,
    files: Cell<u32>,
    ways: OnceCell<Place>,
}

impl Session {
    pub fn new(
        options: &Options,
        driver: Kind,
        ringfence: PathBuf,
        runsc: Option<PathBuf>,
    ) -> std::io::Result<Session> {
        Ok(Session {
            effort: Effort::of(options),
            driver,
            ringfence,
            runsc,
            own: std::env::current_exe()?,
            directory: Directory::new()?,
            progress: ProgressBar::hidden(),
            files: Cell::new(0),
            ways: OnceCell::new(),
        })
    }

    /// Shows on stderr how far `what` is, where that is a terminal; else says that it has begun.
    pub fn begin(&mut self, what: &str) {
        let bar = ProgressBar::new(1);
        if bar.is_hidden() {
            eprintln!("measuring {what}");
        }
        let style =
            ProgressStyle::with_template("{msg:40!} {wide_bar} {elapsed:>4} of about {duration}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.tick();
        self.progress = bar;
    }

    /// Takes the progress off the terminal.
    pub fn end(&mut self) {
        self.progress.finish_and_clear();
    }

    /// This executable as the measured program, with these arguments.
    pub fn guest(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.own);
        command.arg("guest").args(arguments);
        command
    }

    /// The same as work that is done by ways.
    pub fn work(&self, arguments: &[&str]) -> Work {
        let own = self.own.as_os_str();
        let words = [own, "guest".as_ref()].into_iter();
        Work::new(words.chain(arguments.iter().map(AsRef::as_ref))).seeing(&self.own)
    }

    /// The ways to run a program on this machine. They are looked for when they are first asked for.
    pub fn place(&self) -> &Place {
        let setting = || Setting {
            ringfence: self.ringfence.clone(),
            runsc: self.runsc.clone(),
            driver: self.driver,
            directory: self.fresh_file("containers"),
        };
        self.ways.get_or_init(|| Place::new(setting()))
    }

    /// The programs of others by which was measured.
    pub fn others(&self) -> Vec<&Path> {
        self.ways.get().map(Place::others).unwrap_or_default()
    }

    /// `ringfence run OPTIONS... --`, in a sandbox that has this executable.
    pub fn sandbox(&self, options: &[&str]) -> Command {
        let mut bind = OsString::from(&self.own);
        bind.push("::ro");
        let mut command = Command::new(&self.ringfence);
        command
            .args(["run", "--workdir", "/", "--bind"])
            .arg(bind)
            .args(options)
            .arg("--");
        command
    }

    /// The guest in a sandbox with the simulated driver.
    pub fn sandboxed_guest(&self, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.sandbox(&[&["--driver", "sim"], options].concat());
        command.arg(&self.own).arg("guest").args(arguments);
        command
    }

    /// Starts a program that answers questions.
    pub fn subject(&self, name: &str, command: impl Into<Launch>) -> Result<Subject, NotMeasured> {
        Subject::start(name, command.into(), self.fresh_file("complaints"))
    }

    /// Starts a program that answers questions, warms it up, and asks it for so many samples. What differs from one
    /// process of a program to the next, as the processors that it happens to get, differs from round to round then, and
    /// shows in the quartiles.
    pub fn ask_anew(
        &self,
        name: &str,
        command: impl Into<Launch>,
        samples: usize,
    ) -> Result<Vec<u64>, NotMeasured> {
        let mut subject = self.subject(name, command)?;
        subject.ask(&self.effort.prompt.warm_up.max(1).to_string())?;
        subject.ask(&samples.to_string())
    }

    /// What `--driver` of `ringfence run` is called.
    pub fn driver_name(&self) -> &'static str {
        match self.driver {
            Kind::Host => "host",
            _ => "sim",
        }
    }

    /// A path in the session's directory that nothing has yet.
    pub fn fresh_file(&self, name: &str) -> PathBuf {
        let number = self.files.get();
        self.files.set(number + 1);
        self.directory.path().join(format!("{number}-{name}"))
    }
}
