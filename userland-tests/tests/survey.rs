//! `ringfence survey`: a program runs as it would without Ringfence, and what a sandbox would refuse it is said.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use userland_tests::{
    Directory, Ended, finish, guest_program, ringfence_program, ringfence_with_faults, started,
    wait_for,
};

const WARNING: &str =
    "ringfence: survey: the program runs without a sandbox, with all of your rights\n";

/// A survey with nodes that are ordinary files, which answer ENOTTY to all.
fn survey(nodes: &Directory, options: &[&str], program: &[&str]) -> Command {
    for name in ["nvidiactl", "nvidia-uvm"] {
        fs::write(nodes.path().join(name), "").expect("a node");
    }
    let mut command = Command::new(ringfence_with_faults());
    command.arg("survey").args(options).arg("--").args(program);
    command.env("RINGFENCE_DEVICES", nodes.path());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// What the guest's requests come to on such nodes.
fn natively() -> String {
    format!("{}\n", ["ENOTTY"; 10].join(" "))
}

/// What is said of them.
fn findings() -> String {
    format!(
        "{WARNING}\
         ringfence: survey: 10 requests; a sandbox with compute,utility would refuse these:\n\
        \x20 control command 0x214 (NV0000_CTRL_CMD_GPU_GET_PROBED_IDS) with parameters of 8 bytes: once, 8 bytes\n\
        \x20 control command 0x301 (NV0000_CTRL_CMD_GSYNC_GET_ATTACHED_IDS) needs a capability that the sandbox lacks: graphics,display: once, 16 bytes\n\
        \x20 unknown UVM ioctl 0x1ff: once\n\
        \x20 unknown class 0xfff0: once\n\
        \x20 unknown control command 0x20807fff: 3 times, 16 or 24 bytes\n\
        \x20 could not be read: 1\n"
    )
}

#[test]
fn what_a_sandbox_would_refuse_is_said_and_nothing_is_refused() {
    let nodes = Directory::new("survey");
    let out = nodes.path().join("survey.json");
    let guest = guest_program();
    let program = [text(&guest), "survey", text(nodes.path())];
    let mut command = survey(&nodes, &["--out", text(&out)], &program);
    let expected = Ended {
        stderr: findings(),
        ..Ended::printing(&natively())
    };
    assert_eq!(finish(&mut command), expected);
    let written: Value =
        serde_json::from_str(&fs::read_to_string(&out).expect("a survey")).expect("JSON");
    assert_eq!(written["requests"], json!(10));
    assert_eq!(written["unreadable"], json!(1));
    assert_eq!(written["architectures"], json!(["HOPPER"]));
    assert_eq!(written["command"], json!(program));
    let unknown = json!({
        "family": "control",
        "id": "0x20807fff",
        "name": null,
        "reason": "unknown control command 0x20807fff",
        "count": 3,
        "sizes": [16, 24],
    });
    assert_eq!(written["refused"][4], unknown);
    assert_eq!(written["refused"].as_array().map(Vec::len), Some(5));
}

/// The capabilities are those that a sandbox would be given.
#[test]
fn what_is_granted_is_not_found() {
    let nodes = Directory::new("survey");
    let guest = guest_program();
    let program = [text(&guest), "survey", text(nodes.path())];
    let options = ["--driver-capabilities", "compute,utility,display"];
    let ended = finish(&mut survey(&nodes, &options, &program));
    assert!(!ended.stderr.contains("0x301 "), "{}", ended.stderr);
    assert!(ended.stderr.contains("0x20807fff"), "{}", ended.stderr);
}

/// A process that the program leaves behind can ask as well, and is not left without an answer.
#[test]
fn it_lasts_as_long_as_anybody_could_ask() {
    let nodes = Directory::new("survey");
    let guest = guest_program();
    let program = [text(&guest), "survey", text(nodes.path()), "later"];
    let expected = Ended {
        stderr: findings(),
        ..Ended::printing(&natively())
    };
    assert_eq!(finish(&mut survey(&nodes, &[], &program)), expected);
}

#[test]
fn it_ends_as_its_program_does() {
    let nodes = Directory::new("survey");
    let none = format!(
        "{WARNING}ringfence: survey: 0 requests; a sandbox with compute,utility would refuse none\n"
    );
    for (script, status) in [("exit 3", 3), ("kill -TERM $$", 143), ("kill -INT $$", 130)] {
        let ended = finish(&mut survey(&nodes, &[], &["sh", "-c", script]));
        assert_eq!((ended.status, &ended.stderr), (status, &none), "{script}");
    }
    let missing = finish(&mut survey(&nodes, &[], &["/nonexistent/program"]));
    assert_eq!(missing.status, 127);
    let no_program = finish(&mut survey(&nodes, &[], &["/"]));
    assert_eq!(no_program.status, 126);
}

/// What is sent to the command is for the program.
#[test]
fn a_signal_is_passed_on() {
    let nodes = Directory::new("survey");
    let script = "exec env --default-signal sh -c 'echo ready; exec sleep 100000'";
    let (child, _output) = started(&mut survey(&nodes, &[], &["sh", "-c", script]));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("kill");
    assert_eq!(wait_for(child).status, 143);
}

#[test]
fn without_a_driver_there_is_no_survey() {
    // Where there is one this shows nothing.
    if fs::exists("/sys/module/nvidia").unwrap_or(false) {
        return;
    }
    let ended = finish(Command::new(ringfence_program()).args(["survey", "--", "true"]));
    let line = "ringfence: this machine has no NVIDIA driver (/sys/module/nvidia/version is missing): a survey is of what \
                programs ask a real one";
    assert_eq!(ended, Ended::failing(125, line));
}
