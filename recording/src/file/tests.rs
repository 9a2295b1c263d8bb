//! What is written is read back, and nothing else is.

use nvproxy_abi::node::Node;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands};

use super::reader::{decode_events, decode_header, decompress, unframe};
use super::writer::frame;
use super::*;
use crate::codec::Decoder;
use crate::{Change, Event, Header, Open, Reached, Recording, Request};

fn small() -> Recording {
    let open = |description, node| {
        Event::Open(Open {
            by: 0,
            description,
            node,
            flags: 0x80000,
            result: 0,
        })
    };
    Recording {
        header: Header {
            driver: "580.159.04".parse().unwrap(),
            tables: "580.142".parse().unwrap(),
            capabilities: Capabilities::default(),
            firmware_commands: FirmwareCommands::All,
            command: vec![b"vectoradd".to_vec(), b"-n".to_vec()],
            gpus: vec![0, 1],
            scrubbed: true,
            threads: vec![0, 0, 1],
            descriptions: 2,
        },
        events: vec![
            open(0, Node::Control),
            open(1, Node::Gpu(1)),
            Event::Request(Request {
                by: 2,
                description: 0,
                command: 0xc020_462a,
                reached: Reached::Driver,
                before: (0..32).collect(),
                changes: vec![Change {
                    at: 28,
                    bytes: vec![1, 2, 3, 4],
                }],
                result: -22,
            }),
            Event::Close { description: 1 },
        ],
    }
}

#[test]
fn what_is_written_is_read_back() {
    let recording = small();
    let bytes = recording.to_bytes().unwrap();
    assert_eq!(Recording::from_bytes(&bytes), Ok(recording.clone()));
    assert_eq!(recording.to_bytes().unwrap(), bytes);
}

#[test]
fn a_recording_of_every_shorter_length_is_truncated() {
    let bytes = small().to_bytes().unwrap();
    for length in 0..bytes.len() {
        let read = Recording::from_bytes(&bytes[..length]);
        assert!(
            matches!(read, Err(ReadError::Truncated { bytes, .. }) if bytes == length as u64),
            "{length}: {read:?}"
        );
    }
}

#[test]
fn a_recording_with_any_bit_flipped_is_refused() {
    let bytes = small().to_bytes().unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0..8 => ReadError::NotARecording,
            // A length that says more than there is.
            12..20 if altered[12..20] > bytes[12..20] => {
                assert!(Recording::from_bytes(&altered).is_err());
                continue;
            }
            _ => ReadError::Altered,
        };
        assert_eq!(Recording::from_bytes(&altered), Err(expected), "bit {bit}");
    }
}

#[test]
fn another_format_is_named() {
    for version in [0, 3, 7] {
        let bytes = of_format(version, &small().body());
        let read = Recording::from_bytes(&bytes);
        assert_eq!(read, Err(ReadError::OtherFormat(version.into())));
    }
}

/// A body in the frame of another format.
fn of_format(version: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(body);
    bytes[8] = version;
    let end = bytes.len() - 4;
    let sum = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// It was made when there were no other commands of the firmware's than the listed ones.
#[test]
fn the_oldest_format_is_read() {
    let mut recording = small();
    recording.header.firmware_commands = FirmwareCommands::Listed;
    let body = recording.body();
    // A text begins with its length.
    let said = b"\x06listed";
    let mut places = body.windows(said.len()).enumerate();
    let (at, _) = places.find(|(_, bytes)| bytes == said).unwrap();
    let older = [&body[..at], &body[at + said.len()..]].concat();
    let read = Recording::from_bytes(&of_format(1, &older));
    assert_eq!(read, Ok(recording));
}

/// With a right checksum around them, any bytes are read to an error or to a recording, and never to a panic.
#[test]
fn a_body_that_breaks_the_format_is_refused() {
    let body = small().body();
    for length in 0..body.len() {
        let read = Recording::from_bytes(&frame(&body[..length]));
        assert!(
            matches!(read, Err(ReadError::Malformed(_))),
            "{length}: {read:?}"
        );
    }
    for at in 0..body.len() {
        for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
            let mut altered = body.clone();
            altered[at] = value;
            if let Ok(read) = Recording::from_bytes(&frame(&altered)) {
                assert_eq!(Recording::from_bytes(&read.to_bytes().unwrap()), Ok(read));
            }
        }
    }
    let long = frame(&[&body[..], &[0]].concat());
    assert_eq!(
        Recording::from_bytes(&long),
        Err(ReadError::Malformed("bytes after the last event"))
    );
}

