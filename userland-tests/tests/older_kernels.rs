//! Kernels that lack what later versions of Linux brought, as far as a filter can make this one look like them: a program runs
//! as it does elsewhere, and what is lost is said. The table in `confinement/src/linux.rs` says what each version brought.
//!
//! `.ci/guests` runs these tests on such a kernel, too.

use std::fs;
use std::process::Command;

use userland_tests::conversation::Conversation;
use userland_tests::linux::{self, Feature, Row, TABLE, Version, Without};
use userland_tests::{
    Directory, Ended, finish, guest, guest_with, is_emulated, ringfence_program, ringfence_run,
};

/// The oldest kernel of those that many machines run: Debian's of its release 12.
const OLD: Version = Version { major: 6, minor: 1 };

fn doctor() -> Command {
    let mut command = Command::new(ringfence_program());
    command.arg("doctor");
    command
}

/// What `doctor` says of what this row is about, with the remedy.
fn said(report: &str, row: &Row) -> String {
    let is_it = |line: &&str| {
        let (_, rest) = line.split_once("  ").unwrap_or_default();
        rest.trim_start().starts_with(&format!("{}  ", row.name))
    };
    let mut lines = report.lines().skip_while(|line| !is_it(line));
    let finding = lines.next().unwrap_or_default();
    let remedy = lines.next().filter(|line| line.contains("remedy: "));
    [finding, remedy.unwrap_or_default()].join("\n")
}

#[test]
fn a_program_runs_as_it_does_elsewhere() {
    for scenario in [
        "walk",
        "uvm",
        "threads-on-unified-memory",
        "shared-client",
        "fork",
        "pin-private",
    ] {
        let elsewhere = finish(&mut guest(&[scenario]));
        assert_eq!(elsewhere.status, 0, "{elsewhere:?}");
        let ended = finish(linux::as_of(&mut guest(&[scenario]), OLD));
        assert_eq!(ended, elsewhere, "{scenario}");
    }
}

#[test]
fn threads_on_unified_memory_are_served() {
    let mut command = guest(&["threads-on-unified-memory"]);
    assert_eq!(
        finish(linux::as_of(&mut command, OLD)),
        Ended::printing("4 threads\n")
    );
}

/// Where a thread has no descriptor of its own, its process's does, if the two have the same descriptors.
#[test]
fn a_thread_whose_descriptors_cannot_be_had_is_told() {
    let refused = Ended::printing("EOPNOTSUPP\n");
    for scenario in ["own-descriptors", "without-the-first-thread"] {
        let expected = match linux::has(Feature::ThreadDescriptors) {
            true => Ended::printing("ok\n"),
            false => refused.clone(),
        };
        assert_eq!(finish(&mut guest(&[scenario])), expected, "{scenario}");
        let ended = finish(linux::as_of(&mut guest(&[scenario]), OLD));
        assert_eq!(ended, refused, "{scenario}");
    }
}

/// As the table says.
#[test]
fn a_program_that_has_its_calls_dispatched_is_killed_when_it_pins() {
    if is_emulated() {
        eprintln!("skipped: the clock there is read by calls that are dispatched, too");
        return;
    }
    let mut command = guest(&["pin-dispatched"]);
    let ended = finish(linux::as_of(&mut command, OLD));
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (137, ""),
        "{ended:?}"
    );
}

#[test]
fn commands_find_a_sandbox_and_do_not_upgrade_its_server() {
    let mut command = guest_with(&[], &["converse"]);
    linux::as_of(&mut command, OLD);
    let mut conversation = Conversation::of(command);
    let sandbox = conversation.launcher().to_string();
    let ended = finish(linux::as_of(
        Command::new(ringfence_program()).args(["ps", "--json"]),
        OLD,
    ));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.contains(&sandbox), "{}", ended.stdout);
    let ended = finish(linux::as_of(
        Command::new(ringfence_program()).args(["server-upgrade", &sandbox]),
        OLD,
    ));
    let line = format!(
        "ringfence: {sandbox}: before Linux 6.5 no ringfence process can be sure who asks for that; the \
         server was not replaced"
    );
    assert_eq!(ended, Ended::failing(1, &line));
    assert_eq!(conversation.ask("use"), "ok");
    let tree = conversation.tree();
    assert_eq!(conversation.end(), Ended::printing(""));
    tree.expect_gone();
}

