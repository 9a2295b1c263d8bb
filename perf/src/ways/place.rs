//! What the ways work with: the programs that were found, and which ways there are.
//!
//! Each way is tried once with a program that does nothing. What does not work on this machine then is no way here, and the
//! reason stands in its column. Ringfence's own ways have to work where what they build on does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringfence::driver::Kind;
use ringfence_programs::finding::find;

use super::containers::Containers;
use super::{ALL, Setting, Way, Work, driver_name};
use crate::launch::Launch;
use crate::value::NotMeasured;

/// The ways of a session.
pub struct Place {
    /// In the order of the table: whether there is such a way here.
    there: Vec<Result<(), NotMeasured>>,
    setting: Setting,
    bubblewrap: Option<PathBuf>,
    runc: Option<PathBuf>,
    containers: Option<Containers>,
}

impl Place {
    /// Finds the ways that there are.
    pub fn new(setting: Setting) -> Place {
        let mut place = Place {
            there: Vec::new(),
            setting,
            bubblewrap: find("bwrap", &[]),
            runc: find("runc", &[]),
            containers: None,
        };
        for way in ALL {
            let outcome = place.examine(*way);
            place.there.push(outcome);
        }
        place
    }

    /// Whether programs can be run by this way here.
    pub fn has(&self, way: Way) -> Result<(), NotMeasured> {
        let outcome = self.there.get(way as usize);
        outcome.cloned().unwrap_or(Ok(()))
    }

    /// The programs of others that there are.
    pub fn others(&self) -> Vec<&Path> {
        let programs = [&self.bubblewrap, &self.runc, &self.setting.runsc].into_iter();
        programs.flatten().map(PathBuf::as_path).collect()
    }

    fn examine(&mut self, way: Way) -> Result<(), NotMeasured> {
        match way {
            // Whether these work every claim shows.
            Way::Native | Way::Ringfence => return Ok(()),
            Way::Bubblewrap => found(&self.bubblewrap, "bwrap", "install bubblewrap")?,
            Way::Runc => found(&self.runc, "runc", "install runc")?,
            Way::Runtime => self.has(Way::Runc)?,
            Way::Runsc if self.setting.runsc.is_none() => {
                return Err(NotMeasured::lacking(
                    "no runsc was named",
                    "name one with --runsc PATH",
                ));
            }
            Way::Runsc => {}
        }
        if way != Way::Bubblewrap && self.containers.is_none() {
            self.containers = Some(Containers::new(&self.setting, self.runc.as_deref())?);
        }
        let mut trial = Work::new(["true"]);
        trial.driver = self.setting.driver;
        let outcome = self.launch(way, &trial)?.run(way.name());
        match outcome {
            Ok(_) => Ok(()),
            // By runc a container works here, so this one has to as well.
            Err(reason) if way == Way::Runtime => Err(reason),
            Err(reason) => Err(NotMeasured::lacking(
                format!("it does not run here: {}", reason.reason),
                "see whether it runs by hand",
            )),
        }
    }

    /// A program as it is run by this way, once.
    pub fn launch(&self, way: Way, work: &Work) -> Result<Launch, NotMeasured> {
        let mut command = match way {
            Way::Native => {
                let mut words = work.words.iter();
                let mut command = Command::new(words.next().unwrap_or(&OsString::new()));
                command.args(words);
                command
            }
            Way::Ringfence => self.in_sandbox(work),
            Way::Bubblewrap => {
                let program = self.bubblewrap.as_deref();
                let mut command = Command::new(program.unwrap_or("bwrap".as_ref()));
                command.args(["--unshare-all", "--ro-bind", "/", "/"]);
                if work.driver == Kind::Host {
                    command.args(["--dev-bind", "/dev", "/dev", "--proc", "/proc"]);
                }
                command.args(&work.words);
                command
            }
            Way::Runc | Way::Runtime | Way::Runsc => {
                let containers = self.containers.as_ref();
                let containers = containers
                    .ok_or_else(|| NotMeasured::failed(way.name(), "no place for containers"))?;
                return containers.launch(way, work);
            }
        };
        // In a directory that every sandbox has: one that it lacks is warned of.
        command.current_dir("/");
        Ok(command.into())
    }

    /// `ringfence run` with what the program has to see.
    fn in_sandbox(&self, work: &Work) -> Command {
        let mut command = Command::new(&self.setting.ringfence);
        command.args([
            "run",
            "--workdir",
            "/",
            "--driver",
            driver_name(work.driver),
        ]);
        for path in &work.sees {
            let mut bind = OsString::from(path);
            bind.push("::ro");
            command.arg("--bind").arg(bind);
        }
        command.arg("--").args(&work.words);
        command
    }
}

fn found(program: &Option<PathBuf>, name: &str, remedy: &str) -> Result<(), NotMeasured> {
    match program {
        Some(_) => Ok(()),
        None => Err(NotMeasured::lacking(
            format!("{name} was not found"),
            remedy,
        )),
    }
}
