//! A lane with both of its ends, and a task that writes what it likes to where it likes.
//!
//! What an end does is held against a reference that keeps the lane's words: an end changes the words that
//! the layout gives to what it does, and no others. The server's end is followed to its end: what is taken
//! is prepared as the server prepares it, and what passes is issued on the simulated driver and answered.
//!
//! The layout is the one that `ringfence_ipc::lane` documents.

use std::ops::Range;
use std::time::Duration;

use nvproxy_server::protocol::{decode_result, encode_result};
use nvproxy_server::request::Buffer;
use ringfence_ipc::lane::{
    Answer, GEOMETRY, LaneClient, LaneServer, Request, SLOT_BYTES, SLOTS, WORDS, Waited,
};
use ringfence_ipc::{Arena, Region, Spin};

use crate::descriptors::none_left_behind;
use crate::input::Input;
use crate::note;
use crate::requests::{CLOSE, OPEN, REQUEST};
use crate::sandbox::{self, Sandbox};

/// What one input can do at most.
const MAXIMUM_OPERATIONS: usize = 100;

const WORD: usize = size_of::<u64>();
const POSTED: usize = 0;
const ASKER: usize = 1;
const SLEEPING: usize = 16;
const CLOSED: usize = 32;
const ANSWERER: usize = 33;
const MET: usize = 34;
const FIRST_SLOT: usize = 64;
/// Words of a slot before its payload, and with it.
const HEAD_WORDS: usize = 16;
const SLOT_WORDS: usize = HEAD_WORDS + SLOT_BYTES / WORD;
const STATE: usize = 0;
const OPERATION: usize = 1;
const SUBJECT: usize = 2;
const RESULT: usize = 3;

const ASKED: u64 = 0;
const ASLEEP: u64 = 1;
const ANSWERED: u64 = 2;
const REFUSED: u64 = 3;

/// The operations, by an input's byte. The first are those of `requests`, of which REQUEST asks here as a task does.
const OPERATIONS: u8 = 16;

/// Runs a lane to its end.
pub fn check(data: &[u8]) {
    // Made before descriptors are counted.
    let abi = sandbox::tables();
    none_left_behind(|| {
        let mut input = Input(data);
        let mut session = Session::new(Sandbox::new(abi));
        for _ in 0..MAXIMUM_OPERATIONS {
            if input.is_empty() {
                break;
            }
            session.step(&mut input);
            session.memory.verify_words();
        }
        session.end();
    });
}

struct Session {
    sandbox: Sandbox,
    client: LaneClient,
    server: LaneServer,
    /// Where the server's search begins.
    next: usize,
    /// The server's, which serves all requests.
    buffer: Buffer,
    memory: Memory,
}