#[test]
fn what_decompresses_to_too_much_is_refused() {
    let bomb = frame(&[0; 1 << 16]);
    let (_, compressed) = unframe(&bomb).unwrap();
    let larger = Err(ReadError::Malformed("larger than any"));
    assert_eq!(decompress(compressed, (1 << 16) - 1), larger);
    assert_eq!(decompress(compressed, 1 << 16), Ok(vec![0; 1 << 16]));
    let cut = Err(ReadError::Malformed("what was compressed"));
    assert_eq!(
        decompress(&compressed[..compressed.len() - 1], 1 << 16),
        cut
    );
    assert_eq!(decompress(&[], 1 << 16), cut);
}

/// Two bytes of a body can be an event, which takes many times as much in memory.
#[test]
fn events_that_take_too_much_memory_are_refused() {
    let recording = small();
    let body = recording.body();
    let footprint: usize = recording.events.iter().map(Event::footprint).sum();
    let read = |limit| {
        let mut decoder = Decoder(&body);
        let header = decode_header(&mut decoder, FORMAT)?;
        decode_events(&mut decoder, &header, limit)
    };
    assert_eq!(read(footprint), Ok(recording.events));
    let larger = Err(ReadError::Malformed("larger than any"));
    assert_eq!(read(footprint - 1), larger);
}

#[test]
fn a_command_line_of_more_words_than_any_is_refused() {
    let mut recording = small();
    recording.header.command = vec![Vec::new(); MAXIMUM_WORDS];
    let bytes = recording.to_bytes().unwrap();
    assert_eq!(Recording::from_bytes(&bytes), Ok(recording.clone()));
    recording.header.command.push(Vec::new());
    assert_eq!(recording.to_bytes(), Err(TooLarge));
    assert_eq!(
        Recording::from_bytes(&frame(&recording.body())),
        Err(ReadError::Malformed("the number of words"))
    );
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let mut recording = small();
    recording.header.descriptions = MAXIMUM_DESCRIPTIONS + 1;
    assert_eq!(recording.to_bytes(), Err(TooLarge));
    let mut recording = small();
    recording.header.threads = vec![0; MAXIMUM_THREADS + 1];
    assert_eq!(recording.to_bytes(), Err(TooLarge));
}

/// Otherwise there could be more changes than bytes.
#[test]
fn changes_that_are_empty_or_overlap_are_refused() {
    let change = |at, length| Change {
        at,
        bytes: vec![0xaa; length],
    };
    for (changes, accepted) in [
        (vec![change(0, 4), change(4, 1), change(31, 1)], true),
        (vec![change(0, 0)], false),
        (vec![change(4, 4), change(7, 1)], false),
        (vec![change(4, 4), change(0, 4)], false),
        (vec![change(31, 2)], false),
    ] {
        let mut recording = small();
        let request = recording.events.iter_mut().find_map(|event| match event {
            Event::Request(request) => Some(request),
            _ => None,
        });
        request.expect("a request").changes = changes;
        let read = Recording::from_bytes(&recording.to_bytes().unwrap());
        let expected = match accepted {
            true => Ok(recording),
            false => Err(ReadError::Malformed("an event")),
        };
        assert_eq!(read, expected);
    }
}
