//! `ringfence doctor` as its callers see it: what it prints, and the status it ends with.

use std::process::{Command, Output};

use serde_json::Value;

const OUTCOMES: [&str; 5] = ["ok", "note", "weakness", "missing", "untried"];

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

/// The outcomes that are not good, of a `doctor` in other surroundings: a script that runs `"$0" doctor --json`.
fn troubles(script: &str) -> Vec<(String, String)> {
    let executable = env!("CARGO_BIN_EXE_ringfence");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, executable])
        .output()
        .expect("unshare can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let text = |check: &Value, key: &str| check[key].as_str().expect("text").to_owned();
    let checks = report["checks"].as_array().expect("a list of checks");
    let bad = checks
        .iter()
        .filter(|check| check["outcome"] == "missing" || check["outcome"] == "untried");
    bad.map(|check| (text(check, "name"), text(check, "detail")))
        .collect()
}

/// One need is missing, and these others are not tried.
fn expect_one_cause(script: &str, cause: &str, because: &[&str]) {
    let troubles = troubles(script);
    let untried = format!("not tried, because this is missing: {cause}");
    let (said, missing): (Vec<_>, Vec<_>) =
        troubles.iter().partition(|(_, detail)| *detail == untried);
    let names = |list: &[&(String, String)]| {
        list.iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&missing), [cause], "{troubles:?}");
    for name in because {
        assert!(
            names(&said).contains(&(*name).to_owned()),
            "{name} in {troubles:?}"
        );
    }
}

/// In each, ten checks and more said the same.
#[test]
fn one_cause_is_told_once() {
    let built_on_users = [
        "process namespaces and /proc",
        "mounts and mount_setattr",
        "network namespaces",
        "self-confinement",
        "a sandbox",
    ];
    let chroot = "mount --rbind / /mnt && exec chroot /mnt \"$0\" doctor --json";
    expect_one_cause(chroot, "user namespaces", &built_on_users);
    let without_proc = "mount -t tmpfs none /proc && exec \"$0\" doctor --json";
    let all = [
        &built_on_users[..],
        &["user namespaces", "kcmp", "Landlock scopes", "inotify"],
    ]
    .concat();
    expect_one_cause(without_proc, "/proc", &all);
    let in_a_sandbox = "exec \"$0\" run --driver sim --workdir / --bind \"$(dirname \"$0\")::ro\" -- \"$0\" doctor --json";
    expect_one_cause(in_a_sandbox, "a place outside of sandboxes", &all);
}
