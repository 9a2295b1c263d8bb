//! What is put down of a trial in which something fails. In Ringfence's place is a script that does what the test says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nvproxy_abi::Abi;
use nvproxy_abi::policy::Capabilities;
use ringfence::driver::{self, Choice, Demand, Kind};
use ringfence_compatibility::programs;
use ringfence_compatibility::scrub::Scrub;
use ringfence_compatibility::seen::{Seen, Side, Tried, Verdict};
use ringfence_compatibility::summary;
use ringfence_compatibility::trial::{Bench, Built};
use ringfence_programs::leftovers;
use userland_tests::Directory;

const PROGRAM: &str = r#"
[[program]]
name = "hello"
shows = "a test"
command = ["echo", "hello"]
compare = "output"
watched = false
because = "a test"
"#;

/// At the end of a run all that is below this process is killed, which would be another test's program.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a sandbox of the script's does: it runs the program.
const RUNS: &str = "echo '[]' > $trace; \"$@\"";
const FINDS: &str = r#"echo '{"ringfence": "9", "driver": "9", "unreadable": UNREADABLE, "refused": [REFUSED]}' > $out"#;

/// The script: `$trace` and `$out` are the files of the options, and `$@` is the program.
fn script(run: &str, survey: &str) -> String {
    format!(
        "#!/bin/sh\nasked=$1\nwhile [ $1 != -- ]; do\n\
         case $1 in --trace) trace=$2;; --out) out=$2;; esac\nshift\ndone\nshift\n\
         case $asked in\nrun) {run};;\nsurvey) {survey};;\nesac\n"
    )
}

/// What came of the program with a script that runs it so, and surveys it so.
fn tried(run: &str, survey: &str) -> Tried {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Directory::new("trial");
    let script_at = directory.path().join("ringfence");
    fs::write(&script_at, script(run, survey)).expect("a script");
    fs::set_permissions(&script_at, fs::Permissions::from_mode(0o755)).expect("a script");
    let simulated = driver::choose(&Demand {
        choice: Choice::Sim,
        ..Demand::default()
    });
    let tables = simulated.expect("the simulated driver").driver.tables;
    let bench = Bench {
        ringfence: script_at,
        own: "/nonexistent".into(),
        work: directory.path().to_path_buf(),
        driver: Kind::Host,
        devices: "/nonexistent".into(),
        abi: Abi::of_release(&tables, Capabilities::ALL).expect("tables"),
        scrub: Scrub::new(directory.path()).expect("patterns"),
        directory: leftovers::Directory::new().expect("a directory"),
    };
    let program = &programs::parse(PROGRAM).expect("a program")[0];
    let tried = bench.try_program(program, &Built::new());
    expect_kept(&tried, directory.path());
    tried
}

/// A file has all of it, and nothing of where it was run.
fn expect_kept(tried: &Tried, folder: &Path) {
    let word = "word".to_owned();
    let seen = Seen {
        date: word.clone(),
        ringfence: word.clone(),
        driver: word.clone(),
        gpu: word.clone(),
        architecture: word,
        programs: vec![tried.clone()],
    };
    let text = seen.text().expect("text");
    assert!(!text.contains(&*folder.to_string_lossy()), "{text}");
    assert_eq!(Seen::parse(&text), Ok(seen), "{text}");
}

fn cells(tried: &Tried) -> String {
    let table = summary::table(std::slice::from_ref(tried));
    let line = table.lines().nth(1).expect("a line");
    line.split("  ")
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .collect::<Vec<_>>()
        .join("|")
}

#[test]
fn a_survey_that_has_found_nothing_is_empty() {
    let tried = tried(
        RUNS,
        &FINDS.replace("UNREADABLE", "0").replace("REFUSED", ""),
    );
    assert_eq!(cells(&tried), "hello|status 0|status 0|the same|empty");
    assert_eq!(
        (tried.survey.as_deref(), &tried.survey_failed),
        (Some(&[][..]), &None)
    );
    assert!(tried.is_as_it_should_be());
}

/// What could not be read is no request that would be refused. And what was found is told without where it was.
#[test]
fn a_survey_s_requests_that_could_not_be_read_are_counted_by_themselves() {
    let found = FINDS
        .replace("UNREADABLE", "3")
        .replace("REFUSED", r#"{"reason": "open of '"$PWD"'", "count": 1}"#);
    let tried = tried(RUNS, &found);
    assert_eq!(tried.survey, Some(vec!["open of FOLDER: once".to_owned()]));
    assert_eq!(tried.survey_unreadable, 3);
    assert_eq!(
        cells(&tried),
        "hello|status 0|status 0|the same|1 would be refused, 3 not read"
    );
    assert!(!tried.is_as_it_should_be());
}

/// The runs before it are kept.
#[test]
fn a_survey_that_failed_is_no_request() {
    let tried = tried(RUNS, "echo no survey in $PWD >&2; exit 1");
    assert_eq!(tried.survey, None);
    let failed = "status 1: no survey in FOLDER".to_owned();
    assert_eq!(tried.survey_failed, Some(failed));
    assert_eq!(cells(&tried), "hello|status 0|status 0|the same|failed");
    assert!(!tried.is_as_it_should_be());
}

#[test]
fn without_a_trace_requests_are_not_known() {
    let survey = FINDS.replace("UNREADABLE", "0").replace("REFUSED", "");
    for run in ["\"$@\"", "echo nonsense > $trace; \"$@\""] {
        let tried = tried(run, &survey);
        assert_eq!((tried.verdict(), &tried.refused), (Verdict::Same, &None));
        assert_eq!(
            cells(&tried),
            "hello|status 0|status 0|the same, requests not known|empty"
        );
        assert!(!tried.is_as_it_should_be());
    }
}

/// The script takes itself away before it is run once more.
#[test]
fn a_survey_that_cannot_be_begun_leaves_what_the_runs_came_to() {
    let tried = tried(&format!("{RUNS}; rm $0"), "true");
    assert_eq!(tried.failed, None);
    assert_eq!(tried.equal, Some(true));
    assert!(
        [&tried.outside, &tried.inside].map(|side| side.as_ref().is_some_and(Side::succeeded))
            == [true; 2]
    );
    let failed = "No such file or directory (os error 2)".to_owned();
    assert_eq!(tried.survey_failed, Some(failed));
}
