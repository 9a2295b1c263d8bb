//! How containers are started: each from a bundle of its own, in a mount namespace in which the host's files are their root.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use nix::unistd::geteuid;
use ringfence::driver::{Kind, host_version};

use super::bundle::{self, Device};
use super::{Setting, Way, Work, driver_name};
use crate::launch::Launch;
use crate::mounts::Mounts;
use crate::value::{Attempt, NotMeasured};

/// What containers are made with.
pub struct Containers {
    mounts: Rc<Mounts>,
    directory: PathBuf,
    runc: PathBuf,
    runsc: PathBuf,
    made: Cell<u32>,
}

impl Containers {
    /// Makes the directory of the setting, and the namespace. The low-level runtime is `runc`.
    pub fn new(setting: &Setting, runc: Option<&Path>) -> Result<Containers, NotMeasured> {
        if !geteuid().is_root() {
            return Err(NotMeasured::lacking(
                "only root makes these containers",
                "run this as root",
            ));
        }
        let directory = setting.directory.clone();
        let make = || -> io::Result<Mounts> {
            fs::create_dir_all(directory.join(ROOT))?;
            std::os::unix::fs::symlink(&setting.ringfence, directory.join(RUNTIME))?;
            Mounts::with_root_at(&directory.join(ROOT))
        };
        let mounts = make().map_err(|error| {
            NotMeasured::lacking(
                format!("no root for containers can be mounted: {error}"),
                "run this where root may mount",
            )
        })?;
        Ok(Containers {
            mounts: Rc::new(mounts),
            directory,
            runc: runc.unwrap_or("runc".as_ref()).to_owned(),
            runsc: setting.runsc.clone().unwrap_or_else(|| "runsc".into()),
            made: Cell::new(0),
        })
    }

    /// A container that runs this once.
    pub fn launch(&self, way: Way, work: &Work) -> Result<Launch, NotMeasured> {
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
        let specification = bundle::specification(work, &self.directory.join(ROOT), &devices);
        fs::create_dir(&bundle).attempt("a bundle")?;
        let written = fs::write(bundle.join("config.json"), specification.to_string());
        written.attempt("a bundle")?;
        let mut command = match way {
            Way::Runtime => self.by_ringfence(work).attempt("settings")?,
            Way::Runsc => self.by_runsc(work),
            _ => Command::new(&self.runc),
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
    fn by_ringfence(&self, work: &Work) -> io::Result<Command> {
        let driver = driver_name(work.driver);
        let settings = self.directory.join(format!("{driver}.toml"));
        if !settings.exists() {
            let log = self.directory.join("messages");
            // A string of TOML's is written as Rust's are, if it is text and has no signs for control.
            let text = format!(
                "[runtime]\nlow-level = {:?}\ndriver = {driver:?}\nlog = {:?}\n",
                self.runc.to_string_lossy(),
                log.to_string_lossy()
            );
            fs::write(&settings, text)?;
        }
        let mut command = Command::new(self.directory.join(RUNTIME));
        command.env("RINGFENCE_CONFIG", settings);
        Ok(command)
    }

    fn by_runsc(&self, work: &Work) -> Command {
        let mut command = Command::new(&self.runsc);
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
}

/// Where the mount namespace has the host's files. Elsewhere it is an empty directory.
const ROOT: &str = "root";
/// The executable as a runtime, by a link.
const RUNTIME: &str = "ringfence-runtime";
