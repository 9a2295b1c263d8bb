//! How a run ends and what it prints: exit statuses, the standard streams, signals, the log and the statistics.
//!
//! `unsafe` is here because of what happens between fork and exec.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::process::ioctl_tiocsctty;
use rustix::stdio::stdin;
use userland_tests::processes::Process;
use userland_tests::{
    Directory, Ended, eventually, finish, guest, guest_under, guest_with, heed_interrupts,
    ringfence_program, ringfence_run, ringfence_with_faults, started, wait_for,
};

/// `sh -c SCRIPT` in a sandbox.
fn shell(script: &str) -> Command {
    let mut command = ringfence_run(&[]);
    command.args(["sh", "-c", script]);
    command
}

#[test]
fn the_exit_status_is_the_programs() {
    for status in [0, 1, 42, 125, 255] {
        let ended = finish(&mut shell(&format!("exit {status}")));
        assert_eq!(
            ended,
            Ended {
                status,
                ..Ended::printing("")
            }
        );
    }
}

#[test]
fn a_program_that_a_signal_ends_has_128_and_the_signal() {
    for signal in [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGABRT,
        libc::SIGUSR1,
        libc::SIGRTMIN(),
    ] {
        let ended = finish(&mut guest(&["raise", &signal.to_string()]));
        assert_eq!(
            ended,
            Ended {
                status: 128 + signal,
                ..Ended::printing("")
            }
        );
    }
}

#[test]
fn a_program_that_is_not_there_or_not_executable_is_named() {
    let run = |program: &str| finish(ringfence_run(&[]).arg(program));
    let missing = "ringfence: /nowhere/at-all: No such file or directory";
    assert_eq!(run("/nowhere/at-all"), Ended::failing(127, missing));
    assert_eq!(
        run("not-a-program"),
        Ended::failing(127, "ringfence: not-a-program: No such file or directory")
    );
    assert_eq!(
        run("/etc/passwd"),
        Ended::failing(126, "ringfence: /etc/passwd: Permission denied")
    );
    assert_eq!(
        run("/"),
        Ended::failing(126, "ringfence: /: Permission denied")
    );
}

#[test]
fn a_sandbox_that_cannot_be_set_up_is_125_and_one_line() {
    let ended = finish(&mut guest_with(&["--log", "/nowhere/log"], &["walk"]));
    let line = "ringfence: --log /nowhere/log: No such file or directory";
    assert_eq!(ended, Ended::failing(125, line));
    let ended =
        finish(Command::new(ringfence_program()).args(["run", "--driver", "host", "--", "true"]));
    let line = "ringfence: this machine has no NVIDIA driver (/sys/module/nvidia/version is missing): load the nvidia \
                module, or use --driver sim";
    if !std::path::Path::new("/sys/module/nvidia/version").exists() {
        assert_eq!(ended, Ended::failing(125, line));
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_125() {
    let ended = finish(&mut guest_with(&["--gpus", "first"], &["walk"]));
    assert_eq!((ended.status, ended.stdout.as_str()), (125, ""));
    assert!(
        ended
            .stderr
            .contains("'first' is neither an index like 0, nor a UUID like GPU-5a3e..."),
        "{ended:?}"
    );
}

#[test]
fn the_standard_streams_pass_through_untouched() {
    let bytes: Vec<u8> = (0..1 << 20)
        .map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut child = shell("tee /dev/stderr")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ringfence");
    let mut input = child.stdin.take().expect("a pipe");
    let written = bytes.clone();
    let writer = std::thread::spawn(move || input.write_all(&written));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("the writer").expect("written");
    assert!(output.status.success());
    assert!(output.stdout == bytes, "stdout differs");
    assert!(output.stderr == bytes, "stderr differs");
}

/// What comes of a program that writes to a standard output that its caller has left closed.
fn written_where_nothing_is(ringfence: PathBuf, rules: &str) -> Ended {
    let run = "exec \"$@\" ls / >&-";
    let mut command = Command::new("sh");
    command.args(["-c", run, "sh"]).arg(ringfence);
    command.args(["run", "--driver", "sim", "--workdir", "/", "--"]);
    command.env("RINGFENCE_FAULTS", rules).stdin(Stdio::null());
    finish(&mut command)
}

#[test]
fn a_stream_that_is_closed_is_closed_in_the_sandbox() {
    let ended = written_where_nothing_is(ringfence_program(), "");
    assert!(
        ended.status != 0 && ended.stderr.contains("Bad file descriptor"),
        "{ended:?}"
    );
}

/// The test above can fail: Rust's runtime has put the null device there.
#[test]
fn a_stream_that_is_closed_takes_everything_if_it_is_left_as_it_is() {
    let ended = written_where_nothing_is(ringfence_with_faults(), "program.streams=drop");
    assert_eq!(ended.status, 0, "{ended:?}");
}

#[test]
fn a_recording_has_no_place_in_a_directory_that_is_gone() {
    let directory = Directory::new("gone");
    let run = "mkdir gone && cd gone && rmdir ../gone && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", run, "sh"]).arg(ringfence_program());
    command.args(["record", "--driver", "sim", "--out", "file", "--", "true"]);
    command.current_dir(directory.path()).stdin(Stdio::null());
    let Ended { status, stderr, .. } = finish(&mut command);
    let expected = "ringfence: --out file: No such file or directory: ";
    assert!(
        status == 125 && stderr.starts_with(expected),
        "{status} {stderr}"
    );
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("kill");
}

