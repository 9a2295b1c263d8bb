//! A run whose program has died of SIGINT or SIGQUIT dies of it as well, so that Ctrl-C ends the loop of a shell that it is in.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use userland_tests::{
    Directory, finish, heed_interrupts, ringfence_program, ringfence_run, started_until, wait_for,
};

/// How a run of this script ends.
fn ending(options: &[&str], script: &str) -> ExitStatus {
    let mut command = ringfence_run(options);
    command.args(["sh", "-c", script]);
    heed_interrupts(&mut command);
    command.status().expect("ringfence")
}

#[test]
fn it_ends_by_the_signal_that_has_ended_its_program() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let status = ending(&[], &format!("kill -{} $$", signal as i32));
        assert_eq!(status.signal(), Some(signal as i32), "{status:?}");
    }
}

#[test]
fn it_ends_by_a_status_in_every_other_case() {
    let program = "exit 130";
    assert_eq!(ending(&[], program).code(), Some(130));
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGSEGV] {
        let status = ending(&[], &format!("kill -{} $$", signal as i32));
        assert_eq!(status.code(), Some(128 + signal as i32), "{status:?}");
    }
}

/// SIGQUIT is for those who want a core file, of their program. `WCOREDUMP` says that there is one of `ringfence`.
#[test]
fn it_leaves_no_core_file_of_its_own() {
    let directory = Directory::new("core");
    let (_, most) = getrlimit(Resource::RLIMIT_CORE).expect("a limit");
    setrlimit(Resource::RLIMIT_CORE, most, most).expect("a limit");
    let mut command = ringfence_run(&[]);
    command.args(["sh", "-c", "kill -QUIT $$"]);
    heed_interrupts(&mut command);
    let status = command
        .current_dir(directory.path())
        .status()
        .expect("ringfence");
    assert_eq!(status.signal(), Some(Signal::SIGQUIT as i32));
    assert!(!status.core_dumped());
    let left = std::fs::read_dir(directory.path()).expect("the directory");
    assert_eq!(left.count(), 0);
}

/// What is to be done at the end is done before.
#[test]
fn it_cleans_up_before_it_ends_by_a_signal() {
    let directory = Directory::new("cleaned");
    let mut command = ringfence_run(&["--stats"]);
    command.env("XDG_RUNTIME_DIR", directory.path());
    command.args(["sh", "-c", "kill -INT $$"]);
    heed_interrupts(&mut command);
    let ended = finish(&mut command);
    assert_eq!(ended.status, 128 + Signal::SIGINT as i32);
    assert!(
        ended.stderr.contains("refused by the driver: none"),
        "{ended:?}"
    );
    let doors = std::fs::read_dir(directory.path().join("ringfence")).expect("doors");
    assert_eq!(doors.count(), 0);
}

/// As Ctrl-C sends it: to the shell and to `ringfence`, which are in one group.
#[test]
fn an_interrupt_ends_the_loop_of_a_shell() {
    let script = "for turn in 1 2 3; do \"$0\" run --driver sim -- sh -c 'echo ready; exec sleep 600'; \
                  echo \"after $turn\"; done";
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).arg(ringfence_program());
    shell.stdin(Stdio::null()).process_group(0);
    heed_interrupts(&mut shell);
    let (shell, output, _) = started_until(&mut shell, "ready\n");
    killpg(Pid::from_raw(shell.id() as i32), Signal::SIGINT).expect("the group");
    let printed = std::io::read_to_string(output).expect("output");
    assert_eq!(printed, "");
    assert_eq!(wait_for(shell).status, 128 + Signal::SIGINT as i32);
}
