//! Wrongs of a producer that a test asks for: what a hostile or broken peer writes into a ring.
//!
//! Only test builds come here (see `ringfence_faults`). A process has one producer, so what is remembered from one
//! entry to the next is kept once per process.

use std::sync::Mutex;

use ringfence_faults::Act;

use crate::locks::IgnorePoison;
use crate::ring::{Entry, Producer, PushError};
use crate::sync::ENTRY_WORDS;

type Words = [u64; ENTRY_WORDS];

#[derive(Default)]
struct Memory {
    /// The entry that was written last.
    previous: Words,
    /// The entry that is to follow the next one.
    held: Option<Words>,
}

static MEMORY: Mutex<Memory> = Mutex::new(Memory {
    previous: [0; ENTRY_WORDS],
    held: None,
});

impl<T: Entry> Producer<T> {
    /// Writes `words` as a test asks for, which is right unless `act` says otherwise.
    pub(crate) fn write_with(&mut self, words: Words, act: Option<Act>) -> Result<(), PushError> {
        let mut memory = MEMORY.lock().ignore_poison();
        let previous = std::mem::replace(&mut memory.previous, words);
        let held = memory.held.take();
        match act {
            Some(Act::Drop) => {}
            Some(Act::Duplicate) => {
                self.write(words)?;
                self.write(words)?;
            }
            Some(Act::Replay) => {
                self.write(previous)?;
                self.write(words)?;
            }
            Some(Act::Reorder) => memory.held = Some(words),
            Some(Act::Torn) => {
                let mut torn = words;
                torn[ENTRY_WORDS / 2..].copy_from_slice(&previous[ENTRY_WORDS / 2..]);
                self.write(torn)?;
            }
            Some(Act::Word(index, value)) => {
                let mut wrong = words;
                if let Some(word) = wrong.get_mut(index) {
                    *word = value;
                }
                self.write(wrong)?;
            }
            Some(Act::Garbage) => {
                let garbage = u64::from_ne_bytes([ringfence_faults::GARBAGE; 8]);
                self.write([garbage; ENTRY_WORDS])?;
            }
            Some(Act::Skip(entries)) => self.skip(entries),
            Some(Act::Errno(_) | Act::Value(_)) | None => self.write(words)?,
        }
        held.map_or(Ok(()), |held| self.write(held))
    }
}
