//! Recording programs, and replaying what was recorded.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nvproxy_abi::node::{Node, OPEN_ONLY};
use nvproxy_abi::policy::FirmwareCommands;
use ringfence_recording::{Event, Reached, Recording, Request};
use userland_tests::{
    Directory, Ended, finish, guest_program, ringfence_program, ringfence_with_faults,
    showing_the_guest,
};

/// `ringfence record --driver sim --out FILE OPTIONS… -- PROGRAM ARGUMENTS…`
fn record(file: &Path, options: &[&str], program: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(ringfence_program());
    command
        .args(["record", "--driver", "sim", "--out"])
        .arg(file)
        .args(showing_the_guest());
    command.args(options).arg("--").arg(program).args(arguments);
    finish(command.stdin(Stdio::null()))
}

/// Records a scenario of the guest, which has to succeed, and returns the file.
fn recorded(directory: &Directory, scenario: &[&str]) -> PathBuf {
    let file = directory.path().join(scenario.join("-"));
    let ended = record(&file, &[], &guest_program(), scenario);
    assert_eq!(ended.status, 0, "{scenario:?}: {ended:?}");
    file
}

fn replay<S: AsRef<OsStr>>(file: &Path, options: &[S]) -> Ended {
    let mut command = Command::new(ringfence_program());
    command.arg("replay").args(options).arg("--").arg(file);
    finish(command.stdin(Stdio::null()))
}

/// The end of a replay in which something differs.
fn differing(report: &str) -> Ended {
    Ended {
        status: 1,
        ..Ended::printing(report)
    }
}

fn read(file: &Path) -> Recording {
    let bytes = fs::read(file).expect("a recording");
    Recording::from_bytes(&bytes).expect("a valid recording")
}

/// Writes another recording beside `file`, and returns where it is.
fn write(file: &Path, name: &str, recording: &Recording) -> PathBuf {
    let other = file.with_file_name(name);
    fs::write(&other, recording.to_bytes().expect("small enough")).expect("a file");
    other
}

/// Records a scenario and replays it: nothing differs. Returns the summary and what was recorded.
fn recorded_and_replayed(scenario: &[&str]) -> (String, Recording) {
    let directory = Directory::new("recordings");
    let file = recorded(&directory, scenario);
    let replayed = replay::<&str>(&file, &[]);
    assert_eq!(replayed.status, 0, "{scenario:?}: {replayed:?}");
    (replayed.stdout, read(&file))
}

/// The same for a scenario that makes the same requests each time.
fn replays(scenario: &[&str], summary: &str) {
    let (stdout, _) = recorded_and_replayed(scenario);
    assert_eq!(
        stdout,
        format!("{summary}: no byte differs\n"),
        "{scenario:?}"
    );
}

#[test]
fn a_program_with_events_replays() {
    replays(&["walk"], "22 requests of 1 task and 1 thread");
}

#[test]
fn a_recording_is_what_the_program_asked_and_got() {
    let (_, recording) = recorded_and_replayed(&["walk"]);
    assert_eq!(recording.header.gpus, [0, 1]);
    assert_eq!(recording.header.threads, [0]);
    assert!(recording.header.scrubbed);
    let program = guest_program().into_os_string().into_encoded_bytes();
    assert_eq!(recording.header.command, [program, b"walk".to_vec()]);
    // Opened first and used first: /dev/nvidiactl, for NV_ESC_RM_ALLOC of a client.
    let [Event::Open(open), Event::Request(request), ..] = &recording.events[..] else {
        panic!("{:?}", &recording.events[..2]);
    };
    assert_eq!(open.node, Node::Control);
    assert_eq!((open.description, open.result), (0, 0));
    assert_eq!((request.command, request.result), (0xc020_462b, 0));
    assert_eq!(request.reached, Reached::Driver);
    let root = |payload: &[u8]| payload[8..12].to_vec();
    assert_eq!(root(&request.before), [0; 4]);
    assert_eq!(root(&request.after()), 0xc1d0_0000u32.to_le_bytes());
    // What was opened to be mapped was closed long before the end. The end may come before the last closes are noticed.
    let closed: Vec<u32> = recording
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Close { description } => Some(*description),
            _ => None,
        })
        .collect();
    let once: BTreeSet<u32> = closed.iter().copied().collect();
    assert_eq!(closed.len(), once.len());
    assert!(once.is_superset(&(2..6).collect()), "{once:?}");
}

