//! The third backend: one that answers as a driver was recorded to have answered.
//!
//! The program that replays a recording says which event is next ([`Progress`]) and issues one request at a time. What
//! arrives here is compared with what was recorded, byte for byte; what differs goes to the [`Report`], and the recorded
//! answer is given all the same. A description's number in requests is its index in the recording, so that payloads
//! arrive normalized but for their pointers.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_protocol::options::Replay;
use nvproxy_protocol::requests::decode_result;
use nvproxy_sim::backing::{Backing, Inode, OwnDescriptors, memory_file};
use ringfence_ipc::locks::IgnorePoison;
use ringfence_recording::layout::{Layout, field, put};
use ringfence_recording::report::{Difference, Line, Progress, Report, Side, What, compare};
use ringfence_recording::{Event, Reached, ReadError, Recording, Request};

use nvproxy_server::backend::handover::Enclosures;
use nvproxy_server::backend::{
    self, Backend, BackendFactory, Call, DeviceFile, OpenFlags, Opened, Restore,
};
use nvproxy_server::version_check::Check;

/// Why there is no driver that answers as was recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recording cannot be read.
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    /// The file is no recording.
    #[error("{}: {source}", .path.display())]
    Recording { path: PathBuf, source: ReadError },
    /// It is not known how far the replay is.
    #[error("the replay's progress: {0}")]
    Progress(#[source] io::Error),
    /// Nothing can be said of what differs.
    #[error("the replay's report: {0}")]
    Report(#[source] io::Error),
    /// Its files cannot be opened anew.
    #[error("/proc/self/fd: {0}")]
    OwnDescriptors(#[source] Errno),
    /// None of this can be saved: a replay is over before there is a reason to.
    #[error("a replay cannot be handed over")]
    NoHandover,
}

impl From<Error> for backend::Error {
    fn from(error: Error) -> backend::Error {
        backend::Error::Driver(Box::new(error))
    }
}

/// How a server comes to a driver that was recorded.
pub struct Factory(pub Replay);

impl BackendFactory for Factory {
    fn nodes(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn make(&self, abi: &'static Abi) -> Result<Arc<dyn Backend>, backend::Error> {
        Ok(Arc::new(Recorded::new(&self.0, abi)?))
    }

    fn prepare_to_restore(&self, _: &'static Abi) -> Result<Restore, backend::Error> {
        Err(Error::NoHandover.into())
    }
}

/// A driver that was recorded.
pub struct Recorded(Arc<Shared>);

struct Shared {
    abi: &'static Abi,
    events: Vec<Event>,
    progress: Progress,
    report: Report,
    own_descriptors: OwnDescriptors,
    open: Mutex<BTreeMap<Inode, Weak<Description>>>,
}

impl Recorded {
    /// Opens the files.
    pub fn new(replay: &Replay, abi: &'static Abi) -> Result<Recorded, Error> {
        let path = || replay.recording.clone();
        let bytes = fs::read(&replay.recording).map_err(|source| Error::File {
            path: path(),
            source,
        })?;
        let recording = Recording::from_bytes(&bytes).map_err(|source| Error::Recording {
            path: path(),
            source,
        })?;
        let progress = fs::File::open(&replay.progress).map_err(Error::Progress)?;
        let report = OpenOptions::new().append(true).open(&replay.report);
        let report = report.map_err(Error::Report)?;
        let own_descriptors = OwnDescriptors::open().map_err(Error::OwnDescriptors)?;
        Ok(Recorded(Arc::new(Shared {
            abi,
            events: recording.events,
            progress: Progress::new(progress),
            report: Report::new(report),
            own_descriptors,
            open: Mutex::default(),
        })))
    }

    fn description(&self, descriptor: BorrowedFd<'_>) -> Result<Option<Arc<Description>>, Errno> {
        let inode = Inode::of(descriptor)?;
        Ok(self.0.open().get(&inode).and_then(Weak::upgrade))
    }
}

impl Shared {
    /// The event that is being replayed, and its sequence number.
    fn event(&self) -> Result<(u64, Option<&Event>), Errno> {
        let sequence = self.progress.event().map_err(|_| Errno::EIO)?;
        let index = usize::try_from(sequence).unwrap_or(usize::MAX);
        Ok((sequence, self.events.get(index)))
    }

    fn differs(&self, sequence: u64, what: What) {
        let difference = Difference {
            sequence,
            seen_by: Side::Driver,
            what,
        };
        if let Err(error) = self.report.append(&Line::Difference(difference)) {
            tracing::error!("a difference could not be reported: {error}");
        }
    }

    /// What arrived is no event of the recording's: there is no answer to it.
    fn unexpected(&self, sequence: u64, expected: Option<&Event>, got: String) -> Errno {
        let expected = expected.map_or("nothing".to_owned(), describe);
        self.differs(sequence, What::Event { expected, got });
        Errno::EPROTO
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Inode, Weak<Description>>> {
        self.open.lock().ignore_poison()
    }
}

/// An event in words that tell it from one that came instead.
fn describe(event: &Event) -> String {
    match event {
        Event::Open(open) => describe_open(open.node, open.flags & libc::O_NONBLOCK != 0),
        Event::Request(request) if request.reached == Reached::Driver => {
            describe_request(request.description, request.command)
        }
        Event::Request(_) => "nothing, since the request was refused".to_owned(),
        Event::Close { .. } => "nothing".to_owned(),
    }
}

fn describe_open(node: Node, nonblocking: bool) -> String {
    let how = if nonblocking { " (O_NONBLOCK)" } else { "" };
    format!("an open of {}{how}", node.file_name())
}

fn describe_request(description: u32, command: u32) -> String {
    format!("ioctl {command:#x} on description {description}")
}

impl Backend for Recorded {
    fn open(&self, node: Node, flags: OpenFlags) -> Result<Opened, Errno> {
        let shared = &self.0;
        let (sequence, event) = shared.event()?;
        let got = describe_open(node, flags.nonblocking);
        let Some(Event::Open(open)) = event.filter(|event| describe(event) == got) else {
            return Err(shared.unexpected(sequence, event, got));
        };
        decode_result(open.result.into())?;
        let (backing, granted) = Backing::create(&node.file_name(), &shared.own_descriptors)?;
        let description = Arc::new(Description {
            shared: Arc::clone(shared),
            index: open.description,
            node,
            backing,
        });
        let inode = description.backing.inode();
        shared.open().insert(inode, Arc::downgrade(&description));
        Ok(Opened {
            file: Some(description),
            granted,
        })
    }

    fn carried(&self, descriptor: OwnedFd) -> Result<Arc<dyn DeviceFile>, Errno> {
        let description = self.description(descriptor.as_fd())?;
        description
            .map(|description| description as Arc<dyn DeviceFile>)
            .ok_or(Errno::ENOTTY)
    }

    fn number_of(&self, descriptor: BorrowedFd<'_>) -> Result<i32, Errno> {
        let description = self.description(descriptor)?;
        description.ok_or(Errno::EBADF)?.number()
    }

    fn save(&self, _: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Err(Error::NoHandover.into())
    }

    fn restore_file(
        &self,
        _: serde_json::Value,
        _: &mut Enclosures,
    ) -> Result<Arc<dyn DeviceFile>, backend::Error> {
        Err(Error::NoHandover.into())
    }
}

/// A description of the recording's.
struct Description {
    shared: Arc<Shared>,
    index: u32,
    node: Node,
    backing: Backing,
}

impl Description {
    /// Compares a request with the recorded one and answers as that was answered.
    fn answer(&self, call: Call<'_>) -> Result<i32, Errno> {
        let shared = &self.shared;
        let (sequence, event) = shared.event()?;
        let got = describe_request(self.index, call.request);
        let Some(Event::Request(request)) = event.filter(|event| describe(event) == got) else {
            return Err(shared.unexpected(sequence, event, got));
        };
        let addresses = normalize(&call, call.payload.to_vec());
        for what in compare(&self.expected(request), &addresses.normalized) {
            shared.differs(sequence, what);
        }
        let value = decode_result(request.result.into())?;
        for change in &request.changes {
            put(call.payload, change.at as usize, &change.bytes);
        }
        addresses.restore(call.payload);
        if let Some(made) = call.made {
            // What was made is not recorded.
            *made.descriptor = Some(memory_file("made")?);
        }
        Ok(value)
    }

    /// The payload as it is issued: with the bits that Ringfence sets and clears, clients that it fills in, zeros where its answer is not told, and a query
    /// in place of a check of the version.
    fn expected(&self, request: &Request) -> Vec<u8> {
        let mut expected = request.before.clone();
        let layout = Layout::of(self.shared.abi, self.node, request.command, &expected);
        if let Some((at, bits)) = layout.forced_bits
            && let Some(value) = field(&expected, at as usize).map(u64::from_ne_bytes)
        {
            put(
                &mut expected,
                at as usize,
                &bits.in_place_of(value).to_ne_bytes(),
            );
        }
        for (at, maker) in layout.filled_in {
            let maker = field::<4>(&expected, maker as usize);
            if let Some(maker) = maker
                && field(&expected, at as usize) == Some([0u8; 4])
            {
                put(&mut expected, at as usize, &maker);
            }
        }
        for part in layout.cleared {
            if let Some(part) = expected.get_mut(part) {
                part.fill(0);
            }
        }
        // What the query is answered with is what the program had asked, so that the check has the recorded outcome.
        Check::begin(&layout.name, &mut expected);
        expected
    }
}

/// A payload with the offsets of buffers for their addresses, and the addresses.
struct Normalized {
    normalized: Vec<u8>,
    /// (where, the offset, the address)
    pointers: Vec<(usize, [u8; 8], [u8; 8])>,
}

fn normalize(call: &Call<'_>, mut normalized: Vec<u8>) -> Normalized {
    let mut pointers = Vec::new();
    for segment in call.segments {
        let Some(at) = segment.pointer_at.map(|at| at as usize) else {
            continue;
        };
        let offset = u64::from(segment.offset).to_ne_bytes();
        if let Some(address) = field(&normalized, at) {
            put(&mut normalized, at, &offset);
            pointers.push((at, offset, address));
        }
    }
    Normalized {
        normalized,
        pointers,
    }
}

impl Normalized {
    /// Puts the addresses back where an answer left the offsets.
    fn restore(&self, payload: &mut [u8]) {
        for (at, offset, address) in &self.pointers {
            if field(payload, *at) == Some(*offset) {
                put(payload, *at, address);
            }
        }
    }
}

impl DeviceFile for Description {
    fn number(&self) -> Result<i32, Errno> {
        i32::try_from(self.index).map_err(|_| Errno::EBADF)
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        self.answer(call)
    }

    /// Events are not recorded: it is never readable.
    fn event_descriptor(&self) -> Result<OwnedFd, Errno> {
        EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).map(OwnedFd::from)
    }

    /// A file on which every ioctl of the driver answers ENOTTY.
    fn lend(&self) -> Result<OwnedFd, Errno> {
        memory_file("lent")
    }

    /// ENOTTY is what the lent file answers, and stands for the kernel having done its part.
    fn pinned(&self, issued: Result<i32, Errno>, call: Call<'_>) -> Result<i32, Errno> {
        match issued {
            Err(Errno::ENOTTY) => self.answer(call),
            other => other,
        }
    }

    fn save(&self, _: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        Err(Error::NoHandover.into())
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        self.shared.open().remove(&self.backing.inode());
    }
}