#[test]
fn a_request_to_terminate_reaches_the_program() {
    let (child, _output) = started(&mut guest(&["idle"]));
    send(&child, Signal::SIGTERM);
    assert_eq!(
        wait_for(child),
        Ended {
            status: 143,
            ..Ended::printing("")
        }
    );

    let (child, mut output) = started(&mut guest(&["handler"]));
    send(&child, Signal::SIGTERM);
    assert_eq!(
        wait_for(child),
        Ended {
            status: 7,
            ..Ended::printing("")
        }
    );
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "terminated\n");
}

/// While its sandbox is being set up, too.
#[test]
fn a_request_to_terminate_that_comes_before_the_program_has_started_ends_it() {
    let mut command = guest_under("sentry.words=block", &["idle"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("ringfence");
    let launcher = Process::find(Pid::from_raw(child.id() as i32)).expect("it is there");
    eventually("its processes are there", || {
        launcher.descendants().len() >= 4
    });
    send(&child, Signal::SIGTERM);
    let ended = Ended {
        status: 143,
        ..Ended::printing("")
    };
    assert_eq!(wait_for(child), ended);
}

#[test]
fn an_interrupt_to_the_process_group_ends_program_and_sandbox() {
    for scenario in ["idle", "busy"] {
        let mut command = guest(&[scenario]);
        command.process_group(0);
        heed_interrupts(&mut command);
        let (child, _output) = started(&mut command);
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("killpg");
        assert_eq!(
            wait_for(child),
            Ended {
                status: 130,
                ..Ended::printing("")
            },
            "{scenario}"
        );
    }
}

/// A terminal's two ends: the user's and the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let opened = openpty(None, None).expect("openpty");
    (opened.master, opened.slave)
}

#[test]
fn an_interrupt_from_the_terminal_reaches_the_program_once() {
    let (user, program) = terminal();
    let mut command = guest(&["counting"]);
    command.stdin(program.try_clone().expect("a duplicate"));
    // SAFETY: between fork and exec this makes two system calls and touches no memory.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            ioctl_tiocsctty(stdin())?;
            Ok(())
        })
    };
    let (child, mut output) = started(&mut command);
    let mut user = File::from(user);
    user.write_all(b"\x03").expect("Ctrl-C");
    // The terminal shows it when it has sent the signal.
    let mut shown = [0; 2];
    user.read_exact(&mut shown)
        .expect("what the terminal shows");
    assert_eq!(&shown, b"^C");
    send(&child, Signal::SIGTERM);
    assert_eq!(wait_for(child), Ended::printing(""));
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the rest");
    assert_eq!(rest, "interrupted 1 times\n");
}

#[test]
fn what_the_program_leaves_running_ends_with_it() {
    let ended = finish(&mut shell("sleep 1000 & sleep 1000 & exit 3"));
    assert_eq!(
        ended,
        Ended {
            status: 3,
            ..Ended::printing("")
        }
    );
}