#[test]
fn threads_replay_as_threads() {
    let (stdout, recording) = recorded_and_replayed(&["threads"]);
    assert_eq!(recording.header.threads, [0; 33]);
    let requests = recording.requests();
    let (thousands, rest) = (requests / 1000, requests % 1000);
    let summary =
        format!("{thousands},{rest:03} requests of 1 task and 33 threads: no byte differs\n");
    assert_eq!(stdout, summary);
}

#[test]
fn tasks_replay_as_tasks() {
    replays(&["fork"], "13 requests of 2 tasks and 2 threads");
    // These wait for memory to be freed, so that the number of their requests varies.
    for scenario in ["export", "pass"] {
        let (stdout, recording) = recorded_and_replayed(&[scenario]);
        let requests = recording.requests();
        let summary = format!("{requests} requests of 2 tasks and 2 threads: no byte differs\n");
        assert_eq!((stdout, recording.header.threads), (summary, vec![0, 1]));
    }
}

#[test]
fn unified_memory_replays() {
    replays(&["uvm"], "25 requests of 1 task and 1 thread");
}

#[test]
fn pins_replay_through_the_pin_path() {
    replays(&["pin-private"], "73 requests of 1 task and 1 thread");
    replays(&["pin-refused"], "11 requests of 1 task and 1 thread");
    replays(
        &["pin-from-two-threads"],
        "127 requests of 1 task and 3 threads",
    );
}

/// A replay has the open-only nodes that the recorded program opened, though no sandbox is given them, and knows each where a
/// request names it.
#[test]
fn open_only_nodes_replay() {
    let directory = Directory::new("open-only");
    let file = directory.path().join("open-only");
    let mut command = Command::new(ringfence_with_faults());
    command.env("RINGFENCE_FAULTS", "sentry.open-only=drop");
    command
        .args(["record", "--driver", "sim", "--out"])
        .arg(&file)
        .args(showing_the_guest());
    command.arg("--").arg(guest_program()).arg("open-only");
    let ended = finish(command.stdin(Stdio::null()));
    assert_eq!(ended.status, 0, "{ended:?}");
    let recording = read(&file);
    let opened = recording.nodes();
    for series in OPEN_ONLY {
        let is_it = |node: &Node| *node == series.first();
        let index = opened.iter().position(is_it).expect("an open") as i32;
        // NVOS64_PARAMETERS and behind it NVC639_ALLOCATION_PARAMETERS, whose descriptor is a number of 8 bytes.
        let named = requests(&recording).any(|request| {
            let names = |payload: &[u8]| payload.get(48..52) == Some(&index.to_ne_bytes()[..]);
            request.command == 0xc030_462b && names(&request.before)
        });
        assert!(named, "{}: {recording:?}", series.prefix);
    }
    let replayed = replay::<&str>(&file, &[]);
    assert_eq!(replayed.status, 0, "{replayed:?}");
    assert!(replayed.stdout.contains("no byte differs"), "{replayed:?}");
    let simulated = replay(&file, &["--driver", "sim"]);
    assert_eq!(simulated.status, 0, "{simulated:?}");
}

/// What was refused when it was recorded is refused again.
#[test]
fn the_firmwares_commands_replay_as_they_were_recorded() {
    for choice in [FirmwareCommands::All, FirmwareCommands::Listed] {
        let directory = Directory::new("firmware");
        let file = directory.path().join("recording");
        let options = ["--firmware-commands", &choice.to_string()];
        let ended = record(&file, &options, &guest_program(), &["firmware"]);
        assert_eq!(ended.status, 0, "{ended:?}");
        assert_eq!(read(&file).header.firmware_commands, choice);
        let replayed = replay::<&str>(&file, &[]);
        assert_eq!(replayed.status, 0, "{replayed:?}");
        assert!(replayed.stdout.contains("no byte differs"), "{replayed:?}");
    }
}

