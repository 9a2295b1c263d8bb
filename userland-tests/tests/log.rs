//! The log does not grow without end, whatever a program does again and again.

use std::fs;
use std::path::{Path, PathBuf};

use userland_tests::{Directory, finish, guest, guest_under, guest_under_with, guest_with};

/// Most lines of a kind that a process writes (`kernel/sentry/src/log.rs`).
const LINES: usize = 1024;
/// So many times a program does what has a line written. Not every process that is killed while it pins ends so soon that
/// this is noticed.
const TIMES: usize = 2400;

/// What becomes of a kind of line.
enum Cause {
    /// A program has it written as often as it likes: in this way of the guest's, where these rules hold.
    Program {
        way: &'static str,
        rules: &'static str,
    },
    /// It is written once, or once for each of a fixed number of reasons, by what its place in the source calls.
    Once,
    /// As often as a sandbox gets a server, of which there are at most six within a minute.
    Server,
    /// A sandbox has so few such lines in its life: at its start, at its end.
    Life,
    /// No program can have it written, for this reason.
    Nobody(#[expect(dead_code, reason = "it is for readers")] &'static str),
}

use Cause::{Life, Nobody, Once, Program, Server};

/// Every line that is written while a sandbox runs: how its text begins in the source, and what can have it written.
const KINDS: &[(&str, Cause)] = &[
    (
        "nvproxy: {}",
        Program {
            way: "made up",
            rules: "",
        },
    ),
    (
        "{name}: not issued: {}",
        Program {
            way: "another's client",
            rules: "",
        },
    ),
    (
        "open {}: {errno}",
        Program {
            way: "opens",
            rules: "server.open@3+=errno:12",
        },
    ),
    (
        "in the kernel's log: NVRM: API mismatch",
        Program {
            way: "releases",
            rules: "server.instead=drop",
        },
    ),
    (
        "nobody saw what the driver answered to a process that pins memory",
        Program {
            way: "killed pins",
            rules: "sentry.pin-checked=kill-task",
        },
    ),
    ("{what}: {reason}", Once),
    ("a system call could not be answered", Once),
    ("a request that pins was not finished", Once),
    ("a process that pinned memory was killed", Once),
    ("an event descriptor could not be given", Once),
    (
        "the server has handed over a descriptor that is no dma-buf",
        Once,
    ),
    ("no further program can be let in", Once),
    ("no further thread can be started, so calls", Once),
    ("a description could not be closed", Once),
    ("a descriptor could not be passed to the server", Once),
    ("the submission ring", Once),
    ("--trace", Once),
    ("nvidia-uvm: a description cannot be marked", Once),
    ("refused after the sentry let it pass", Once),
    ("malformed message: ", Once),
    ("a descriptor could not be passed: ", Once),
    ("a completion is lost", Once),
    ("the launcher could not be asked to end the server", Server),
    ("another server could not be asked for", Server),
    ("another server did not start", Server),
    ("no further server is started", Server),
    ("the server ended unexpectedly", Server),
    ("the server: {reason}", Server),
    ("the server is ready", Life),
    ("the program's filter is in place", Life),
    ("the program has ended", Life),
    ("starting a sandbox", Life),
    ("no door: ", Life),
    ("crashes in the sandbox are told to the host", Life),
    ("the sandbox is gone", Life),
    ("the program starts in /", Life),
    ("the sandbox has not all of /sys", Life),
    ("hidden: ", Life),
    ("no {SYS} for this network", Life),
    ("{what}: sentry and server wrote more", Life),
    ("the server cannot go on", Life),
    ("no io_uring", Life),
    ("no memory for what a pin asks of the driver", Once),
    ("{warning}", Life),
    ("{}", Life),
    (
        "receiving notifications: ",
        Nobody("the thread that says so ends, and there are few"),
    ),
    (
        "a command was turned away",
        Nobody("commands come from outside"),
    ),
    (
        "a difference could not be reported",
        Nobody("only a replay reports"),
    ),
    (
        "no event descriptor",
        Nobody("a server may have four descriptors for each node that a sandbox may have open"),
    ),
    (
        "no further thread ({}) can be started",
        Nobody("a server's threads are counted, and no limit of a program's concerns them"),
    ),
    ("no thread can be started for a request", Nobody("the same")),
    (
        "no further thread can be started, so requests",
        Nobody("the same"),
    ),
    (
        "the driver took {size} bytes",
        Nobody("more is charged for an object than any driver takes for it"),
    ),
];

/// The log after a program did `TIMES` times what has lines of one kind written, where these rules hold.
fn flooded(way: &str, rules: &str) -> String {
    let directory = Directory::new("flooded");
    let file = directory.path().join("log");
    let options = ["--log", file.to_str().expect("a path")];
    let scenario = ["flood", &TIMES.to_string(), way];
    let ended = finish(&mut guest_under_with(rules, &options, &scenario));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""), "{way}");
    assert_eq!(ended.stdout, format!("{way}: {TIMES}\n"));
    fs::read_to_string(&file).expect("the log")
}

/// What of a line's text is the same each time: what stands before the first value, or between that and the next.
fn fixed(kind: &str) -> &str {
    let parts = kind.split(['{', '}']).step_by(2);
    parts.max_by_key(|part| part.len()).unwrap_or_default()
}

