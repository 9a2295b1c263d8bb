//! The program of a replay: makes the recorded tasks and threads, and has each do what it did, in the recorded order.
//!
//! The tasks are processes of their own that share their descriptors (clone(2), `CLONE_FILES`), so that a description
//! which one opened is at hand for all, under one number, whichever way it got to them when it was recorded. At any time
//! one thread has the turn; it passes it on through the pipe of the thread whose event is next.
//!
//! `unsafe` is here because ioctl takes an address.

#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::IntoRawFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::table::Role;
use nvproxy_protocol::requests::encode_result;
use nvproxy_server::process::raise_descriptor_limit;
use ringfence_recording::layout::{Layout, field, put};
use ringfence_recording::report::{Difference, Line, Progress, Report, Side, What, compare};
use ringfence_recording::{Event, NOTHING, Open, Reached, Recording, Request};
use ringfence_sentry::failure::{Attempt, Failure};
use zerocopy::IntoBytes;

use super::translation::Translation;
use crate::launch::namespaces::fork_with;

/// An address at which no process has memory (mmap_min_addr).
const NOWHERE: u64 = 16;
/// The most bytes of an ioctl's argument, by the size in its command word (asm-generic/ioctl.h).
const MAXIMUM_ARGUMENT: usize = 1 << 14;

/// What the launcher tells the program.
#[derive(Clone, Debug)]
pub struct Paths {
    pub recording: PathBuf,
    pub progress: PathBuf,
    pub report: PathBuf,
    /// Whether the driver that answers is another than the recorded one.
    pub translate: bool,
}

/// Replays a recording. The status is 0 if it could be replayed, whatever differed.
pub fn run(paths: &Paths) -> Result<u8, Failure> {
    let recording = super::read(&paths.recording)?;
    let abi = recording.header.abi().attempt("the driver's tables")?;
    let progress = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&paths.progress);
    let report = OpenOptions::new().append(true).open(&paths.report);
    let player = Player {
        abi,
        nodes: recording.nodes(),
        schedule: schedule(&recording.events),
        recording,
        translate: paths.translate,
        progress: Progress::new(progress.attempt("the replay's progress")?),
        report: Report::new(report.attempt("the replay's report")?),
    };
    let played = player.play();
    let line = match &played {
        Ok(()) => Line::Finished,
        Err(failure) => Line::Failed(failure.message.clone()),
    };
    player.report.append(&line).attempt("the replay's report")?;
    played.map(|()| 0)
}

/// The thread of each event. A close is made by whoever came before.
fn schedule(events: &[Event]) -> Vec<u32> {
    let mut last = 0;
    let thread = |event: &Event| {
        last = match event {
            Event::Open(open) => open.by,
            Event::Request(request) => request.by,
            Event::Close { .. } => last,
        };
        last
    };
    events.iter().map(thread).collect()
}

/// Where a thread waits for its turn, and how others give it one.
struct Turns {
    readers: Vec<PipeReader>,
    writers: Vec<PipeWriter>,
}

impl Turns {
    fn new(threads: usize) -> std::io::Result<Turns> {
        let pipes: std::io::Result<Vec<_>> = (0..threads).map(|_| std::io::pipe()).collect();
        let (readers, writers) = pipes?.into_iter().unzip();
        Ok(Turns { readers, writers })
    }

    fn wait(&self, thread: u32) -> std::io::Result<()> {
        let reader = self.readers.get(thread as usize);
        let mut reader = reader.ok_or(std::io::ErrorKind::NotFound)?;
        reader.read_exact(&mut [0])
    }

    fn give(&self, thread: u32) -> std::io::Result<()> {
        let writer = self.writers.get(thread as usize);
        let mut writer = writer.ok_or(std::io::ErrorKind::NotFound)?;
        writer.write_all(&[0])
    }
}

/// What all tasks and threads have.
struct Player {
    abi: &'static Abi,
    recording: Recording,
    nodes: Vec<Node>,
    /// By event: its thread.
    schedule: Vec<u32>,
    /// Whether what the driver hands out differs from what was recorded.
    translate: bool,
    progress: Progress,
    report: Report,
}

