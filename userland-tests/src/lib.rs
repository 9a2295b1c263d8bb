//! Running programs in a sandbox, for the end-to-end tests: where the executables are, and what came of a run.
//!
//! The tests run the `ringfence` executable as a user does, with the simulated driver, and mostly a program of this
//! package, `guest`, in it. A guest checks what only it can see and prints the rest, so that a test compares exit
//! status, stdout and stderr with what they have to be.
//!
//! `unsafe` is here because of what happens between fork and exec.

pub mod conversation;
pub mod freezer;
pub mod linux;
pub mod processes;
pub mod soak;
pub mod stand_in;

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// How long anything may take before it counts as hanging. No test measures time; this only ends those that fail. On a
/// machine that has other work to do some took two minutes, and more than five in a guest of QEMU there.
pub const LIMIT: Duration = Duration::from_secs(900);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status as a shell would give it: 128+N for signal N.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// A run that ended with status 0, printed this and nothing to stderr.
    pub fn printing(stdout: &str) -> Ended {
        Ended {
            status: 0,
            stdout: stdout.to_owned(),
            stderr: String::new(),
        }
    }

    /// A run that printed only this line to stderr.
    pub fn failing(status: i32, line: &str) -> Ended {
        Ended {
            status,
            stdout: String::new(),
            stderr: format!("{line}\n"),
        }
    }
}

/// `ringfence run --driver sim -- guest SCENARIO…`
pub fn guest<S: AsRef<OsStr>>(scenario: &[S]) -> Command {
    guest_with(&[], scenario)
}

/// The same with further options for `ringfence run`.
pub fn guest_with<S: AsRef<OsStr>>(options: &[&str], scenario: &[S]) -> Command {
    let mut command = ringfence_run(options);
    command.arg(guest_program()).args(scenario);
    command
}

/// The same as [`guest`] with the executable that has points of fault, and obeys `rules` there.
pub fn guest_under<S: AsRef<OsStr>>(rules: &str, scenario: &[S]) -> Command {
    guest_under_with(rules, &[], scenario)
}

/// The same with further options for `ringfence run`.
pub fn guest_under_with<S: AsRef<OsStr>>(rules: &str, options: &[&str], scenario: &[S]) -> Command {
    let mut command = ringfence_under(rules, options);
    command.arg(guest_program()).args(scenario);
    command
}

/// The same as [`ringfence_run`] with the executable that has points of fault, and obeys `rules` there.
pub fn ringfence_under(rules: &str, options: &[&str]) -> Command {
    let mut command = Command::new(ringfence_with_faults());
    command.args(["run", "--driver", "sim"]);
    command.args(showing_the_guest()).args(options).arg("--");
    command.stdin(Stdio::null()).env("RINGFENCE_FAULTS", rules);
    command
}

/// `ringfence run --driver sim OPTIONS… --`, and what [`showing_the_guest`] says.
pub fn ringfence_run(options: &[&str]) -> Command {
    let mut command = Command::new(ringfence_program());
    command.args(["run", "--driver", "sim"]);
    command.args(showing_the_guest()).args(options);
    command.arg("--").stdin(Stdio::null());
    command
}

/// Options with which a sandbox has the guest's executable, wherever it was built, and starts where every sandbox can.
pub fn showing_the_guest() -> Vec<OsString> {
    let mut bind = executables().into_os_string();
    bind.push("::ro");
    vec!["--bind".into(), bind, "--workdir".into(), "/".into()]
}

/// Runs a command to its end. One that hangs is killed, and the test fails.
pub fn finish(command: &mut Command) -> Ended {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    wait_for(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Lets a command end by SIGINT wherever the tests run: a shell starts what it runs in the background with this signal
/// ignored, and whoever ignores it passes that on.
#[allow(unsafe_code)]
pub fn heed_interrupts(command: &mut Command) {
    // SAFETY: between fork and exec this makes one system call and touches no memory.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            Ok(())
        })
    };
}

/// Starts a command with pipes for its output, and waits until its program prints that it is ready.
pub fn started(command: &mut Command) -> (Child, BufReader<ChildStdout>) {
    let (child, output, printed) = started_until(command, "\n");
    assert_eq!(printed, "ready\n");
    (child, output)
}

/// Starts a command with pipes for its output, and waits until what its program has printed, which is returned, ends so.
pub fn started_until(command: &mut Command, end: &str) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ringfence");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut printed = String::new();
    while !printed.ends_with(end) {
        let length = output.read_line(&mut printed).expect("a line");
        assert_ne!(length, 0, "it ended after {printed:?}");
    }
    (child, output, printed)
}

