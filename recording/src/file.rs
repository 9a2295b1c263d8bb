//! A recording as bytes.
//!
//! ```text
//! "RNGFREC\0"   the kind of file
//! u32           the format's version, FORMAT
//! u64           the length of the body
//! body          compressed (raw deflate)
//! u32           CRC-32 of everything before
//! ```
//!
//! All numbers of the frame are little-endian. The body is made of [`codec`](crate::codec)'s numbers and strings: first
//! the header's fields, then the number of events and each event, begun by its kind. A reader believes none of it: what it
//! takes in memory is bounded by [`MAXIMUM_BODY`] and [`MAXIMUM_FOOTPRINT`], and every index is checked.

use std::fmt;
use std::io::Read;

use flate2::Compression;
use flate2::bufread::DeflateDecoder;
use flate2::write::DeflateEncoder;
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::MAXIMUM_PAYLOAD;

use crate::codec::{Decoder, Encoder};
use crate::{Change, Event, Header, Open, Reached, Recording, Request};

/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;
/// The most bytes of a body before it is compressed.
pub const MAXIMUM_BODY: usize = 512 << 20;
/// The most bytes that the events take in memory, as [`Event::footprint`] counts them. They can take many times what they
/// have in a body.
pub const MAXIMUM_FOOTPRINT: usize = 512 << 20;
/// The most words of a command line. Linux allows 6 MiB for all of them, of which each takes 9 bytes at least (execve(2)).
const MAXIMUM_WORDS: usize = 1 << 20;
/// The most threads and descriptions of a recording: what a replay makes at most.
const MAXIMUM_THREADS: usize = 1 << 14;
const MAXIMUM_DESCRIPTIONS: u32 = 1 << 20;

const MAGIC: &[u8; 8] = b"RNGFREC\0";
const BODY_AT: usize = 20;
const CHECKSUM_BYTES: usize = 4;

/// Why bytes are no recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    NotARecording,
    /// It has another version than [`FORMAT`].
    OtherFormat(u32),
    Truncated {
        bytes: u64,
        expected: u64,
    },
    Altered,
    /// Its checksum is right and its content is not: whoever wrote it did not keep to the format.
    Malformed(&'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NotARecording => write!(
                formatter,
                "not a recording: make one with ringfence record --out FILE -- CMD"
            ),
            ReadError::OtherFormat(version) => write!(
                formatter,
                "a recording of format {version}, and this release reads format {FORMAT}: record it again, or use the \
                 release that made it"
            ),
            ReadError::Truncated { bytes, expected } => write!(
                formatter,
                "truncated: it has {bytes} bytes of at least {expected}: copy it again"
            ),
            ReadError::Altered => write!(
                formatter,
                "altered since it was recorded: its checksum is wrong: copy it again"
            ),
            ReadError::Malformed(what) => {
                write!(formatter, "not a valid recording ({what}): record it again")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// There is more to store than a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = MAXIMUM_FOOTPRINT >> 20;
        write!(
            formatter,
            "more than a recording holds, which is {megabytes} MiB of requests, {MAXIMUM_DESCRIPTIONS} opens and \
             {MAXIMUM_THREADS} threads: record a shorter run"
        )
    }
}

impl std::error::Error for TooLarge {}

impl Recording {
    /// The recording as the bytes of a file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TooLarge> {
        let Header {
            command,
            threads,
            descriptions,
            ..
        } = &self.header;
        let footprint: usize = self.events.iter().map(Event::footprint).sum();
        if footprint > MAXIMUM_FOOTPRINT
            || command.len() > MAXIMUM_WORDS
            || threads.len() > MAXIMUM_THREADS
            || *descriptions > MAXIMUM_DESCRIPTIONS
        {
            return Err(TooLarge);
        }
        let body = self.body();
        if body.len() > MAXIMUM_BODY {
            return Err(TooLarge);
        }
        Ok(frame(&body))
    }

    /// The content before it is compressed.
    fn body(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encode_header(&self.header, &mut encoder);
        encoder.number(self.events.len() as u64);
        self.events
            .iter()
            .for_each(|event| encode_event(event, &mut encoder));
        encoder.0
    }

    /// Reads what [`Recording::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Recording, ReadError> {
        let body = decompress(unframe(bytes)?, MAXIMUM_BODY)?;
        let mut decoder = Decoder(&body);
        let header = decode_header(&mut decoder)?;
        let events = decode_events(&mut decoder, &header, MAXIMUM_FOOTPRINT)?;
        if !decoder.0.is_empty() {
            return Err(ReadError::Malformed("bytes after the last event"));
        }
        Ok(Recording { header, events })
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to a vector cannot fail.
    let written = std::io::Write::write_all(&mut encoder, body).and_then(|()| encoder.finish());
    let compressed = written.unwrap_or_default();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(compressed.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&compressed);
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The compressed body. That the checksum is right is known before anything else is believed.
fn unframe(bytes: &[u8]) -> Result<&[u8], ReadError> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(ReadError::NotARecording);
    }
    let truncated = |expected: u64| ReadError::Truncated {
        bytes: bytes.len() as u64,
        expected,
    };
    let shortest = BODY_AT + CHECKSUM_BYTES;
    let (Some(version), Some(length)) = (
        crate::layout::field(bytes, MAGIC.len()).map(u32::from_le_bytes),
        crate::layout::field(bytes, MAGIC.len() + 4).map(u64::from_le_bytes),
    ) else {
        return Err(truncated(shortest as u64));
    };
    let Some((framed, stored)) = bytes.split_last_chunk().filter(|_| bytes.len() >= shortest)
    else {
        return Err(truncated(shortest as u64));
    };
    let expected = length.saturating_add(shortest as u64);
    match checksum(framed) == u32::from_le_bytes(*stored) {
        false if version == FORMAT && (bytes.len() as u64) < expected => Err(truncated(expected)),
        false => Err(ReadError::Altered),
        true if version != FORMAT => Err(ReadError::OtherFormat(version)),
        true if bytes.len() as u64 != expected => Err(ReadError::Malformed("its length")),
        true => Ok(&framed[BODY_AT..]),
    }
}