/// Whichever way its process is found out.
#[test]
fn a_sandboxed_program_that_was_shown_the_sockets_of_ps_is_turned_away() {
    for version in [None, Some(OLD)] {
        let directory = Directory::new("sockets");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let of = |mut command: Command| {
            if let Some(version) = version {
                linux::as_of(&mut command, version);
            }
            command
        };
        let options = ["--name", "asked", "--log", &path("log")];
        let mut asked = of(guest_with(&options, &["converse"]));
        asked.env("XDG_RUNTIME_DIR", directory.path());
        let conversation = Conversation::of(asked);
        let mut knocking = of(guest_with(
            &["--bind", &path("ringfence")],
            &["knock", &path("ringfence/asked.sock")],
        ));
        assert_eq!(finish(&mut knocking), Ended::printing("turned away\n"));
        assert_eq!(conversation.end(), Ended::printing(""));
        let log = fs::read_to_string(path("log")).expect("the log");
        let line = "turned away: it lives in another user namespace, as sandboxed programs do";
        assert!(log.contains(line), "{version:?}: {log}");
    }
}

#[test]
fn doctor_names_what_this_kernel_lacks_and_the_version_that_has_it() {
    let ended = finish(&mut doctor());
    for row in &TABLE {
        let said = said(&ended.stdout, row);
        let outcome = match linux::has(row.feature) {
            true => "ok ",
            false => "weakness ",
        };
        assert!(said.starts_with(outcome), "{row:?}: {said}");
    }
}

#[test]
fn doctor_names_what_each_version_brought() {
    let ended = finish(linux::as_of(&mut doctor(), OLD));
    assert_eq!(ended.status, 0, "{ended:?}");
    let newer = TABLE.iter().filter(|row| row.since > OLD);
    for row in newer {
        let said = said(&ended.stdout, row);
        let (Without::AWallLess(lost) | Without::Less(lost)) = row.without else {
            panic!("{row:?} is needed");
        };
        let remedy = format!("remedy: use Linux {} or later", row.since);
        assert!(said.starts_with("weakness "), "{row:?}: {said}");
        assert!(said.contains(lost), "{row:?}: {said}");
        assert!(said.contains(&remedy), "{row:?}: {said}");
    }
}

#[test]
fn a_kernel_that_is_too_old_is_named_in_one_line() {
    let line = format!(
        "ringfence: this kernel, Linux {}, is too old: use Linux 5.19 or later",
        linux::release()
    );
    let too_old = [Feature::KillableWaits];
    let mut run = ringfence_run(&[]);
    let ended = finish(linux::without(run.arg("true"), &too_old));
    assert_eq!(ended, Ended::failing(125, &line));
    let mut demo = Command::new(ringfence_program());
    let ended = finish(linux::without(demo.arg("demo"), &too_old));
    assert_eq!(ended, Ended::failing(125, &line));
    let ended = finish(linux::without(&mut doctor(), &too_old));
    assert_eq!(ended.status, 1, "{ended:?}");
    let said = said(&ended.stdout, Feature::KillableWaits.row());
    assert!(said.starts_with("MISSING "), "{said}");
    assert!(said.contains("remedy: use Linux 5.19 or later"), "{said}");
}

/// What README.md tells of the versions.
#[test]
fn the_readme_has_the_table() {
    let readme = include_str!("../../README.md");
    let rows = TABLE.iter().map(|row| {
        let without = match row.without {
            Without::Unusable => "Ringfence does not work".to_owned(),
            Without::AWallLess(what) => format!("a wall less: {what}"),
            Without::Less(what) => what.to_owned(),
        };
        format!("| {} | {} | {without} |\n", row.since, row.name)
    });
    let table = rows.collect::<String>();
    let table = format!("| Linux | has | without it |\n|---|---|---|\n{table}");
    assert!(readme.contains(&table), "README.md lacks this:\n{table}");
}
