//! Whole lives of containers without GPUs, by way of the front and without it.
//!
//! They need root, the low-level runtime and a static busybox, and are skipped by name where one of these is missing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use userland_tests::{Ended, eventually, wait_for};

use super::{Front, specification};

/// The low-level runtime of this name. `None`, and a line that says so, where this machine cannot show what it does.
pub fn low_level(name: &str) -> Option<PathBuf> {
    let skip = |reason: &str| {
        eprintln!("skipped: {name}: {reason}");
        None
    };
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can make the container of this test");
    }
    if !Path::new(BUSYBOX).exists() {
        return skip("there is no /bin/busybox (Debian's busybox-static)");
    }
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let paths = places.map(|place| Path::new(place).join(name));
    match paths.into_iter().find(|path| path.exists()) {
        Some(path) => Some(path),
        None => skip("it is not installed"),
    }
}

pub const BUSYBOX: &str = "/bin/busybox";
/// Where a hybrid hierarchy of cgroups has version 2, which crun 1.8 does not take.
const HYBRID: &str = "/sys/fs/cgroup/unified";

/// A low-level runtime, called directly or by way of the front, with containers of its own.
pub struct Called<'a> {
    pub front: &'a Front,
    pub program: PathBuf,
    /// A directory with what it knows of containers.
    pub root: PathBuf,
}

impl Called<'_> {
    /// It with these words, about the test's bundle.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_by("\"$@\"", words)
    }

    /// The same, started by this part of a line of the shell's.
    fn command_by(&self, shell: &str, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let become_user = self.front.user.get().map_or(String::new(), |user| {
            format!("setpriv --reuid {user} --regid {user} --clear-groups")
        });
        let leave = format!("! test -d {HYBRID} || umount {HYBRID}; exec {become_user} {shell}");
        command.args([
            "--mount",
            "--propagation",
            "slave",
            "sh",
            "-c",
            &leave,
            "sh",
        ]);
        command.arg(&self.program).arg("--root").arg(&self.root);
        // crun gives the standard streams to the container's root: no null device of the host's.
        let nothing = self.root.with_extension("stdin");
        File::create(&nothing).expect("a file");
        command
            .args(words)
            .stdin(File::open(&nothing).expect("a file"));
        command.current_dir(self.front.bundle());
        command.env("RINGFENCE_CONFIG", self.front.settings());
        command.envs(
            self.front
                .variables
                .lock()
                .expect("variables")
                .iter()
                .cloned(),
        );
        command
    }

    /// Runs it to its end. A container that it leaves running has its output in a file, for which nobody waits.
    pub fn run(&self, words: &[&str]) -> Ended {
        self.finish(self.command(words))
    }

    /// The same on a terminal, of words without spaces.
    pub fn run_on_terminal(&self, words: &[&str]) -> Ended {
        self.finish(self.command_by("script -qec \"$*\" /dev/null", words))
    }

    /// The same as a shim calls it, which takes nothing off the mode of new files.
    pub fn run_without_mask(&self, words: &[&str]) -> Ended {
        self.finish(self.command_by("sh -c 'umask 0; exec \"$@\"' sh \"$@\"", words))
    }

    /// The same with faults in the front.
    pub fn run_with_faults(&self, faults: &str, words: &[&str]) -> Ended {
        let mut command = self.command(words);
        command.env("RINGFENCE_FAULTS", faults);
        self.finish(command)
    }

    fn finish(&self, mut command: Command) -> Ended {
        // A container that was made writes to its maker's files for as long as it runs. What is asked of it has others.
        let makes = command
            .get_args()
            .any(|word| word == "create" || word == "run");
        let names = match makes {
            true => ["stdout", "stderr"],
            false => ["asked.stdout", "asked.stderr"],
        };
        let files = names.map(|name| self.root.with_extension(name));
        let [stdout, stderr] = files
            .each_ref()
            .map(|path| File::create(path).expect("a file"));
        let child = command.stdout(stdout).stderr(stderr).spawn();
        let status = wait_for(child.expect("unshare")).status;
        let [stdout, stderr] = files.map(|path| fs::read_to_string(path).expect("text"));
        Ended {
            status,
            stdout,
            stderr,
        }
    }

    /// The same, without what differs from run to run.
    fn told(&self, words: &[&str]) -> Ended {
        let ended = self.run(words);
        let root = self.root.to_str().expect("text");
        Ended {
            status: ended.status,
            stdout: steady(&ended.stdout).replace(root, "ROOT"),
            stderr: timeless(&ended.stderr).replace(root, "ROOT"),
        }
    }

    /// Removes what a life that was cut short has left.
    fn clear(&self) {
        self.run(&["delete", "--force", "c"]);
    }

    pub fn status_of_container(&self) -> Option<String> {
        let state: Value = serde_json::from_str(&self.run(&["state", "c"]).stdout).ok()?;
        state["status"].as_str().map(str::to_owned)
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.clear();
        }
    }
}

