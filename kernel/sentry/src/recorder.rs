//! `ringfence record`: what tasks asked of the driver, taken down as it goes by.
//!
//! An event is begun when its call is taken on, which gives it its place, and ended when it is answered. One that is
//! never answered, because its task was killed, leaves no trace. All is kept in memory and written when the sandbox has
//! ended, so that a run is not slowed down by a disk.
//!
//! Descriptions are named by the order in which they were opened. The sentry finds them by the server's handles; UVM's
//! on the real driver, of which the server keeps nothing, bear a mark: the signal that fcntl(2)'s `F_SETSIG` chose for
//! a description, which only a program that wants signals from its descriptors ever looks at.
//!
//! A thread is known by its number. A number that was used by two threads in turn, which takes as many others in
//! between as the kernel has numbers, is taken for one.
//!
//! `unsafe` is here for two fcntls that nix lacks.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_protocol::driver::Driver;
use nvproxy_protocol::requests::{encode_result, number_of};
use ringfence_ipc::locks::IgnorePoison;
use ringfence_recording::layout::{Layout, field, put};
use ringfence_recording::{
    Change, Event, Header, MAXIMUM_FOOTPRINT, NOTHING, Open, Reached, Recording, Request, TooLarge,
    changes,
};

use super::descriptions::{Descriptions, Handle, Identified};
use super::marshalling::Target;
use super::procfs::process_of;
use super::recognition::DeviceOpen;
use crate::failure::Failure;

/// `F_SETSIG` and `F_GETSIG` of asm-generic/fcntl.h.
const SET_SIGNAL: libc::c_int = 10;
const GET_SIGNAL: libc::c_int = 11;
/// The highest signal's number, and so how many descriptions that the server does not keep can be told apart.
const MAXIMUM_MARK: usize = 64;

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not whole, for this reason.
    #[error("{0}")]
    Spoiled(&'static str),
    /// It is longer than any may be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Where a recording goes: a pipe to the launcher, which writes the file.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    pub file: &'a File,
    /// What the user calls the file.
    pub path: &'a Path,
    /// Whether the machine's identifiers stay in the recording.
    pub keep_identifiers: bool,
}

impl Output<'_> {
    /// Writes the recording, all of it or nothing.
    pub fn write(&self, recording: Recording) -> Result<(), Error> {
        let bytes = recording.to_bytes()?;
        let mut file = self.file;
        Ok(file.write_all(&bytes)?)
    }

    /// There is no recording, because of `reason`.
    pub fn failure(&self, reason: &dyn std::fmt::Display) -> Failure {
        Failure::setup(format!(
            "--out {}: the run was not recorded: {reason}",
            self.path.display()
        ))
    }
}

/// An event that was begun: what is needed to end it.
#[derive(Clone, Copy, Debug)]
pub struct Begun(usize);

/// What has been taken down.
pub struct Recorder {
    abi: &'static Abi,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    entries: Vec<Entry>,
    /// By number.
    threads: HashMap<Pid, u32>,
    tasks: HashMap<Pid, u32>,
    /// By thread: its task.
    task_of: Vec<u32>,
    descriptions: u32,
    /// By the server's handle.
    by_handle: HashMap<Handle, u32>,
    /// By mark, less one.
    by_mark: Vec<u32>,
    /// Of all events, as [`Event::footprint`] counts it: a recording holds no more than [`MAXIMUM_FOOTPRINT`], and more
    /// is not kept.
    footprint: usize,
    spoiled: Option<&'static str>,
}

/// An event, and whether it has ended.
struct Entry {
    event: Event,
    substitutions: Vec<Substitution>,
    ended: bool,
}

/// What stood in the program's payload where the normalized one has something else.
struct Substitution {
    at: usize,
    original: Vec<u8>,
    by: Vec<u8>,
}

impl Recorder {
    pub fn new(abi: &'static Abi) -> Recorder {
        Recorder {
            abi,
            taken: Mutex::default(),
        }
    }

    /// A task opens a device node.
    pub fn open(&self, task: Pid, open: DeviceOpen) -> Begun {
        let mut taken = self.taken();
        let by = taken.thread(task);
        let description = taken.descriptions;
        taken.descriptions += 1;
        taken.begin(
            Event::Open(Open {
                by,
                description,
                node: open.node,
                flags: open.flags & (libc::O_NONBLOCK | libc::O_CLOEXEC),
                result: 0,
            }),
            Vec::new(),
        )
    }

    /// The server opened it, as `handle`, or kept nothing, in which case `granted` is marked; or it failed.
    pub fn opened(&self, begun: Begun, opened: Result<(Handle, &OwnedFd), Errno>) {
        let mut taken = self.taken();
        let Some(Entry {
            event: Event::Open(open),
            ended,
            ..
        }) = taken.entries.get_mut(begun.0)
        else {
            return;
        };
        *ended = true;
        let description = open.description;
        match opened {
            Ok((Handle { number: 0, .. }, granted)) => taken.mark(granted, description),
            Ok((handle, _)) => drop(taken.by_handle.insert(handle, description)),
            Err(errno) => open.result = -number_of(errno),
        }
    }

