//! What the ways work with: the programs that were found, and what containers need.
//!
//! Each way is tried once with a program that does nothing. What does not work on this machine then is no way here, and the
//! reason stands in its column. Ringfence's own ways have to work where what they build on does.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use nix::unistd::geteuid;
use ringfence::driver::{Kind, host_version};
use ringfence_programs::finding::find;

use super::bundle::{self, Device};
use super::launch::Launch;
use super::mounts::Mounts;
use super::{ALL, Way, Work};
use crate::session::Session;
use crate::value::{Attempt, NotMeasured};

/// The ways of a session.
pub struct Place {
    /// In the order of the table: whether there is such a way here.
    there: Vec<Result<(), NotMeasured>>,
    programs: Programs,
    containers: Option<Containers>,
}

/// What was found of others' programs.
#[derive(Debug, Default)]
struct Programs {
    bubblewrap: Option<PathBuf>,
    runc: Option<PathBuf>,
    runsc: Option<PathBuf>,
}

/// What containers are made with.
struct Containers {
    mounts: Rc<Mounts>,
    /// Where the mount namespace has the host's files.
    root: PathBuf,
    directory: PathBuf,
    /// The executable as a runtime, by a link.
    runtime: PathBuf,
    made: Cell<u32>,
}

impl Place {
    /// Finds the ways that there are for programs of the session.
    pub fn new(session: &Session) -> Place {
        let mut place = Place {
            there: Vec::new(),
            programs: Programs {
                bubblewrap: find("bwrap", &[]),
                runc: find("runc", &["/usr/sbin", "/usr/local/sbin"]),
                runsc: session.runsc.clone(),
            },
            containers: None,
        };
        for way in ALL {
            let outcome = place.examine(session, *way);
            place.there.push(outcome);
        }
        place
    }

    /// Whether programs can be run by this way here.
    pub fn has(&self, way: Way) -> Result<(), NotMeasured> {
        let outcome = self.there.get(way as usize);
        outcome.cloned().unwrap_or(Ok(()))
    }

