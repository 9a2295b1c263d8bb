//! Pipes that were left open to be read: what the program does to its own is done to nobody else's, and what others do
//! with theirs is as it was without a sandbox.

use std::io::Write;

use userland_tests::{guest_under, ringfence_under};

use super::*;

/// Runs a shell with this input, and `sandbox` for its arguments.
fn shell(arguments: &[&str], sandbox: &Command, input: &str) -> Ended {
    let mut command = Command::new("bash");
    command.args(arguments);
    command.arg(sandbox.get_program()).args(sandbox.get_args());
    for (name, value) in sandbox.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let streams = || Stdio::piped();
    let mut child = command
        .stdin(streams())
        .stdout(streams())
        .stderr(streams())
        .spawn()
        .expect("a shell");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    wait_for(child)
}

/// The same of a shell that has `script` for its command.
fn script(script: &str, sandbox: &Command, input: &str) -> Ended {
    shell(&["-c", script, "bash"], sandbox, input)
}

/// A sandbox with a program in it that writes a command to its standard input, if there is room.
fn planting(mut sandbox: Command) -> Command {
    let write = "echo 'echo planted' | dd of=/proc/$$/fd/0 oflag=nonblock conv=notrunc,nocreat 2>/dev/null; echo tried";
    sandbox.args(["bash", "-c", write]);
    sandbox
}

/// A script that comes through the standard input of its shell.
const PIPED: &str = "\"$@\"\necho end\n";

#[test]
fn nothing_is_written_to_the_pipe_that_a_shell_reads_its_commands_from() {
    let sandbox = planting(ringfence_run(&[]));
    let ended = shell(&["-s", "--"], &sandbox, PIPED);
    assert_eq!(ended, Ended::printing("tried\nend\n"));
    if is_root() {
        let executables = Reachable::new();
        let sandbox = planting(executables.command_as(USER, &["--workdir", "/"], &[]));
        let setpriv = format!("setpriv --reuid {USER} --regid {USER} --clear-groups {PIPED}");
        let ended = shell(&["-s", "--"], &sandbox, &setpriv);
        assert_eq!(ended, Ended::printing("tried\nend\n"));
    }
}

/// The test above can fail: whoever has a pipe to read it can open it to write.
#[test]
fn commands_are_written_to_the_pipe_of_a_shell_if_the_program_has_it() {
    let sandbox = planting(ringfence_under("sentry.inputs=drop", &[]));
    let ended = shell(&["-s", "--"], &sandbox, PIPED);
    assert_eq!(ended, Ended::printing("tried\nend\nplanted\n"));
}

#[test]
fn what_a_program_does_not_read_is_left_to_others() {
    // Nothing of it.
    let mut sandbox = ringfence_run(&[]);
    sandbox.arg("true");
    let ended = script(
        "while read -r line; do \"$@\"; echo $line; done",
        &sandbox,
        "1\n2\n3\n",
    );
    assert_eq!(ended, Ended::printing("1\n2\n3\n"));
    // A part, which does not end where a page does.
    let input = "0123456789".repeat(10_000);
    let mut sandbox = ringfence_run(&[]);
    sandbox.args(["head", "-c", "60006"]);
    let ended = script("\"$@\" | wc -c; cat", &sandbox, &input);
    let rest = &input[60_006..];
    assert_eq!(ended, Ended::printing(&format!("60006\n{rest}")));
    // All.
    let mut sandbox = ringfence_run(&[]);
    sandbox.arg("cat");
    let ended = script("\"$@\"; cat", &sandbox, &input);
    assert_eq!(ended, Ended::printing(&input));
}

/// Lines that fill more than a pipe holds.
fn lines() -> String {
    (0..10_000).map(|line| format!("{line:07}\n")).collect()
}

#[test]
fn what_a_program_does_not_read_is_left_to_others_if_it_makes_its_pipe_larger() {
    for scenario in [&["larger-input"][..], &["larger-input", "all"]] {
        let ended = script("\"$@\"; cat", &guest_with(&[], scenario), &lines());
        assert_eq!(ended, Ended::printing(&lines()));
    }
}

/// The test above can fail: in a larger pipe there is room though not all was read.
#[test]
fn what_a_program_does_not_read_is_lost_if_it_makes_its_pipe_larger_and_nobody_counts() {
    let sandbox = guest_under("sentry.unread=drop", &["larger-input", "until-more"]);
    let ended = script("\"$@\"; cat", &sandbox, &lines());
    assert!(ended.stdout.starts_with("0000000\n"), "{ended:?}");
    assert!(ended.stdout.len() < lines().len(), "{ended:?}");
}

#[test]
fn who_writes_is_told_when_the_program_reads_no_more() {
    let directory = Directory::new("inputs");
    let place = text(directory.path());
    let mut sandbox = ringfence_run(&["--bind", place]);
    let program = format!(
        "read -r line; exec <&-; until [ -s {place}/ended ]; do sleep 0.01; done; echo $line; cat {place}/ended"
    );
    sandbox.args(["sh", "-c", &program]);
    let line = format!("{{ yes; echo $? >{place}/ended; }} | \"$@\"");
    let ended = script(&line, &sandbox, "");
    assert_eq!(ended, Ended::printing("y\n141\n"));
}

#[test]
fn a_pipe_that_is_written_too_is_the_programs() {
    let fifo = "mkfifo $D/pipe; exec 5<>$D/pipe 3<$D/pipe 4>$D/pipe 5<&-; ";
    let directory = Directory::new("inputs");
    let place = format!("D={}; {fifo}", text(directory.path()));
    let program = "[ /proc/self/fd/3 -ef /proc/self/fd/4 ] && echo same; echo token >&4; read -r line <&3; echo $line";
    let mut sandbox = ringfence_run(&["--preserve-fds", "2"]);
    sandbox.args(["bash", "-c", program]);
    let ended = script(&format!("{place} \"$@\""), &sandbox, "");
    assert_eq!(ended, Ended::printing("same\ntoken\n"));
    // One that is only read is not, whatever its number.
    let program =
        "[ /proc/self/fd/0 -ef /proc/self/fd/3 ] && echo same; read -r line <&3; echo $line";
    let mut sandbox = ringfence_run(&["--preserve-fds", "1"]);
    sandbox.args(["bash", "-c", program]);
    let ended = script("\"$@\" 3<&0; cat", &sandbox, "one\ntwo\n");
    assert_eq!(ended, Ended::printing("same\none\ntwo\n"));
}
