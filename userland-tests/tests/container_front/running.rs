//! A container that runs, with all processes of its sandbox.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use userland_tests::processes::Process;
use userland_tests::{eventually, wait_for};

use super::lives::Called;
use super::sandboxes::Maker;

/// How many were made by this test executable.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A container with a name that no other has.
pub struct Running<'a> {
    pub called: Called<'a>,
    pub name: String,
    pub launcher: Process,
    pub server: Process,
    pub sentry: Process,
    pub program: Process,
    /// The directory of the shadow's.
    pub bundle: PathBuf,
}

/// A name that no other container has.
pub fn own_name() -> String {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{count}", std::process::id())
}

impl<'a> Running<'a> {
    /// Makes it, and starts it.
    pub fn start(maker: &'a Maker, specification: &Value) -> Running<'a> {
        let name = own_name();
        let called = maker.called();
        maker.front.specify(specification);
        let created = called.run(&["create", &name]);
        assert_eq!(created.status, 0, "{}: {created:?}", maker.name);
        let started = called.run(&["start", &name]);
        assert_eq!(started.status, 0, "{}: {started:?}", maker.name);
        Running::of(called, name)
    }

    /// Waits until its program has become `sleep`.
    pub fn settle(&self) {
        let name = || std::fs::read_to_string(format!("/proc/{}/comm", self.program.pid));
        eventually("the program sleeps", || {
            name().is_ok_and(|name| name == "sleep\n")
        });
    }

    /// One that was started.
    pub fn of(called: Called<'a>, name: String) -> Running<'a> {
        let state = state(&called, &name).expect("a state");
        let sentry = Pid::from_raw(state["pid"].as_i64().expect("a number") as i32);
        let sentry = Process::find(sentry).expect("the sentry");
        let launcher = launcher_of(&name).expect("the launcher");
        eventually("there are a server and a program", || {
            launcher.children().len() == 1 && sentry.children().len() == 1
        });
        Running {
            launcher,
            server: launcher.children()[0],
            sentry,
            program: sentry.children()[0],
            bundle: state["bundle"].as_str().expect("a bundle").into(),
            called,
            name,
        }
    }

    pub fn processes(&self) -> [Process; 4] {
        [self.launcher, self.server, self.sentry, self.program]
    }

    pub fn kill(&self, process: Process) {
        kill(process.pid, Signal::SIGKILL).expect("kill");
    }

    /// Removes it as it is, and looks that nothing is left.
    pub fn remove(self) {
        let removed = self.called.run(&["delete", "--force", &self.name]);
        assert_eq!(removed.status, 0, "{removed:?}");
        self.expect_gone();
        expect_nothing(self.called.front.directory.path(), &self.name);
    }

    /// Waits until none of its processes is left.
    pub fn expect_gone(&self) {
        for process in self.processes() {
            let is_there = || Process::find(process.pid).is_some();
            eventually(&format!("{process:?} is gone"), || !is_there());
        }
    }
}

/// What the low-level runtime says of a container; `None` if it knows none.
pub fn state(called: &Called<'_>, name: &str) -> Option<Value> {
    serde_json::from_str(&called.run(&["state", name]).stdout).ok()
}

/// The launcher of the container of this name.
pub fn launcher_of(name: &str) -> Option<Process> {
    let title = format!("ringfence-launcher {name}");
    let entries = fs::read_dir("/proc").expect("/proc");
    let mut numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.find_map(|number: i32| {
        let line = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
        let is_it = line.trim_end_matches('\0') == title;
        is_it.then(|| Process::find(Pid::from_raw(number)))?
    })
}

/// Waits until nothing of a container is on the machine: no launcher, no bundle, no cgroup, no mount. `place` is the directory
/// of its test, after which its cgroup is called.
pub fn expect_nothing(place: &Path, name: &str) {
    eventually("the launcher is gone", || launcher_of(name).is_none());
    let bundles = || {
        let entries = fs::read_dir("/run/ringfence-containers")
            .into_iter()
            .flatten();
        let mut names = entries.flatten().map(|entry| entry.file_name());
        names.any(|found| found.to_string_lossy().starts_with(&format!("{name}.")))
    };
    eventually("the bundle is gone", || !bundles());
    let group = place.file_name().expect("a name");
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        assert!(!hierarchy.path().join(group).exists(), "{hierarchy:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let place = place.to_str().expect("text");
    assert!(!mounts.contains(place), "{mounts}");
}

/// Starts a container whose runtime stays as its parent, as an engine's shim does, and waits for the launcher's program.
pub fn run_in_foreground<'a>(maker: &'a Maker, specification: &Value) -> (Child, Running<'a>) {
    let name = own_name();
    maker.front.specify(specification);
    let called = maker.called();
    let output = |name: &str| File::create(maker.front.path(name)).expect("a file");
    let child = called
        .command(&["run", &name])
        .stdin(Stdio::null())
        .stdout(output("run.stdout"))
        .stderr(output("run.stderr"))
        .spawn()
        .expect("the runtime");
    eventually("it runs", || {
        state(&called, &name).is_some_and(|state| state["status"] == "running")
    });
    (child, Running::of(called, name))
}

/// The status of a runtime that was waiting for its container.
pub fn status_of(child: Child) -> i32 {
    wait_for(child).status
}