    fn examine(&mut self, session: &Session, way: Way) -> Result<(), NotMeasured> {
        match way {
            // Whether these work every claim shows.
            Way::Native | Way::Ringfence => return Ok(()),
            Way::Bubblewrap => found(&self.programs.bubblewrap, "bwrap", "install bubblewrap")?,
            Way::Runc => found(&self.programs.runc, "runc", "install runc")?,
            Way::Runtime => self.has(Way::Runc)?,
            Way::Runsc if self.programs.runsc.is_none() => {
                return Err(NotMeasured::lacking(
                    "no runsc was named",
                    "name one with --runsc PATH",
                ));
            }
            Way::Runsc => {}
        }
        if way != Way::Bubblewrap && self.containers.is_none() {
            self.containers = Some(Containers::new(session)?);
        }
        let mut trial = Work::new(["true"]);
        trial.driver = session.driver;
        let outcome = self.launch(session, way, &trial)?.run(way.name());
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
    pub fn launch(&self, session: &Session, way: Way, work: &Work) -> Result<Launch, NotMeasured> {
        let directly = |program: &Option<PathBuf>, options: &[&str]| {
            let mut command = Command::new(program.as_deref().unwrap_or("false".as_ref()));
            command.args(options).args(&work.words);
            command
        };
        let mut command = match way {
            Way::Native => {
                let mut words = work.words.iter();
                let mut command = Command::new(words.next().unwrap_or(&OsString::new()));
                command.args(words);
                command
            }
            Way::Ringfence => in_sandbox(session, work),
            Way::Bubblewrap => {
                let options: &[&str] = match work.driver {
                    Kind::Host => &[
                        "--unshare-all",
                        "--ro-bind",
                        "/",
                        "/",
                        "--dev-bind",
                        "/dev",
                        "/dev",
                        "--proc",
                        "/proc",
                    ],
                    _ => &["--unshare-all", "--ro-bind", "/", "/"],
                };
                directly(&self.programs.bubblewrap, options)
            }
            Way::Runc | Way::Runtime | Way::Runsc => {
                let containers = self.containers.as_ref();
                let containers = containers
                    .ok_or_else(|| NotMeasured::failed(way.name(), "no place for containers"))?;
                return containers.launch(&self.programs, way, work);
            }
        };
        // In a directory that every sandbox has: one that it lacks is warned of.
        command.current_dir("/");
        Ok(command.into())
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

/// `ringfence run` with what the program has to see.
fn in_sandbox(session: &Session, work: &Work) -> Command {
    let driver = match work.driver {
        Kind::Host => "host",
        _ => "sim",
    };
    let mut command = Command::new(&session.ringfence);
    command.args(["run", "--workdir", "/", "--driver", driver]);
    for path in &work.sees {
        let mut bind = OsString::from(path);
        bind.push("::ro");
        command.arg("--bind").arg(bind);
    }
    command.arg("--").args(&work.words);
    command
}

impl Containers {
    fn new(session: &Session) -> Result<Containers, NotMeasured> {
        if !geteuid().is_root() {
            return Err(NotMeasured::lacking(
                "only root makes these containers",
                "run this as root",
            ));
        }
        let directory = session.fresh_file("containers");
        let root = directory.join("root");
        let runtime = directory.join("ringfence-runtime");
        let make = || -> io::Result<Mounts> {
            fs::create_dir_all(&root)?;
            std::os::unix::fs::symlink(&session.ringfence, &runtime)?;
            Mounts::with_root_at(&root)
        };
        let mounts = make().map_err(|error| {
            NotMeasured::lacking(
                format!("no root for containers can be mounted: {error}"),
                "run this where root may mount",
            )
        })?;
        Ok(Containers {
            mounts: Rc::new(mounts),
            root,
            directory,
            runtime,
            made: Cell::new(0),
        })
    }

    /// A container of its own for each run.
    fn launch(&self, programs: &Programs, way: Way, work: &Work) -> Result<Launch, NotMeasured> {
        let number = self.made.get();
        self.made.set(number + 1);
        let name = format!("ringfence-perf-{}-{number}", std::process::id());
        let bundle = self.directory.join(&name);
        let devices: Vec<Device> = match (work.driver, way) {
            (Kind::Host, _) => bundle::of_host().attempt("/dev")?,
            // Without one the container would not be Ringfence's.
            (_, Way::Runtime) => vec![bundle::simulated()],
            _ => Vec::new(),
        };
        let specification = bundle::specification(work, &self.root, &devices).to_string();
        fs::create_dir(&bundle).attempt("a bundle")?;
        fs::write(bundle.join("config.json"), specification).attempt("a bundle")?;
        let mut command = match way {
            Way::Runtime => self.by_ringfence(programs, work).attempt("settings")?,
            Way::Runsc => by_runsc(programs, work),
            _ => Command::new(programs.runc.as_deref().unwrap_or("runc".as_ref())),
        };
        command
            .arg("--root")
            .arg(self.directory.join(format!("state-{}", way.name())))
            .args(["run", "--bundle"])
            .arg(bundle)
            .arg(name);
        Ok(Launch {
            command,
            mounts: Some(Rc::clone(&self.mounts)),
        })
    }

    /// With settings of this tool's, whatever those of the machine are.
    fn by_ringfence(&self, programs: &Programs, work: &Work) -> io::Result<Command> {
        let driver = match work.driver {
            Kind::Host => "host",
            _ => "sim",
        };
        let settings = self.directory.join(format!("{driver}.toml"));
        if !settings.exists() {
            let low_level = programs.runc.as_deref().unwrap_or("runc".as_ref());
            let log = self.directory.join("messages");
            // A string of TOML's basic kind is written as Rust's are, for paths that are text.
            let text = format!(
                "[runtime]\nlow-level = {:?}\ndriver = \"{driver}\"\nlog = {:?}\n",
                low_level.to_string_lossy(),
                log.to_string_lossy()
            );
            fs::write(&settings, text)?;
        }
        let mut command = Command::new(&self.runtime);
        command.env("RINGFENCE_CONFIG", settings);
        Ok(command)
    }
}

fn by_runsc(programs: &Programs, work: &Work) -> Command {
    let mut command = Command::new(programs.runsc.as_deref().unwrap_or("runsc".as_ref()));
    // By default it would write a file into the root, which is the host's.
    command.args(["--overlay2=none", "--network=none", "--ignore-cgroups"]);
    if work.driver == Kind::Host {
        command.arg("--nvproxy");
        if let Some(version) = host_version() {
            command.arg(format!("--nvproxy-driver-version={version}"));
        }
    }
    command
}