    /// A task makes a request, whose payload was read as far as it `reached`.
    pub fn request(
        &self,
        descriptions: &Descriptions,
        task: Pid,
        target: &Target,
        command: u32,
        payload: &[u8],
    ) -> Option<Begun> {
        let layout = Layout::of(self.abi, target.node(), command, payload);
        let mut before = payload.to_vec();
        let mut substitutions = Vec::new();
        let mut substitute = |at: usize, original: Vec<u8>, by: Vec<u8>| {
            if put(&mut before, at, &by) {
                substitutions.push(Substitution { at, original, by });
            }
        };
        for (at, offset) in layout.pointers() {
            if let Some(original) = field::<8>(payload, at) {
                substitute(at, original.to_vec(), offset.to_ne_bytes().to_vec());
            }
        }
        for descriptor in &layout.descriptors {
            let at = descriptor.at as usize;
            match field::<4>(payload, at) {
                Some(original) if i32::from_ne_bytes(original) >= 0 => {
                    let number = i32::from_ne_bytes(original);
                    // A request on one description of UVM may name another (UVM_MM_INITIALIZE).
                    let on_uvm = matches!(target, Target::Uvm(_));
                    let meant = [false, true]
                        .into_iter()
                        .filter(|look_for_uvm| on_uvm || !look_for_uvm)
                        .find_map(|look_for_uvm| {
                            let identified = descriptions.identify(task, number, look_for_uvm);
                            self.index(&identified.ok()?)
                        });
                    let meant = meant.map_or(NOTHING, |index| index as i32);
                    substitute(at, original.to_vec(), meant.to_ne_bytes().to_vec());
                }
                _ => {}
            }
        }
        let description = match target {
            Target::Device(description) => self.taken().by_handle.get(&description.handle).copied(),
            Target::Uvm(copy) => self.taken().marked(copy),
        };
        let mut taken = self.taken();
        let by = taken.thread(task);
        let request = Request {
            by,
            // A description that was passed in from outside the sandbox is none that a replay could have.
            description: description?,
            command,
            reached: Reached::Driver,
            before,
            changes: Vec::new(),
            result: 0,
        };
        Some(taken.begin(Event::Request(request), substitutions))
    }

    /// The driver answered a request; `payload` is what it left, if it was successful.
    pub fn answered(&self, begun: Begun, outcome: Result<i32, Errno>, payload: &[u8]) {
        let mut taken = self.taken();
        taken.end(begun, |request, substitutions| {
            request.result = encode_result(outcome) as i32;
            if outcome.is_ok() && payload.len() == request.before.len() {
                let mut after = payload.to_vec();
                for Substitution { at, original, by } in substitutions {
                    if after.get(*at..*at + original.len()) == Some(original) {
                        put(&mut after, *at, by);
                    }
                }
                request.changes = changes(&request.before, &after);
            }
        });
    }

    /// Ringfence itself answered a request: with this outcome, after it wrote `status` into the argument.
    pub fn stopped(
        &self,
        begun: Begun,
        reached: Reached,
        outcome: Result<i32, Errno>,
        status: Option<(u32, u32)>,
    ) {
        let mut taken = self.taken();
        taken.end(begun, |request, _| {
            request.reached = reached;
            request.result = encode_result(outcome) as i32;
            if let Some((at, status)) = status
                && field::<4>(&request.before, at as usize).is_some()
            {
                let bytes = status.to_ne_bytes().to_vec();
                request.changes = vec![Change { at, bytes }];
            }
        });
    }

    /// Tasks let go of the description that the server calls `handle`.
    pub fn closed(&self, handle: Handle) {
        let mut taken = self.taken();
        if let Some(description) = taken.by_handle.remove(&handle) {
            let begun = taken.begin(Event::Close { description }, Vec::new());
            if let Some(entry) = taken.entries.get_mut(begun.0) {
                entry.ended = true;
            }
        }
    }

    /// What was taken down of the sandbox that ran `command`. Fails if it is not whole.
    pub fn finish(&self, driver: &Driver, command: &[OsString]) -> Result<Recording, Error> {
        let mut taken = self.taken();
        if let Some(reason) = taken.spoiled {
            return Err(Error::Spoiled(reason));
        }
        if taken.footprint > MAXIMUM_FOOTPRINT {
            return Err(TooLarge.into());
        }
        let header = Header {
            driver: driver.version,
            tables: driver.tables,
            capabilities: driver.capabilities,
            firmware_commands: driver.firmware_commands,
            command: command.iter().map(|word| word.clone().into_vec()).collect(),
            gpus: driver.minors(),
            scrubbed: false,
            threads: std::mem::take(&mut taken.task_of),
            descriptions: taken.descriptions,
        };
        let entries = std::mem::take(&mut taken.entries);
        let ended = entries.into_iter().filter(|entry| entry.ended);
        Ok(Recording {
            header,
            events: ended.map(|entry| entry.event).collect(),
        })
    }

