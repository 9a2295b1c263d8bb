//! What commands print: all of it reaches who asked for it, or the command fails. One that nobody reads any more ends quietly,
//! by SIGPIPE, as other commands do.

use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use userland_tests::{Directory, Ended, finish, ringfence_program, ringfence_run};

/// A command line for each command that prints, and for each way to print.
const PRINTING: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["help"],
    &["run", "--help"],
    &["record", "--help"],
    &["replay", "--help"],
    &["server-upgrade", "--help"],
    &["survey", "--help"],
    &["demo", "--driver", "sim"],
    &["ps"],
    &["ps", "--json"],
    &["doctor"],
    &["doctor", "--json"],
    &["drivers", "list"],
    &["drivers", "list", "--json"],
    &["drivers", "show", "580.142"],
    &["drivers", "diff", "570.86.15", "580.142"],
    &["nvproxy", "list-supported-drivers"],
    CONFIGURE,
];

/// It shows what it would write. Its failures have another status.
const CONFIGURE: &[&str] = &[
    "runtime",
    "configure",
    "docker",
    "--dry-run",
    "--config",
    "/tmp/nonexistent.json",
    "--runtime-path",
    "/bin/sh",
];

const FULL: &str = "No space left on device";

fn full() -> File {
    OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(ringfence_program());
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.stderr(Stdio::piped()).output().expect("ringfence")
}

/// What was said on stderr beside the table of `demo`.
fn said(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter(|line| line.starts_with("ringfence:"));
    lines.map(str::to_owned).collect()
}

/// The list of commands in the help, so that a new one is not forgotten here.
#[test]
fn every_command_is_tried() {
    let help = finish(&mut command(&["--help"])).stdout;
    let (_, list) = help.split_once("Commands:\n").expect("a list");
    let (list, _) = list.split_once("\n\n").expect("its end");
    for line in list.lines() {
        let name = line.split_whitespace().next().expect("a name");
        let is_name = line.starts_with("  ") && !line.starts_with("   ");
        let is_tried = PRINTING.iter().any(|tried| tried[0] == name);
        assert!(!is_name || is_tried, "{name}");
    }
}

#[test]
fn a_command_whose_output_finds_no_room_fails() {
    for arguments in PRINTING {
        let output = output(command(arguments).stdout(full()));
        let failed = if *arguments == CONFIGURE { 1 } else { 125 };
        assert_eq!(
            output.status.code(),
            Some(failed),
            "{arguments:?}: {output:?}"
        );
        let line = format!("ringfence: stdout: {FULL}");
        assert_eq!(said(&output), [line], "{arguments:?}");
    }
}

#[test]
fn a_command_whose_output_nobody_reads_ends_by_sigpipe() {
    for arguments in PRINTING {
        let (nobody, writer) = std::io::pipe().expect("a pipe");
        drop(nobody);
        let output = output(command(arguments).stdout(writer));
        // The demonstration is a program in a sandbox, of which the status is a shell's.
        let ended = match output.status.signal() {
            Some(signal) => 128 + signal,
            None => output.status.code().expect("a status"),
        };
        assert_eq!(
            ended,
            128 + Signal::SIGPIPE as i32,
            "{arguments:?}: {output:?}"
        );
        assert_eq!(said(&output), [""; 0], "{arguments:?}");
    }
}

/// It has messages of its own to lose, and the program's status to return.
#[test]
fn a_run_whose_stderr_finds_no_room_goes_on() {
    for options in [&[][..], &["--stats"]] {
        let mut command = command(&["run", "--driver", "auto"]);
        command.args(options).args(["--", "sh", "-c", "exit 7"]);
        let status = command.stderr(full()).status().expect("ringfence");
        assert_eq!(status.code(), Some(7), "{options:?}");
    }
}

