//! One ring with both of its ends, and a peer of theirs that writes what it likes to where it likes.
//!
//! The reference that the ends are held against counts in 64 bits and never wraps. An index in the
//! region stands for a count that an honest peer can have reached, or there is none, and then the end
//! has to be corrupt for good. Besides what an end answers, the whole region is compared: an end may
//! write its own index, the sleep word, and the slot of the entry that it stages, and nothing else.
//!
//! The peer writes through the descriptor of the region. That is the same memory, seen through the
//! layout that `ringfence_ipc::region` documents.

use std::fs::File;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ringfence_ipc::{
    ClientChannel, Completion, Consumer, Corrupt, Entry, Geometry, Producer, PushError, Region,
    ServerChannel, Socket, Spin, Submission, WaitError, Wake,
};
use zerocopy::FromBytes;

use crate::input::Input;
use crate::note;

/// What one input can do at most: an input that does more finds nothing that a shorter one does not.
const MAXIMUM_OPERATIONS: usize = 300;

const CONTROL_BYTES: usize = 384;
const HEAD: usize = 0;
const TAIL: usize = 128;
/// Where the producer was when it published last, in 8 bytes.
const PROCESSOR: usize = 136;
const SLEEPING: usize = 256;
const SLOTS: usize = 4096;
const SLOT_BYTES: usize = 64;

/// Holds the ring of requests against the reference.
pub fn submissions(data: &[u8]) {
    check(data, 0, |client, server| {
        (client.submissions, server.submissions)
    });
}

/// Holds the ring of answers against the reference.
pub fn completions(data: &[u8]) {
    check(data, 1, |client, server| {
        (server.completions, client.completions)
    });
}

fn check<T: Entry + FromBytes>(
    data: &[u8],
    position: usize,
    ends: impl FnOnce(ClientChannel, ServerChannel) -> (Producer<T>, Consumer<T>),
) {
    let mut input = Input(data);
    let capacity = 1 << (input.byte() % 4);
    let geometry = Geometry {
        ring_entries: capacity,
        arena_bytes: 0,
    };
    let region = Region::create(geometry).expect("a region");
    let file = File::from(region.as_fd().try_clone_to_owned().expect("a descriptor"));
    let (one, other) = Socket::pair().expect("a pair of sockets");
    let (producer, consumer) = ends(
        ClientChannel::new(&region, one),
        ServerChannel::new(region, other),
    );
    let bytes = file.metadata().expect("a size").len() as usize;
    let mut memory = Memory {
        bytes: vec![0; bytes],
        found: vec![0; bytes],
        file,
        control: position * CONTROL_BYTES,
        slots: SLOTS + position * capacity as usize * SLOT_BYTES,
        capacity,
    };
    memory.verify();
    let mut producing = Producing {
        end: producer,
        staged: 0,
        published: 0,
        consumed: 0,
        corrupt: false,
    };
    let mut consuming = Consuming {
        end: consumer,
        popped: 0,
        announced: 0,
        corrupt: false,
    };
    for _ in 0..MAXIMUM_OPERATIONS {
        if input.is_empty() {
            break;
        }
        match input.byte() % 16 {
            0 => producing.stage(&mut memory, &mut input),
            1 => producing.publish(&mut memory),
            2 | 3 => {
                producing.stage(&mut memory, &mut input);
                producing.publish(&mut memory);
            }
            4 => producing.ring(&mut memory),
            5..=7 => consuming.pop(&mut memory),
            8 => consuming.look(&mut memory),
            9 => consuming.announce_sleep(&mut memory),
            10 => consuming.wait(&mut memory),
            11 => memory.move_index(HEAD, input.byte()),
            12 => memory.move_index(TAIL, input.byte()),
            13 => memory.attack_word(HEAD, input.word()),
            14 => memory.attack_word(TAIL, input.word()),
            _ => {
                let at = usize::from(input.short()) % memory.bytes.len();
                let length = usize::from(input.byte() % 64);
                memory.attack(at, input.bytes(length));
            }
        }
    }
}

/// The count that `index` stands for among those that are possible.
fn reached(mut possible: RangeInclusive<u64>, index: u32) -> Option<u64> {
    possible.find(|count| *count as u32 == index)
}

/// The region as it has to be.
struct Memory {
    file: File,
    bytes: Vec<u8>,
    /// The region as it is, kept to be filled again.
    found: Vec<u8>,
    control: usize,
    slots: usize,
    capacity: u32,
}

impl Memory {
    /// What an end did has left in the region exactly what was expected of it.
    fn verify(&mut self) {
        let read = self.file.read_exact_at(&mut self.found, 0);
        read.expect("the region");
        let noted = self.control + PROCESSOR..self.control + PROCESSOR + 8;
        note::admit(&mut self.bytes[noted.clone()], &self.found[noted]);
        if self.found != self.bytes {
            let pairs = self.found.iter().zip(&self.bytes);
            let at = pairs.take_while(|(found, byte)| found == byte).count();
            panic!("the byte at {at} is not as it has to be");
        }
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.bytes[self.control + at..].first_chunk();
        u32::from_le_bytes(*bytes.expect("a control word"))
    }

