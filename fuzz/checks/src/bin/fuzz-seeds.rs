//! Makes the inputs that fuzzing starts from, from recordings of real programs and from the releases
//! that have tables.
//!
//!     fuzz-seeds RECORDINGS CORPUS
//!
//! A recorded request is an input of `plan`, a recorded session one of `requests`, and a
//! recording in each of its forms one of `recording`. Long ones are cut, and requests that are alike come once.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fuzz_checks::{recording, requests};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::{
    NV_ESC_RM_ALLOC, NV01_ROOT, NV01_ROOT_CLIENT, NV01_ROOT_NON_PRIV, parts,
};
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::table::Role;
use nvproxy_abi::version::DriverVersion;
use nvproxy_protocol::requests::Kind;
use nvproxy_sim::structs::frontend::NVOS64_PARAMETERS;
use ringfence_recording::layout::{Layout, field};
use ringfence_recording::{Event, NOTHING, Reached, Recording, Request};

/// The longest payload that becomes an input, and that becomes part of a session.
const MAXIMUM_PAYLOAD: usize = 1024;
const MAXIMUM_PART: usize = 256;
/// Requests of one session.
const SESSION: usize = 40;
/// Events of one recording.
const EVENTS: usize = 12;
/// Every so many releases become an input.
const RELEASES: usize = 12;
/// The handle of the simulated driver's first client; the next is one more.
const FIRST_CLIENT: u32 = 0xc1d0_0000;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let made = match &arguments[..] {
        [recordings, corpus] => make(recordings, corpus),
        _ => Err("usage: fuzz-seeds RECORDINGS CORPUS".into()),
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz-seeds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(recordings: &Path, corpus: &Path) -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(recordings)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "recording"));
    paths.sort();
    let mut seen = BTreeSet::new();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let recorded = Recording::from_bytes(&fs::read(&path)?)?;
        let abi = recorded.header.abi()?;
        for (number, input) in plans(&recorded, abi, &mut seen).iter().enumerate() {
            save(corpus, "plan", &format!("{name}-{number}"), input)?;
        }
        save(corpus, "requests", &name, &session(&recorded, abi))?;
        for (cut, short) in [("first", first(&recorded)), ("one", one(&recorded))] {
            for (form, input) in forms(&short)? {
                save(corpus, "recording", &format!("{name}-{cut}-{form}"), &input)?;
            }
        }
    }
    let releases: Vec<DriverVersion> = nvproxy_abi::releases().collect();
    for (place, release) in releases.iter().enumerate().step_by(RELEASES) {
        // A row of its tables, with parameters of zeros and ones.
        let mut input = vec![place as u8, fuzz_checks::plan::ROW];
        input.extend((place as u16 * 5).to_le_bytes());
        input.resize(200, (place % 2) as u8);
        save(corpus, "plan", &format!("row-of-{release}"), &input)?;
        let next = DriverVersion::new(release.branch(), release.minor().saturating_add(1), None);
        let text = format!("{release}\n{next}\ncompute,utility\n0,GPU-5a3e\nnvidia0");
        save(corpus, "version", &release.to_string(), text.as_bytes())?;
    }
    handshakes(corpus)?;
    messages(corpus)
}

fn save(corpus: &Path, target: &str, name: &str, input: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(format!("seed-{name}")), input)?)
}

/// The requests of a recording with what each was made on.
fn all(recorded: &Recording) -> impl Iterator<Item = (&Request, u64)> {
    let nodes = recorded.nodes();
    recorded.events.iter().filter_map(move |event| match event {
        Event::Request(request) => {
            let node = nodes.get(request.description as usize)?;
            Some((request, node.to_wire()))
        }
        _ => None,
    })
}

/// Inputs of `plan`: every request that no other of its name and length came before.
fn plans(
    recorded: &Recording,
    abi: &'static Abi,
    seen: &mut BTreeSet<(String, usize)>,
) -> Vec<Vec<u8>> {
    let release = nvproxy_abi::releases().position(|version| version == recorded.header.tables);
    let ordinary = recorded.header.capabilities == Capabilities::default();
    let mut inputs = Vec::new();
    for (request, node) in all(recorded) {
        let Some(node_of) = Node::from_wire(node) else {
            continue;
        };
        let layout = Layout::of(abi, node_of, request.command, &request.before);
        let key = (layout.name.into_owned(), request.before.len());
        if request.before.len() > MAXIMUM_PAYLOAD || !seen.insert(key) {
            continue;
        }
        let mut input = vec![release.unwrap_or(0) as u8, u8::from(ordinary)];
        input.extend((node as u16).to_le_bytes());
        input.extend(request.command.to_le_bytes());
        input.extend(&request.before);
        inputs.push(input);
    }
    inputs
}

