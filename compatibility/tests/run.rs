//! The command runs programs outside and in sandboxes with the simulated driver, and says what came of each.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use ringfence_compatibility::refusals::{Beyond, By};
use ringfence_compatibility::seen::{Seen, Tried, Verdict};
use userland_tests::{Directory, build_guest_program, eventually, ringfence_program};

/// The programs. GUEST is the one of the end-to-end tests, FOLDER the one that it is in.
const PROGRAMS: &str = r#"
[[program]]
name = "same"
shows = "that a shell runs"
build = "echo '#!/bin/sh' > hello; echo 'echo hello; cat' >> hello; chmod +x hello"
makes = "hello"
command = ["./hello"]
compare = "output"

[[program]]
name = "different"
shows = "where it is"
command = "echo here; test -e /dev/nvidiactl && echo inside $PWD || echo outside $PWD"
compare = "output"

[[program]]
name = "lines"
shows = "a sum among what differs"
command = "date +%N; cat /proc/self/stat; echo sum 12"
compare = { lines = '^sum .*' }

[[program]]
name = "nothing"
shows = "that no match is no proof"
command = "echo hello"
compare = { lines = '^sum .*' }

[[program]]
name = "late"
shows = "that it is ended, and what it has started"
command = """
test -e /dev/nvidiactl && exec sleep 100000
setsid sleep 100000 & echo $! > started
sleep 100000 & echo $! >> started
wait"""
compare = "output"
timeout = 2

[[program]]
name = "leaves"
shows = "that what it leaves behind is ended"
command = "test -e /dev/nvidiactl || { setsid sleep 100000 & echo $! > left; }"
compare = "output"

[[program]]
name = "refused"
shows = "requests that are refused"
command = "nodes=/dev; test -e /dev/nvidiactl || nodes=$PWD/nodes; exec GUEST survey $nodes"
compare = "status"
because = "it prints what each request came to"
options = ["--bind", "FOLDER::ro"]

[[program]]
name = "unwatched"
shows = "requests that are refused, and nobody looks outside"
command = "nodes=/dev; test -e /dev/nvidiactl || nodes=$PWD/nodes; exec GUEST survey $nodes"
compare = "status"
watched = false
because = "a test"
options = ["--bind", "FOLDER::ro"]

[[program]]
name = "fails"
shows = "a failure"
command = "echo some; echo why >&2; exit 7"
compare = "output"

[[program]]
name = "signal"
shows = "a signal without a name"
command = "kill -40 $$"
compare = "output"

[[program]]
name = "alone"
shows = "what is not for outside"
command = "test -e /dev/nvidiactl"
compare = "status"
outside = false
because = "a test"

[[program]]
name = "unstartable"
shows = "nothing"
command = ["./no-such-program"]
compare = "output"
watched = false
because = "a test"

[[program]]
name = "stops"
shows = "job control"
command = ["bash", "-c", '''
rm -f went-on; set -m
sh -c 'kill -STOP $$; : > went-on; exit 5' 2>&1
echo stopped $?
for pause in 1 2 3 4 5; do test -e went-on || sleep 0.1; done
test -e went-on && echo it went on by itself || echo it waits
kill -CONT %1; wait %1; status=$?
test -e went-on && echo it went on
echo ended $status''']
compare = "output"

[[program]]
name = "missing"
shows = "nothing"
needs = ["sh", "/", "no-such-command"]
command = "true"
compare = "output"

[[program]]
name = "unbuilt"
shows = "nothing"
build = "echo reason >&2; exit 3"
command = "true"
compare = "output"
"#;

struct Place(Directory);

impl Place {
    fn new() -> Place {
        let place = Place(Directory::new("compatibility"));
        let guest = build_guest_program();
        let folder = guest.parent().expect("a folder");
        let programs = PROGRAMS.replace("GUEST", &guest.to_string_lossy());
        let programs = programs.replace("FOLDER", &folder.to_string_lossy());
        fs::write(place.path("programs.toml"), programs).expect("programs");
        fs::create_dir_all(place.path("programs")).expect("sources");
        fs::write(place.path("programs/source"), "").expect("a source");
        fs::create_dir_all(place.path("work/nodes")).expect("nodes");
        for name in ["nvidiactl", "nvidia-uvm"] {
            // They answer ENOTTY to every request.
            fs::write(place.path("work/nodes").join(name), "").expect("a node");
        }
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, only: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-compatibility"));
        command
            .args(["run", "--driver", "sim", "--ringfence"])
            .arg(ringfence_program())
            .arg("--programs")
            .arg(self.path("programs.toml"))
            .arg("--work")
            .arg(self.path("work"))
            .arg("--out")
            .arg(self.path("seen.toml"))
            .arg("--devices")
            .arg(self.path("work/nodes"));
        if !only.is_empty() {
            command.arg("--only").args(only);
        }
        command.output().expect("the command")
    }

