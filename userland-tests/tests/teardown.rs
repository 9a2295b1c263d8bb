//! Whichever process of a sandbox is killed, and whatever it was doing: nothing is left behind.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::processes::{Process, Tree};
use userland_tests::{
    Directory, Ended, eventually, finish, guest_with, ringfence_program, ringfence_under, started,
    wait_for,
};

/// Kills a process of a sandbox whose program idles, and of one whose program makes requests, and checks how the
/// launcher ends.
fn killing(options: &[&str], role: fn(&Tree) -> Process, status: i32, stderr: &str) {
    for scenario in ["idle", "busy"] {
        let directory = Directory::new(scenario);
        let mounts = mounts();
        let mut command = guest_with(options, &[scenario]);
        command
            .current_dir(directory.path())
            .env("TMPDIR", directory.path());
        let (child, _output) = started(&mut command);
        let tree = Tree::of(child.id());
        tree.kill(role);
        let ended = wait_for(child);
        tree.expect_gone();
        let expected = Ended {
            status,
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        assert_eq!(ended, expected, "{scenario}");
        assert_eq!(self::mounts(), mounts);
        assert_eq!(
            fs::read_dir(directory.path())
                .expect("the directory")
                .count(),
            0
        );
    }
}

/// The mounts of this process's namespace.
fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo")
}

#[test]
fn the_launcher_takes_all_with_it() {
    killing(&[], |tree| tree.launcher, 137, "");
}

/// The sentry of a sandbox that somebody stopped in its first moments, before it was told who it is, and whose launcher was
/// killed then.
fn stopped_at_first(rules: &str) -> Pid {
    let rules = format!("sentry.ids=block {rules}");
    let mut command = ringfence_under(&rules, &[]);
    let child = command.arg("true").spawn().expect("the launcher");
    let launcher = Process::find(Pid::from_raw(child.id() as i32)).expect("the launcher");
    let mut sentry = None;
    eventually("there is a sentry", || {
        sentry = launcher.children().first().copied();
        sentry.is_some()
    });
    let sentry = sentry.expect("it");
    eventually("it waits", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", sentry.pid));
        stat.is_ok_and(|stat| stat.contains(") S "))
    });
    sentry.stop();
    kill(launcher.pid, Signal::SIGKILL).expect("it is there");
    assert_eq!(wait_for(child).status, 137);
    sentry.pid
}

/// Whether there is such a process, whoever has become its parent.
fn is_there(process: Pid) -> bool {
    Process::find(process).is_some()
}

#[test]
fn the_launcher_takes_a_sentry_along_that_was_stopped_at_first() {
    let sentry = stopped_at_first("");
    eventually("it is gone", || !is_there(sentry));
}

/// That the test above can fail.
#[test]
fn a_sentry_that_was_stopped_at_first_stays_if_it_is_not_bound() {
    let sentry = stopped_at_first("sentry.born=drop");
    assert!(is_there(sentry));
    // Nobody has told it who it is, nor will.
    kill(sentry, Signal::SIGCONT).expect("it is there");
    eventually("it is gone", || !is_there(sentry));
}

/// Rust's runtime handles these, and lets the first one pass that is of no fault.
#[test]
fn the_launcher_is_ended_by_the_signals_of_faults() {
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        let (child, _output) = started(&mut guest_with(&[], &["idle"]));
        let tree = Tree::of(child.id());
        kill(tree.launcher.pid, signal).expect("it is there");
        let ended = wait_for(child);
        assert_eq!(
            (ended.status, ended.stderr.as_str()),
            (128 + signal as i32, "")
        );
        tree.expect_gone();
    }
}

/// A sentry that stands still does not see that its server has ended, as one that was taken over would not care.
#[test]
fn the_server_takes_a_sentry_along_that_would_not_end() {
    let options = ["--on-server-exit", "kill"];
    let (child, _output) = started(&mut guest_with(&options, &["idle"]));
    let tree = Tree::of(child.id());
    tree.sentry.stop();
    tree.kill(|tree| tree.server);
    let ended = wait_for(child);
    let line = "ringfence: the server ended unexpectedly, and the sandbox with it\n";
    assert_eq!((ended.status, ended.stderr.as_str()), (125, line));
    tree.expect_gone();
}

#[test]
fn the_sentry_takes_all_with_it() {
    let line = "ringfence: the sentry was ended by SIGKILL, and the sandbox with it\n";
    killing(&[], |tree| tree.sentry, 125, line);
}

#[test]
fn the_server_takes_all_with_it() {
    let line = "ringfence: the server ended unexpectedly, and the sandbox with it\n";
    killing(&["--on-server-exit", "kill"], |tree| tree.server, 125, line);
}

#[test]
fn init_takes_all_with_it() {
    killing(
        &[],
        |tree| tree.init,
        125,
        "ringfence: init was ended by SIGKILL, and the sandbox with it\n",
    );
}

#[test]
fn the_program_takes_all_with_it() {
    killing(&[], |tree| tree.program, 137, "");
}

/// One that stands still does not see that its sentry is gone, as one that was taken over would not care. The same of one
/// that took the place of the first.
#[test]
fn a_server_that_would_not_end_is_taken_along() {
    for role in Tree::OTHERS {
        for replace in [false, true] {
            let (child, _output) = started(&mut guest_with(&[], &["idle"]));
            let first = Tree::of(child.id());
            if replace {
                let mut command = Command::new(ringfence_program());
                let upgraded = finish(command.args(["server-upgrade", &child.id().to_string()]));
                assert_eq!(upgraded.status, 0, "{upgraded:?}");
            }
            let tree = Tree::of(child.id());
            assert_eq!(tree.server != first.server, replace);
            tree.server.stop();
            tree.kill(role);
            wait_for(child);
            tree.expect_gone();
        }
    }
}
