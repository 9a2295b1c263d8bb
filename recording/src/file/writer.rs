//! Writing a recording.

use crc32fast::hash;
use miniz_oxide::deflate::compress_to_vec;

use super::{
    CLOSE, FORMAT, MAGIC, MAXIMUM_BODY, MAXIMUM_DESCRIPTIONS, MAXIMUM_FOOTPRINT, MAXIMUM_THREADS,
    MAXIMUM_WORDS, OPEN, REQUEST, TooLarge,
};
use crate::codec::Encoder;
use crate::{Event, Header, Reached, Recording};

/// What programs for deflate call the best.
const COMPRESSION_LEVEL: u8 = 9;

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
    pub(super) fn body(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encode_header(&self.header, &mut encoder);
        encoder.number(self.events.len() as u64);
        self.events
            .iter()
            .for_each(|event| encode_event(event, &mut encoder));
        encoder.0
    }
}

pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let compressed = compress_to_vec(body, COMPRESSION_LEVEL);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(compressed.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&compressed);
    let checksum = hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn encode_header(header: &Header, encoder: &mut Encoder) {
    encoder.bytes(header.driver.to_string().as_bytes());
    encoder.bytes(header.tables.to_string().as_bytes());
    encoder.bytes(header.capabilities.to_string().as_bytes());
    encoder.bytes(header.firmware_commands.to_string().as_bytes());
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