/// JSON without times and numbers of processes. Other text is left as it is.
fn steady(text: &str) -> String {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|name, _| !matches!(name.as_str(), "pid" | "created"));
                members.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Number(number) if number.as_u64().is_some_and(|number| number > 1) => {
                *value = "a number".into();
            }
            _ => {}
        }
    }
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            strip(&mut value);
            value.to_string()
        }
        Err(_) => text.to_owned(),
    }
}

/// Lines of a log without their times.
fn timeless(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix("time=\"") {
        Some(rest) => rest.split_once('"').map_or(rest, |(_, rest)| rest),
        None => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// A container's whole life, and what goes wrong beside it.
fn life(called: &Called<'_>) -> Vec<(String, Ended)> {
    let front = called.front;
    let mut told = Vec::new();
    let mut tell = |words: &[&str]| told.push((words.join(" "), called.told(words)));
    let process = front.path("process.json");
    let mut value = specification(&["sh", "-c", "echo by a file; exit 5"])["process"].clone();
    value["terminal"] = false.into();
    fs::write(&process, value.to_string()).expect("a process");
    let process = process.to_str().expect("text");

    front.specify(&specification(&["sleep", "1000"]));
    tell(&["state", "c"]);
    tell(&["create", "--bundle", ".", "--pid-file", "../pid", "c"]);
    tell(&["create", "--bundle", ".", "c"]);
    tell(&["state", "c"]);
    tell(&["list", "--quiet"]);
    tell(&["list", "--format", "json"]);
    tell(&["start", "c"]);
    tell(&["start", "c"]);
    tell(&["state", "c"]);
    tell(&["ps", "--format", "json", "c"]);
    tell(&["exec", "c", "echo", "-n", "--help"]);
    tell(&["exec", "c", "sh", "-c", "exit 3"]);
    tell(&["exec", "--process", process, "c"]);
    tell(&["exec", "c", "nonexistent"]);
    tell(&["pause", "c"]);
    tell(&["state", "c"]);
    tell(&["resume", "c"]);
    tell(&["delete", "c"]);
    tell(&["kill", "c", "KILL"]);
    eventually("it has ended", || {
        called.status_of_container().as_deref() == Some("stopped")
    });
    tell(&["state", "c"]);
    tell(&["delete", "c"]);
    tell(&["delete", "c"]);
    tell(&["list", "--format", "json"]);
    front.specify(&specification(&[
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]));
    tell(&["run", "--bundle", ".", "c"]);
    tell(&["delete", "--force", "c"]);
    tell(&["run", "--bundle", "/nonexistent", "c"]);
    tell(&["features"]);
    tell(&["nonsense"]);
    tell(&["create", "--nonsense", "c"]);
    told
}

/// Both lives, told by the low-level runtime alone and by way of the front.
fn expect_same_lives(name: &str) {
    let Some(path) = low_level(name) else { return };
    let front = Front::of(&path);
    let programs = front.bundle().join("rootfs/bin");
    for program in ["sh", "sleep", "echo"] {
        fs::copy(BUSYBOX, programs.join(program)).expect("a program");
    }
    fs::create_dir(front.bundle().join("rootfs/proc")).expect("a directory");
    fs::create_dir(front.bundle().join("rootfs/dev")).expect("a directory");
    let called = |program: &Path, root: &str| Called {
        front: &front,
        program: program.to_owned(),
        root: front.path(root),
    };
    let alone = called(&path, "alone");
    front.specify(&specification(&["sh", "-c", "exit 9"]));
    let first = alone.run(&["run", "c"]);
    if first.status != 9 {
        eprintln!("skipped: {name}: it makes no container here: {first:?}");
        return;
    }
    let alone = life(&alone);
    let by_front = life(&called(&front.runtime(), "front"));
    // The comparison is of something: the program ran, and ended as it does.
    let of = |words: &str| {
        alone
            .iter()
            .find(|(of, _)| of == words)
            .map(|(_, ended)| ended)
    };
    let ran = of("run --bundle . c").expect("a run");
    assert_eq!((ran.status, ran.stdout.as_str()), (7, "out\n"), "{ran:?}");
    let of_file = alone
        .iter()
        .find(|(words, _)| words.contains("process.json"));
    let (_, of_file) = of_file.expect("an exec");
    assert_eq!(
        (of_file.status, of_file.stdout.as_str()),
        (5, "by a file\n")
    );
    for (alone, by_front) in alone.iter().zip(&by_front) {
        assert_eq!(by_front, alone);
    }
    assert_eq!(by_front.len(), alone.len());
}

#[test]
fn containers_without_gpus_live_as_under_runc() {
    expect_same_lives("runc");
}

#[test]
fn containers_without_gpus_live_as_under_crun() {
    expect_same_lives("crun");
}