#[test]
fn no_kind_of_line_that_a_program_has_written_fills_the_log() {
    for (kind, cause) in KINDS {
        let Program { way, rules } = cause else {
            continue;
        };
        let log = flooded(way, rules);
        let of_kind = log.lines().filter(|line| line.contains(fixed(kind)));
        assert_eq!(of_kind.count(), LINES, "{kind}");
        let left_out: Vec<&str> = log
            .lines()
            .filter(|line| line.ends_with("): further ones are left out"))
            .collect();
        assert_eq!(left_out.len(), 1, "{kind}: {left_out:?}");
        assert!(left_out[0].contains(" more than 1024 such lines ("));
        // What is said of every sandbox, besides.
        let others = log.lines().count() - LINES - 1;
        assert!(others < 12, "{kind}: {others} others");
    }
}

/// That the test above can fail.
#[test]
fn every_kind_of_line_that_a_program_has_written_fills_the_log_if_none_is_counted() {
    for (kind, cause) in KINDS {
        let Program { way, rules } = cause else {
            continue;
        };
        let log = flooded(way, &format!("{rules} sentry.lines=drop server.lines=drop"));
        let of_kind = log.lines().filter(|line| line.contains(fixed(kind)));
        let count = of_kind.count();
        assert!(count > LINES, "{kind}: {count}");
    }
}

/// Where it goes to stderr, too, and for requests that differ.
#[test]
fn requests_that_are_made_up_do_not_fill_the_log() {
    let ended = finish(&mut guest(&["made-up", "3000"]));
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "refused: 3000\n")
    );
    let mut lines = ended.stderr.lines();
    for index in 0..LINES {
        let command = 0x20ff_0000 + index;
        let warning = format!(" WARN nvproxy: unknown control command {command:#x}");
        assert_eq!(lines.next(), Some(warning.as_str()));
    }
    let last = lines.next().expect("a last line");
    assert!(
        last.starts_with(" WARN more than 1024 such lines ("),
        "{last}"
    );
    assert!(last.ends_with("): further ones are left out"), "{last}");
    assert_eq!(lines.next(), None);
}

/// Several kinds at once have each their part.
#[test]
fn one_kind_of_line_does_not_hide_another() {
    let directory = Directory::new("flooded");
    let file = directory.path().join("log");
    let options = ["--log", file.to_str().expect("a path")];
    let scenario = [
        "flood",
        "1200",
        "another's client",
        "made up",
        "failed opens",
        "pins",
    ];
    let ended = finish(&mut guest_with(&options, &scenario));
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let log = fs::read_to_string(&file).expect("the log");
    for kind in ["nvproxy: ", ": not issued: "] {
        let of_kind = log.lines().filter(|line| line.contains(kind));
        assert_eq!(of_kind.count(), LINES, "{kind}");
    }
    let others = log.lines().count() - 2 * (LINES + 1);
    assert!(others < 12, "{others} others");
}

/// Whatever sentry and servers make of these bounds, and however many servers a sandbox gets, the launcher copies no more.
#[test]
fn the_launcher_copies_no_more_than_it_may() {
    let rules = "sentry.lines=drop sentry.messages=value:4096";
    let ended = finish(&mut guest_under(rules, &["made-up", "3000"]));
    assert_eq!(
        (ended.status, ended.stdout.as_str()),
        (0, "refused: 3000\n")
    );
    let missing =
        " WARN stderr: sentry and server wrote more than 4096 bytes: what followed is missing\n";
    let shown = ended.stderr.strip_suffix(missing).expect("a last line");
    assert!((1..=4096).contains(&shown.len()), "{} bytes", shown.len());
}

/// That the test above can fail: 3000 such lines are more.
#[test]
fn the_launcher_copies_all_that_it_may() {
    let rules = "sentry.lines=drop";
    let ended = finish(&mut guest_under(rules, &["made-up", "3000"]));
    assert_eq!(ended.stderr.lines().count(), 3000);
}

/// A line that is not in the list above has nobody who thought of who can have it written how often.
#[test]
fn every_line_is_in_the_list() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = vec![0; KINDS.len()];
    for file in [
        "kernel/src",
        "kernel/sentry/src",
        "nvproxy-server/src",
        "nvproxy-server/protocol/src",
        "nvproxy-server/sim/src",
        "ipc/src",
        "confinement/src",
    ]
    .into_iter()
    .flat_map(|folder| sources(&root.join(folder)))
    {
        let source = fs::read_to_string(&file).expect("a source");
        for text in lines_of(&source) {
            let kinds = KINDS.iter().zip(&mut found);
            let of: Vec<&mut usize> = kinds
                .filter(|((kind, _), _)| text.starts_with(kind))
                .map(|(_, found)| found)
                .collect();
            assert_eq!(of.len(), 1, "{}: {text:?}", file.display());
            of.into_iter().for_each(|found| *found += 1);
        }
    }
    for ((kind, _), found) in KINDS.iter().zip(found) {
        assert_ne!(found, 0, "no source has {kind:?}");
    }
}

/// The sources below a folder, but for tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let found = paths.flat_map(
        |path| match path.file_name().and_then(|name| name.to_str()) {
            Some("tests" | "tests.rs") => Vec::new(),
            _ if path.is_dir() => sources(&path),
            Some(name) if name.ends_with(".rs") => vec![path],
            _ => Vec::new(),
        },
    );
    found.collect()
}

/// The texts that a source has written into the log.
fn lines_of(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]\nmod tests {").next();
    let code = code.unwrap_or_default();
    let calls = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let calls = calls.map(|call| format!("tracing::{call}"));
    let calls = calls.iter().map(String::as_str).chain(["warn_once("]);
    let texts = calls.flat_map(|call| {
        let after = code.split(call).skip(1);
        after.filter_map(|after| after.split('"').nth(1).map(|text| (after, text)))
    });
    // The definition has no text of its own.
    let texts = texts.filter(|(after, _)| !after.starts_with("what:"));
    texts.map(|(_, text)| text).collect()
}