/// The handles of clients that a recorded driver gave out, in order.
fn clients(recorded: &Recording) -> Vec<[u8; 4]> {
    let is_client = |class| [NV01_ROOT, NV01_ROOT_NON_PRIV, NV01_ROOT_CLIENT].contains(&class);
    all(recorded)
        .filter(|(request, _)| parts(request.command).1 == NV_ESC_RM_ALLOC)
        .filter_map(|(request, _)| {
            let after = request.after();
            let class = field(&after, offset_of!(NVOS64_PARAMETERS, hClass));
            let made = field(&after, offset_of!(NVOS64_PARAMETERS, hObjectNew));
            made.filter(|_| class.map(u32::from_le_bytes).is_some_and(is_client))
        })
        .collect()
}

/// A payload with the handles of clients as the simulated driver gives them out.
fn simulated(payload: &[u8], clients: &[[u8; 4]]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let (words, _) = payload.as_chunks_mut();
    for word in words {
        if let Some(place) = clients.iter().position(|client| client == word) {
            *word = (FIRST_CLIENT + place as u32).to_le_bytes();
        }
    }
    payload
}

/// An input of `requests`: a recording's opens and the first of its requests, as a sentry makes them.
fn session(recorded: &Recording, abi: &'static Abi) -> Vec<u8> {
    let nodes = recorded.nodes();
    let clients = clients(recorded);
    let mut input = Vec::new();
    let mut left = SESSION;
    for event in &recorded.events {
        match event {
            Event::Open(open) => {
                input.push(requests::OPEN);
                input.extend((open.node.to_wire() as u16).to_le_bytes());
            }
            Event::Close { description } => input.extend([requests::CLOSE, place(*description)]),
            Event::Request(request) if request.before.len() <= MAXIMUM_PART && left > 0 => {
                left -= 1;
                let node = nodes.get(request.description as usize).copied();
                let Some(node) = node.filter(|_| request.reached == Reached::Driver) else {
                    continue;
                };
                input.push(requests::REQUEST);
                let payload = simulated(&request.before, &clients);
                submission(&mut input, abi, node, request, &payload);
            }
            Event::Request(_) => {}
        }
    }
    input
}

/// A request as a sentry makes it.
fn submission(
    input: &mut Vec<u8>,
    abi: &'static Abi,
    node: Node,
    request: &Request,
    payload: &[u8],
) {
    let layout = Layout::of(abi, node, request.command, &request.before);
    let (handles, carried) = named(&layout, &request.before);
    input.extend([Kind::Ioctl as u8, place(request.description)]);
    input.extend((node.to_wire() as u16).to_le_bytes());
    input.extend(request.command.to_le_bytes());
    input.push(0);
    input.push(handles.len() as u8);
    input.extend(handles);
    input.push(carried.len() as u8);
    input.extend(carried);
    input.extend((payload.len() as u16).to_le_bytes());
    input.extend(payload);
}

/// The place of a description's handle, as `requests` counts them.
fn place(description: u32) -> u8 {
    description as u8 + 1
}

/// The places of handles, and those of descriptors that travel beside the request.
fn named(layout: &Layout, payload: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut handles, mut carried) = (Vec::new(), Vec::new());
    for descriptor in &layout.descriptors {
        let number = field(payload, descriptor.at as usize).map_or(-1, i32::from_le_bytes);
        match (descriptor.role, number) {
            (_, ..0) => {}
            (Role::Command, NOTHING) => handles.push(0),
            (Role::Command, _) => handles.push(place(number as u32)),
            (Role::Held, _) => carried.push(number as u8),
            (Role::Result, _) => {}
        }
    }
    (handles, carried)
}

