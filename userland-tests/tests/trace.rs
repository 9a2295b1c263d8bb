//! `--trace`: every request once, on its thread's track, with spans that fit into one another; and a file that can be
//! opened whatever became of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use ringfence_recording::Recording;
use serde_json::{Map, Value};
use userland_tests::processes::Tree;
use userland_tests::{
    Directory, Ended, eventually, finish, guest_program, guest_under_with, guest_with,
    ringfence_program, showing_the_guest, started, wait_for,
};

/// A thread: the numbers of its process and its own, as the program sees them.
type Track = (u64, u64);

/// A span, in eighths of a microsecond.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    name: String,
    start: u64,
    end: u64,
}

/// A request, and what lies within it.
#[derive(Debug)]
struct Request {
    track: Track,
    whole: Span,
    args: Map<String, Value>,
    phases: Vec<Span>,
}

impl Request {
    fn arg(&self, name: &str) -> &str {
        self.args.get(name).and_then(Value::as_str).unwrap_or("-")
    }

    /// Its kind, name, node, outcome and status.
    fn in_short(&self) -> String {
        let name = &self.whole.name;
        let args = ["kind", "node", "outcome", "status"].map(|name| self.arg(name));
        let [kind, node, outcome, status] = args;
        format!("{kind} {name} on {node}: {outcome} {status}")
    }

    fn phase_names(&self) -> Vec<&str> {
        self.phases.iter().map(|span| span.name.as_str()).collect()
    }
}

/// What a trace says.
struct Trace {
    requests: Vec<Request>,
    /// The names of processes, by number, and of threads.
    processes: BTreeMap<u64, String>,
    threads: BTreeMap<Track, String>,
    notes: Vec<String>,
}

impl Trace {
    /// Reads a trace. Every event has to be one that is known, and every phase has to follow its request.
    fn parse(text: &str) -> Trace {
        let events: Vec<Value> = serde_json::from_str(text).expect("an array");
        let mut trace = Trace {
            requests: Vec::new(),
            processes: BTreeMap::new(),
            threads: BTreeMap::new(),
            notes: Vec::new(),
        };
        for event in &events {
            trace.take(event);
        }
        trace
    }

    fn take(&mut self, event: &Value) {
        let number = |name: &str| event[name].as_u64().expect("a number");
        let text = |name: &str| event[name].as_str().expect("a string").to_owned();
        let track = (number("pid"), number("tid"));
        let name = text("name");
        match (text("ph").as_str(), name.as_str()) {
            ("M", "process_name") => {
                let name = event["args"]["name"].as_str().expect("a name");
                self.processes.insert(track.0, name.to_owned());
            }
            ("M", "thread_name") => {
                let name = event["args"]["name"].as_str().expect("a name");
                self.threads.insert(track, name.to_owned());
            }
            ("i", _) => self.notes.push(name),
            ("X", _) => {
                let start = eighths(&event["ts"]);
                let end = start + eighths(&event["dur"]);
                let span = Span { name, start, end };
                match text("cat").as_str() {
                    "request" => self.requests.push(Request {
                        track,
                        whole: span,
                        args: event["args"].as_object().expect("an object").clone(),
                        phases: Vec::new(),
                    }),
                    "phase" => {
                        let request = self.requests.last_mut().expect("a request");
                        assert_eq!(request.track, track);
                        request.phases.push(span);
                    }
                    _ => panic!("{event}"),
                }
            }
            _ => panic!("{event}"),
        }
    }

    /// Asserts that spans do not overlap but where one is the other's part, and that each track has its names.
    fn check(&self) {
        let mut ends: BTreeMap<Track, u64> = BTreeMap::new();
        for request in &self.requests {
            let Request {
                track,
                whole,
                phases,
                ..
            } = request;
            assert!(self.processes.contains_key(&track.0) && self.threads.contains_key(track));
            // Requests of a thread stand in the order in which it made them.
            let before = ends.insert(*track, whole.end).unwrap_or_default();
            assert!(before <= whole.start, "{request:?} starts before {before}");
            let end = phases.iter().fold(whole.start, |end, phase| {
                assert_eq!(phase.start, end, "{request:?}");
                assert!(phase.start <= phase.end, "{request:?}");
                phase.end
            });
            assert_eq!(end, whole.end, "{request:?}");
        }
    }

