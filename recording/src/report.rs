//! What a replay came to: lines that its program and its host append to one file, which the launcher reads at the end.
//!
//! The program says in another file which event it is about to replay, so that the host knows which it has to answer.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    Difference(Difference),
    /// The program replayed everything.
    Finished,
    /// It could not go on.
    Failed(String),
}

/// Something that was not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The event's place in the recording.
    pub sequence: u64,
    pub seen_by: Side,
    pub what: What,
}

/// Who saw a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The driver got something else.
    Driver,
    /// The program got something else back.
    Program,
}

/// What differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Bytes from this offset of the payload on.
    Bytes {
        offset: u32,
        expected: Vec<u8>,
        got: Vec<u8>,
    },
    /// What the call returned: a value or a negated errno.
    Result { expected: i32, got: i32 },
    /// The event is another altogether.
    Event { expected: String, got: String },
}

/// The runs of bytes in which `got` is not as `expected`, as differences; a difference in length is one more.
pub fn compare(expected: &[u8], got: &[u8]) -> Vec<What> {
    let mut differences: Vec<What> = crate::changes(expected, got)
        .into_iter()
        .map(|change| {
            let at = change.at as usize;
            What::Bytes {
                offset: change.at,
                expected: expected[at..at + change.bytes.len()].to_vec(),
                got: change.bytes,
            }
        })
        .collect();
    if expected.len() != got.len() {
        let bytes = |length: usize| format!("{length} bytes");
        differences.push(What::Event {
            expected: bytes(expected.len()),
            got: bytes(got.len()),
        });
    }
    differences
}

/// The file that takes the lines.
#[derive(Debug)]
pub struct Report(File);

impl Report {
    /// Appends to `file`, which has to be opened for that (`O_APPEND`), since others do so too.
    pub fn new(file: File) -> Report {
        Report(file)
    }

    pub fn append(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        (&self.0).write_all(text.as_bytes())
    }
}

/// The lines of a report. One that is none is an error.
pub fn lines(text: &str) -> Result<Vec<Line>, serde_json::Error> {
    text.lines().map(serde_json::from_str).collect()
}

/// The file in which the program says which event it is about to replay, and under which number it holds each
/// description.
#[derive(Debug)]
pub struct Progress(File);

impl Progress {
    pub fn new(file: File) -> Progress {
        Progress(file)
    }

    /// The event that is being replayed.
    pub fn event(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    pub fn set_event(&self, sequence: u64) -> io::Result<()> {
        self.0.write_all_at(&sequence.to_ne_bytes(), 0)
    }

    /// The number of the program's descriptor of a description; -1 if it has none.
    pub fn descriptor(&self, description: u32) -> i32 {
        let mut bytes = [0; 4];
        match self.0.read_exact_at(&mut bytes, place(description)) {
            // It is stored so that what was never written, zeros, means none.
            Ok(()) => i32::from_ne_bytes(bytes) - 1,
            Err(_) => -1,
        }
    }

    pub fn set_descriptor(&self, description: u32, number: i32) -> io::Result<()> {
        let stored = number.wrapping_add(1);
        self.0
            .write_all_at(&stored.to_ne_bytes(), place(description))
    }
}

fn place(description: u32) -> u64 {
    8 + 4 * u64::from(description)
}
