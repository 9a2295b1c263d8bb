//! Recordings: every request that a program made of the driver, in a form that depends on neither addresses nor
//! numbers of descriptors nor those of processes.
//!
//! A recording is made by the sentry and read by three: the program that issues its requests again, the host that
//! answers them as they were answered, and the launcher that tells the user what differed. All see a request in the same
//! form, its *payload* (see [`nvproxy_abi::plan`]), normalized:
//!
//! - A pointer that leads to a buffer is the buffer's offset in the payload.
//! - A descriptor's number is the index of the description that it meant; [`NOTHING`] if it meant none of the driver's.
//!   Negative numbers, which mean nothing to the driver either, are kept.
//!
//! [`layout`] finds these fields. It needs the payload's bytes alone, and works on normalized ones as well.

#![forbid(unsafe_code)]

mod codec;
mod file;
pub mod identifiers;
pub mod layout;
pub mod report;
mod scrub;

use nvproxy_abi::node::Node;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::version::DriverVersion;
use nvproxy_abi::{Abi, NoTables};

pub use file::{FORMAT, MAXIMUM_FOOTPRINT, OLDEST_FORMAT, ReadError, TooLarge};

/// In a descriptor field: a number that names no description of the driver's. No process has a descriptor of that
/// number, so it means nothing in a replay either.
pub const NOTHING: i32 = i32::MAX;

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    pub header: Header,
    /// In the order in which the sentry took them on. An event's place is its sequence number.
    pub events: Vec<Event>,
}

/// What was recorded, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The driver's release.
    pub driver: DriverVersion,
    /// The release whose tables served it.
    pub tables: DriverVersion,
    /// What the program might ask of the driver.
    pub capabilities: Capabilities,
    /// Which of the firmware's own commands it might ask.
    pub firmware_commands: FirmwareCommands,
    /// The program and its arguments.
    pub command: Vec<Vec<u8>>,
    /// The minor numbers of the GPUs that it could use.
    pub gpus: Vec<u8>,
    /// Whether identifiers of the machine were replaced.
    pub scrubbed: bool,
    /// By thread: the task (process) that it belongs to. Both are counted from 0, in the order in which they were seen.
    pub threads: Vec<u32>,
    /// How many descriptions were opened.
    pub descriptions: u32,
}

impl Header {
    /// The tables that the requests were made by.
    pub fn abi(&self) -> Result<&'static Abi, NoTables> {
        let granted = Granted {
            capabilities: self.capabilities,
            firmware_commands: self.firmware_commands,
        };
        Abi::of_release(&self.tables, granted)
    }

    /// How many tasks there were.
    pub fn tasks(&self) -> usize {
        self.threads
            .iter()
            .max()
            .map_or(0, |last| *last as usize + 1)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Open(Open),
    Request(Request),
    /// The last descriptor of a description was closed. This is noticed late: up to half a second of requests can
    /// stand before it that came after it.
    Close {
        description: u32,
    },
}

/// A device node was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The thread.
    pub by: u32,
    /// The index of the new description. It counts opens that failed, too.
    pub description: u32,
    pub node: Node,
    /// `O_NONBLOCK` and `O_CLOEXEC` of open(2)'s flags.
    pub flags: i32,
    /// 0, or the negated errno.
    pub result: i32,
}

/// An ioctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The thread.
    pub by: u32,
    /// What it was made on.
    pub description: u32,
    /// The ioctl's command word.
    pub command: u32,
    pub reached: Reached,
    /// The payload as the program made it, normalized. Only what was read before the request was refused, if it was.
    pub before: Vec<u8>,
    /// What was different afterwards, normalized, in order.
    pub changes: Vec<Change>,
    /// What the ioctl returned: its value, or the negated errno.
    pub result: i32,
}

/// How far a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Driver,
    /// Ringfence refused it.
    Refused,
    /// Memory that it refers to could not be read: that of the last part of the payload.
    Unreadable,
}

/// Bytes of a payload that became others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: u32,
    pub bytes: Vec<u8>,
}

impl Request {
    /// The payload afterwards.
    pub fn after(&self) -> Vec<u8> {
        let mut after = self.before.clone();
        for change in &self.changes {
            let at = change.at as usize;
            // Where a recording was read, changes lie inside.
            if let Some(part) = after.get_mut(at..at + change.bytes.len()) {
                part.copy_from_slice(&change.bytes);
            }
        }
        after
    }
}

impl Event {
    /// About how many bytes it takes in memory.
    pub fn footprint(&self) -> usize {
        let Event::Request(request) = self else {
            return size_of::<Event>();
        };
        let changes = request.changes.iter();
        let changed = changes.map(|change| size_of::<Change>() + change.bytes.len());
        size_of::<Event>() + request.before.len() + changed.sum::<usize>()
    }
}

/// Runs of bytes closer to one another than this are stored as one.
const GAP: usize = 4;

/// What has to be changed in `before` to make it `after`, which is as long.
pub fn changes(before: &[u8], after: &[u8]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let different = before
        .iter()
        .zip(after)
        .enumerate()
        .filter(|(_, (old, new))| old != new);
    for (at, (_, &new)) in different {
        if let Some(last) = changes.last_mut() {
            let end = last.at as usize + last.bytes.len();
            if at < end + GAP {
                last.bytes.extend_from_slice(&after[end..at]);
                last.bytes.push(new);
                continue;
            }
        }
        changes.push(Change {
            at: at as u32,
            bytes: vec![new],
        });
    }
    changes
}

impl Recording {
    /// The node that each description is of, by its index.
    pub fn nodes(&self) -> Vec<Node> {
        let opens = self.events.iter().filter_map(|event| match event {
            Event::Open(open) => Some(open),
            _ => None,
        });
        let mut nodes = vec![Node::Control; self.header.descriptions as usize];
        for open in opens {
            if let Some(node) = nodes.get_mut(open.description as usize) {
                *node = open.node;
            }
        }
        nodes
    }

    /// How many requests it holds; opens are none.
    pub fn requests(&self) -> usize {
        let is_request = |event: &&Event| matches!(event, Event::Request(_));
        self.events.iter().filter(is_request).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_from_one_payload_to_the_other() {
        let before: Vec<u8> = (0..64).collect();
        for altered in [&[][..], &[0], &[63], &[3, 4, 9, 20, 24, 28, 33], &[0, 63]] {
            let mut after = before.clone();
            altered.iter().for_each(|at: &usize| after[*at] ^= 0x80);
            let request = Request {
                by: 0,
                description: 0,
                command: 0,
                reached: Reached::Driver,
                before: before.clone(),
                changes: changes(&before, &after),
                result: 0,
            };
            assert_eq!(request.after(), after);
        }
        assert_eq!(changes(&[1, 2, 3], &[1, 2, 3]), []);
    }

    #[test]
    fn close_changes_are_one() {
        let before = [0; 16];
        let mut after = before;
        (after[1], after[5], after[10]) = (1, 1, 1);
        let starts: Vec<(u32, usize)> = changes(&before, &after)
            .iter()
            .map(|change| (change.at, change.bytes.len()))
            .collect();
        assert_eq!(starts, [(1, 5), (10, 1)]);
    }
}