/// Waits for a command that was started with pipes for its output.
pub fn wait_for(child: Child) -> Ended {
    let process = Pid::from_raw(child.id() as i32);
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = match receiver.recv_timeout(LIMIT) {
        Ok(output) => output.expect("output of the child"),
        Err(RecvTimeoutError::Timeout) => {
            let _ = kill(process, Signal::SIGKILL);
            let output = receiver.recv_timeout(LIMIT);
            panic!("it hung and was killed: {output:?}");
        }
        Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends before it ends"),
    };
    let signalled = || output.status.signal().map(|signal| 128 + signal);
    Ended {
        status: output
            .status
            .code()
            .or_else(signalled)
            .expect("a status or a signal"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a scenario of the guest, which has to succeed and to print exactly this.
pub fn prints(scenario: &[&str], expected: &str) {
    assert_eq!(finish(&mut guest(scenario)), Ended::printing(expected));
}

/// Waits until `condition` holds; fails the test if it does not come to hold.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An empty directory that is removed with all that it holds when this is dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// A directory for the test `name`; several may bear the same name.
    pub fn new(name: &str) -> Directory {
        Directory::in_place(&std::env::temp_dir(), name)
    }

    /// The same, below `place`.
    pub fn in_place(place: &Path, name: &str) -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringfence-test-{}-{number}-{name}", std::process::id());
        let path = place.join(name);
        std::fs::create_dir(&path).expect("a directory");
        Directory(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What a failed test leaves behind must not hide why it failed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Copies of the executables in a place that every user can reach, which is not so of where cargo puts them.
pub struct Reachable {
    directory: Directory,
    pub ringfence: PathBuf,
    pub guest: PathBuf,
}

/// Whether somebody has this executable open to be written: a child, perhaps, that another test has forked while this one wrote it,
/// and that has yet to execute its own.
fn is_busy(executable: &Path) -> bool {
    let mut command = Command::new(executable);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let executed = command.arg("--version").status();
    executed.is_err_and(|error| error.kind() == ErrorKind::ExecutableFileBusy)
}

impl Reachable {
    /// Copies them.
    pub fn new() -> Reachable {
        Reachable::of(ringfence_program())
    }

    /// Copies this executable and the guest's.
    pub fn of(ringfence: PathBuf) -> Reachable {
        let directory = Directory::new("reachable");
        let everyone = Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), everyone.clone()).expect("permissions");
        let copy = |from: PathBuf, name: &str| {
            let to = directory.path().join(name);
            std::fs::copy(from, &to).expect("a copy");
            std::fs::set_permissions(&to, everyone.clone()).expect("permissions");
            eventually("the copy can be executed", || !is_busy(&to));
            to
        };
        Reachable {
            ringfence: copy(ringfence, "ringfence"),
            guest: copy(guest_program(), "guest"),
            directory,
        }
    }

    /// `ringfence run --driver sim OPTIONS… -- ARGUMENTS…` in a sandbox that has the copies, as user and group `user`.
    pub fn run_as(&self, user: u32, options: &[&str], arguments: &[&str]) -> Ended {
        finish(&mut self.command_as(user, options, arguments))
    }

    /// The same, still to be started.
    pub fn command_as(&self, user: u32, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ringfence);
        command
            .args(["run", "--driver", "sim", "--bind"])
            .arg(self.directory.path())
            .args(options)
            .arg("--")
            .args(arguments);
        command.current_dir("/").stdin(Stdio::null());
        command.uid(user).gid(user);
        command
    }
}

impl Default for Reachable {
    fn default() -> Reachable {
        Reachable::new()
    }
}

/// The guest's executable, which cargo builds for the tests of this package.
pub fn guest_program() -> PathBuf {
    executables().join("guest")
}

/// The same for the tests of another package, for which cargo does not build it: this does, once.
pub fn build_guest_program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let options = ["--package", "userland-tests", "--bin", "guest"];
    BUILT.get_or_init(|| cargo_build("guest", &options)).clone()
}

/// The executable that confines itself as a process of Ringfence does and then attempts something.
pub fn captive_program() -> PathBuf {
    executables().join("captive")
}

/// The program that takes a sentry's place.
pub fn intruder_program() -> PathBuf {
    executables().join("intruder")
}

/// The `ringfence` executable. Cargo does not build it for the tests of another package, so this does, once.
pub fn ringfence_program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("ringfence", &[])).clone()
}

/// The executable that obeys `RINGFENCE_FAULTS`, which this builds, once.
pub fn ringfence_with_faults() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let features = ["--features", "fault-injection"];
    BUILT
        .get_or_init(|| build("ringfence-with-faults", &features))
        .clone()
}

/// Whether this runs on an emulated processor, as in a guest of QEMU: `RINGFENCE_TESTS_ARE_EMULATED` says so.
pub fn is_emulated() -> bool {
    std::env::var_os("RINGFENCE_TESTS_ARE_EMULATED").is_some()
}

/// Builds an executable of the package `ringfence`.
fn build(name: &str, options: &[&str]) -> PathBuf {
    let package = ["--package", "ringfence", "--bin", name];
    cargo_build(name, &[&package, options].concat())
}

/// Builds the file called `name`. With `RINGFENCE_TESTS_ARE_BUILT` in the environment it is there already: the tests then run
/// where there is no compiler, as in a guest of QEMU (`.ci/guests`).
fn cargo_build(name: &str, options: &[&str]) -> PathBuf {
    let directory = executables();
    if std::env::var_os("RINGFENCE_TESTS_ARE_BUILT").is_some() {
        let file = directory.join(name);
        assert!(file.exists(), "{} was not built", file.display());
        return file;
    }
    let profile = match directory.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet"])
        .args(options)
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .args(["--profile", profile, "--target-dir"])
        .arg(target_directory(&directory))
        .status();
    assert!(
        status.as_ref().is_ok_and(|status| status.success()),
        "building {name}: {status:?}"
    );
    directory.join(name)
}

/// The target directory in which cargo has made `directory`, that of a profile: below one of the target that
/// `.cargo/config.toml` names.
fn target_directory(directory: &Path) -> &Path {
    directory.ancestors().nth(2).expect("a target directory")
}

/// Where cargo puts executables: the tests' own are one directory further down, in `deps`.
fn executables() -> PathBuf {
    let own = std::env::current_exe().expect("the executable's own path");
    let directory = own.parent().expect("a directory");
    let is_deps = directory.file_name() == Some(OsStr::new("deps"));
    let above = directory.parent().filter(|_| is_deps);
    above.unwrap_or(directory).to_owned()
}
