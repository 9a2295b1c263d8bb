//! Engines with Docker's command line: docker and podman. What is the same for them is a row for each of them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use userland_tests::{Ended, eventually, finish};

use crate::image::IMAGE;
use crate::machine::Machine;

/// The low-level runtimes of which an engine's containers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowLevel {
    Runc,
    Crun,
}

impl LowLevel {
    pub const ALL: [LowLevel; 2] = [LowLevel::Runc, LowLevel::Crun];

    pub fn name(self) -> &'static str {
        match self {
            LowLevel::Runc => "runc",
            LowLevel::Crun => "crun",
        }
    }
}

/// The runtime that is chosen for a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The low-level runtime by itself.
    Alone(LowLevel),
    /// `ringfence-runtime` in front of it.
    Ringfence(LowLevel),
}

/// What a runtime is called in the engine's configuration.
pub fn called(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Alone(low_level) => low_level.name(),
        Runtime::Ringfence(LowLevel::Runc) => "ringfence",
        Runtime::Ringfence(LowLevel::Crun) => "ringfence-crun",
    }
}

/// An engine that runs.
pub struct Engine {
    pub name: &'static str,
    pub machine: Machine,
    /// The low-level runtimes that it has here.
    pub low_levels: Vec<LowLevel>,
    /// What is ahead of every command of the user's that it belongs to.
    pub user: Vec<String>,
    /// Its command line, ahead of the command.
    pub words: Vec<String>,
    /// Whether the runtime is named there, and not behind the command.
    pub names_runtime_first: bool,
    /// Options of every container.
    pub options: Vec<String>,
    /// Ways to ask for a GPU, besides the device that every engine knows.
    pub ways: &'static [&'static [&'static str]],
    /// Whether it has the program that `--init` puts first.
    pub has_init: bool,
    /// Whether a container's cgroup is the engine's to change, which an ordinary user's is not.
    pub is_roots: bool,
}

/// How a container gets a GPU: by a device, which every engine knows.
pub const GPU: &[&str] = &["--device", "/dev/nvidia0"];
/// By a name of CDI's.
pub const BY_CDI: &[&str] = &["--device", "nvidia.com/gpu=all"];

impl Engine {
    /// This one with each of its low-level runtimes.
    pub fn with_runtimes(&self) -> impl Iterator<Item = (&Engine, LowLevel)> {
        self.low_levels
            .iter()
            .map(move |low_level| (self, *low_level))
    }

    /// Gives an engine that runs the image, and leaves out the low-level runtimes that make no container here by themselves. `None` if
    /// none does.
    pub fn prepare(mut self) -> Option<Engine> {
        let image = self.machine.name_of("image.tar");
        let first = Runtime::Alone(*self.low_levels.first()?);
        let ended = self.tell(first, &["load", "--quiet", "--input", &image]);
        if ended.status != 0 {
            return skip(self.name, &format!("it loads no image here: {ended:?}"));
        }
        let found = std::mem::take(&mut self.low_levels).into_iter();
        let able = found.filter(|low_level| {
            let ended = self.run(Runtime::Alone(*low_level), &[], "exit 9");
            if ended.status != 9 {
                let name = format!("{} with {}", self.name, low_level.name());
                skip::<()>(
                    &name,
                    &format!("it makes no container here: {}", first_line(&ended.stderr)),
                );
            }
            ended.status == 9
        });
        let able: Vec<LowLevel> = able.collect();
        self.low_levels = able;
        (!self.low_levels.is_empty()).then_some(self)
    }

    /// `docker COMMAND…`
    pub fn command(&self, runtime: Runtime, words: &[&str]) -> Command {
        let mut line: Vec<&str> = self.words.iter().map(String::as_str).collect();
        if self.names_runtime_first {
            line.extend(["--runtime", called(runtime)]);
        }
        line.extend(words);
        self.of_user(&line)
    }

    /// A command of the user's that the engine belongs to.
    fn of_user(&self, words: &[&str]) -> Command {
        let user = self.user.iter().map(String::as_str);
        let line: Vec<&str> = user.chain(words.iter().copied()).collect();
        let mut command = self.machine.command(line[0]);
        command.args(&line[1..]);
        command
    }

