//! Reading a recording, of which nothing is believed.

use crc32fast::hash;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::MAXIMUM_PAYLOAD;
use nvproxy_abi::policy::FirmwareCommands;

use super::{
    BODY_AT, CHECKSUM_BYTES, CLOSE, FORMAT, MAGIC, MAXIMUM_BODY, MAXIMUM_DESCRIPTIONS,
    MAXIMUM_FOOTPRINT, MAXIMUM_THREADS, MAXIMUM_WORDS, OLDEST_FORMAT, OPEN, REQUEST, ReadError,
};
use crate::codec::Decoder;
use crate::{Change, Event, Header, Open, Reached, Recording, Request};

impl Recording {
    /// Reads what [`Recording::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Recording, ReadError> {
        let (version, compressed) = unframe(bytes)?;
        let body = decompress(compressed, MAXIMUM_BODY)?;
        let mut decoder = Decoder(&body);
        let header = decode_header(&mut decoder, version)?;
        let events = decode_events(&mut decoder, &header, MAXIMUM_FOOTPRINT)?;
        if !decoder.0.is_empty() {
            return Err(ReadError::Malformed("bytes after the last event"));
        }
        Ok(Recording { header, events })
    }
}

/// The version of the format, and the compressed body. That the checksum is right is known before anything else is believed.
pub(super) fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), ReadError> {
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
    let is_read = (OLDEST_FORMAT..=FORMAT).contains(&version);
    match hash(framed) == u32::from_le_bytes(*stored) {
        false if is_read && (bytes.len() as u64) < expected => Err(truncated(expected)),
        false => Err(ReadError::Altered),
        true if !is_read => Err(ReadError::OtherFormat(version)),
        true if bytes.len() as u64 != expected => Err(ReadError::Malformed("its length")),
        true => Ok((version, &framed[BODY_AT..])),
    }
}

/// What was compressed, if it is no more than `limit` bytes.
pub(super) fn decompress(compressed: &[u8], limit: usize) -> Result<Vec<u8>, ReadError> {
    decompress_to_vec_with_limit(compressed, limit).map_err(|error| match error.status {
        TINFLStatus::HasMoreOutput => ReadError::Malformed("larger than any"),
        _ => ReadError::Malformed("what was compressed"),
    })
}

pub(super) fn decode_header(decoder: &mut Decoder<'_>, version: u32) -> Result<Header, ReadError> {
    const CUT: ReadError = ReadError::Malformed("its header");
    let mut text = || std::str::from_utf8(decoder.bytes()?).ok();
    let [driver, tables] = [text(), text()].map(|version| version?.parse().ok());
    let capabilities = text().and_then(|list| list.parse().ok());
    let capabilities = capabilities.ok_or(ReadError::Malformed("the capabilities"))?;
    let firmware_commands = match version {
        OLDEST_FORMAT => Some(FirmwareCommands::Listed),
        _ => text().and_then(|word| word.parse().ok()),
    };
    let firmware_commands =
        firmware_commands.ok_or(ReadError::Malformed("the firmware's commands"))?;
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
        firmware_commands,
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

/// The events, if their footprint is no more than `limit`.
pub(super) fn decode_events(
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