/// What was compressed, if it is no more than `limit` bytes.
fn decompress(compressed: &[u8], limit: usize) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    DeflateDecoder::new(compressed)
        .take(limit as u64 + 1)
        .read_to_end(&mut body)
        .map_err(|_| ReadError::Malformed("what was compressed"))?;
    if body.len() > limit {
        return Err(ReadError::Malformed("larger than any"));
    }
    Ok(body)
}

fn encode_header(header: &Header, encoder: &mut Encoder) {
    encoder.bytes(header.driver.to_string().as_bytes());
    encoder.bytes(header.tables.to_string().as_bytes());
    encoder.bytes(header.capabilities.to_string().as_bytes());
    encoder.number(header.command.len() as u64);
    header.command.iter().for_each(|word| encoder.bytes(word));
    encoder.bytes(&header.gpus);
    encoder.number(u64::from(header.scrubbed));
    encoder.number(header.threads.len() as u64);
    header
        .threads
        .iter()
        .for_each(|task| encoder.number(u64::from(*task)));
    encoder.number(u64::from(header.descriptions));
}

fn decode_header(decoder: &mut Decoder<'_>) -> Result<Header, ReadError> {
    const CUT: ReadError = ReadError::Malformed("its header");
    let mut text = || std::str::from_utf8(decoder.bytes()?).ok();
    let [driver, tables] = [text(), text()].map(|version| version?.parse().ok());
    let capabilities = text().and_then(|list| list.parse().ok());
    let capabilities = capabilities.ok_or(ReadError::Malformed("the capabilities"))?;
    let driver = driver.ok_or(ReadError::Malformed("the driver's version"))?;
    let tables = tables.ok_or(ReadError::Malformed("the version of the tables"))?;
    let count = decoder.count().filter(|count| *count <= MAXIMUM_WORDS);
    let count = count.ok_or(ReadError::Malformed("the number of words"))?;
    let command: Option<Vec<Vec<u8>>> = (0..count)
        .map(|_| decoder.bytes().map(<[u8]>::to_vec))
        .collect();
    let command = command.ok_or(CUT)?;
    let gpus = decoder.bytes().ok_or(CUT)?.to_vec();
    let scrubbed = decoder.number().ok_or(CUT)? != 0;
    let count = decoder.count().filter(|count| *count <= MAXIMUM_THREADS);
    let count = count.ok_or(ReadError::Malformed("the number of threads"))?;
    let threads: Option<Vec<u32>> = (0..count).map(|_| decoder.word()).collect();
    let threads = threads.ok_or(CUT)?;
    if !are_in_order(&threads) {
        return Err(ReadError::Malformed("a thread's task"));
    }
    let descriptions = decoder
        .word()
        .filter(|count| *count <= MAXIMUM_DESCRIPTIONS);
    Ok(Header {
        driver,
        tables,
        capabilities,
        command,
        gpus,
        scrubbed,
        threads,
        descriptions: descriptions.ok_or(ReadError::Malformed("the number of descriptions"))?,
    })
}

/// Whether each task is one that was seen before, or the next.
fn are_in_order(tasks: &[u32]) -> bool {
    let mut next = 0;
    tasks.iter().all(|task| {
        let known = *task <= next;
        next = next.max(task.saturating_add(1));
        known
    })
}

const OPEN: u64 = 1;
const REQUEST: u64 = 2;
const CLOSE: u64 = 3;