    fn seen(&self) -> Seen {
        let text = fs::read_to_string(self.path("seen.toml")).expect("results");
        Seen::parse(&text).expect("results")
    }

    /// What came of one program, and what the command ended with.
    fn tried(&self, name: &str) -> (Tried, Option<i32>) {
        let output = self.run(&[name]);
        let tried = self.seen().programs.pop();
        let tried = tried.unwrap_or_else(|| panic!("{output:?}"));
        assert_eq!(tried.name, name, "{output:?}");
        (tried, output.status.code())
    }
}

fn printed(tried: &Tried) -> [Vec<String>; 2] {
    let of = |side: &Option<ringfence_compatibility::seen::Side>| {
        side.as_ref()
            .map_or_else(Vec::new, |side| side.printed.clone())
    };
    [of(&tried.outside), of(&tried.inside)]
}

fn ended(tried: &Tried) -> [&str; 2] {
    let of = |side| {
        let side: &Option<ringfence_compatibility::seen::Side> = side;
        side.as_ref().map_or("-", |side| &side.ended)
    };
    [of(&tried.outside), of(&tried.inside)]
}

/// Waits until nobody has these numbers, which are in a file.
fn expect_gone(file: &Path, count: usize) {
    let text = fs::read_to_string(file).expect("numbers");
    let numbers: Vec<i32> = text
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert_eq!(numbers.len(), count);
    for number in numbers {
        eventually("it is gone", || {
            kill(Pid::from_raw(number), None) == Err(Errno::ESRCH)
        });
    }
}

#[test]
fn what_does_the_same_is_the_same() {
    let place = Place::new();
    let output = place.run(&["same", "lines"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let seen = place.seen();
    assert_eq!((&*seen.gpu, &*seen.driver), ("none", "580.142 (simulated)"));
    assert_eq!(seen.ringfence, env!("CARGO_PKG_VERSION"));
    let verdicts: Vec<Verdict> = seen.programs.iter().map(Tried::verdict).collect();
    assert_eq!(verdicts, [Verdict::Same; 2]);
    assert_eq!(printed(&seen.programs[0]), [["hello"]; 2]);
    assert_eq!(printed(&seen.programs[1]), [["sum 12"]; 2]);
    assert!(place.path("work/source").is_file());
    let table = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "program  outside   inside    result    survey",
            "same     status 0  status 0  the same  -",
            "lines    status 0  status 0  the same  -",
        ]
    );
    let progress = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = progress.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("same: outside ")
            && lines[0].ends_with(", the same"),
        "{progress}"
    );
}

/// Programs can be run one after the other, until they are all there.
#[test]
fn what_is_not_run_again_is_kept_if_the_rest_is_the_same() {
    let place = Place::new();
    let names = |only: &[&str]| {
        let output = place.run(only);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let programs = place.seen().programs.into_iter();
        programs.map(|tried| tried.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&["same"]), ["same"]);
    assert_eq!(names(&["lines"]), ["same", "lines"]);
    assert_eq!(names(&["same"]), ["lines", "same"]);
    let path = place.path("seen.toml");
    let text = fs::read_to_string(&path).expect("results");
    fs::write(&path, text.replacen("gpu = \"", "gpu = \"another ", 1)).expect("results");
    assert_eq!(names(&["lines"]), ["lines"]);
}

/// What differs is shown, without what tells of the machine.
#[test]
fn what_does_something_else_differs() {
    let place = Place::new();
    let (tried, status) = place.tried("different");
    assert_eq!((tried.verdict(), status), (Verdict::Differs, Some(1)));
    assert_eq!(printed(&tried), [["outside FOLDER"], ["inside FOLDER"]]);
    let (tried, status) = place.tried("nothing");
    assert_eq!((tried.verdict(), status), (Verdict::Differs, Some(1)));
}

#[test]
fn what_takes_too_long_is_killed_with_all_that_it_has_started() {
    let place = Place::new();
    let (tried, status) = place.tried("late");
    assert_eq!(ended(&tried), ["killed after 2 s"; 2]);
    assert_eq!((tried.verdict(), status), (Verdict::Differs, Some(1)));
    expect_gone(&place.path("work/started"), 2);
}

#[test]
fn what_a_program_leaves_behind_is_killed() {
    let place = Place::new();
    let (tried, status) = place.tried("leaves");
    assert_eq!(
        (tried.verdict(), status),
        (Verdict::Same, Some(0)),
        "{tried:?}"
    );
    expect_gone(&place.path("work/left"), 1);
}