    fn in_short(&self) -> Vec<String> {
        self.requests.iter().map(Request::in_short).collect()
    }
}

fn eighths(microseconds: &Value) -> u64 {
    let eighths = microseconds.as_f64().expect("a number") * 8.0;
    assert_eq!(
        eighths.fract(),
        0.0,
        "{microseconds} is not so many eighths"
    );
    eighths as u64
}

/// Runs a scenario of the guest, which has to succeed, and returns its trace, and what was printed to stderr.
fn traced(options: &[&str], scenario: &[&str]) -> (Trace, String) {
    let directory = Directory::new("trace");
    let file = directory.path().join("trace.json");
    let with_trace = [&["--trace", path(&file)], options].concat();
    let ended = finish(&mut guest_with(&with_trace, scenario));
    assert_eq!(ended.status, 0, "{scenario:?}: {ended:?}");
    let trace = Trace::parse(&fs::read_to_string(&file).expect("a trace"));
    trace.check();
    (trace, ended.stderr)
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path in UTF-8")
}

/// How a request goes that the driver was asked.
const ASKED: [&str; 5] = ["sentry", "ring", "driver", "ring", "write-back"];

#[test]
fn every_request_is_on_the_track_of_the_process_that_made_it() {
    let (trace, _) = traced(&[], &["fork"]);
    let client = [
        "open /dev/nvidiactl on nvidiactl: ok -",
        "alloc NV01_ROOT_CLIENT on nvidiactl: ok NV_OK",
        "open /dev/nvidia# on nvidia0: ok -",
        "frontend NV_ESC_REGISTER_FD on nvidia0: ok -",
        "control NV0000_CTRL_CMD_GPU_GET_PROBED_IDS on nvidiactl: ok NV_OK",
        "control NV0000_CTRL_CMD_GPU_ATTACH_IDS on nvidiactl: ok NV_OK",
        "control NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2 on nvidiactl: ok NV_OK",
        "alloc NV01_DEVICE_0 on nvidiactl: ok NV_OK",
        "alloc NV20_SUBDEVICE_0 on nvidiactl: ok NV_OK",
    ];
    let allocated = "alloc NV01_MEMORY_LOCAL_USER on nvidiactl: ok NV_OK";
    let asked = "control NV2080_CTRL_CMD_FB_GET_INFO_V2 on nvidiactl: ok NV_OK";
    let freed = "frontend NV_ESC_RM_FREE on nvidiactl: ok NV_OK";
    let rest = [allocated, asked, allocated, asked, freed, asked];
    assert_eq!(trace.in_short(), [&client[..], &rest].concat());
    // Init is process 1 of the sandbox, the program 2, and its child 3, which asks and allocates.
    let tracks: Vec<Track> = trace.requests.iter().map(|request| request.track).collect();
    let (parent, child) = ((2, 2), (3, 3));
    let expected = [&[parent; 10][..], &[child; 2], &[parent; 3]].concat();
    assert_eq!(tracks, expected);
    let guest = "guest".to_owned();
    assert_eq!(
        trace.processes,
        BTreeMap::from([(2, guest.clone()), (3, guest.clone())])
    );
    assert_eq!(
        trace.threads,
        BTreeMap::from([(parent, guest.clone()), (child, guest)])
    );
    for request in &trace.requests {
        assert_eq!(request.phase_names(), ASKED, "{request:?}");
    }
    let length = |at: usize| trace.requests[at].args["payload"].as_u64();
    // NVOS21_PARAMETERS, and NVOS00_PARAMETERS.
    assert_eq!((length(1), length(13)), (Some(32), Some(16)));
}

#[test]
fn every_thread_has_a_track() {
    let (trace, stderr) = traced(&["--stats"], &["threads"]);
    let tracks: BTreeSet<Track> = trace.requests.iter().map(|request| request.track).collect();
    assert_eq!(tracks.len(), 33);
    assert!(tracks.iter().all(|(process, _)| *process == 2));
    assert_eq!(trace.threads.len(), 33);
    assert!(
        trace
            .requests
            .iter()
            .all(|request| request.phase_names() == ASKED)
    );
    let total = format!("\n{} requests\n", trace.requests.len());
    assert!(stderr.contains(&total), "{total} in {stderr}");
}