fn encode_event(event: &Event, encoder: &mut Encoder) {
    match event {
        Event::Open(open) => {
            encoder.number(OPEN);
            encoder.number(u64::from(open.by));
            encoder.number(u64::from(open.description));
            encoder.number(open.node.to_wire());
            encoder.signed(open.flags);
            encoder.signed(open.result);
        }
        Event::Request(request) => {
            encoder.number(REQUEST);
            encoder.number(u64::from(request.by));
            encoder.number(u64::from(request.description));
            encoder.number(u64::from(request.command));
            encoder.number(match request.reached {
                Reached::Driver => 0,
                Reached::Refused => 1,
                Reached::Unreadable => 2,
            });
            encoder.signed(request.result);
            encoder.bytes(&request.before);
            encoder.number(request.changes.len() as u64);
            for change in &request.changes {
                encoder.number(u64::from(change.at));
                encoder.bytes(&change.bytes);
            }
        }
        Event::Close { description } => {
            encoder.number(CLOSE);
            encoder.number(u64::from(*description));
        }
    }
}

/// The events, if their footprint is no more than `limit`.
fn decode_events(
    decoder: &mut Decoder<'_>,
    header: &Header,
    limit: usize,
) -> Result<Vec<Event>, ReadError> {
    let count = decoder
        .count()
        .ok_or(ReadError::Malformed("the number of events"))?;
    let mut events = Vec::new();
    let mut footprint = 0;
    let mut opened = vec![false; header.descriptions as usize];
    for _ in 0..count {
        let event = decode_event(decoder, header).ok_or(ReadError::Malformed("an event"))?;
        footprint += event.footprint();
        if footprint > limit {
            return Err(ReadError::Malformed("larger than any"));
        }
        let is_open = |description: u32| opened.get(description as usize) == Some(&true);
        match &event {
            Event::Open(open) => {
                let first = opened
                    .get_mut(open.description as usize)
                    .filter(|opened| !**opened);
                *first.ok_or(ReadError::Malformed("a description that is opened"))? = true;
            }
            Event::Request(request) if !is_open(request.description) => {
                return Err(ReadError::Malformed("a request on nothing that was opened"));
            }
            Event::Close { description } if !is_open(*description) => {
                return Err(ReadError::Malformed("a close of nothing that was opened"));
            }
            _ => {}
        }
        events.push(event);
    }
    Ok(events)
}

fn decode_event(decoder: &mut Decoder<'_>, header: &Header) -> Option<Event> {
    let thread = |by: u32| ((by as usize) < header.threads.len()).then_some(by);
    Some(match decoder.number()? {
        OPEN => Event::Open(Open {
            by: thread(decoder.word()?)?,
            description: decoder.word()?,
            node: Node::from_wire(decoder.number()?)?,
            flags: decoder.signed()?,
            result: decoder.signed()?,
        }),
        REQUEST => {
            let by = thread(decoder.word()?)?;
            Event::Request(decode_request(decoder, by)?)
        }
        CLOSE => Event::Close {
            description: decoder.word()?,
        },
        _ => return None,
    })
}

fn decode_request(decoder: &mut Decoder<'_>, by: u32) -> Option<Request> {
    let description = decoder.word()?;
    let command = decoder.word()?;
    let reached = match decoder.number()? {
        0 => Reached::Driver,
        1 => Reached::Refused,
        2 => Reached::Unreadable,
        _ => return None,
    };
    let result = decoder.signed()?;
    let before = decoder
        .bytes()
        .filter(|bytes| bytes.len() <= MAXIMUM_PAYLOAD)?
        .to_vec();
    let count = decoder.count()?;
    let mut changes = Vec::new();
    let mut end = 0;
    for _ in 0..count {
        let (at, bytes) = (decoder.word()?, decoder.bytes()?);
        // In order, apart and not empty, so that there are no more of them than bytes.
        if bytes.is_empty() || (at as usize) < end || at as usize + bytes.len() > before.len() {
            return None;
        }
        end = at as usize + bytes.len();
        changes.push(Change {
            at,
            bytes: bytes.to_vec(),
        });
    }
    Some(Request {
        by,
        description,
        command,
        reached,
        before,
        changes,
        result,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvproxy_abi::policy::Capabilities;

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
        let mut bytes = small().to_bytes().unwrap();
        bytes[8] = 7;
        let end = bytes.len() - 4;
        let sum = checksum(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(
            Recording::from_bytes(&bytes),
            Err(ReadError::OtherFormat(7))
        );
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
        let compressed = unframe(&bomb).unwrap();
        let larger = Err(ReadError::Malformed("larger than any"));
        assert_eq!(decompress(compressed, (1 << 16) - 1), larger);
        assert_eq!(decompress(compressed, 1 << 16), Ok(vec![0; 1 << 16]));
    }

    /// Two bytes of a body can be an event, which takes many times as much in memory.
    #[test]
    fn events_that_take_too_much_memory_are_refused() {
        let recording = small();
        let body = recording.body();
        let footprint: usize = recording.events.iter().map(Event::footprint).sum();
        let read = |limit| {
            let mut decoder = Decoder(&body);
            let header = decode_header(&mut decoder)?;
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
}