    /// Expects an end to have set a word of the control block.
    fn set(&mut self, at: usize, value: u32) {
        self.bytes[self.control + at..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn slot(&mut self, count: u64) -> &mut [u8] {
        let place = (count % u64::from(self.capacity)) as usize;
        &mut self.bytes[self.slots + place * SLOT_BYTES..][..SLOT_BYTES]
    }

    /// The hostile peer writes.
    fn attack(&mut self, at: usize, bytes: &[u8]) {
        let length = bytes.len().min(self.bytes.len() - at);
        self.bytes[at..at + length].copy_from_slice(&bytes[..length]);
        self.file
            .write_all_at(&bytes[..length], at as u64)
            .expect("the region");
    }

    fn attack_word(&mut self, at: usize, value: u32) {
        self.attack(self.control + at, &value.to_le_bytes());
    }

    /// Moves an index a little, as often as not to where an honest peer could have moved it.
    fn move_index(&mut self, at: usize, by: u8) {
        let by = i32::from(by as i8) / 8;
        self.attack_word(at, self.word(at).wrapping_add_signed(by));
    }
}

fn bytes_of<T: Entry>(entry: T) -> Vec<u8> {
    let words = entry.to_words();
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The writing end and what it must have done.
struct Producing<T> {
    end: Producer<T>,
    staged: u64,
    published: u64,
    /// What the peer has consumed, as last believed.
    consumed: u64,
    corrupt: bool,
}

impl<T: Entry + FromBytes> Producing<T> {
    fn is_full(&self, memory: &Memory) -> bool {
        self.staged - self.consumed == u64::from(memory.capacity)
    }

    fn stage(&mut self, memory: &mut Memory, input: &mut Input<'_>) {
        let bytes: [u8; SLOT_BYTES] = input.array();
        let entry = T::read_from_bytes(&bytes).expect("an entry takes any bytes");
        if !self.corrupt && self.is_full(memory) {
            match reached(self.consumed..=self.published, memory.word(HEAD)) {
                Some(head) => self.consumed = head,
                None => self.corrupt = true,
            }
        }
        let expected = match () {
            () if self.corrupt => Err(PushError::Corrupt),
            () if self.is_full(memory) => Err(PushError::Full),
            () => {
                memory.slot(self.staged).copy_from_slice(&bytes);
                self.staged += 1;
                Ok(())
            }
        };
        assert_eq!(self.end.stage(&entry), expected);
        assert!(self.staged - self.consumed <= u64::from(memory.capacity));
        memory.verify();
    }

    fn publish(&mut self, memory: &mut Memory) {
        if self.published != self.staged {
            self.published = self.staged;
            memory.set(TAIL, self.published as u32);
        }
        self.end.publish();
        memory.verify();
    }

    fn ring(&mut self, memory: &mut Memory) {
        let sleeps = memory.word(SLEEPING) == 1;
        if sleeps {
            memory.set(SLEEPING, 0);
        }
        assert_eq!(self.end.needs_ring(), sleeps);
        memory.verify();
    }
}

/// The reading end and what it must have done.
struct Consuming<T> {
    end: Consumer<T>,
    popped: u64,
    /// What the peer has published, as last believed.
    announced: u64,
    corrupt: bool,
}

impl<T: Entry> Consuming<T> {
    /// Looks at the peer's index, if there is a reason to.
    fn refresh(&mut self, memory: &Memory) {
        if !self.corrupt && self.announced == self.popped {
            let most = self.popped + u64::from(memory.capacity);
            match reached(self.popped..=most, memory.word(TAIL)) {
                Some(tail) => self.announced = tail,
                None => self.corrupt = true,
            }
        }
    }

    /// Whether there is something to pop, an error included.
    fn is_ready(&self, memory: &Memory) -> bool {
        self.corrupt || self.announced != self.popped || memory.word(TAIL) != self.popped as u32
    }

    fn pop(&mut self, memory: &mut Memory) {
        self.refresh(memory);
        let popped = self.end.pop();
        if self.corrupt {
            assert!(matches!(popped, Err(Corrupt)));
        } else if self.announced == self.popped {
            assert!(matches!(popped, Ok(None)));
        } else {
            let entry = popped.expect("a sound ring").expect("an entry");
            assert_eq!(bytes_of(entry), memory.slot(self.popped));
            self.popped += 1;
            memory.set(HEAD, self.popped as u32);
        }
        memory.verify();
    }

    fn look(&mut self, memory: &mut Memory) {
        assert_eq!(self.end.is_ready(), self.is_ready(memory));
        memory.verify();
    }

    fn announce_sleep(&mut self, memory: &mut Memory) {
        let sleeps = !self.is_ready(memory);
        memory.set(SLEEPING, u32::from(sleeps));
        assert_eq!(self.end.announce_sleep(), sleeps);
        memory.verify();
    }

    fn wait(&mut self, memory: &mut Memory) {
        self.refresh(memory);
        let expected = match () {
            () if self.corrupt => Err(WaitError::Corrupt),
            () if self.announced != self.popped => Ok(Wake::Ready),
            () => Ok(Wake::TimedOut),
        };
        assert_eq!(self.end.wait(Spin::NONE, Some(Duration::ZERO)), expected);
        memory.verify();
    }
}

/// Both kinds of entries fill a slot.
const _: () =
    assert!(size_of::<Submission>() == SLOT_BYTES && size_of::<Completion>() == SLOT_BYTES);