    fn index(&self, identified: &Identified) -> Option<u32> {
        match identified {
            Identified::Device(description) => {
                self.taken().by_handle.get(&description.handle).copied()
            }
            // An open-only node's is foreign. No task can mark anything.
            Identified::Uvm(copy) | Identified::Foreign(copy) => self.taken().marked(copy),
            Identified::Closed => None,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().ignore_poison()
    }
}

impl Taken {
    fn begin(&mut self, event: Event, substitutions: Vec<Substitution>) -> Begun {
        self.footprint += event.footprint();
        let begun = Begun(self.entries.len());
        if self.footprint <= MAXIMUM_FOOTPRINT {
            self.entries.push(Entry {
                event,
                substitutions,
                ended: false,
            });
        }
        begun
    }

    fn end(&mut self, begun: Begun, end: impl FnOnce(&mut Request, &[Substitution])) {
        let Some(entry) = self.entries.get_mut(begun.0) else {
            return;
        };
        let before = entry.event.footprint();
        if let Event::Request(request) = &mut entry.event {
            let substitutions = std::mem::take(&mut entry.substitutions);
            end(request, &substitutions);
            entry.ended = true;
        }
        self.footprint += entry.event.footprint().saturating_sub(before);
    }

    /// The index of a thread, by the number under which it made a call.
    fn thread(&mut self, thread: Pid) -> u32 {
        if let Some(index) = self.threads.get(&thread) {
            return *index;
        }
        let next = self.tasks.len() as u32;
        let task = *self
            .tasks
            .entry(process_of(thread).unwrap_or(thread))
            .or_insert(next);
        let index = self.task_of.len() as u32;
        self.task_of.push(task);
        self.threads.insert(thread, index);
        index
    }

    fn mark(&mut self, granted: &OwnedFd, description: u32) {
        self.by_mark.push(description);
        let mark = self.by_mark.len();
        // SAFETY: F_SETSIG takes a number.
        let result = unsafe { libc::fcntl(granted.as_raw_fd(), SET_SIGNAL, mark as libc::c_int) };
        if mark > MAXIMUM_MARK || result != 0 {
            self.spoiled = Some(
                "the program opened nvidia-uvm and open-only nodes more often than a recording can tell apart: \
                 record less of it",
            );
        }
    }

    fn marked(&self, copy: &OwnedFd) -> Option<u32> {
        // SAFETY: F_GETSIG takes no argument.
        let mark = unsafe { libc::fcntl(copy.as_raw_fd(), GET_SIGNAL) };
        let at = usize::try_from(mark).ok()?.checked_sub(1)?;
        self.by_mark.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvproxy_abi::node::Node;
    use nvproxy_abi::policy::Capabilities;

    fn memory() -> OwnedFd {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        memfd_create(c"test", MFdFlags::MFD_CLOEXEC).expect("a memory file")
    }

    fn recorder() -> Recorder {
        let version = "580.142".parse().expect("a version");
        Recorder::new(Abi::of_release(&version, Capabilities::ALL).expect("tables"))
    }

    fn open_uvm(recorder: &Recorder, granted: &OwnedFd) {
        let open = DeviceOpen {
            node: Node::Uvm,
            flags: libc::O_RDWR | libc::O_CLOEXEC,
        };
        let begun = recorder.open(Pid::this(), open);
        let handle = Handle {
            server: 0,
            number: 0,
        };
        recorder.opened(begun, Ok((handle, granted)));
    }

    #[test]
    fn what_the_server_does_not_keep_is_told_apart_by_marks() {
        let recorder = recorder();
        let granted: Vec<OwnedFd> = (0..MAXIMUM_MARK).map(|_| memory()).collect();
        granted
            .iter()
            .for_each(|granted| open_uvm(&recorder, granted));
        for (index, granted) in granted.iter().enumerate() {
            let copy = granted.try_clone().expect("a duplicate");
            assert_eq!(recorder.taken().marked(&copy), Some(index as u32));
        }
        assert_eq!(recorder.taken().marked(&memory()), None);
        assert_eq!(recorder.taken().spoiled, None);
        open_uvm(&recorder, &memory());
        assert!(recorder.taken().spoiled.is_some());
    }

    #[test]
    fn an_event_that_has_not_ended_leaves_no_trace() {
        let recorder = recorder();
        let open = DeviceOpen {
            node: Node::Control,
            flags: libc::O_RDWR | libc::O_NONBLOCK,
        };
        recorder.open(Pid::this(), open);
        let failed = recorder.open(Pid::this(), open);
        recorder.opened(failed, Err(Errno::ENODEV));
        let taken = recorder.taken();
        let ended: Vec<&Event> = taken
            .entries
            .iter()
            .filter(|entry| entry.ended)
            .map(|entry| &entry.event)
            .collect();
        let expected = Event::Open(Open {
            by: 0,
            description: 1,
            node: Node::Control,
            flags: libc::O_NONBLOCK,
            result: -(Errno::ENODEV as i32),
        });
        assert_eq!(ended, [&expected]);
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = nix::unistd::gettid();
        assert_eq!(process_of(own), Some(Pid::this()));
        let other = std::thread::spawn(nix::unistd::gettid)
            .join()
            .expect("a thread");
        assert_ne!(other, Pid::this());
    }
}
