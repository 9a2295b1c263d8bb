//! The text of a trace: the JSON Array Format of the Trace Event Format.
//!
//! An array, because of all forms only this may lack its end: what was written of a sandbox that was killed can be
//! opened. It is written in pieces that end with an event, and that a pipe takes whole or not. It ends with the first event
//! that it has no room for.
//!
//! The launcher takes what is written. If it takes nothing for [`GRACE`], events are left out until it does, and one says so;
//! when the sandbox ends, all is written, as long as that takes.
//!
//! Times are microseconds since the sandbox started, rounded down to eighths: the finest fractions that are exact as
//! floating-point numbers and as whole nanoseconds, so that spans which follow one another do so for every reader.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nvproxy_abi::status;
use nvproxy_protocol::clock;
use ringfence_faults::{Point, number};
use serde::Serialize;

use super::Output;
use super::{Entry, Message, Track};
use crate::log::{GRACE, wait_for_room};
use crate::warnings::warn_once;

/// How long a trace may get, in bytes.
const MAXIMUM_LENGTH: u32 = 1 << 30;
/// What the last two lines of a trace take at most.
const RESERVED: u64 = 256;
/// At most so many bytes are written at once: as many as a pipe takes whole or not (pipe(7)). The lines of a request are fewer.
const PIECE: usize = libc::PIPE_BUF;
/// How long an event waits for others that are written with it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Names that are remembered, so that they are written once. Further ones make this start over.
const REMEMBERED: usize = 1 << 16;

/// An event of the format.
#[derive(Serialize)]
struct Event<'a, A> {
    name: &'a str,
    /// `X`: a span, `M`: a name, `i`: a moment.
    #[serde(rename = "ph")]
    form: char,
    #[serde(rename = "cat", skip_serializing_if = "Option::is_none")]
    category: Option<&'static str>,
    #[serde(rename = "pid")]
    process: i32,
    #[serde(rename = "tid")]
    thread: i32,
    #[serde(rename = "ts", skip_serializing_if = "Option::is_none")]
    start: Option<f64>,
    #[serde(rename = "dur", skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<A>,
}

/// What a trace says of a request.
#[derive(Serialize)]
struct About<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<usize>,
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
}

/// What a process or a thread is called.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

/// Writes a trace.
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Bytes that the file has.
    written: u64,
    maximum: u64,
    /// Events that are to be written next, each with what separates it from the one before.
    buffer: Vec<u8>,
    has_events: bool,
    /// Nothing more is taken in.
    is_full: bool,
    /// The file takes nothing more.
    is_broken: bool,
    /// The launcher takes nothing at the moment.
    is_behind: bool,
    /// How many requests were left out since something was written last.
    missing: u64,
    /// When the trace began, in nanoseconds of the clock.
    origin: u64,
    names: HashMap<(Track, &'static str), String>,
}

impl Writer {
    /// A writer to `output`, of times since `origin`.
    pub fn new(output: &Output<'_>, origin: u64) -> io::Result<Writer> {
        Ok(Writer {
            path: output.path.to_owned(),
            file: output.file.try_clone()?,
            written: output.written,
            maximum: number(Point::Trace, MAXIMUM_LENGTH).into(),
            buffer: Vec::new(),
            has_events: false,
            is_full: false,
            is_broken: false,
            is_behind: false,
            missing: 0,
            origin,
            names: HashMap::new(),
        })
    }