#[test]
fn statistics_and_trace_count_the_same() {
    let (trace, stderr) = traced(&["--stats"], &["memory-limit"]);
    assert!(stderr.contains("\n26 requests\n"), "{stderr}");
    assert_eq!(trace.requests.len(), 26);
    let full = "alloc NV01_MEMORY_LOCAL_USER on nvidiactl: ok NV_ERR_NO_MEMORY";
    let refused = trace.in_short().iter().filter(|row| *row == full).count();
    assert!(refused > 0, "{:?}", trace.in_short());
    // A trace alone prints nothing.
    let (_, stderr) = traced(&[], &["memory-limit"]);
    assert_eq!(stderr, "");
}

#[test]
fn what_the_tables_refuse_is_there_and_says_why() {
    let (trace, _) = traced(&["--log", "/dev/null"], &["unknown", "1"]);
    let refused: Vec<&Request> = trace
        .requests
        .iter()
        .filter(|request| request.args.contains_key("refusal"))
        .collect();
    let rows: Vec<(String, &str)> = refused
        .iter()
        .map(|request| (request.in_short(), request.arg("refusal")))
        .collect();
    let expected = [
        (
            "control unknown control command 0x20807fff on nvidiactl: ok NV_ERR_NOT_SUPPORTED",
            "unknown control command 0x20807fff",
        ),
        (
            "control NV2080_CTRL_CMD_GPU_SET_POWER on nvidiactl: ok NV_ERR_NOT_SUPPORTED",
            "unknown control command 0x20800112 (NV2080_CTRL_CMD_GPU_SET_POWER)",
        ),
        (
            "alloc unknown class 0xfeed on nvidiactl: ok NV_ERR_INVALID_CLASS",
            "unknown class 0xfeed",
        ),
        (
            "frontend unknown ioctl 0x77 on nvidiactl: EINVAL -",
            "unknown ioctl 0x77",
        ),
        (
            "uvm unknown UVM ioctl 0x7e on nvidia-uvm: ENOSYS -",
            "unknown UVM ioctl 0x7e",
        ),
    ];
    assert_eq!(
        rows,
        expected.map(|(row, refusal)| (row.to_owned(), refusal))
    );
    for request in refused {
        assert_eq!(request.phase_names(), ["sentry"]);
    }
}

/// Else all that the headers have no name for would be one request.
#[test]
fn what_has_no_name_has_its_number() {
    let (trace, _) = traced(&["--log", "/dev/null"], &["firmware"]);
    let names = trace.requests.iter().map(|request| &*request.whole.name);
    let unnamed: BTreeSet<&str> = names.filter(|name| name.ends_with(')')).collect();
    assert!(
        unnamed.contains("0x20808162 (not in the public headers)"),
        "{unnamed:?}"
    );
    assert!(
        unnamed.iter().all(|name| name.starts_with("0x")),
        "{unnamed:?}"
    );
}

#[test]
fn a_pin_shows_who_was_held_and_when_the_task_itself_called() {
    let (trace, _) = traced(&[], &["pin-refused"]);
    let pins: Vec<&Request> = trace
        .requests
        .iter()
        .filter(|request| request.whole.name == "NV01_MEMORY_SYSTEM_OS_DESCRIPTOR")
        .collect();
    let outcomes: Vec<(&str, &str)> = pins
        .iter()
        .map(|pin| (pin.arg("outcome"), pin.arg("status")))
        .collect();
    let expected = [
        ("ok", "NV_ERR_NOT_SUPPORTED"),
        ("ok", "NV_ERR_OBJECT_NOT_FOUND"),
        ("EINVAL", "-"),
        ("ok", "NV_OK"),
    ];
    assert_eq!(outcomes, expected);
    let phases = [
        &["sentry", "ring", "hold", "own ioctl", "release"][..],
        &ASKED[1..],
    ];
    for pin in pins {
        assert_eq!(pin.phase_names(), phases.concat());
    }
}

