//! The reader of recordings, and what works on a recording that was read.
//!
//! A file's checksum and compression keep a fuzzer from its content, so an input is one of three: a
//! whole file, what is compressed in one, or a content that is still to be compressed.

use miniz_oxide::deflate::compress_to_vec;
use nvproxy_abi::plan::MAXIMUM_PAYLOAD;
use ringfence_recording::layout::Layout;
use ringfence_recording::{Change, Event, FORMAT, OLDEST_FORMAT, Recording, changes};

use crate::input::Input;
use crate::tables;

/// The forms of an input, in its first byte. Those that are no whole file are of the oldest format, and three further on of the
/// latest.
pub const FILE: u8 = 0;
pub const COMPRESSED: u8 = 1;
pub const CONTENT: u8 = 2;
pub const LATEST: u8 = 3;

/// Reads a recording, and what was read once more.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let form = input.byte();
    let format = match form / LATEST % 2 {
        0 => OLDEST_FORMAT,
        _ => FORMAT,
    };
    let file = match form % 3 {
        FILE => input.0.to_vec(),
        COMPRESSED => frame(format, input.0),
        _ => frame(format, &stored(input.0)),
    };
    match Recording::from_bytes(&file) {
        Ok(recording) => sound(recording),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A file around what is compressed in it.
fn frame(format: u32, compressed: &[u8]) -> Vec<u8> {
    let mut file = b"RNGFREC\0".to_vec();
    file.extend(format.to_le_bytes());
    file.extend((compressed.len() as u64).to_le_bytes());
    file.extend(compressed);
    file.extend(crc32fast::hash(&file).to_le_bytes());
    file
}

/// Deflate without compression, so that the content stays in sight of the fuzzer.
fn stored(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, 0)
}

fn sound(mut recording: Recording) {
    read_back(&recording);
    let header = &recording.header;
    assert!(header.tasks() <= header.threads.len());
    let nodes = recording.nodes();
    assert_eq!(nodes.len(), header.descriptions as usize);
    let abi = tables::by_version(&header.tables);
    let mut requests = 0;
    for event in &recording.events {
        let Event::Request(request) = event else {
            continue;
        };
        requests += 1;
        assert!(request.before.len() <= MAXIMUM_PAYLOAD);
        let inside =
            |change: &Change| change.at as usize + change.bytes.len() <= request.before.len();
        assert!(request.changes.iter().all(inside));
        let after = request.after();
        assert_eq!(after.len(), request.before.len());
        let mut again = request.clone();
        again.changes = changes(&request.before, &after);
        assert_eq!(again.after(), after);
        if let Some(abi) = abi {
            let node = nodes[request.description as usize];
            let layout = Layout::of(abi, node, request.command, &request.before);
            assert!(!layout.name.is_empty());
        }
    }
    assert_eq!(recording.requests(), requests);
    if let Some(abi) = abi {
        recording.scrub(abi);
        read_back(&recording);
    }
}

fn read_back(recording: &Recording) {
    let bytes = recording.to_bytes().expect("no more than was read");
    let again = Recording::from_bytes(&bytes).expect("what was written");
    assert!(again == *recording, "what is read is not what was written");
}