    /// What `ringfence ps` shows. It knows the sandboxes of its own user namespace, and an ordinary user's podman has another.
    pub fn sandboxes(&self) -> Ended {
        let ringfence = self.machine.ringfence();
        let unshare: Vec<&str> = self
            .words
            .iter()
            .map(String::as_str)
            .chain(["unshare"])
            .collect();
        let line = if self.is_roots { &[][..] } else { &unshare };
        finish(&mut self.of_user(&[line, &[&ringfence, "ps"]].concat()))
    }

    /// The same, run to its end.
    pub fn tell(&self, runtime: Runtime, words: &[&str]) -> Ended {
        finish(&mut self.command(runtime, words))
    }

    /// The same, which succeeds. Returns what it has printed, without the end of the line.
    #[track_caller]
    pub fn ask(&self, runtime: Runtime, words: &[&str]) -> String {
        let ended = self.tell(runtime, words);
        assert_eq!(ended.status, 0, "{}: {words:?}: {ended:?}", self.name);
        ended.stdout.trim_end().to_owned()
    }

    /// `docker run OPTIONS… IMAGE sh -c SCRIPT`, still to be started.
    pub fn run_command(&self, runtime: Runtime, options: &[&str], script: &str) -> Command {
        let mut words = vec!["run"];
        if !self.names_runtime_first {
            words.extend(["--runtime", called(runtime)]);
        }
        if !options.contains(&"--network") {
            words.extend(["--network", "none"]);
        }
        words.extend(self.options.iter().map(String::as_str));
        words.extend(options);
        words.extend([IMAGE, "sh", "-c", script]);
        self.command(runtime, &words)
    }

    /// A container that runs to its end and is removed.
    pub fn run(&self, runtime: Runtime, options: &[&str], script: &str) -> Ended {
        let options = [&["--rm"], options].concat();
        finish(&mut self.run_command(runtime, &options, script))
    }

    /// One that goes on, under a name.
    #[track_caller]
    pub fn start(&self, runtime: Runtime, options: &[&str], script: &str) -> Container<'_> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("c{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let options = [&["--detach", "--name", &name], options].concat();
        let ended = finish(&mut self.run_command(runtime, &options, script));
        assert_eq!(ended.status, 0, "{}: {ended:?}", self.name);
        Container {
            engine: self,
            runtime,
            name,
        }
    }
}

/// A container that goes on until this is dropped.
pub struct Container<'a> {
    pub engine: &'a Engine,
    pub runtime: Runtime,
    pub name: String,
}

impl Container<'_> {
    /// `docker COMMAND… NAME`
    pub fn tell(&self, words: &[&str]) -> Ended {
        let words = [words, &[&self.name]].concat();
        self.engine.tell(self.runtime, &words)
    }

    /// The same, which succeeds.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> String {
        let words = [words, &[&self.name]].concat();
        self.engine.ask(self.runtime, &words)
    }

    /// What the engine says of it.
    #[track_caller]
    pub fn inspect(&self, what: &str) -> String {
        self.ask(&["inspect", "--format", &format!("{{{{{what}}}}}")])
    }

    /// Waits until its program has printed this.
    #[track_caller]
    pub fn wait_for_output(&self, text: &str) {
        eventually(&format!("{} printed {text:?}", self.engine.name), || {
            let logs = self.tell(&["logs"]);
            logs.stdout.contains(text)
        });
    }

    /// Waits until it has ended. Returns the status.
    #[track_caller]
    pub fn wait(&self) -> String {
        self.ask(&["wait"])
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // It may be removed already; and why the test failed is not to be hidden. podman would ask it to end, and wait.
        self.tell(&["kill"]);
        self.tell(&["rm", "--force"]);
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Says that an engine is left out.
pub fn skip<T>(name: &str, reason: &str) -> Option<T> {
    eprintln!("skipped: {name}: {reason}");
    None
}

/// Where an executable is, among what this machine has installed.
pub fn installed(name: &str) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let mut paths = places.iter().map(|place| PathBuf::from(place).join(name));
    paths.find(|path| path.exists())
}

/// Where the programs of a group are, which `.ci/go-programs` builds.
pub fn built(group: &str) -> Option<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/go-programs");
    let ended = finish(Command::new(script).args(["--folder", group]));
    (ended.status == 0).then(|| ended.stdout.trim_end().into())
}