impl Session {
    fn new(sandbox: Sandbox) -> Session {
        let region = Region::create(GEOMETRY).expect("a region");
        let client = LaneClient::new(&region).expect("a lane");
        let memory = Memory {
            arena: client.arena().clone(),
            bytes: vec![0; WORDS * WORD],
            found: vec![0; WORDS * WORD],
        };
        Session {
            sandbox,
            client,
            server: LaneServer::new(&region).expect("a lane"),
            next: 0,
            buffer: Buffer::default(),
            memory,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % OPERATIONS {
            OPEN => self.sandbox.open(input.short().into()),
            CLOSE => self.close(input.byte()),
            REQUEST => {
                let slot = self.request(input);
                self.serve();
                self.look(slot);
            }
            3 => drop(self.request(input)),
            4 | 5 => self.serve(),
            6 => self.take_and_answer(input),
            7 => self.withdraw(input.byte().into()),
            8 => self.look(input.byte().into()),
            9 => self.sleep(input.byte().into()),
            10 => self.server_sleeps(),
            11 => self.memory.attack(POSTED * WORD, &input.array::<8>()),
            12 => {
                let word = [SLEEPING, CLOSED][usize::from(input.byte() % 2)];
                self.memory.attack(word * WORD, &input.array::<8>());
            }
            13 | 14 => {
                let slot = usize::from(input.byte());
                let word = usize::from(input.byte()) % HEAD_WORDS;
                let value: [u8; 8] = input.array();
                self.memory.attack(of_slot(slot, word) * WORD, &value);
            }
            _ => {
                let at = input.word() as usize % (WORDS * WORD);
                let length = usize::from(input.byte());
                self.memory.attack(at, input.bytes(length));
            }
        }
    }

    /// Ends the lane: who sleeps in it is to look again, and nothing else is.
    fn end(mut self) {
        self.memory.set(CLOSED, 1);
        for slot in 0..SLOTS {
            if self.memory.word(of_slot(slot, STATE)) == ASLEEP {
                self.memory.set(of_slot(slot, STATE), ASKED);
            }
        }
        self.server.close();
        self.memory.verify();
        assert!(self.client.lane().expect("a lane").is_closed());
        self.sandbox.end();
    }

    /// Closes what was opened as the so many-th.
    fn close(&mut self, place: u8) {
        let index = usize::from(place).checked_sub(1);
        let given = index.and_then(|index| self.sandbox.given.get(index));
        if let Some(handle) = given.map(|given| given.handle) {
            self.sandbox.close(handle);
        }
    }

    /// What a task's thread does, in any slot, whatever there is in it already.
    fn request(&mut self, input: &mut Input<'_>) -> usize {
        let slot = usize::from(input.byte());
        let request = Request {
            subject: input.byte().into(),
            operation: input.word(),
            length: input.short().into(),
        };
        let length = (request.length as usize).min(SLOT_BYTES);
        let payload = input.bytes(length);
        self.memory.attack(payload_offset(slot), payload);
        let operation = u64::from(request.length) << 32 | u64::from(request.operation);
        self.memory.set(of_slot(slot, OPERATION), operation);
        self.memory.set(of_slot(slot, SUBJECT), request.subject);
        self.memory.set(of_slot(slot, STATE), ASKED);
        self.memory
            .set(POSTED, self.memory.word(POSTED) | bit(slot));
        self.memory.set(SLEEPING, 0);
        self.client.lane().expect("a lane").post(slot, request);
        slot
    }

    fn withdraw(&mut self, slot: usize) {
        let posted = self.memory.word(POSTED);
        self.memory.set(POSTED, posted & !bit(slot));
        let lane = self.client.lane().expect("a lane");
        assert_eq!(lane.withdraw(slot), posted & bit(slot) != 0);
    }

    /// The answer that there is in a slot, and nothing that is not in it.
    fn look(&mut self, slot: usize) {
        let answer = match self.memory.word(of_slot(slot, STATE)) {
            ASKED | ASLEEP => None,
            ANSWERED => {
                let result = self.memory.word(of_slot(slot, RESULT));
                Some(Answer::Done(result as i64))
            }
            _ => Some(Answer::Refused),
        };
        let is_closed = self.memory.word(CLOSED) != 0;
        let lane = self.client.lane().expect("a lane");
        assert_eq!(lane.answer(slot), answer);
        assert_eq!(lane.is_closed(), is_closed);
        let expected = match answer {
            Some(answer) => Waited::Answered(answer),
            None if is_closed => Waited::Closed,
            None => Waited::TimedOut,
        };
        assert_eq!(lane.look(slot, Spin::NONE), expected);
        assert_eq!(lane.payload(slot).count(), SLOT_BYTES / WORD);
    }

    fn sleep(&mut self, slot: usize) {
        if self.memory.word(of_slot(slot, STATE)) == ASKED {
            self.memory.set(of_slot(slot, STATE), ASLEEP);
        }
        let lane = self.client.lane().expect("a lane");
        lane.sleep(slot, Duration::ZERO);
    }

    /// The server has something else to do and so does not sleep, whatever the task wrote.
    fn server_sleeps(&mut self) {
        self.server.sleep(|| true);
        self.memory.set(SLEEPING, 0);
    }

    /// The request that the server's end takes has to be the next one, and its bit is gone.
    fn take(&mut self) -> Option<(usize, Request)> {
        let posted = self.memory.word(POSTED);
        let slots = (0..SLOTS).map(|slot| (self.next + slot) % SLOTS);
        let slot = slots.into_iter().find(|slot| posted & bit(*slot) != 0);
        assert_eq!(self.server.is_ready(), slot.is_some());
        let taken = self.server.take();
        let expected = slot.map(|slot| {
            self.next = (slot + 1) % SLOTS;
            self.memory.set(POSTED, posted & !bit(slot));
            let operation = self.memory.word(of_slot(slot, OPERATION));
            let request = Request {
                subject: self.memory.word(of_slot(slot, SUBJECT)),
                operation: operation as u32,
                length: (operation >> 32) as u32,
            };
            (slot, request)
        });
        assert_eq!(taken, expected);
        taken
    }

    /// An answer concerns its own slot.
    fn answer(&mut self, slot: usize, answer: Answer) {
        match answer {
            Answer::Done(result) => {
                self.memory.set(of_slot(slot, RESULT), result as u64);
                self.memory.set(of_slot(slot, STATE), ANSWERED);
            }
            Answer::Refused => self.memory.set(of_slot(slot, STATE), REFUSED),
        }
        self.server.answer(slot, answer);
    }

    fn take_and_answer(&mut self, input: &mut Input<'_>) {
        let answer = match input.byte() % 2 {
            0 => Answer::Refused,
            _ => Answer::Done(i64::from_le_bytes(input.array())),
        };
        if let Some((slot, _)) = self.take() {
            self.answer(slot, answer);
        }
    }

    /// What the server's thread does.
    fn serve(&mut self) {
        if let Some((slot, request)) = self.take() {
            let issued = self.issue(slot, request);
            self.answer(slot, issued.map_or(Answer::Refused, Answer::Done));
        }
    }

    fn issue(&mut self, slot: usize, request: Request) -> Option<i64> {
        let place = usize::try_from(request.subject).ok()?;
        let grant = self.sandbox.given.get(place)?.grant();
        let context = self.sandbox.context(self.server.arena());
        let prepared = context.prepare_from_lane(grant, slot, request, &mut self.buffer)?;
        let plan = &prepared.plan;
        assert!(!plan.pins() && !plan.may_block() && !plan.makes_event());
        assert!(plan.descriptors.is_empty() && prepared.named.is_none());
        assert_eq!(prepared.handle, grant.handle);
        let length = request.length as usize;
        assert!(length <= SLOT_BYTES && length == plan.total_length());
        assert_eq!(prepared.buffer.bytes(), self.memory.payload(slot, length));
        let passage = self.sandbox.books.try_pass(&prepared);
        let passage = passage.expect("nothing else is under way");
        let executed = self.sandbox.issue(prepared, passage);
        let outcome = executed.outcome;
        assert_eq!(decode_result(encode_result(outcome)), outcome);
        if outcome.is_ok() {
            let after = executed.prepared.buffer.bytes();
            assert_eq!(after.len(), length);
            let offset = executed.prepared.payload_offset;
            let written = self.server.arena().write(offset, after);
            written.expect("the range that the request was read from");
            self.memory.payload(slot, length).copy_from_slice(after);
        }
        self.buffer = executed.prepared.buffer;
        Some(encode_result(outcome))
    }
}

/// The word of a slot; numbers beyond the slots name one of them, too.
fn of_slot(slot: usize, word: usize) -> usize {
    FIRST_SLOT + slot % SLOTS * SLOT_WORDS + word
}

/// Where its payload starts, in bytes.
fn payload_offset(slot: usize) -> usize {
    of_slot(slot, HEAD_WORDS) * WORD
}

fn bit(slot: usize) -> u64 {
    1 << (slot % SLOTS)
}

/// The lane as it has to be.
struct Memory {
    arena: Arena,
    bytes: Vec<u8>,
    /// The lane as it is, kept to be filled again.
    found: Vec<u8>,
}

impl Memory {
    /// What the ends did has left in the lane exactly what was expected of it.
    fn verify(&mut self) {
        self.verify_part(0, WORDS);
    }

