//! What a replay came to, for people and for programs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use ringfence_recording::layout::Layout;
use ringfence_recording::report::{Difference, Line, Side, What};
use ringfence_recording::{Event, Recording};
use serde::Serialize;

/// The most bytes of a difference that are shown.
const SHOWN: usize = 16;
/// The most places at which a request's answers differ that are shown.
const PLACES: usize = 6;

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// Its program failed, in its own words.
    #[error("{0}")]
    Failed(String),
    /// Its program said nothing of an end.
    #[error("its program ended early")]
    Ended,
}

/// A replay that came to its end.
pub struct Outcome<'a> {
    recording: &'a Recording,
    nodes: Vec<Node>,
    /// In the order of the recording.
    differences: Vec<&'a Difference>,
}

/// A difference, for programs.
#[derive(Serialize)]
struct Described<'a> {
    request: Cow<'static, str>,
    #[serde(flatten)]
    difference: &'a Difference,
}

#[derive(Serialize)]
struct Summary<'a> {
    requests: usize,
    tasks: usize,
    threads: usize,
    differences: Vec<Described<'a>>,
}

/// The differences of all requests of one name.
#[derive(Default)]
struct Group {
    calls: usize,
    differ: BTreeSet<u64>,
    /// Ranges of bytes, each with how often it differed.
    places: BTreeMap<String, usize>,
}

impl<'a> Outcome<'a> {
    /// What the report's lines say. Fails if the replay did not come to its end.
    pub fn new(recording: &'a Recording, lines: &'a [Line]) -> Result<Outcome<'a>, Unfinished> {
        let mut finished = false;
        let mut differences = Vec::new();
        for line in lines {
            match line {
                Line::Difference(difference) => differences.push(difference),
                Line::Finished => finished = true,
                Line::Failed(reason) => return Err(Unfinished::Failed(reason.clone())),
            }
        }
        if !finished {
            return Err(Unfinished::Ended);
        }
        differences.sort_by_key(|difference| difference.sequence);
        Ok(Outcome {
            recording,
            nodes: recording.nodes(),
            differences,
        })
    }

    /// Whether anything differs.
    pub fn any(&self) -> bool {
        !self.differences.is_empty()
    }

    /// One line for each difference, and a summary.
    pub fn listed(&self) -> String {
        let mut text = String::new();
        for difference in &self.differences {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{} {}: {}",
                difference.sequence,
                self.name(difference.sequence),
                in_words(difference)
            );
        }
        text + &self.summary()
    }

    /// One line for each request that differs anywhere, and a summary.
    pub fn grouped(&self) -> String {
        let mut groups: BTreeMap<Cow<'static, str>, Group> = BTreeMap::new();
        for sequence in 0..self.recording.events.len() as u64 {
            groups.entry(self.name(sequence)).or_default().calls += 1;
        }
        for difference in &self.differences {
            let group = groups.entry(self.name(difference.sequence)).or_default();
            group.differ.insert(difference.sequence);
            *group.places.entry(place(&difference.what)).or_default() += 1;
        }
        let mut text = String::new();
        for (name, group) in groups.iter().filter(|(_, group)| !group.differ.is_empty()) {
            let mut places: Vec<&str> = group.places.keys().map(String::as_str).collect();
            let more = places.len().saturating_sub(PLACES);
            places.truncate(PLACES);
            let mut places = places.join("; ");
            if more > 0 {
                let _ = write!(places, "; and {more} more");
            }
            let first = group.differ.first().copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "{name}: {} of {} calls differ, the first is {first}: {places}",
                group.differ.len(),
                group.calls,
            );
        }
        text + &self.summary()
    }

    /// Everything, as JSON.
    pub fn json(&self) -> String {
        let describe = |difference: &&'a Difference| Described {
            request: self.name(difference.sequence),
            difference,
        };
        let summary = Summary {
            requests: self.recording.requests(),
            tasks: self.recording.header.tasks(),
            threads: self.recording.header.threads.len(),
            differences: self.differences.iter().map(describe).collect(),
        };
        // It is made of numbers, strings and lists, which JSON has.
        serde_json::to_string_pretty(&summary).unwrap_or_default() + "\n"
    }

    fn summary(&self) -> String {
        let sequences: BTreeSet<u64> = self
            .differences
            .iter()
            .map(|difference| difference.sequence)
            .collect();
        let came_to = match sequences.len() {
            0 => "no byte differs".to_owned(),
            1 => "1 differs".to_owned(),
            count => format!("{} differ", with_commas(count)),
        };
        format!(
            "{} of {} and {}: {came_to}\n",
            counted(self.recording.requests(), "request"),
            counted(self.recording.header.tasks(), "task"),
            counted(self.recording.header.threads.len(), "thread"),
        )
    }

    /// What an event is called.
    fn name(&self, sequence: u64) -> Cow<'static, str> {
        let event = usize::try_from(sequence)
            .ok()
            .and_then(|index| self.recording.events.get(index));
        match event {
            Some(Event::Open(open)) => format!("open {}", open.node.file_name()).into(),
            Some(Event::Close { .. }) => "close".into(),
            Some(Event::Request(request)) => {
                let node = self.nodes.get(request.description as usize);
                let node = node.copied().unwrap_or(Node::Control);
                match self.recording.header.abi() {
                    Ok(abi) => Layout::of(abi, node, request.command, &request.before).name,
                    Err(_) => format!("ioctl {:#x}", request.command).into(),
                }
            }
            None => "an event".into(),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", with_commas(count))
}

fn with_commas(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn in_words(difference: &Difference) -> String {
    let side = match difference.seen_by {
        Side::Driver => "the driver",
        Side::Program => "the program",
    };
    match &difference.what {
        What::Bytes {
            offset,
            expected,
            got,
        } => format!(
            "at {offset:#x} {side} expected {} and got {}",
            hexadecimal(expected),
            hexadecimal(got)
        ),
        What::Result { expected, got } => format!(
            "{side} expected the result {} and got {}",
            result(*expected),
            result(*got)
        ),
        What::Event { expected, got } => format!("{side} expected {expected} and got {got}"),
    }
}

/// Where a difference is, without what it is.
fn place(what: &What) -> String {
    match what {
        What::Bytes { offset, got, .. } => {
            format!("bytes {offset:#x} to {:#x}", *offset as usize + got.len())
        }
        What::Result { expected, got } => format!("{} became {}", result(*expected), result(*got)),
        What::Event { expected, got } => format!("{expected} became {got}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes
        .iter()
        .take(SHOWN)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    shown.concat() + more
}

/// What a system call returned, with an error's name.
fn result(value: i32) -> String {
    if value < 0 {
        format!("{:?}", Errno::from_raw(-value))
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        let texts = [0, 7, 999, 1000, 1234, 1_234_567].map(with_commas);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,234", "1,234,567"]);
    }
}
