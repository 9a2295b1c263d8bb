//! The document, made of files that were made up.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(name)
}

fn table(arguments: &[PathBuf]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-compatibility"));
    command
        .arg("table")
        .args(arguments)
        .output()
        .expect("the command")
}

/// The document of the files with these names.
fn document(names: &[&str]) -> String {
    let mut arguments = vec!["--reasons".into(), file("reasons.toml")];
    arguments.extend(names.iter().map(|name| file(name)));
    let output = table(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What follows this heading, up to the next one of the same kind.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document
        .split_once(&format!("\n{heading}\n\n"))
        .expect(heading);
    let level = heading.split(' ').next().expect("a level");
    let next = format!("\n{level} ");
    rest.split(&next).next().unwrap_or_default().trim_end()
}

#[test]
fn a_row_has_what_came_of_a_program_on_each_gpu() {
    let document = document(&["card.toml"]);
    let results = section(&document, "## Results");
    assert!(results.contains(
        "| GPU | architecture | driver | Ringfence | date |\n|---|---|---|---|---|\n\
         | A Card | Hopper | 580.142 | 9.9.9 | 2026-01-31 |\n"
    ));
    assert!(results.ends_with(
        "| program | what it shows | A Card, driver 580.142 |\n|---|---|---|\n\
         | [`adder -q`](#adder--q) | that it adds | the same; 2 requests refused inside alone |\n\
         | [`other`](#other) | what \\| does | **differs**; the survey found 1 request |\n\
         | [`broken`](#broken) | nothing | fails outside, too |\n\
         | [`absent`](#absent) | nothing | not run here: no absent |\n\
         | [`unknown`](#unknown) | nothing | the same; requests not known; the survey could not read 2 requests |\n\
         | [`unsurveyed`](#unsurveyed) | nothing | the same; the survey failed |\n\
         | [`unstarted`](#unstarted) | nothing | **the trial failed**: outside: no memory |"
    ));
    assert!(!document.contains("## Surveys"));
}

#[test]
fn a_program_has_its_commands_and_what_was_noticed() {
    let document = document(&["card.toml"]);
    assert_eq!(
        section(&document, "### `adder -q`"),
        "That it adds.\n\n    cc -o adder adder.c\n    ./adder -q\n\n\
         Compared: exit status and output. Options of `ringfence run`: `--net`.\n\n\
         A Card, driver 580.142:\n\n\
         | refused inside | with | by | how often | outside | why |\n|---|---|---|---|---|---|\n\
         | ASKED | NV_ERR_NOT_SUPPORTED | Ringfence | 2 times | not refused | Harmless. It adds all the same. |\n\
         | ASKED_TOO | NV_ERR_INSUFFICIENT_PERMISSIONS | the driver | once | not watched | **not known** |"
    );
    assert_eq!(
        section(&document, "### `other`"),
        "What | does.\n\n    other\n\nCompared: exit status. It prints the time.\n\n\
         A Card, driver 580.142:\n\n\
         - Outside: status 0; only there: `` `yes` ``.\n\
         - Inside: status 1; only there: `no`; on stderr: `it is refused`.\n\
         - By the survey a sandbox would refuse: unknown class 0xfff0: once."
    );
}

/// A failure inside stands beside the same program's outside.
#[test]
fn who_fails_fails_beside_the_native_failure() {
    let document = document(&["card.toml"]);
    assert!(section(&document, "### `broken`").ends_with(
        "- Outside: status 1; on stderr: `no display`.\n- Inside: status 1; on stderr: `no display`."
    ));
}

#[test]
fn a_survey_that_failed_has_its_reason_and_no_request() {
    let document = document(&["card.toml"]);
    assert!(
        section(&document, "### `unsurveyed`")
            .ends_with("A Card, driver 580.142:\n\n- The survey failed: status 1: no driver.")
    );
}

/// Of a user's command line the program's name alone is told.
#[test]
fn a_survey_of_a_user_s_has_a_row() {
    let document = document(&["user.json"]);
    let surveys = section(&document, "## Surveys that users have sent");
    assert!(surveys.ends_with(
        "| Their Card | ADA | 575.51.02 | 9.9.8 | `simulate` | compute,utility | \
         unknown control command 0x20807fff: 3 times | once |"
    ));
    assert!(!document.contains("somebody") && !document.contains("--secret"));
    assert!(document.contains("\nNothing was run yet.\n"));
}

#[test]
fn a_file_that_is_neither_is_named() {
    for (path, line) in [
        (
            file("none.toml"),
            "none.toml: No such file or directory (os error 2)\n",
        ),
        (
            Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"),
            "src/lib.rs: it is neither results (.toml) nor findings of a survey (.json)\n",
        ),
    ] {
        let output = table(&[path]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.starts_with("ringfence-compatibility: ") && said.ends_with(line),
            "{said}"
        );
    }
}
