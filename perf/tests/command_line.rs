//! The command as a user sees it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_perf::claims;

fn perf(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-perf"));
    // As a user starts it: cargo's variables would have it build Ringfence.
    command.env_remove("CARGO").args(arguments);
    command.output().expect("the command")
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory that vanishes at the end of a test.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn help_has_every_claim_and_what_it_is() {
    let output = perf(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = printed(&output);
    let line_of = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("  "));
        lines.find(|line| line.split(' ').next() == Some(name))
    };
    for claim in claims::ALL {
        assert!(line_of(claim.name).is_some(), "{} in {text}", claim.name);
    }
    assert_eq!(
        line_of("all").map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")),
        Some("all Measure every claim".to_owned())
    );
    assert!(line_of("guest").is_none());
}

#[test]
fn the_help_of_a_claim_says_how_it_is_measured() {
    for claim in claims::ALL {
        let output = perf(&[claim.name, "--help"]);
        let text = printed(&output);
        let words: Vec<_> = text.split_whitespace().collect();
        let how: Vec<_> = claim.how.split_whitespace().collect();
        assert!(
            words.windows(how.len()).any(|part| part == how),
            "{}: {text}",
            claim.name
        );
        for option in [
            "--driver",
            "--ringfence",
            "--runsc",
            "--json",
            "--html",
            "--quick",
            "--samples",
            "--check",
            "--slack",
        ] {
            assert!(words.contains(&option), "{option} of {}", claim.name);
        }
    }
}

#[test]
fn a_wrong_command_line_is_status_2() {
    for wrong in [
        &[][..],
        &["nothing-of-the-kind"],
        &["all", "--slack", "0.5"],
        &["all", "--slack", "nan"],
        &["all", "--driver", "none"],
    ] {
        let output = perf(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert_eq!(printed(&output), "", "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn a_ringfence_that_is_not_there_is_named() {
    let output = perf(&["all", "--ringfence", "/nowhere/ringfence"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ringfence-perf: --ringfence /nowhere/ringfence: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_runsc_that_is_not_there_is_named() {
    let output = perf(&[
        "start",
        "--ringfence",
        "/bin/true",
        "--runsc",
        "/nowhere/runsc",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ringfence-perf: --runsc /nowhere/runsc: No such file or directory (os error 2)\n"
    );
}

/// Programs that stand in for others, by a script each, and those of this machine that scripts take. Nothing else is found.
fn programs(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = directory();
    for name in ["true", "sh"] {
        let program = PathBuf::from("/bin").join(name);
        symlink(program, directory.path().join(name)).expect("a link");
    }
    for (name, script) in scripts {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
    }
    directory
}

#[test]
fn each_way_has_a_figure_or_the_reason_why_it_has_none() {
    let started = |scripts: &[(&str, &str)]| {
        let programs = programs(scripts);
        let json = programs.path().join("results.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-perf"));
        command
            .args(["start", "--quick", "--check", "--slack", "1000000"])
            .args(["--driver", "sim", "--ringfence", "/bin/true", "--json"])
            .arg(&json)
            .env_remove("CARGO")
            .env("PATH", programs.path());
        let output = command.output().expect("the command");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = std::fs::read(json).expect("results");
        let results: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let ways = results["claims"][0]["values"][1]["by_way"].clone();
        let ways = ways.as_array().expect("ways").clone();
        let outcome = |way: &serde_json::Value| {
            let reason = way["not_measured"]["reason"].as_str();
            let name = way["way"].as_str().expect("a name");
            format!("{name}: {}", reason.unwrap_or("measured"))
        };
        ways.iter().map(outcome).collect::<Vec<_>>()
    };
    let (native, ringfence) = ("native: measured", "ringfence run: measured");
    let runsc = "runsc: no runsc was named";
    assert_eq!(
        started(&[]),
        [
            native,
            ringfence,
            "bwrap: bwrap was not found",
            "runc: runc was not found",
            "ringfence-runtime: runc was not found",
            runsc
        ]
    );
    let with_bubblewrap = started(&[("bwrap", "exit 0")]);
    assert_eq!(with_bubblewrap[2], "bwrap: measured");
    let broken = started(&[("bwrap", "echo no namespaces >&2; exit 1")]);
    let reason = "bwrap: it does not run here: bwrap: no namespaces";
    assert_eq!(broken[2], reason);
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_anything_is_measured() {
    for option in ["--json", "--html"] {
        let output = perf(&[
            "ring-hot",
            "--driver",
            "sim",
            "--ringfence",
            "/bin/true",
            option,
            "/nowhere/results",
        ]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(printed(&output), "");
        let expected = format!(
            "ringfence-perf: {option} /nowhere/results: No such file or directory (os error 2)\n"
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    }
}

#[test]
fn what_takes_a_gpu_is_not_measured_without_and_says_so() {
    let directory = directory();
    let json = directory.path().join("results.json");
    let output = perf(&[
        "phases",
        "--driver",
        "sim",
        "--ringfence",
        "/bin/true",
        "--check",
        "--json",
        &json.to_string_lossy(),
    ]);
    // Nothing was measured at all.
    assert_eq!(output.status.code(), Some(2));
    let line = "phases was not measured: this takes a GPU and NVIDIA's driver; run it on a machine that has them, \
                without --driver sim";
    assert!(printed(&output).lines().any(|printed| printed == line));
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(json).expect("results")).expect("JSON");
    let value = &results["claims"][0]["values"][0];
    assert_eq!(value["verdict"], "not-measured");
    assert_eq!(value["passes"], true);
    assert_eq!(
        value["not_measured"]["reason"],
        "this takes a GPU and NVIDIA's driver"
    );
}

#[test]
fn the_rings_are_measured_and_written_in_three_forms() {
    let directory = directory();
    let file = |name: &str| -> PathBuf { directory.path().join(name) };
    let output = perf(&[
        "ring-hot",
        "--quick",
        "--samples",
        "60",
        "--driver",
        "sim",
        "--ringfence",
        "/bin/true",
        "--json",
        &file("results.json").to_string_lossy(),
        "--html",
        &file("results.html").to_string_lossy(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let table = printed(&output);
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("ring-hot  median"))
    );
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file("results.json")).expect("results"))
            .expect("JSON");
    let claim = &results["claims"][0];
    assert_eq!(claim["name"], "ring-hot");
    assert!(claim["values"][0]["value"].is_f64());
    let counts = claim["distributions"].as_array().expect("distributions");
    let counts: Vec<_> = counts.iter().map(|times| times["count"].as_u64()).collect();
    assert_eq!(counts, [Some(60); 4]);
    let page = std::fs::read_to_string(file("results.html")).expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg ").count(), 2);
    assert!(!page.contains("src=") && !page.contains("<script"));
}

#[test]
fn one_that_is_ended_leaves_nothing_behind() {
    let directory = directory();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-perf"));
    command
        .args(["ring-asleep", "--samples", "1000000000", "--driver", "sim"])
        .args(["--ringfence", "/bin/true"])
        .env_remove("CARGO")
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut perf = command.spawn().expect("the command");
    let mut stderr = BufReader::new(perf.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert_eq!(line, "measuring ring-asleep\n");
    kill(Pid::from_raw(perf.id() as i32), Signal::SIGTERM).expect("a signal");
    let status = perf.wait().expect("an end");
    assert_eq!(status.code(), Some(128 + Signal::SIGTERM as i32));
    // The other process has its own file for complaints, so the pipe is this one's alone.
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .expect("the directory")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
