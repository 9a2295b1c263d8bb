//! Where few processes are allowed, the sandbox's own come first: a program that takes all the others neither keeps Ringfence
//! from working nor from ending the sandbox.
//!
//! `unsafe` is here because of what happens between fork and exec.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use userland_tests::{Ended, Reachable, finish, ringfence_with_faults, started_until, wait_for};

/// As many as a user may have. Nobody else is these users: each test has its own.
const FEW: u64 = 20;
/// The sentry's threads start late.
const LATE: &str = "sentry.step@20+=delay:50";

/// The scenario in a sandbox of a user who may have so many processes. Only root can become another user; the rest of the
/// tests say so where they need it.
fn run(executables: &Reachable, user: u32, limit: u64, script: &str) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become a user who has no other processes");
        return None;
    }
    let guest = executables.guest.to_str().expect("a path in UTF-8");
    let arguments = ["sh", "-c", script, guest];
    let mut command = executables.command_as(user, &[], &arguments);
    // SAFETY: between fork and exec this makes one system call and touches no memory.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NPROC, limit, limit)?));
    }
    Some(command)
}

const TAKE_ALL: &str = "exec \"$0\" take-all-processes";
const SERVED: &str = "none is left\nclient: true\n";

#[test]
fn a_program_that_takes_all_processes_is_served() {
    let executables = Reachable::new();
    if let Some(mut command) = run(&executables, 61_001, FEW, TAKE_ALL) {
        let Ended {
            status,
            stdout,
            stderr,
        } = finish(&mut command);
        assert_eq!((status, stdout.as_str()), (0, SERVED), "{stderr}");
    }
}

#[test]
fn a_program_that_takes_all_processes_can_be_ended() {
    let executables = Reachable::new();
    let script = "\"$0\" take-all-processes; read line";
    if let Some(mut command) = run(&executables, 61_002, FEW, script) {
        command.stdin(Stdio::piped());
        let (mut sandbox, _output, _) = started_until(&mut command, "client: true\n");
        // Its end would end the program, too.
        let _input = sandbox.stdin.take();
        kill(Pid::from_raw(sandbox.id() as i32), Signal::SIGTERM).expect("kill");
        assert_eq!(wait_for(sandbox).status, 128 + Signal::SIGTERM as i32);
    }
}

/// It waits until what the sentry starts has started. Left out, it takes what that needs.
#[test]
fn a_program_waits_for_the_sandboxs_own_processes() {
    let executables = Reachable::of(ringfence_with_faults());
    for (user, rules, expected) in [
        (61_003, LATE.to_owned(), (0, SERVED)),
        (
            61_004,
            format!("{LATE} sentry.ready=drop"),
            (125, "none is left\n"),
        ),
    ] {
        if let Some(mut command) = run(&executables, user, FEW, TAKE_ALL) {
            let Ended {
                status,
                stdout,
                stderr,
            } = finish(command.env("RINGFENCE_FAULTS", rules));
            assert_eq!((status, stdout.as_str()), expected, "{stderr}");
        }
    }
}

/// Where there are too few for the sandbox, that is said, and nothing of the program has run.
#[test]
fn too_few_processes_are_said() {
    let executables = Reachable::new();
    if let Some(mut command) = run(&executables, 61_005, 12, "echo begun") {
        let Ended {
            status,
            stdout,
            stderr,
        } = finish(command.stdin(Stdio::null()));
        assert_eq!((status, stdout.as_str()), (125, ""));
        let reason = "raise the limit of processes (ulimit -u), or pids.max of the control group";
        assert!(stderr.contains(reason), "{stderr}");
    }
}
