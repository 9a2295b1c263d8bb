//! A start that fails ends, whichever of its steps it is that fails: nothing hangs, nothing is left, and one line says why.
//!
//! A step is an attempt (`Attempt` in `ringfence_sentry::failure`), of which each passes a point of fault. So there is no list
//! of steps that one could be missing from: for each process of a start the first fails, then the second, until there is none
//! left. That no process is left shows by the run's coming to an end: every process of a sandbox holds the pipe that is read
//! to its end.

use std::fs;
use std::process::{Command, Stdio};

use userland_tests::{Directory, Ended, finish, ringfence_program, ringfence_with_faults};

/// EHWPOISON, by which no call fails here otherwise, as a rule has it and as it is shown.
const FAULT: i32 = 133;
const SHOWN: [&str; 2] = ["hardware error", "EHWPOISON"];

/// So many steps in a row that fail and are not heard of mean that there are none left.
const ENOUGH: usize = 8;

/// Failures that a sandbox does without, by what was attempted.
const DONE_WITHOUT: [&str; 1] = ["no door: "];

/// A run whose process `role` has its step number `step` fail, and what is in its log.
fn run(role: &str, step: usize, directory: &Directory) -> (Ended, String) {
    let log = directory.path().join("log");
    let _ = fs::remove_file(&log);
    let mut command = Command::new(ringfence_with_faults());
    command
        .env(
            "RINGFENCE_FAULTS",
            format!("{role}.step@{step}=errno:{FAULT}"),
        )
        .env("XDG_RUNTIME_DIR", directory.path())
        .args(["run", "--driver", "sim", "--workdir", "/", "--log"])
        .arg(&log)
        .args(["--", "/bin/echo", "done"])
        .stdin(Stdio::piped());
    let ended = finish(&mut command);
    let log = fs::read_to_string(&log).unwrap_or_default();
    let left = fs::read_dir(directory.path().join("ringfence"));
    let left: Vec<_> = left.into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{role} {step}: {left:?}");
    (ended, log)
}

fn has_the_fault(text: &str) -> bool {
    SHOWN.iter().any(|shown| text.contains(shown))
}

/// Has each step of a process fail in turn; returns how many there are at least.
fn fail_each_step(role: &str) -> usize {
    let directory = Directory::new("failing-starts");
    let (mut failed, mut unheard) = (0, 0);
    for step in 1.. {
        let (ended, log) = run(role, step, &directory);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        match (ended.status, &lines[..]) {
            (125, [line]) if line.starts_with("ringfence: ") && has_the_fault(line) => {
                (failed, unheard) = (failed + 1, 0);
            }
            (0, []) if ended.stdout == "done\n" => {
                let said = log.lines().find(|line| has_the_fault(line));
                match said {
                    None => unheard += 1,
                    Some(said) => {
                        unheard = 0;
                        assert!(
                            DONE_WITHOUT.iter().any(|it| said.contains(it)),
                            "{role} {step}: {said}"
                        );
                    }
                }
            }
            _ => panic!("{role} {step}: {ended:?}\n{log}"),
        }
        if unheard == ENOUGH {
            return failed;
        }
    }
    unreachable!("steps end")
}

/// One test for each process.
macro_rules! processes {
    ($($name:ident: $role:literal, $least:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let failed = fail_each_step($role);
                assert!(failed >= $least, "{failed} steps");
            }
        )*
    };
}

processes! {
    a_launcher_that_fails_ends_all: "launcher", 20;
    a_sentry_that_fails_ends_all: "sentry", 10;
    an_init_that_fails_ends_all: "init", 20;
    a_program_that_cannot_be_executed_ends_all: "program", 10;
    a_server_that_cannot_be_started_ends_all: "server-start", 5;
}

/// As in a container that hides a part of /proc: the kernel lets nobody there mount another.
#[test]
fn a_masked_proc_is_said_once_and_ends_all() {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /proc/tty && exec \"$0\" run --driver sim -- true";
    command.args(["-rm", "sh", "-c", script]);
    command.arg(ringfence_program()).stdin(Stdio::null());
    let line = "ringfence: mounting /proc: Operation not permitted; in a container, /proc must not be masked \
                (docker run --security-opt systempaths=unconfined)";
    for _ in 0..8 {
        assert_eq!(finish(&mut command), Ended::failing(125, line));
    }
}