/// Outside each request was refused, by another errno.
#[test]
fn what_is_refused_inside_is_there_by_name_and_beside_it_what_came_of_it_outside() {
    let place = Place::new();
    let (tried, status) = place.tried("refused");
    assert_eq!(
        (tried.verdict(), status),
        (Verdict::Same, Some(0)),
        "{tried:?}"
    );
    let refused = tried.refused.as_ref().expect("a trace");
    let of = |request: &str| {
        let found = refused.iter().find(|it| it.request == request);
        found.unwrap_or_else(|| panic!("{request} in {refused:#?}"))
    };
    let unknown = Beyond {
        request: "unknown control command 0x20807fff".to_owned(),
        answer: "NV_ERR_NOT_SUPPORTED".to_owned(),
        by: By::Ringfence,
        times: 3,
        outside: Some(vec!["ENOTTY".to_owned()]),
    };
    assert_eq!(of(&unknown.request), &unknown);
    assert_eq!(
        of("NV0000_CTRL_CMD_GSYNC_GET_ATTACHED_IDS").by,
        By::Ringfence
    );
    // It got to the simulated driver, which knows no such client.
    assert_eq!(of("HOPPER_COMPUTE_A").by, By::Driver);
    let is_known = |it: &Beyond| it.outside == unknown.outside;
    assert!(refused.iter().all(is_known), "{refused:#?}");
}

#[test]
fn where_nobody_watched_outside_ringfence_s_refusals_are_there() {
    let place = Place::new();
    let (tried, _) = place.tried("unwatched");
    let all = tried.refused.expect("a trace");
    assert!(!all.is_empty());
    for refused in &all {
        assert_eq!(
            (refused.by, &refused.outside),
            (By::Ringfence, &None),
            "{refused:?}"
        );
    }
}

#[test]
fn who_fails_fails_alike() {
    let place = Place::new();
    let (tried, status) = place.tried("fails");
    assert_eq!((tried.verdict(), status), (Verdict::FailsAlike, Some(0)));
    assert_eq!(ended(&tried), ["status 7"; 2]);
    let outside = tried.outside.expect("it was run");
    assert_eq!(
        (outside.printed, outside.complained),
        (vec!["some".to_owned()], vec!["why".to_owned()])
    );
    let (tried, _) = place.tried("signal");
    assert_eq!(ended(&tried), ["status 168"; 2]);
}

#[test]
fn what_is_not_for_outside_is_run_inside_alone() {
    let place = Place::new();
    let (tried, status) = place.tried("alone");
    assert_eq!(
        (tried.verdict(), status),
        (Verdict::SucceedsInside, Some(0)),
        "{tried:?}"
    );
    assert_eq!(ended(&tried), ["-", "status 0"]);
}

/// One that cannot be run does not keep the others from it.
#[test]
fn what_is_missing_is_said() {
    let place = Place::new();
    let output = place.run(&["missing", "unbuilt", "same"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let programs = place.seen().programs;
    let reasons: Vec<Option<&str>> = programs.iter().map(|it| it.not_run.as_deref()).collect();
    // In the order of the table.
    assert_eq!(
        reasons,
        [
            None,
            Some("no no-such-command"),
            Some("it could not be built: status 3: reason"),
        ]
    );
}

/// What cannot be begun, though nothing is said to be lacking, is not left out.
#[test]
fn a_trial_that_fails_is_said_and_status_1() {
    let place = Place::new();
    let output = place.run(&["unstartable", "missing"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let programs = place.seen().programs;
    let tried = programs.iter().find(|it| it.name == "unstartable");
    let tried = tried.expect("its row");
    let reason = "outside: No such file or directory (os error 2)";
    assert_eq!(tried.verdict(), Verdict::TrialFailed);
    assert_eq!(
        (tried.failed.as_deref(), &tried.not_run),
        (Some(reason), &None)
    );
    let table = String::from_utf8_lossy(&output.stdout);
    let line = format!("unstartable  -        -       the trial failed: {reason}");
    assert!(table.contains(&line), "{table}");
}

#[test]
fn where_nothing_could_be_run_the_status_is_2() {
    let place = Place::new();
    for only in [&["missing"][..], &["missing", "unbuilt"]] {
        let output = place.run(only);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(place.seen().programs.len(), only.len());
    }
}

/// Its child stops itself, and goes on when it is told to, and not before.
#[test]
fn what_stops_itself_stays_stopped_outside() {
    let place = Place::new();
    let (tried, status) = place.tried("stops");
    let lines = ["stopped 147", "it waits", "it went on", "ended 5"];
    assert_eq!(printed(&tried), [lines; 2], "{tried:?}");
    assert_eq!((tried.verdict(), status), (Verdict::Same, Some(0)));
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let place = Place::new();
    let output = place.run(&["nothing-of-the-kind"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    let line = "ringfence-compatibility: there is no program nothing-of-the-kind: there are same, different, ";
    assert!(said.starts_with(line), "{said}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-compatibility"));
    assert_eq!(
        command.output().expect("the command").status.code(),
        Some(2)
    );
}