/// An input and what to call it.
type Named = (&'static str, Vec<u8>);

/// The first events of a recording.
fn first(recorded: &Recording) -> Recording {
    let mut short = recorded.clone();
    short.events.retain(|event| match event {
        Event::Request(request) => request.before.len() <= MAXIMUM_PART,
        Event::Open(_) | Event::Close { .. } => true,
    });
    short.events.truncate(EVENTS);
    short
}

/// One request of a recording, the shortest that was answered, and the open before it: where a few
/// changed bytes matter most.
fn one(recorded: &Recording) -> Recording {
    let mut short = recorded.clone();
    short.header.command.clear();
    let answered = all(recorded).filter(|(request, _)| !request.changes.is_empty());
    let shortest = answered
        .map(|(request, _)| request)
        .min_by_key(|request| request.before.len());
    short.events.retain(|event| match (event, shortest) {
        (Event::Open(open), Some(shortest)) => open.description == shortest.description,
        (Event::Request(request), Some(shortest)) => request == shortest,
        _ => false,
    });
    short
}

/// Inputs of `recording`: one in each form.
fn forms(short: &Recording) -> Result<[Named; 3], Box<dyn Error>> {
    let file = short.to_bytes()?;
    // A frame of 20 bytes before and of 4 behind.
    let compressed = file.get(20..file.len() - 4).unwrap_or_default();
    let content = miniz_oxide::inflate::decompress_to_vec(compressed)?;
    Ok([
        ("file", recording::FILE, &file[..]),
        (
            "compressed",
            recording::LATEST + recording::COMPRESSED,
            compressed,
        ),
        ("content", recording::LATEST + recording::CONTENT, &content),
    ]
    .map(|(name, form, bytes)| (name, [&[form], bytes].concat())))
}

/// Inputs of `handshake`, after whom the message is for and what goes with it.
fn handshakes(corpus: &Path) -> Result<(), Box<dyn Error>> {
    let prefix = |kind: u32| {
        let version = ringfence_ipc::PROTOCOL_VERSION.to_ne_bytes();
        [&b"ringfenc"[..], &version, &kind.to_ne_bytes()].concat()
    };
    let geometry = [2u32.to_ne_bytes(), 4096u32.to_ne_bytes()].concat();
    let hello = [&prefix(1)[..], &geometry].concat();
    let reason = [&prefix(3)[..], "not here\u{1b}[2J\u{9b}, ä".as_bytes()].concat();
    let (to_server, to_client, parcel) = (0, 1, 2);
    let inputs: [(&str, [u8; 4], &[u8]); 6] = [
        ("offer", [to_server, 1, 1, 1], &[&[0], &hello[..]].concat()),
        (
            "not-ready",
            [to_server, 1, 1, 1],
            &[&[200], &hello[..]].concat(),
        ),
        ("two", [to_server, 5, 1, 1], &[&[0], &hello[..]].concat()),
        ("accepted", [to_client, 0, 0, 0], &prefix(2)),
        ("refused", [to_client, 0, 0, 0], &reason),
        ("parcel", [parcel, 1, 0, 0], &[7; 8]),
    ];
    for (name, who, message) in inputs {
        save(corpus, "handshake", name, &[&who, message].concat())?;
    }
    Ok(())
}

/// Inputs of `messages`, after whom the message is for and what goes with it.
fn messages(corpus: &Path) -> Result<(), Box<dyn Error>> {
    let (plea, news, event, supervision) = (0, 1, 2, 3);
    let (none, one) = ([0, 0, 0], [4, 0, 0]);
    let inputs: [(&str, u8, [u8; 3], &[u8]); 14] = [
        ("another-server", plea, none, &[0]),
        ("listener", plea, one, &[2]),
        ("listener-missing", plea, none, &[2]),
        ("started", news, one, &[0]),
        ("succeeded", news, one, &[3]),
        ("no-further", news, none, b"\x04\x05 why\xc3"),
        ("terminal", event, one, &[0]),
        ("stopped", event, none, &[2, 40]),
        ("ended", event, none, &[3, 0]),
        ("ended-by-signal", event, none, &[3, 1, 18]),
        ("prepared", supervision, none, &[0]),
        ("state", supervision, one, &[2, 0x80, 0x01]),
        ("refused", supervision, none, b"\x04\x0anot here\x1b["),
        ("serving", supervision, none, &[10]),
    ];
    for (name, to, with, message) in inputs {
        save(
            corpus,
            "messages",
            name,
            &[&[to], &with[..], message].concat(),
        )?;
    }
    Ok(())
}