#[test]
fn the_log_goes_to_the_file_that_was_named() {
    let directory = userland_tests::Directory::new("log");
    let path = directory.path().join("ringfence.log");
    let log = path.to_str().expect("a path in UTF-8");
    let ended = finish(&mut guest_with(&["--log", log], &["unknown", "3"]));
    let stdout =
        "NV_ERR_NOT_SUPPORTED NV_ERR_NOT_SUPPORTED NV_ERR_INVALID_CLASS EINVAL ENOSYS\nthen ok\n";
    assert_eq!(ended, Ended::printing(&stdout.repeat(3)));
    let text = std::fs::read_to_string(&path).expect("the log");
    for line in [
        "nvproxy: unknown class 0xfeed",
        "nvproxy: unknown ioctl 0x77",
    ] {
        let times = text
            .lines()
            .filter(|logged| logged.ends_with(&format!(" WARN {line}")))
            .count();
        assert_eq!(times, 1, "{line} in\n{text}");
    }
}

/// The rows of the statistics as (kind, request, calls), and what follows them.
fn table(stderr: &str) -> (Vec<(&str, &str, u64)>, String) {
    let lines: Vec<&str> = stderr.lines().skip(2).collect();
    let end = lines
        .iter()
        .position(|line| line.ends_with(" requests"))
        .expect("a total");
    let rows = lines[..end].iter().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, request, calls, times @ ..] = words.as_slice() else {
            panic!("{line}");
        };
        assert!(
            times.len() == 6 && times.iter().all(|time| time.parse::<f64>().is_ok()),
            "{line}"
        );
        (*kind, *request, calls.parse().expect("a number of calls"))
    });
    (rows.collect(), lines[end..].join("\n"))
}

#[test]
fn statistics_count_every_request() {
    let ended = finish(&mut guest_with(&["--stats"], &["memory-limit"]));
    assert_eq!(ended.status, 0);
    let (rows, rest) = table(&ended.stderr);
    let expected = [
        ("alloc", "NV01_DEVICE_0", 1),
        ("alloc", "NV01_MEMORY_LOCAL_USER", 13),
        ("alloc", "NV01_MEMORY_SYSTEM", 2),
        ("alloc", "NV01_ROOT_CLIENT", 1),
        ("alloc", "NV20_SUBDEVICE_0", 1),
        ("control", "NV0000_CTRL_CMD_GPU_ATTACH_IDS", 1),
        ("control", "NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2", 1),
        ("control", "NV0000_CTRL_CMD_GPU_GET_PROBED_IDS", 1),
        ("control", "NV2080_CTRL_CMD_FB_GET_INFO_V2", 1),
        ("frontend", "NV_ESC_REGISTER_FD", 1),
        ("frontend", "NV_ESC_RM_FREE", 1),
        ("open", "/dev/nvidia#", 1),
        ("open", "/dev/nvidiactl", 1),
    ];
    assert_eq!(rows, expected);
    let refused = "26 requests\nrefused by the driver: \n  NV01_MEMORY_LOCAL_USER: 4\n  NV01_MEMORY_SYSTEM: 1\n\
                   refused by Ringfence: none";
    assert_eq!(rest, refused);
}

#[test]
fn statistics_count_what_the_tables_refuse() {
    let ended = finish(&mut guest_with(
        &["--stats", "--log", "/dev/null"],
        &["unknown", "4"],
    ));
    let (_, rest) = table(&ended.stderr);
    let (_, refused) = rest
        .split_once("refused by Ringfence: \n")
        .expect("refusals");
    let expected = "  unknown UVM ioctl 0x7e: 4\n  unknown class 0xfeed: 4\n  \
                    unknown control command 0x20800112 (NV2080_CTRL_CMD_GPU_SET_POWER): 4\n  \
                    unknown control command 0x20807fff: 4\n  unknown ioctl 0x77: 4";
    assert_eq!(refused, expected);
}

/// Rust's runtime ignores SIGPIPE before a program of its can look. A service that ignores it (systemd's do) has its programs see
/// EPIPE.
#[test]
fn a_program_begins_with_sigpipe_as_its_caller_left_it() {
    for (trap, is_ignored) in [("trap '' PIPE", true), (":", false)] {
        let run = r#"exec "$0" run --driver=sim -- grep SigIgn /proc/self/status"#;
        let script = format!("{trap}; {run}");
        let mut command = Command::new("sh");
        let ended = finish(command.args(["-c", &script]).arg(ringfence_program()));
        let mask = ended.stdout.trim_start_matches("SigIgn:").trim();
        let mask = u64::from_str_radix(mask, 16).expect("a mask");
        assert_eq!(
            mask >> (libc::SIGPIPE - 1) & 1 == 1,
            is_ignored,
            "{ended:?}"
        );
    }
}