    /// Writes what comes in, until the end.
    pub fn write_all(mut self, receiver: &Receiver<Message>) {
        let mut due = None;
        loop {
            let message = match due {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => {
                    let left = Instant::saturating_duration_since(&due, Instant::now());
                    receiver.recv_timeout(left)
                }
            };
            match message {
                Ok(Message::Names {
                    track,
                    process,
                    thread,
                }) => self.names(track, process, thread),
                Ok(Message::Request(track, entry)) => self.request(track, &entry),
                // Who waits for the end is told by the drop of what it sent.
                Ok(Message::End(_waiting)) => return self.end(),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    self.flush(Some(GRACE));
                    due = None;
                }
            }
            due = match due {
                _ if self.buffer.is_empty() => None,
                None => Some(Instant::now() + PATIENCE),
                due => due,
            };
        }
    }

    fn names(&mut self, track: Track, process: String, thread: String) {
        let start = self.moment(clock::now());
        let of_process = Track { thread: 0, ..track };
        if self.names.len() >= REMEMBERED {
            self.names.clear();
        }
        for (key, event, name) in [
            (of_process, "process_name", process),
            (track, "thread_name", thread),
        ] {
            if self.names.get(&(key, event)) == Some(&name) {
                continue;
            }
            let text = line(&Event {
                name: event,
                form: 'M',
                category: None,
                process: track.process,
                thread: track.thread,
                start: None,
                duration: None,
                args: Some(Named { name: &name }),
            });
            self.add(track, &text, start);
            if !self.is_behind {
                self.names.insert((key, event), name);
            }
        }
    }

    fn request(&mut self, track: Track, entry: &Entry) {
        let readings = &entry.readings;
        let about = About {
            kind: entry.kind,
            node: entry.node.file_name(),
            payload: entry.payload,
            outcome: match entry.outcome {
                Ok(0) => "ok".to_owned(),
                Ok(value) => value.to_string(),
                Err(errno) => format!("{errno:?}"),
            },
            status: entry.status.map(|code| match status::name(code) {
                Some(name) => name.to_owned(),
                None => format!("{code:#x}"),
            }),
            refusal: entry.refusal.as_deref(),
        };
        let whole = (readings.start(), readings.end());
        // Whoever draws spans takes the first of those that begin together for the outer one.
        let mut text = line(&self.span(track, &entry.name, "request", whole, Some(about)));
        for (phase, begin, end) in readings.spans() {
            let span: Event<'_, ()> = self.span(track, phase.name(), "phase", (begin, end), None);
            text.extend(line(&span));
        }
        self.add(track, &text, self.moment(whole.0));
    }

    fn span<'a, A>(
        &self,
        track: Track,
        name: &'a str,
        category: &'static str,
        (begin, end): (u64, u64),
        args: Option<A>,
    ) -> Event<'a, A> {
        let (start, end) = (self.moment(begin), self.moment(end));
        Event {
            name,
            form: 'X',
            category: Some(category),
            process: track.process,
            thread: track.thread,
            start: Some(start),
            duration: Some(end - start),
            args,
        }
    }

    /// A moment of the clock as the trace names it.
    fn moment(&self, nanoseconds: u64) -> f64 {
        let eighths = nanoseconds.saturating_sub(self.origin) / 125;
        eighths as f64 / 8.0
    }

    /// Takes in lines of a track that belong together and begin at `start`, if there is room for them.
    fn add(&mut self, track: Track, text: &[u8], start: f64) {
        if self.is_full || self.is_broken {
            return;
        }
        if self.buffer.len() + text.len() > PIECE {
            self.flush(Some(GRACE));
        }
        if self.is_behind {
            self.missing += 1;
            return;
        }
        self.admit(track, start);
        let length = self.written + (self.buffer.len() + text.len()) as u64;
        if length + RESERVED > self.maximum {
            self.is_full = true;
            self.put(&note("the trace has its greatest length", track, start));
            warn_once(
                "--trace",
                format!(
                    "{}: it has its greatest length, {} bytes: what follows is missing",
                    self.path.display(),
                    self.maximum
                ),
            );
            return;
        }
        self.put(text);
    }

    /// Says how many requests are missing here, if any are.
    fn admit(&mut self, track: Track, start: f64) {
        let missing = std::mem::take(&mut self.missing);
        if missing > 0 {
            let name = format!("{missing} requests or names are missing before this");
            self.put(&note(&name, track, start));
        }
    }

    /// Puts lines into the buffer, of which the first of all needs nothing to separate it.
    fn put(&mut self, text: &[u8]) {
        let separated = if self.has_events { 0 } else { 1 };
        self.has_events = true;
        self.buffer.extend(text.iter().skip(separated));
    }

    /// Writes what is to be written next. Waits until it is taken, at most for `limit`.
    fn flush(&mut self, limit: Option<Duration>) {
        while !self.buffer.is_empty() && !self.is_broken {
            match self.file.write(&self.buffer) {
                Ok(length) => {
                    self.written += length as u64;
                    self.buffer.drain(..length);
                    self.is_behind = false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // It was waited for once already.
                    let limit = limit.map(|limit| {
                        if self.is_behind {
                            Duration::ZERO
                        } else {
                            limit
                        }
                    });
                    if !wait_for_room(self.file.as_fd(), limit) {
                        self.is_behind = true;
                        return;
                    }
                }
                // The launcher is gone.
                Err(_) => self.is_broken = true,
            }
        }
    }

    fn end(mut self) {
        self.flush(None);
        let nobody = Track {
            process: 0,
            thread: 0,
        };
        self.admit(nobody, self.moment(clock::now()));
        self.buffer.extend_from_slice(b"\n]\n");
        self.flush(None);
    }
}

/// A line that says what became of the trace itself.
fn note(name: &str, track: Track, start: f64) -> Vec<u8> {
    line::<()>(&Event {
        name,
        form: 'i',
        category: Some("trace"),
        process: track.process,
        thread: track.thread,
        start: Some(start),
        duration: None,
        args: None,
    })
}

/// An event in a line of its own, and before that what separates it from the one before.
fn line<A: Serialize>(event: &Event<'_, A>) -> Vec<u8> {
    let mut text = b",\n".to_vec();
    // Numbers and strings always become text, and the vector takes it.
    if serde_json::to_writer(&mut text, event).is_err() {
        text.clear();
    }
    text
}