/// The guest fills the whole structure. A replay compares what reaches the driver with zeros where the answer is not told.
#[test]
fn nothing_that_is_said_where_an_answer_is_not_told_reaches_the_driver() {
    let directory = Directory::new("recordings");
    let file = recorded(&directory, &["told-processes"]);
    let replayed = replay::<&str>(&file, &[]);
    assert_eq!(replayed.status, 0, "{replayed:?}");
    assert!(replayed.stdout.contains("no byte differs"), "{replayed:?}");
    // That this can fail.
    let mut command = Command::new(ringfence_with_faults());
    command.args(["replay", "--"]).arg(&file);
    command.env("RINGFENCE_FAULTS", "server.said=drop");
    let replayed = finish(command.stdin(Stdio::null()));
    assert_eq!(replayed.status, 1, "{replayed:?}");
}

/// nvidia-smi names no client in its device, which would have the GPU's own address space then. The driver is told one.
#[test]
fn a_device_of_no_client_is_one_of_its_makers() {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/nvidia-smi-q.recording");
    // That the comparison with what is to reach the driver can fail.
    let mut command = Command::new(ringfence_with_faults());
    command.args(["replay", "--"]).arg(&recording);
    command.env("RINGFENCE_FAULTS", "server.forced-bits=drop");
    let replayed = finish(command.stdin(Stdio::null()));
    assert_eq!(replayed.status, 1, "{replayed:?}");
    assert!(replayed.stdout.contains("NV01_DEVICE_0"), "{replayed:?}");
    assert_eq!(replay::<&str>(&recording, &[]).status, 0);
}

