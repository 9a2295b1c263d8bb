//! A sandbox that is stopped and continued by signals, from a job without a terminal.
//!
//! The kernel stops nobody whom nobody could continue: so each sandbox is a job of a shell in a session of its own, which
//! has no terminal, whatever the tests were started from.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::processes::Tree;
use userland_tests::{
    Ended, eventually, finish, guest, guest_program, ringfence_program, ringfence_with_faults,
    showing_the_guest, started, wait_for,
};

/// How long a launcher takes to stop that is slowed down for it.
const PAUSE: Duration = Duration::from_secs(3);

/// A sandbox that is a job of a shell.
struct Job {
    shell: Child,
    tree: Tree,
}

impl Job {
    /// Starts `guest SCENARIO`, and waits until it says that it is ready.
    fn start(ringfence: &Path, scenario: &str, rules: &str) -> Job {
        let mut command = Command::new("setsid");
        let script = "set -m; \"$@\" & echo $!; while kill -0 $!; do sleep 1; done";
        command.args(["bash", "-c", script, "bash"]).arg(ringfence);
        command.args(["run", "--driver", "sim"]);
        command.args(showing_the_guest()).arg("--");
        command.arg(guest_program()).arg(scenario);
        command.env("RINGFENCE_FAULTS", rules);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut shell = command.stderr(Stdio::null()).spawn().expect("setsid");
        let output = shell.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(output).lines();
        let mut line = || lines.next().expect("a line").expect("a line");
        // The shell may say its line after the program has said its own.
        let (one, other) = (line(), line());
        let launcher = one.parse().or_else(|_| other.parse());
        let tree = Tree::of(launcher.expect("a number"));
        Job { shell, tree }
    }

    fn send(&self, signal: Signal) {
        kill(self.tree.launcher.pid, signal).expect("kill");
    }

    fn launcher_is_stopped(&self) -> bool {
        is_stopped(self.tree.launcher.pid)
    }

    fn program_is_stopped(&self) -> bool {
        is_stopped(self.tree.program.pid)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.tree.kill(|tree| tree.launcher);
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it is there");
    let (_, rest) = stat.rsplit_once(") ").expect("its state");
    rest.starts_with('T')
}

#[test]
fn a_sandbox_whose_launcher_is_stopped_is_listed_and_not_waited_for() {
    let mut command = guest(&["idle"]);
    let (child, _output) = started(command.stderr(Stdio::piped()));
    let tree = Tree::of(child.id());
    let launcher = tree.launcher.pid;
    let ringfence = |arguments: &[&str]| {
        let mut command = Command::new(ringfence_program());
        finish(command.args(arguments).stdin(Stdio::null()))
    };
    let is_listed = |driver: &str| {
        let name = launcher.to_string();
        let guest = guest_program();
        let line = format!(
            "{name:<16} {name:>8}  {driver:<12} {} idle",
            guest.display()
        );
        ringfence(&["ps"])
            .stdout
            .lines()
            .any(|listed| listed == line)
    };
    assert!(is_listed("580.142"));
    kill(launcher, Signal::SIGSTOP).expect("kill");
    eventually("it is stopped", || is_stopped(launcher));
    assert!(is_listed("stopped"));
    let line = format!(
        "ringfence: {launcher}: its ringfence process is stopped: continue it, with `fg` or `kill -CONT {launcher}`, and try again"
    );
    let upgrade = ringfence(&["server-upgrade", &launcher.to_string()]);
    assert_eq!(upgrade, Ended::failing(1, &line));
    kill(launcher, Signal::SIGCONT).expect("kill");
    eventually("it answers", || is_listed("580.142"));
    // Nobody waits for an upgrade any more, and there is nothing to say of those who have given up.
    assert!(tree.server.is_alive());
    kill(launcher, Signal::SIGTERM).expect("kill");
    let ended = Ended {
        status: 143,
        ..Ended::printing("")
    };
    assert_eq!(wait_for(child), ended);
}

#[test]
fn a_program_stops_and_goes_on_with_its_launcher() {
    let job = Job::start(&ringfence_program(), "busy", "");
    for signal in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
        job.send(signal);
        eventually("both are stopped", || {
            job.launcher_is_stopped() && job.program_is_stopped()
        });
        job.send(Signal::SIGCONT);
        eventually("both go on", || {
            !job.launcher_is_stopped() && !job.program_is_stopped()
        });
    }
}

#[test]
fn a_program_that_is_stopped_and_at_once_continued_goes_on() {
    let job = Job::start(&ringfence_program(), "busy", "");
    for _ in 0..200 {
        job.send(Signal::SIGTSTP);
        job.send(Signal::SIGCONT);
    }
    // What was sent before is done with when this is.
    job.send(Signal::SIGTSTP);
    eventually("both are stopped", || {
        job.launcher_is_stopped() && job.program_is_stopped()
    });
    job.send(Signal::SIGCONT);
    eventually("both go on", || {
        !job.launcher_is_stopped() && !job.program_is_stopped()
    });
}

/// Continues a sandbox after its program was stopped and before its launcher is, which takes its time.
fn continued_between(rules: &str) -> Job {
    let job = Job::start(
        &ringfence_with_faults(),
        "busy",
        &format!("sentry.stop=delay:{} {rules}", PAUSE.as_millis()),
    );
    job.send(Signal::SIGTSTP);
    eventually("the program is stopped", || job.program_is_stopped());
    job.send(Signal::SIGCONT);
    job
}

#[test]
fn being_continued_before_having_stopped_is_not_missed() {
    let job = continued_between("");
    eventually("the program goes on", || !job.program_is_stopped());
    assert!(!job.launcher_is_stopped());
}

/// The test above can fail: without a guard the launcher stops, though it was continued, and so does its program. Not in each
/// try, since the launcher sees a signal that comes before it is about to stop.
#[test]
fn being_continued_before_having_stopped_is_missed_without_a_guard() {
    let is_missed = || {
        let job = continued_between("sentry.guard=drop");
        let deadline = Instant::now() + 2 * PAUSE;
        while !job.launcher_is_stopped() && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
        job.launcher_is_stopped() && job.program_is_stopped()
    };
    assert!((0..10).any(|_| is_missed()));
}
