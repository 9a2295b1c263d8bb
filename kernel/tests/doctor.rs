//! `ringfence doctor` as its callers see it: what it prints, and the status it ends with.

use std::process::{Command, Output};

use serde_json::Value;

const OUTCOMES: [&str; 4] = ["ok", "note", "weakness", "missing"];

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("doctor")
        .args(arguments)
        .output()
        .expect("ringfence can be started")
}

fn json() -> (Value, Output) {
    let output = doctor(&["--json"]);
    let report = serde_json::from_slice(&output.stdout).expect("an object");
    (report, output)
}

#[test]
fn the_status_agrees_with_the_object() {
    let (report, output) = json();
    let checks = report["checks"].as_array().expect("a list of checks");
    for check in checks {
        let outcome = check["outcome"].as_str().expect("an outcome");
        assert!(OUTCOMES.contains(&outcome), "{check}");
        assert!(check["name"].is_string() && check["detail"].is_string());
        let has_remedy = check["remedy"].is_string();
        match outcome {
            "ok" => assert!(!has_remedy, "{check}"),
            "weakness" | "missing" => assert!(has_remedy, "{check}"),
            _ => {}
        }
    }
    let is_missing = |check: &Value| check["outcome"] == "missing";
    let usable = !checks.iter().any(is_missing);
    assert_eq!(report["usable"], usable);
    assert!(!usable || report["driver"]["version"].is_string());
    assert_eq!(output.status.code(), Some(i32::from(!usable)));
    assert!(output.stderr.is_empty());
}

#[test]
fn the_text_has_every_check_and_ends_with_the_verdict() {
    let (report, _) = json();
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).expect("text");
    for check in report["checks"].as_array().expect("a list of checks") {
        let name = check["name"].as_str().expect("a name");
        assert!(
            text.contains(&format!("  {name} ")),
            "{name} is not in\n{text}"
        );
    }
    let verdict = text.lines().last().expect("a verdict");
    let expected = if output.status.success() {
        "ringfence run works here"
    } else {
        "ringfence run cannot work here"
    };
    assert!(verdict.starts_with(expected), "{verdict}");
}

#[test]
fn the_status_is_that_of_a_run() {
    let runs = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["run", "--driver=auto", "--", "true"])
        .output()
        .expect("ringfence can be started");
    assert_eq!(
        doctor(&[]).status.success(),
        runs.status.success(),
        "{}",
        String::from_utf8_lossy(&runs.stderr)
    );
}
