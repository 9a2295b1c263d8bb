//! `--trace`: what became of each request, and when, as a file that Perfetto and chrome://tracing open.
//!
//! The thread that finishes a request hands an [`Entry`] to one thread, the `writer`, which makes text of it. There is
//! room for a fixed number of entries in between: memory does not grow with the run. Who finds no room waits, so that a disk
//! which is a little slow slows the program down, and nothing is left out. A launcher that takes nothing, because it
//! was stopped, does not: then entries are left out, and the trace says how many.
//!
//! A thread of a program is named by the numbers that the program itself sees. They are looked up when the thread makes
//! its first request and each time that it opens a node, which a program does anew once it was executed. In between, a
//! number that was used by two threads in turn is taken for one.

mod writer;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use nvproxy_protocol::clock;
use ringfence_ipc::locks::IgnorePoison;

use self::writer::Writer;
use super::procfs;
use super::times::Readings;
use crate::failure::{Attempt, Failure};

/// Entries that wait to be written.
const WAITING: usize = 1024;
/// Threads that are remembered. Further ones make this start over, at the cost of looking them up again.
const REMEMBERED: usize = 1 << 16;

/// A request that is over.
pub struct Entry {
    /// What requests of its kind are called, if the kind is known.
    pub kind: Option<&'static str>,
    pub name: Cow<'static, str>,
    /// What it was made on.
    pub node: Node,
    /// How many bytes of task memory it was copied from, if that was done to the end.
    pub payload: Option<usize>,
    /// What the system call returned.
    pub outcome: Result<i64, Errno>,
    /// The NV_STATUS in the answer, if there is one.
    pub status: Option<u32>,
    /// Why it was not passed on, if that is the tables' doing.
    pub refusal: Option<String>,
    pub readings: Readings,
}

/// A thread by the numbers of its own process namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Track {
    process: i32,
    thread: i32,
}

/// What the writer is told.
enum Message {
    /// What a process and its thread are called by now.
    Names {
        track: Track,
        process: String,
        thread: String,
    },
    Request(Track, Entry),
    /// Nothing follows; the writer hangs up when all is written.
    End(SyncSender<()>),
}

/// Where a trace goes: a pipe to the launcher, which writes the file.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    pub file: &'a File,
    /// What the user calls the file.
    pub path: &'a Path,
    /// How many bytes of it are written: the beginning of an array.
    pub written: u64,
}

/// Hands requests to the writer.
pub struct Tracer {
    sender: SyncSender<Message>,
    /// By the numbers of the sentry's process namespace.
    tracks: Mutex<HashMap<Pid, Track>>,
}

impl Tracer {
    /// Starts the thread that writes to `output`.
    pub fn start(output: &Output<'_>) -> Result<Tracer, Failure> {
        let writer = Writer::new(output, clock::now()).attempt("the trace's file")?;
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        let thread = thread::Builder::new().name("trace".to_owned());
        let started = thread.spawn(move || writer.write_all(&receiver));
        started.attempt("a thread")?;
        Ok(Tracer {
            sender,
            tracks: Mutex::default(),
        })
    }

    /// Takes in a request of the thread `task`, which must not have gone on.
    pub fn take(&self, task: Pid, entry: Entry) {
        let track = self.track(task, entry.kind == Some("open"));
        self.send(Message::Request(track, entry));
    }

    /// Waits until everything is written that was taken in before.
    pub fn finish(&self) {
        let (sender, written) = mpsc::sync_channel(0);
        self.send(Message::End(sender));
        // Nothing is ever sent: this returns when the writer hangs up.
        let _ = written.recv();
    }

    fn track(&self, task: Pid, is_to_look_again: bool) -> Track {
        let mut tracks = self.tracks.lock().ignore_poison();
        let known = tracks.get(&task).copied();
        if let Some(track) = known.filter(|_| !is_to_look_again) {
            return track;
        }
        let (track, leader) = look_up(task);
        if tracks.len() >= REMEMBERED {
            tracks.clear();
        }
        tracks.insert(task, track);
        drop(tracks);
        self.send(Message::Names {
            track,
            process: command_of(leader),
            thread: command_of(task),
        });
        track
    }

    fn send(&self, message: Message) {
        // The writer is gone once it was told of the end.
        let _ = self.sender.send(message);
    }
}

/// The numbers of a thread in its own process namespace, and its process's in the sentry's (proc_pid_status(5)). Of a
/// thread that was killed meanwhile all are the sentry's number for it.
fn look_up(task: Pid) -> (Track, Pid) {
    let status = procfs::text(task, "status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        // One number for each namespace, the innermost last.
        line.split_whitespace().next_back()?.parse().ok()
    };
    let own = task.as_raw();
    let track = Track {
        process: field("NStgid:").unwrap_or(own),
        thread: field("NSpid:").unwrap_or(own),
    };
    (track, Pid::from_raw(field("Tgid:").unwrap_or(own)))
}

/// What a thread calls itself (proc_pid_comm(5)): up to 15 bytes of any value.
fn command_of(thread: Pid) -> String {
    let mut name = procfs::text(thread, "comm");
    // The file's own newline.
    name.pop();
    name
}