    /// The same of all but the payloads, which takes less time.
    fn verify_words(&mut self) {
        self.verify_part(0, FIRST_SLOT);
        for slot in 0..SLOTS {
            self.verify_part(of_slot(slot, 0), HEAD_WORDS);
        }
    }

    fn verify_part(&mut self, start: usize, words: usize) {
        let (at, end) = (start * WORD, (start + words) * WORD);
        let read = self.arena.read(at as u32, &mut self.found[at..end]);
        read.expect("the lane");
        self.admit_notes(start..start + words);
        let found = &self.found[at..end];
        let expected = &self.bytes[at..end];
        if found != expected {
            let pairs = found.iter().zip(expected);
            let same = pairs.take_while(|(found, byte)| found == byte).count();
            panic!("the byte at {} is not as it has to be", at + same);
        }
    }

    fn admit_notes(&mut self, read: Range<usize>) {
        for (index, admit) in [
            (ASKER, note::admit as fn(&mut [u8], &[u8])),
            (ANSWERER, note::admit),
            (MET, note::admit_count),
        ] {
            if read.contains(&index) {
                let word = index * WORD..(index + 1) * WORD;
                admit(&mut self.bytes[word.clone()], &self.found[word]);
            }
        }
    }

    fn word(&self, index: usize) -> u64 {
        let bytes = self.bytes[index * WORD..].first_chunk();
        u64::from_ne_bytes(*bytes.expect("a word"))
    }

    /// Expects an end to have set a word.
    fn set(&mut self, index: usize, value: u64) {
        self.bytes[index * WORD..][..WORD].copy_from_slice(&value.to_ne_bytes());
    }

    /// The first bytes of a slot's payload.
    fn payload(&mut self, slot: usize, length: usize) -> &mut [u8] {
        let start = payload_offset(slot);
        &mut self.bytes[start..start + length]
    }

    /// The task writes.
    fn attack(&mut self, at: usize, bytes: &[u8]) {
        let length = bytes.len().min(self.bytes.len() - at);
        self.bytes[at..at + length].copy_from_slice(&bytes[..length]);
        self.arena
            .write(at as u32, &bytes[..length])
            .expect("the lane");
    }
}