#[test]
fn a_name_that_a_task_gives_itself_is_text_and_nothing_more() {
    let (trace, _) = traced(&[], &["misnamed"]);
    let name = "\"}],\\\n\u{1b}\u{fffd}</b>";
    assert_eq!(trace.processes, BTreeMap::from([(2, name.to_owned())]));
    assert_eq!(trace.threads, BTreeMap::from([((2, 2), name.to_owned())]));
    assert_eq!(trace.in_short(), ["open /dev/nvidiactl on nvidiactl: ok -"]);
}

#[test]
fn a_program_that_asks_for_nothing_leaves_an_empty_trace() {
    let directory = Directory::new("trace");
    let file = directory.path().join("trace.json");
    fs::write(&file, "what was there before").expect("a file");
    let mut command = userland_tests::ringfence_run(&["--trace", path(&file)]);
    assert_eq!(finish(command.arg("true")), Ended::printing(""));
    assert_eq!(fs::read_to_string(&file).expect("a trace"), "[\n]\n");
}

#[test]
fn a_run_is_recorded_and_traced_at_once() {
    let directory = Directory::new("trace");
    let [file, out] = ["trace.json", "recording"].map(|name| directory.path().join(name));
    let mut command = Command::new(ringfence_program());
    command
        .args(["record", "--driver", "sim", "--out", path(&out)])
        .args(showing_the_guest())
        .args(["--trace", path(&file), "--"])
        .arg(guest_program())
        .arg("fork");
    let ended = finish(command.stdin(Stdio::null()));
    assert_eq!(ended.status, 0, "{ended:?}");
    let recording = Recording::from_bytes(&fs::read(&out).expect("a recording"));
    let trace = Trace::parse(&fs::read_to_string(&file).expect("a trace"));
    trace.check();
    // Opens are no requests of a recording.
    let is_open = |request: &&Request| request.arg("kind") == "open";
    let opens = trace.requests.iter().filter(is_open).count();
    let recorded = recording.expect("a valid one").requests();
    assert_eq!((opens, trace.requests.len() - opens), (2, recorded));
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_the_program_starts() {
    let directory = Directory::new("trace");
    let missing = directory.path().join("none").join("trace.json");
    let cases: [(PathBuf, &str); 3] = [
        (missing, "No such file or directory"),
        (directory.path().into(), "Is a directory"),
        ("/dev/full".into(), "No space left on device"),
    ];
    for (file, reason) in cases {
        let line = format!(
            "ringfence: --trace {}: {reason}: name a file that you may write to, where there is room",
            file.display()
        );
        let ended = finish(&mut guest_with(&["--trace", path(&file)], &["walk"]));
        assert_eq!(ended, Ended::failing(125, &line));
    }
}

/// What `idle` asks before it says that it is ready.
fn of_idle(file: &Path) -> impl Fn() -> bool {
    let file = file.to_owned();
    move || {
        let text = fs::read_to_string(&file).expect("a trace");
        text.matches(r#""cat":"request""#).count() == 9 && text.ends_with("}")
    }
}

/// What sentry and server write is taken by the launcher. While that is stopped, a pipe holds some of it.
#[test]
fn a_launcher_that_is_stopped_keeps_no_program_waiting_and_what_it_missed_is_counted() {
    let directory = Directory::new("stopped");
    let [file, log] = ["trace.json", "log"].map(|name| directory.path().join(name));
    let shown = directory.path();
    let options = [
        "--trace",
        path(&file),
        "--log",
        path(&log),
        "--bind",
        path(shown),
    ];
    let mut command = userland_tests::ringfence_run(&options);
    // Not by its input, which a stopped launcher does not pass on.
    let go = shown.join("go");
    let script =
        "echo ready; until [ -e \"$GO\" ]; do sleep 0.02; done; exec \"$0\" flood 1200 \"$@\"";
    command.env("GO", &go);
    command.args(["sh", "-c", script]).arg(guest_program());
    command.args(["another's client", "made up", "failed opens", "pins"]);
    let (child, output) = started(&mut command);
    let launcher = Tree::of(child.id()).launcher.pid;
    kill(launcher, Signal::SIGSTOP).expect("it is there");
    fs::write(&go, "").expect("a file");
    let lines: Vec<String> = output
        .lines()
        .map(|line| line.expect("text"))
        .take(4)
        .collect();
    assert_eq!(
        lines,
        [
            "another's client: 1200",
            "made up: 1200",
            "failed opens: 1200",
            "pins: 1200"
        ]
    );
    kill(launcher, Signal::SIGCONT).expect("it is there");
    let ended = wait_for(child);
    assert_eq!((ended.status, ended.stderr.as_str()), (0, ""));
    let trace = Trace::parse(&fs::read_to_string(&file).expect("a trace"));
    let is_missing = |note: &String| note.ends_with("requests or names are missing before this");
    assert!(
        trace.notes.iter().all(is_missing) && !trace.notes.is_empty(),
        "{:?}",
        trace.notes
    );
    let log = fs::read_to_string(&log).expect("the log");
    let counted = log
        .lines()
        .filter(|line| line.ends_with(" lines were left out before this: nobody took them"));
    assert_ne!(counted.count(), 0, "{log}");
}

#[test]
fn what_was_written_of_a_sandbox_that_was_killed_can_be_opened() {
    let directory = Directory::new("trace");
    let file = directory.path().join("trace.json");
    let (child, _output) = started(&mut guest_with(&["--trace", path(&file)], &["idle"]));
    eventually("what the program asked is written", of_idle(&file));
    let tree = Tree::of(child.id());
    tree.kill(|tree| tree.launcher);
    assert_eq!(wait_for(child).status, 137);
    tree.expect_gone();
    let text = fs::read_to_string(&file).expect("a trace");
    let trace = Trace::parse(&(text + "]"));
    trace.check();
    assert_eq!(trace.requests.len(), 9);
}

#[test]
fn the_trace_of_a_program_that_was_killed_is_whole() {
    let directory = Directory::new("trace");
    let file = directory.path().join("trace.json");
    let (child, _output) = started(&mut guest_with(&["--trace", path(&file)], &["idle"]));
    Tree::of(child.id()).kill(|tree| tree.program);
    assert_eq!(wait_for(child).status, 137);
    let trace = Trace::parse(&fs::read_to_string(&file).expect("a trace"));
    trace.check();
    assert_eq!(trace.requests.len(), 9);
}

#[test]
fn a_trace_does_not_grow_without_end() {
    const GREATEST: usize = 4000;
    let directory = Directory::new("trace");
    let file = directory.path().join("trace.json");
    let rules = format!("sentry.trace=value:{GREATEST}");
    let options = ["--trace", path(&file)];
    let ended = finish(&mut guest_under_with(&rules, &options, &["walk"]));
    let warning = format!(
        " WARN --trace: {}: it has its greatest length, {GREATEST} bytes: what follows is missing\n",
        file.display()
    );
    assert_eq!((ended.status, ended.stderr), (0, warning));
    let text = fs::read_to_string(&file).expect("a trace");
    assert!(text.len() <= GREATEST, "{} bytes", text.len());
    let trace = Trace::parse(&text);
    trace.check();
    assert_eq!(trace.notes, ["the trace has its greatest length"]);
    assert!(!trace.requests.is_empty());
}

#[test]
fn a_run_goes_on_when_its_trace_cannot() {
    let directory = Directory::new("trace");
    let file = directory.path().join("trace.json");
    let permissions = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::unistd::mkfifo(&file, permissions).expect("a pipe");
    let other_end = file.clone();
    // Reads the beginning and hangs up.
    let reader = std::thread::spawn(move || {
        let mut beginning = [0];
        let opened = File::open(other_end).and_then(|mut pipe| pipe.read_exact(&mut beginning));
        opened.map(|()| beginning)
    });
    let ended = finish(&mut guest_with(&["--trace", path(&file)], &["duplicates"]));
    assert_eq!(reader.join().expect("a reader").expect("a byte"), *b"[");
    let expected = Ended {
        stderr: format!(
            " WARN --trace: {}: Broken pipe (os error 32): what follows is missing\n",
            file.display()
        ),
        ..Ended::printing("through fcntl's 100\nfreed with the last\n")
    };
    assert_eq!(ended, expected);
}
