//! What is said where a sandbox cannot be started, by `run` and by `doctor`: the step, the reason, and the remedy for that.
//!
//! The tables have their own tests (`kernel/sentry/src/remedies.rs`). Here are the places that were met.

use std::process::{Command, Stdio};

use userland_tests::{Ended, finish, ringfence_program};

const RUN: &str = "run --driver sim -- true";
const INSTANCES: &str =
    "raise sysctl fs.inotify.max_user_instances, or the limit of open files (ulimit -n)";
const PROC: &str =
    "mount -t proc proc /proc; for a chroot, mount --bind /proc DIR/proc before you enter it";

/// What `ringfence` comes to where `script` was run before, in namespaces of its own.
fn ringfence_after(script: &str, arguments: &str) -> Ended {
    let mut command = Command::new("unshare");
    let script = format!("{script}\nexec \"$0\" {arguments}");
    command.args(["-rm", "--pid", "--fork", "sh", "-ec", &script]);
    finish(
        command
            .arg(ringfence_program())
            .stdin(Stdio::null())
            .current_dir("/"),
    )
}

/// One of a kind of namespace is as many as may be.
fn limit(sysctl: &str, most: u32) -> String {
    format!("mount -t proc proc /proc; echo {most} > /proc/sys/user/{sysctl}")
}

#[test]
fn a_start_that_fails_says_what_to_do() {
    let namespace = |kind: &str, sysctl: &str| {
        format!(
            "another {kind} namespace: No space left on device: raise sysctl user.max_{sysctl}_namespaces"
        )
    };
    for (script, line) in [
        (
            limit("max_user_namespaces", 0),
            namespace("user", "user"),
        ),
        (limit("max_pid_namespaces", 0), namespace("process", "pid")),
        (limit("max_net_namespaces", 0), namespace("network", "net")),
        (
            "mount -t proc -o subset=pid proc /proc".to_owned(),
            "/proc/loadavg: No such file or directory: mount /proc without subset=pid".to_owned(),
        ),
        (
            "mount -t proc proc /proc; ulimit -n 10".to_owned(),
            "socketpair: the channel's socket: socketpair failed: Too many open files: raise the limit of open files (ulimit -n)"
                .to_owned(),
        ),
    ] {
        let expected = Ended::failing(125, &format!("ringfence: {line}"));
        assert_eq!(ringfence_after(&script, RUN), expected, "{script}");
    }
}

/// Where the line has a number, or something is warned of besides.
#[test]
fn a_start_that_fails_names_the_remedy_last() {
    for (script, remedy) in [
        (limit("max_inotify_instances", 0), INSTANCES),
        ("mount -t tmpfs none /proc".to_owned(), PROC),
        (
            "mount -t proc proc /proc; prlimit --pid $$ --sigpending=0".to_owned(),
            "raise the limit of pending signals (ulimit -i)",
        ),
        (
            "true".to_owned(),
            "mount the /proc of this process namespace, to be written, too (mount -t proc proc /proc); for root in a \
             container, grant the capabilities SETUID, SETGID and SETFCAP, or run as an ordinary user",
        ),
    ] {
        let ended = ringfence_after(&script, RUN);
        let mut lines = ended.stderr.lines();
        let line = lines.find(|line| line.starts_with("ringfence: "));
        let ends_so = line.is_some_and(|line| line.ends_with(&format!(": {remedy}")));
        assert!(ends_so, "{script}: {ended:?}");
        assert_eq!(ended.status, 125, "{script}");
    }
}

/// The soft limit is the caller's own choice, for programs that take all that they may have.
#[test]
fn a_soft_limit_of_open_files_is_the_programs_alone() {
    let program = "run --driver sim -- sh -c 'ulimit -Sn'";
    let ended = ringfence_after("mount -t proc proc /proc; ulimit -Sn 10", program);
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "10\n"),
        "{ended:?}"
    );
}

#[test]
fn inside_a_sandbox_the_cause_is_said() {
    let ringfence = ringfence_program();
    let directory = ringfence.parent().expect("a directory");
    let mut command = Command::new(&ringfence);
    command.args(["run", "--driver", "sim", "--bind"]);
    command.arg(directory).arg("--").arg(&ringfence);
    command.args(["run", "--driver", "sim", "--", "true"]);
    let line = "ringfence: the seccomp filter: a seccomp listener supervises this process already: start Ringfence outside \
                of that sandbox";
    assert_eq!(
        finish(command.stdin(Stdio::null()).current_dir("/")),
        Ended::failing(125, line)
    );
}

#[test]
fn doctor_knows_the_remedy_too() {
    for (script, remedy) in [
        (limit("max_inotify_instances", 0), INSTANCES),
        (
            "mount -t proc -o subset=pid proc /proc".to_owned(),
            "mount /proc without subset=pid",
        ),
        (
            limit("max_net_namespaces", 0),
            "raise sysctl user.max_net_namespaces",
        ),
    ] {
        let ended = ringfence_after(&script, "doctor");
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let missing = lines.windows(2).find(|pair| pair[0].starts_with("MISSING"));
        let said = missing.map(|pair| pair[1].trim().to_owned());
        assert_eq!(
            said,
            Some(format!("remedy: {remedy}")),
            "{script}: {ended:?}"
        );
        assert_eq!(ended.status, 1);
    }
}