/// What the driver makes is not recorded, and its number is not compared.
#[test]
fn what_the_driver_makes_is_made_again() {
    let directory = Directory::new("recordings");
    let file = directory.path().join("dma-buf");
    let options = ["--driver-capabilities", "compute,utility,rdma"];
    let ended = record(&file, &options, &guest_program(), &["dma-buf"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    let word = |request: &&Request| request.command & 0xff == 0xd9;
    let recording = read(&file);
    let exports: Vec<&Request> = requests(&recording).filter(word).collect();
    assert_eq!(exports.len(), 13);
    for export in &exports[..4] {
        assert_eq!(export.result, 0);
        assert_eq!(export.after()[..4], (-1i32).to_ne_bytes());
    }
    for driver in ["recorded", "sim"] {
        let replayed = replay(&file, &["--driver", driver]);
        assert_eq!(replayed.status, 0, "{driver}: {replayed:?}");
        assert!(
            replayed.stdout.ends_with(": no byte differs\n"),
            "{replayed:?}"
        );
    }
}

#[test]
fn requests_that_never_reached_the_driver_replay() {
    let (stdout, recording) = recorded_and_replayed(&["unknown", "2"]);
    assert_eq!(
        stdout,
        "21 requests of 1 task and 1 thread: no byte differs\n"
    );
    let reached = |recording: &Recording, how| {
        requests(recording)
            .filter(|request| request.reached == how)
            .count()
    };
    assert_eq!(reached(&recording, Reached::Refused), 10);
    let (stdout, recording) = recorded_and_replayed(&["bad-pointers"]);
    assert_eq!(
        stdout,
        "19 requests of 1 task and 1 thread: no byte differs\n"
    );
    assert_eq!(reached(&recording, Reached::Unreadable), 9);
    replays(&["bad-descriptors"], "29 requests of 1 task and 1 thread");
    replays(&["statuses"], "26 requests of 1 task and 1 thread");
}

fn requests(recording: &Recording) -> impl Iterator<Item = &Request> {
    recording.events.iter().filter_map(|event| match event {
        Event::Request(request) => Some(request),
        _ => None,
    })
}

/// The first successful control command with an answer, its sequence number, and where its answer begins.
fn an_answer(recording: &mut Recording) -> (usize, &mut Request) {
    let found = recording
        .events
        .iter_mut()
        .enumerate()
        .find_map(|(sequence, event)| match event {
            Event::Request(request)
                if request.command == 0xc020_462a && !request.changes.is_empty() =>
            {
                Some((sequence, request))
            }
            _ => None,
        });
    found.expect("a control command")
}

#[test]
fn an_altered_answer_is_found_and_nothing_else() {
    let directory = Directory::new("altered-answer");
    let file = recorded(&directory, &["fork"]);
    let mut recording = read(&file);
    let (sequence, request) = an_answer(&mut recording);
    let change = request.changes.first_mut().expect("a change");
    let (at, old) = (change.at, change.bytes[0]);
    change.bytes[0] ^= 0x40;
    let new = change.bytes[0];
    let answers = write(&file, "answers", &recording);
    let replayed = replay(&file, &[OsStr::new("--answers"), answers.as_os_str()]);
    let expected = format!(
        "{sequence} NV0000_CTRL_CMD_GPU_GET_PROBED_IDS: at {at:#x} the program expected {old:02x} and got {new:02x}\n\
         13 requests of 2 tasks and 2 threads: 1 differs\n"
    );
    assert_eq!(replayed, differing(&expected));
}

#[test]
fn an_altered_request_is_found_and_nothing_else() {
    let directory = Directory::new("altered-request");
    let file = recorded(&directory, &["fork"]);
    let mut recording = read(&file);
    let (sequence, request) = an_answer(&mut recording);
    // A byte of the parameters that the answer does not change.
    let at = request.before.len() - 1;
    request.before[at] ^= 1;
    let new = request.before[at];
    let old = new ^ 1;
    let altered = write(&file, "altered", &recording);
    let replayed = replay(&altered, &[OsStr::new("--answers"), file.as_os_str()]);
    let line = |side: &str, expected: u8, got: u8| {
        format!(
            "{sequence} NV0000_CTRL_CMD_GPU_GET_PROBED_IDS: at {at:#x} {side} expected {expected:02x} and got {got:02x}\n"
        )
    };
    let expected =
        line("the driver", old, new) + "13 requests of 2 tasks and 2 threads: 1 differs\n";
    assert_eq!(replayed, differing(&expected));
}

#[test]
fn an_altered_result_and_a_request_that_did_not_come_are_found() {
    let directory = Directory::new("altered-result");
    let file = recorded(&directory, &["fork"]);
    let mut recording = read(&file);
    let (sequence, request) = an_answer(&mut recording);
    request.result = -libc::EIO;
    let failing = write(&file, "failing", &recording);
    let replayed = replay(&file, &[OsStr::new("--answers"), failing.as_os_str()]);
    let name = "NV0000_CTRL_CMD_GPU_GET_PROBED_IDS";
    let result = format!("{sequence} {name}: the program expected the result 0 and got EIO\n");
    assert_eq!(
        (replayed.status, replayed.stdout.contains(&result)),
        (1, true),
        "{replayed:?}"
    );

    let mut recording = read(&file);
    let (_, request) = an_answer(&mut recording);
    request.description = 1;
    let elsewhere = write(&file, "elsewhere", &recording);
    let replayed = replay(&file, &[OsStr::new("--answers"), elsewhere.as_os_str()]);
    let missing = format!(
        "{sequence} {name}: the driver expected ioctl 0xc020462a on description 1 and got ioctl 0xc020462a on \
         description 0\n"
    );
    assert_eq!(
        (replayed.status, replayed.stdout.contains(&missing)),
        (1, true),
        "{replayed:?}"
    );
}

#[test]
fn differences_are_printed_as_json() {
    let directory = Directory::new("json");
    let file = recorded(&directory, &["fork"]);
    let same = replay(&file, &["--json"]);
    let expected =
        "{\n  \"requests\": 13,\n  \"tasks\": 2,\n  \"threads\": 2,\n  \"differences\": []\n}\n";
    assert_eq!(same, Ended::printing(expected));
}

#[test]
fn bad_files_are_refused_in_one_line() {
    let directory = Directory::new("bad-files");
    let file = recorded(&directory, &["fork"]);
    let bytes = fs::read(&file).expect("a recording");
    let bad = directory.path().join("bad");
    let refused = |content: &[u8], reason: &str| {
        fs::write(&bad, content).expect("a file");
        let line = format!("ringfence: {}: {reason}", bad.display());
        assert_eq!(replay::<&str>(&bad, &[]), Ended::failing(125, &line));
    };
    let length = bytes.len();
    refused(
        &bytes[..length - 1],
        &format!(
            "truncated: it has {} bytes of at least {length}: copy it again",
            length - 1
        ),
    );
    refused(
        b"",
        "truncated: it has 0 bytes of at least 24: copy it again",
    );
    let altered = "altered since it was recorded: its checksum is wrong: copy it again";
    for at in [8, 20, length / 2, length - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        refused(&flipped, altered);
    }
    let foreign = "not a recording: make one with ringfence record --out FILE -- CMD";
    refused(b"#!/bin/sh\necho this is no recording\n", foreign);
    let missing = directory.path().join("missing");
    let line = format!(
        "ringfence: {}: No such file or directory: name a file that ringfence record made",
        missing.display()
    );
    assert_eq!(replay::<&str>(&missing, &[]), Ended::failing(125, &line));
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_the_program_starts() {
    let directory = Directory::new("unwritable");
    let nowhere = directory.path().join("missing").join("file");
    let started = directory.path().join("started");
    let touch = |file: &Path| {
        record(
            file,
            &[],
            Path::new("touch"),
            &[started.to_str().expect("text")],
        )
    };
    let line = format!(
        "ringfence: --out {}: No such file or directory: name a file in a directory that you may write to",
        nowhere.display()
    );
    assert_eq!(touch(&nowhere), Ended::failing(125, &line));
    let line = format!(
        "ringfence: --out {}: it is a directory: name a file in a directory that you may write to",
        directory.path().display()
    );
    assert_eq!(touch(directory.path()), Ended::failing(125, &line));
    assert!(!started.exists());
}

#[test]
fn a_program_keeps_its_status_and_leaves_no_half_file() {
    let directory = Directory::new("statuses");
    let file = directory.path().join("file");
    let names = || {
        let entries = fs::read_dir(directory.path()).expect("a directory");
        entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect::<Vec<_>>()
    };
    let missing = record(&file, &[], Path::new("no-such-program"), &[]);
    assert_eq!((missing.status, names()), (127, Vec::new()));
    let failing = record(&file, &[], Path::new("sh"), &["-c", "exit 7"]);
    assert_eq!((failing.status, names()), (7, vec!["file".into()]));
    assert_eq!(read(&file).events, []);
    assert_eq!(
        replay::<&str>(&file, &[]),
        Ended::printing("0 requests of 0 tasks and 0 threads: no byte differs\n")
    );
    let killed = record(&file, &[], Path::new("sh"), &["-c", "kill -9 $$"]);
    assert_eq!((killed.status, names()), (128 + 9, vec!["file".into()]));
}

/// Where `what` lies in anything that a recording stores.
fn holds(recording: &Recording, what: &[u8]) -> bool {
    let in_bytes = |bytes: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    requests(recording).any(|request| in_bytes(&request.before) || in_bytes(&request.after()))
        || recording.header.command.iter().any(|word| in_bytes(word))
}

#[test]
fn identifiers_are_replaced_unless_they_are_to_be_kept() {
    let directory = Directory::new("identifiers");
    let (file, kept) = (directory.path().join("file"), directory.path().join("kept"));
    let uuid = nvproxy_sim::gpu_uuid(0);
    let arguments = ["identifiers", &uuid];
    let printed = format!(
        "card: bus 1 id 0x100\naddress: 0:1:0\nUUID: {uuid}\\0\nUUID: simulated GPU \\0\\0\n"
    );
    assert_eq!(
        record(&file, &[], &guest_program(), &arguments),
        Ended::printing(&printed)
    );
    let options = ["--keep-identifiers"];
    assert_eq!(
        record(&kept, &options, &guest_program(), &arguments),
        Ended::printing(&printed)
    );
    let (scrubbed, kept_recording) = (read(&file), read(&kept));
    assert_eq!(
        (scrubbed.header.scrubbed, kept_recording.header.scrubbed),
        (true, false)
    );
    let digits = uuid.trim_start_matches("GPU-").as_bytes();
    for identifier in [&b"simulated GPU \0\0"[..], digits, &0x100u32.to_le_bytes()] {
        assert!(holds(&kept_recording, identifier), "{identifier:?}");
    }
    for identifier in [&b"simulated GPU \0\0"[..], digits] {
        assert!(!holds(&scrubbed, identifier), "{identifier:?}");
    }
    assert_eq!(
        numbers_at_places(&kept_recording),
        (vec![1, 2], vec![0x100, 0x200])
    );
    assert_eq!(
        numbers_at_places(&scrubbed),
        (vec![0xa1, 0xa2], vec![0xa100, 0xa200])
    );
    for file in [file, kept] {
        let replayed = replay::<&str>(&file, &[]);
        assert_eq!(
            (replayed.status, &*replayed.stderr),
            (0, ""),
            "{replayed:?}"
        );
    }
}

/// The buses and the ids of GPUs in a recording, each once.
fn numbers_at_places(recording: &Recording) -> (Vec<u32>, Vec<u32>) {
    use ringfence_recording::identifiers::{Kind, places};
    use ringfence_recording::layout::Layout;
    let abi = recording.header.abi().expect("tables");
    let nodes = recording.nodes();
    let (mut buses, mut ids) = (Vec::new(), Vec::new());
    for request in requests(recording) {
        let node = nodes[request.description as usize];
        let after = request.after();
        let layout = Layout::of(abi, node, request.command, &request.before);
        for place in places(&layout, &after) {
            let bytes = &after[place.at..place.at + place.length];
            let number = bytes
                .iter()
                .take(4)
                .rev()
                .fold(0, |number, byte| number << 8 | u32::from(*byte));
            match place.kind {
                Kind::Bus => buses.push(number),
                Kind::GpuId => ids.push(number),
                _ => {}
            }
        }
    }
    for numbers in [&mut buses, &mut ids] {
        numbers.retain(|number| ![0, 0xffff, u32::MAX].contains(number));
        numbers.sort();
        numbers.dedup();
    }
    (buses, ids)
}

/// The recordings that are part of the project, in order of their names.
fn committed() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let entries = fs::read_dir(directory).expect("the recordings");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension() == Some(OsStr::new("recording")))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

#[test]
fn every_committed_recording_replays() {
    for path in committed() {
        let replayed = replay(&path, &["--log", "/dev/null"]);
        assert_eq!(replayed.status, 0, "{}: {replayed:?}", path.display());
        assert!(
            replayed.stdout.ends_with(": no byte differs\n"),
            "{replayed:?}"
        );
    }
}

#[test]
fn every_committed_recording_is_scrubbed_and_small() {
    for path in committed() {
        assert!(read(&path).header.scrubbed, "{}", path.display());
        let length = fs::metadata(&path).expect("a file").len();
        assert!(length < 1 << 20, "{}: {length} bytes", path.display());
    }
}

/// What the list of known differences is made of.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownDifferences {
    #[serde(default)]
    difference: Vec<KnownDifference>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownDifference {
    request: String,
    why: String,
}

/// The simulated driver answers every request as the recorded driver did, but for those on the list; and each request on
/// the list is one that it answers otherwise.
#[test]
fn the_simulated_driver_differs_where_it_is_known_to() {
    let mut differing: Vec<String> = Vec::new();
    for path in committed() {
        let replayed = replay(&path, &["--driver", "sim", "--json", "--log", "/dev/null"]);
        assert!(
            [0, 1].contains(&replayed.status),
            "{}: {replayed:?}",
            path.display()
        );
        let outcome: serde_json::Value = serde_json::from_str(&replayed.stdout).expect("JSON");
        let differences = outcome["differences"].as_array().expect("a list");
        let names = differences
            .iter()
            .map(|difference| difference["request"].as_str().expect("a name"));
        differing.extend(names.map(str::to_owned));
    }
    differing.sort();
    differing.dedup();
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/simulator-differences.toml");
    let list = fs::read_to_string(list).expect("the list");
    let known: KnownDifferences = toml::from_str(&list).expect("a list of differences");
    assert!(known.difference.iter().all(|known| !known.why.is_empty()));
    let mut known: Vec<String> = known
        .difference
        .into_iter()
        .map(|known| known.request)
        .collect();
    known.sort();
    assert_eq!(differing, known);
}
