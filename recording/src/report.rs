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
        #[serde(with = "hexadecimal")]
        expected: Vec<u8>,
        #[serde(with = "hexadecimal")]
        got: Vec<u8>,
    },
    /// What the call returned: a value or a negated errno.
    Result { expected: i32, got: i32 },
    /// The event is another altogether.
    Event { expected: String, got: String },
}

/// Bytes as text, two digits each.
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits.concat())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.map(byte).collect();
        bytes.ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
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

/// Two names for the same: what the recorded driver called it, and what the one that answers now does. They are equally
/// long, and at most [`LONGEST_NAME`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub recorded: Vec<u8>,
    pub actual: Vec<u8>,
    pub stands: Stands,
}

/// Where a name stands. The same bytes mean something else in other places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stands {
    /// Wherever it can be aligned: its bytes do not occur by chance.
    Anywhere = 0,
    /// Where ids of GPUs do.
    AsGpuId = 1,
    /// Where addresses of mappings do.
    AsAddress = 2,
}

/// The longest name of a [`Pair`].
pub const LONGEST_NAME: usize = 16;
/// Bytes of a pair in the file: its length, where it stands, and its names.
const PAIR_BYTES: usize = 2 + 2 * LONGEST_NAME;
/// Where the pairs begin in the file: behind the descriptors of as many descriptions as can be opened.
const PAIRS_AT: u64 = 1 << 35;

/// The file in which the program says which event it is about to replay, under which number it holds each description,
/// and what it has learned to call otherwise than was recorded. Only who has the turn uses it.
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

impl Progress {
    /// The pairs that were added, the latest first. One that says otherwise than an earlier one holds in its place.
    pub fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        let mut bytes = [0; PAIR_BYTES];
        while self
            .0
            .read_exact_at(&mut bytes, pair_place(pairs.len()))
            .is_ok()
        {
            let [length, stands, ref names @ ..] = bytes;
            let (recorded, actual) = names.split_at(LONGEST_NAME);
            let name = |name: &[u8]| name.iter().take(usize::from(length)).copied().collect();
            pairs.push(Pair {
                recorded: name(recorded),
                actual: name(actual),
                stands: match stands {
                    0 => Stands::Anywhere,
                    1 => Stands::AsGpuId,
                    _ => Stands::AsAddress,
                },
            });
        }
        pairs.reverse();
        pairs
    }

    pub fn add_pair(&self, pair: &Pair) -> io::Result<()> {
        let mut bytes = vec![pair.recorded.len() as u8, pair.stands as u8];
        for name in [&pair.recorded, &pair.actual] {
            bytes.extend_from_slice(name);
            bytes.resize(bytes.len() + LONGEST_NAME.saturating_sub(name.len()), 0);
        }
        self.0.write_all_at(&bytes, pair_place(self.pairs().len()))
    }
}

fn pair_place(index: usize) -> u64 {
    PAIRS_AT + (PAIR_BYTES * index) as u64
}

fn place(description: u32) -> u64 {
    8 + 4 * u64::from(description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let difference = |what| {
            Line::Difference(Difference {
                sequence: 7,
                seen_by: Side::Driver,
                what,
            })
        };
        let mut written = vec![
            Line::Finished,
            Line::Failed("a reason\nof two lines".to_owned()),
        ];
        written.extend(
            compare(&[0, 1, 2, 3], &[0, 1, 0xff, 3, 4])
                .into_iter()
                .map(difference),
        );
        let texts: Vec<String> = written
            .iter()
            .map(|line| serde_json::to_string(line).unwrap())
            .collect();
        assert_eq!(lines(&texts.join("\n")).unwrap(), written);
        assert!(
            texts[2].contains(r#""offset":2,"expected":"02","got":"ff""#),
            "{}",
            texts[2]
        );
        assert!(lines("nonsense").is_err());
    }
}