impl Player {
    /// Starts the tasks, and waits until they have done everything.
    fn play(&self) -> Result<(), Failure> {
        let Some(first) = self.schedule.first() else {
            return Ok(());
        };
        raise_descriptor_limit().map_err(Failure::setup)?;
        let threads = &self.recording.header.threads;
        let turns = Turns::new(threads.len()).attempt("pipes for as many threads")?;
        let mut tasks = Vec::new();
        for task in 0..self.recording.header.tasks() as u32 {
            tasks.push(self.start_task(task, &turns)?);
        }
        turns.give(*first).attempt("a turn")?;
        for _ in &tasks {
            // Whichever ends first: one that failed leaves others waiting for their turn for ever.
            match waitpid(None::<Pid>, None).attempt("waiting for a task")? {
                WaitStatus::Exited(_, 0) => {}
                other => return Err(Failure::setup(format!("a task ended: {other:?}"))),
            }
        }
        Ok(())
    }

    fn start_task(&self, task: u32, turns: &Turns) -> Result<Pid, Failure> {
        match fork_with(CloneFlags::CLONE_FILES).attempt("starting a task")? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => {
                let status = match self.be_task(task, turns) {
                    Ok(()) => 0,
                    Err(error) => {
                        // If this fails too, the status tells.
                        let _ = self.report.append(&Line::Failed(error.to_string()));
                        1
                    }
                };
                // Nothing is dropped: its descriptors are those of the others, too.
                std::process::exit(status);
            }
        }
    }

    fn be_task(&self, task: u32, turns: &Turns) -> std::io::Result<()> {
        let threads = self.recording.header.threads.iter().zip(0u32..);
        let mut threads = threads
            .filter(|(of, _)| **of == task)
            .map(|(_, thread)| thread);
        let first = threads.next();
        std::thread::scope(|scope| {
            let others: std::io::Result<Vec<_>> = threads
                .map(|thread| {
                    let builder = std::thread::Builder::new().stack_size(256 << 10);
                    builder.spawn_scoped(scope, move || self.be_thread(thread, turns))
                })
                .collect();
            let others = others?;
            first.map_or(Ok(()), |thread| self.be_thread(thread, turns))?;
            others.into_iter().try_for_each(|other| {
                let joined = other.join();
                joined.unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked")))
            })
        })
    }

    /// Does what `thread` did.
    fn be_thread(&self, thread: u32, turns: &Turns) -> std::io::Result<()> {
        let mut has_turn = false;
        for (sequence, event) in self.recording.events.iter().enumerate() {
            if self.schedule.get(sequence) != Some(&thread) {
                continue;
            }
            if !has_turn {
                turns.wait(thread)?;
            }
            self.progress.set_event(sequence as u64)?;
            self.replay(sequence as u64, event)?;
            let next = self.schedule.get(sequence + 1);
            has_turn = next == Some(&thread);
            if let (Some(next), false) = (next, has_turn) {
                turns.give(*next)?;
            }
        }
        Ok(())
    }

    fn replay(&self, sequence: u64, event: &Event) -> std::io::Result<()> {
        let differences = match event {
            Event::Open(open) => self.open(open)?,
            Event::Request(request) => self.request(request)?,
            Event::Close { description } => {
                let number = self.progress.descriptor(*description);
                if number >= 0 {
                    self.progress.set_descriptor(*description, -1)?;
                    close(number)?;
                }
                Vec::new()
            }
        };
        differences.into_iter().try_for_each(|what| {
            self.report.append(&Line::Difference(Difference {
                sequence,
                seen_by: Side::Program,
                what,
            }))
        })
    }

    fn open(&self, recorded: &Open) -> std::io::Result<Vec<What>> {
        let path = format!("/dev/{}", recorded.node.file_name());
        let flags = OFlag::O_RDWR | OFlag::from_bits_truncate(recorded.flags);
        let opened = open(path.as_str(), flags, Mode::empty());
        let got = opened.as_ref().map(|_| 0).map_err(|errno| *errno);
        if let Ok(opened) = opened {
            self.progress
                .set_descriptor(recorded.description, opened.into_raw_fd())?;
        }
        Ok(compare_results(recorded.result, got).into_iter().collect())
    }

    /// Makes a request, with real buffers and descriptors, and compares what comes back.
    fn request(&self, recorded: &Request) -> std::io::Result<Vec<What>> {
        let node = self.nodes.get(recorded.description as usize);
        let node = node.copied().unwrap_or(Node::Control);
        let layout = Layout::of(self.abi, node, recorded.command, &recorded.before);
        // Buffers that were not reached lie behind the payload, as far as there is room.
        let length = recorded.before.len() + MAXIMUM_ARGUMENT;
        let mut words = vec![0u64; length.div_ceil(8)];
        let base = words.as_mut_ptr() as u64;
        let bytes = words.as_mut_bytes();
        put(bytes, 0, &recorded.before);
        let mut translation = self
            .translate
            .then(|| Translation::known(&self.progress, recorded.command, &layout));
        if let (Some(translation), Some(payload)) =
            (&translation, bytes.get_mut(..recorded.before.len()))
        {
            translation.to_actual(payload);
        }
        let argument = match recorded.reached {
            Reached::Unreadable if last_read(&layout, &recorded.before) == 0 => NOWHERE,
            _ => base,
        };
        let substitutions = self.substitute(recorded, &layout, base, bytes);
        let number = self.progress.descriptor(recorded.description);
        // SAFETY: the argument points to memory that is long enough for any argument and outlives the call, or nowhere;
        // so do the pointers in it.
        let result = unsafe { libc::ioctl(number, recorded.command as libc::Ioctl, argument) };
        let got = Errno::result(result);
        let Some(after) = words.as_mut_bytes().get_mut(..recorded.before.len()) else {
            return Ok(Vec::new());
        };
        for (at, normal, actual) in &substitutions {
            if after.get(*at..*at + actual.len()) == Some(actual) {
                put(after, *at, normal);
            }
        }
        for descriptor in &layout.descriptors {
            let at = descriptor.at as usize;
            if let (Role::Result, Some(named)) = (descriptor.role, field(&recorded.before, at)) {
                close_made(after, at, named);
            }
        }
        let expected = recorded.after();
        if let Some(translation) = &mut translation {
            translation.learn([&recorded.before, &expected, after])?;
            translation.to_recorded(after);
        }
        let mut differences = compare(&expected, after);
        differences.extend(compare_results(recorded.result, got));
        Ok(differences)
    }

    /// Puts addresses and descriptors where the payload in `bytes`, which lies at `base`, has offsets and indices.
    /// Returns what was put where, each with what was there.
    fn substitute(
        &self,
        recorded: &Request,
        layout: &Layout,
        base: u64,
        bytes: &mut [u8],
    ) -> Vec<(usize, Vec<u8>, Vec<u8>)> {
        let unreadable =
            (recorded.reached == Reached::Unreadable).then(|| last_read(layout, &recorded.before));
        let mut substitutions = Vec::new();
        for (at, offset) in layout.pointers() {
            let address = if unreadable == Some(offset) {
                NOWHERE
            } else {
                base + offset
            };
            let (normal, actual) = (offset.to_ne_bytes(), address.to_ne_bytes());
            if put(bytes, at, &actual) {
                substitutions.push((at, normal.to_vec(), actual.to_vec()));
            }
        }
        for descriptor in &layout.descriptors {
            let at = descriptor.at as usize;
            let index = field(&recorded.before, at).map_or(NOTHING, i32::from_ne_bytes);
            if let Ok(index) = u32::try_from(index)
                && index != NOTHING as u32
            {
                let actual = self.progress.descriptor(index).to_ne_bytes();
                put(bytes, at, &actual);
                substitutions.push((at, index.to_ne_bytes().to_vec(), actual.to_vec()));
            }
        }
        substitutions
    }
}

/// Closes what was made for a request, whose number is at `at`, where the program had `named`. The number itself is not compared.
fn close_made(after: &mut [u8], at: usize, named: [u8; 4]) {
    let made = field(after, at).map_or(-1, i32::from_ne_bytes);
    if i32::from_ne_bytes(named) < 0 && made >= 0 {
        let _ = close(made);
        put(after, at, &named);
    }
}

/// The offset of the last buffer that was read: with [`Reached::Unreadable`], the one that could not be.
fn last_read(layout: &Layout, payload: &[u8]) -> u64 {
    let mut read = layout.segments.iter().filter(|segment| {
        segment.length > 0 && (segment.offset + segment.length) as usize <= payload.len()
    });
    read.next_back()
        .map_or(0, |segment| u64::from(segment.offset))
}

fn compare_results(expected: i32, got: Result<i32, Errno>) -> Option<What> {
    let got = encode_result(got) as i32;
    (expected != got).then_some(What::Result { expected, got })
}