#[test]
fn a_log_that_finds_no_room_is_said() {
    let mut command = ringfence_run(&["--log", "/dev/full"]);
    let ended = finish(command.args(["sh", "-c", "exit 7"]));
    let line = format!("ringfence: --log /dev/full: {FULL}: what follows is missing");
    assert_eq!(ended, Ended::failing(7, &line));
}

/// From its first line on, and although the kernel sends SIGXFSZ there.
#[test]
fn a_log_at_the_limit_of_files_is_said() {
    let directory = Directory::new("limited");
    let log = directory.path().join("log");
    let log = log.to_str().expect("text");
    // In a shell's blocks of 512 bytes.
    for (length, limit) in [(8 << 20, "-f 16384"), (1 << 10, "-S -f 2")] {
        let full = File::create(log).expect("a file");
        full.set_len(length).expect("its length");
        let mut sandbox = ringfence_run(&["--log", log]);
        sandbox.args(["sh", "-c", "exit 7"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]);
        shell.arg(sandbox.get_program()).args(sandbox.get_args());
        let ended = finish(shell.stdin(Stdio::null()));
        let line = format!("ringfence: --log {log}: File too large: what follows is missing");
        assert_eq!(ended, Ended::failing(7, &line), "{limit}");
    }
}

/// `-` is what people call stdout by, and no name of a file that appears where they work.
#[test]
fn a_file_to_write_cannot_be_stdout() {
    let directory = Directory::new("dash");
    let reason = "-: stdout is the program's, and a file is wanted";
    for (words, option) in [
        (&["run"][..], "--log"),
        (&["run"], "--trace"),
        (&["record"], "--out"),
    ] {
        let mut command = command(words);
        command.args([option, "-", "--driver", "sim", "--", "true"]);
        let Ended { status, stderr, .. } = finish(command.current_dir(directory.path()));
        assert_eq!(status, 125);
        let expected = format!("ringfence: {option} {reason}");
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert_eq!(stderr.lines().count(), 1);
    }
    let made = std::fs::read_dir(directory.path()).expect("the directory");
    assert_eq!(made.count(), 0);
}

/// Who writes a directory's name means a file in it, and nobody has said which.
#[test]
fn a_file_to_write_cannot_be_a_directory() {
    let directory = Directory::new("slash");
    for (words, option) in [
        (&["run"][..], "--log"),
        (&["run"], "--trace"),
        (&["record"], "--out"),
    ] {
        for name in ["new/", "new//", "new/.", "./"] {
            let mut command = command(words);
            command.args([option, name, "--driver", "sim"]);
            command.args(["--workdir=/", "--", "true"]);
            let Ended { status, stderr, .. } = finish(command.current_dir(directory.path()));
            let expected = format!(
                "ringfence: {option} {name}: it is a directory's name, and a file is wanted"
            );
            assert!(stderr.starts_with(&expected), "{stderr}");
            assert_eq!((status, stderr.lines().count()), (125, 1));
        }
    }
    let made = std::fs::read_dir(directory.path()).expect("the directory");
    assert_eq!(made.count(), 0);
}

#[test]
fn what_a_program_is_called_does_not_command_a_terminal() {
    let directory = Directory::new("controls");
    let mut sandbox = ringfence_run(&["--name", "controls"]);
    sandbox.env("XDG_RUNTIME_DIR", directory.path());
    sandbox.args([
        "sh",
        "-c",
        "echo ready; read line",
        "\u{1b}]0;title\u{7}\nnext",
    ]);
    sandbox.stdin(Stdio::piped());
    let (mut sandbox, _output) = userland_tests::started(&mut sandbox);
    let listed = finish(command(&["ps"]).env("XDG_RUNTIME_DIR", directory.path()));
    drop(sandbox.stdin.take());
    sandbox.wait().expect("its end");
    let lines: Vec<&str> = listed.stdout.lines().collect();
    let [_, line] = lines[..] else {
        panic!("{listed:?}")
    };
    assert!(
        line.ends_with(r"read line \u{1b}]0;title\u{7}\nnext"),
        "{line}"
    );
}
