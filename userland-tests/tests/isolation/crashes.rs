//! Who is told of it when a program crashes: nobody.

use userland_tests::{eventually, is_emulated};

use super::*;

/// What has another limit of core files has the host's handler of core dumps started.
#[test]
fn no_program_changes_the_limit_of_core_files() {
    let attempts = "setrlimit: Ok(0)\n\
                    prlimit: Ok(0) Err(EPERM)\nprlimit: Ok(0) Err(EPERM)\nprlimit: Ok(0) Err(EPERM)\n"
        .repeat(2);
    let expected = format!("(1, 1)\n{attempts}(1, 1)\nMax core file size 1 1 bytes\n");
    as_root_and_user(&[], &["core-limit"], &Ended::printing(&expected));
}

/// Without the limit, in the place of the host's.
#[test]
fn a_program_has_its_callers_limit_of_core_files_if_none_is_set() {
    let run = |rules: &str| {
        let mut limited = Command::new("sh");
        let program = ringfence_with_faults();
        let script = format!(
            "ulimit -c 3; exec {} run --driver sim -- sh -c 'ulimit -c'",
            text(&program)
        );
        finish(
            limited
                .args(["-c", &script])
                .env("RINGFENCE_FAULTS", rules)
                .current_dir("/"),
        )
    };
    assert_eq!(run("sentry.crash=drop").stdout, "3\n");
    // In blocks, of which one byte is none.
    assert_eq!(run("").stdout, "0\n");
}

/// Tried in guests alone, whose only tests these are: the handler is one setting of the machine's.
#[test]
fn the_hosts_handler_of_core_dumps_is_not_run() {
    if !is_emulated() {
        eprintln!("skipped: it changes kernel.core_pattern");
        return;
    }
    let directory = Directory::new("crashes");
    let (handler, found) = (
        directory.path().join("handler"),
        directory.path().join("found"),
    );
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\necho \"$1\" >>{}\n",
        text(&found)
    );
    fs::write(&handler, script).expect("a handler");
    fs::set_permissions(&handler, PermissionsExt::from_mode(0o755)).expect("permissions");
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let before = fs::read(PATTERN).expect("the setting");
    fs::write(PATTERN, format!("|{} %s", text(&handler))).expect("a setting");
    // Also of those that have no limit, or whose caller has set another.
    let crash = |rules: &str, limit: &str, signal: &str| {
        let program = ringfence_with_faults();
        let script = format!(
            "{limit} exec {} run --driver sim -- sh -c 'kill -{signal} $$'",
            text(&program)
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .env("RINGFENCE_FAULTS", rules)
            .current_dir("/");
        finish(&mut command).status
    };
    let status = |signal: i32| 128 + signal;
    for limit in ["", "ulimit -c 0;", "ulimit -c unlimited;"] {
        assert_eq!(crash("", limit, "SEGV"), status(libc::SIGSEGV));
    }
    // That nothing would be seen here whatever happens is not so.
    assert_eq!(
        crash("sentry.crash=drop", "ulimit -c 0;", "ABRT"),
        status(libc::SIGABRT)
    );
    let told = || fs::read_to_string(&found).unwrap_or_default();
    eventually("the handler is run", || told().ends_with('\n'));
    fs::write(PATTERN, before).expect("a setting");
    assert_eq!(told(), format!("{}\n", libc::SIGABRT));
}
