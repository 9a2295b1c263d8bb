//! One server takes the place of another: what is handed over, and how ([`nvproxy_protocol::supervision`] has the whole course).
//!
//! The old server stops between two requests, waits until those under way are done and their answers published, and
//! sends what it has: the shared region and where it stands in the rings, the control socket, the handles, and the
//! backend's state. Nothing of it is changed by that, so it can go on if the new one cannot. The sentry notices nothing:
//! its rings, its socket and its handles stay what they were.

mod error;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nvproxy_abi::Abi;
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::locks::IgnorePoison;
use ringfence_ipc::{
    Consumer, Geometry, PROTOCOL_VERSION, Position, Region, ServerChannel, Socket, SocketError,
    Submission,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::error::Error;
use super::Server;
use super::descriptions::Entry;
use crate::backend::handover::Enclosures;
use crate::backend::{self, Backend};
use crate::handles::{self, HandleTable};
use crate::ledger::limits::Limits;
use crate::ledger::{Account, Books};
use crate::reactor::{Reactor, Ring};
use crate::request::Description;
use nvproxy_protocol::supervision::{Message, receive, receive_until, refused, send};

/// The format of [`Saved`]. Grows with every change that an older or newer server would misread.
const FORMAT: u32 = 9;
/// How long requests under way may take until a handover is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the other server may take to send or receive a state.
const TRANSFER: Duration = Duration::from_secs(10);
/// How long a new server waits for the old one to come to the end of its requests, and more.
const TURN: Duration = Duration::from_secs(60);
/// The longest state that is handed over, in bytes. A ledger with as many objects as there can be
/// ([`crate::ledger::limits::MAXIMUM_OBJECTS`]), each with memory of its own, is written in less.
pub const MAXIMUM_STATE: u64 = 256 << 20;

/// The longest state that is handed over, but for the ledger. The rest is taken apart before it is looked at: 15 MiB that were
/// made for it took 1.4 GB of memory. Descriptions are written in some 150 bytes each.
const MAXIMUM_REST: usize = 16 << 20;

/// What every version of a saved state has, and the ledger as text.
#[derive(Deserialize)]
struct Header<'a> {
    format: u32,
    protocol: u32,
    #[serde(borrow)]
    books: Option<&'a RawValue>,
}

/// All that a server has.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    /// The version of the channel's protocol.
    protocol: u32,
    ring_entries: u32,
    arena_bytes: u32,
    /// The index of the end's own, and of the peer's.
    submissions: (u32, u32),
    completions: (u32, u32),
    /// The numbers of the descriptors that come along.
    region: u32,
    socket: u32,
    generations: Vec<u32>,
    entries: Vec<SavedEntry>,
    /// Text, so that as much memory is taken as the ledger itself needs.
    books: Box<RawValue>,
    #[serde(rename = "host")]
    backend: serde_json::Value,
}

/// One description that a task holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedEntry {
    slot: usize,
    event_granted: bool,
    file: serde_json::Value,
}

/// A server that has come to a halt: no request is under way, and none is taken while this lives.
struct Halted<'a> {
    server: &'a Server,
    submissions: MutexGuard<'a, Consumer<Submission>>,
    /// Held so that no thread sleeps at the doorbell, which from now on may ring for another process.
    _reactor: MutexGuard<'a, Reactor>,
    _gate: MutexGuard<'a, ()>,
}

impl Drop for Halted<'_> {
    fn drop(&mut self) {
        self.server.pausing.store(false, Ordering::SeqCst);
    }
}

impl Server {
    /// Waits until no request is under way. Fails, and goes on, if that takes too long.
    fn halt(&self) -> Result<Halted<'_>, Error> {
        let gate = self.gate.lock().ignore_poison();
        self.pausing.store(true, Ordering::SeqCst);
        let submissions = self.submissions();
        // Whoever slept now wants to lead, and waits for the submissions.
        submissions.wake();
        let reactor = self.reactor.lock().ignore_poison();
        let halted = Halted {
            server: self,
            submissions,
            _reactor: reactor,
            _gate: gate,
        };
        let deadline = Instant::now() + PATIENCE;
        while self.away.load(Ordering::SeqCst) > 0 {
            if Instant::now() > deadline {
                return Err(Error::UnderWay);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(halted)
    }
}

impl Halted<'_> {
    fn save(&self, enclosures: &mut Enclosures) -> Result<Saved, Error> {
        let server = self.server;
        let mut duplicate = |descriptor: &dyn AsFd| {
            let copy = descriptor.as_fd().try_clone_to_owned();
            copy.map(|copy| enclosures.put(copy))
                .map_err(Error::Duplicate)
        };
        let (region, socket) = (duplicate(&server.region)?, duplicate(&server.socket)?);
        let geometry = server.region.geometry();
        let mut shared = server.shared();
        let pair = |position: Position| (position.own, position.peer);
        let completions = pair(shared.completions.position());
        let (slots, generations) = shared.handles.slots();
        let entries = slots.map(|(slot, entry)| {
            Ok(SavedEntry {
                slot,
                event_granted: entry.event_granted,
                file: entry.description.file.save(enclosures)?,
            })
        });
        let entries = entries.collect::<Result<_, backend::Error>>()?;
        Ok(Saved {
            format: FORMAT,
            protocol: PROTOCOL_VERSION,
            ring_entries: geometry.ring_entries,
            arena_bytes: geometry.arena_bytes,
            submissions: pair(self.submissions.position()),
            completions,
            region,
            socket,
            generations: generations.to_vec(),
            entries,
            books: server.books.save()?,
            backend: server.backend.save(enclosures)?,
        })
    }

    /// Drops all files.
    fn release(&self) {
        let handles = std::mem::take(&mut self.server.shared().handles);
        // Not under the lock, for closing can take long.
        drop(handles);
    }

    /// Sends all to the server at the other end of `successor`.
    fn hand_over(&self, successor: &Socket) -> Result<(), Error> {
        // A test has the launcher told that this was done.
        if at(Point::Handover) == Some(Act::Drop) {
            return Ok(());
        }
        let mut enclosures = Enclosures::default();
        let saved = self.save(&mut enclosures)?;
        let state = serde_json::to_vec(&saved).map_err(Error::Write)?;
        check_size(state.len() as u64)?;
        check_rest(state.len(), Some(&saved.books))?;
        let transferred = transfer(successor, &state, &Vec::from(enclosures));
        transferred.map_err(Error::Send)
    }
}

fn transfer(successor: &Socket, state: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    setsockopt(
        successor,
        sockopt::SendTimeout,
        &TimeVal::new(TRANSFER.as_secs() as i64, 0),
    )?;
    let mut file = File::from(memfd_create(c"ringfence-state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(state)?;
    let message = Message::State {
        descriptors: descriptors.len() as u64,
    };
    send(successor, &message, Some(file.as_fd())).map_err(io::Error::other)?;
    for (number, descriptor) in descriptors.iter().enumerate() {
        let sent = successor.send(number as u64, descriptor.as_fd());
        sent.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Does what the launcher says, until the launcher is gone.
pub fn obey(server: &Server, supervision: &Socket) {
    loop {
        match receive(supervision) {
            Ok((Message::HandOver, Some(successor))) => {
                hand_over(server, Socket::from(successor), supervision);
            }
            // What is left of a handover that came to nothing, or a launcher of another release knows.
            Ok(_) | Err(SocketError::Malformed(_) | SocketError::NoDescriptor) => {}
            Err(_) => return,
        }
    }
}

fn check_size(bytes: u64) -> Result<(), Error> {
    if bytes > MAXIMUM_STATE {
        return Err(Error::TooLong(bytes));
    }
    Ok(())
}

/// Whether a state is short but for its ledger.
fn check_rest(bytes: usize, books: Option<&RawValue>) -> Result<(), Error> {
    let rest = bytes.saturating_sub(books.map_or(0, |books| books.get().len()));
    if rest > MAXIMUM_REST {
        return Err(Error::RestTooLong(rest));
    }
    Ok(())
}

/// Hands over to `successor` and ends the process, at once or when the backend has nothing left to do for the other one; or
/// returns, and the server goes on.
fn hand_over(server: &Server, successor: Socket, supervision: &Socket) {
    let halted = server
        .halt()
        .and_then(|halted| halted.hand_over(&successor).map(|()| halted));
    // That nothing more comes has to show at the other end.
    drop(successor);
    let halted = match halted {
        Ok(halted) => halted,
        Err(reason) => {
            // A launcher that is gone needs no answer.
            let _ = send(supervision, &refused(&reason), None);
            return;
        }
    };
    let committed = send(supervision, &Message::HandedOver, None)
        .and_then(|()| receive(supervision))
        .is_ok_and(|(message, _)| message == Message::Commit);
    // A test has it go on as if it had not been told.
    if committed && at(Point::Departure) == Some(Act::Drop) {
        let _ = send(supervision, &Message::Keeping, None);
    } else if committed {
        if let Some(keep) = server.backend.keep() {
            // From here on the other one may serve. The launcher is not to wait for the end. One that is gone does not.
            let _ = send(supervision, &Message::Keeping, None);
            halted.release();
            keep();
        }
        std::process::exit(0);
    }
    drop(halted);
}

/// What a server that takes another's place has of its own, and takes from nobody.
pub struct Own {
    pub abi: &'static Abi,
    pub limits: Limits,
    pub ring: Option<Ring>,
}

/// Takes over all that the server at the other end of `predecessor` has, when it comes to a halt, and waits until the
/// launcher says that it is to serve. The process has to be confined. `restore` makes the backend out of what the other one's
/// saved. If it fails the launcher was told why.
pub fn accept_succession(
    predecessor: OwnedFd,
    supervision: &Socket,
    own: Own,
    restore: impl FnOnce(serde_json::Value, &mut Enclosures) -> Result<Arc<dyn Backend>, backend::Error>,
) -> Result<Arc<Server>, Error> {
    let say = |message: &Message| send(supervision, message, None).map_err(Error::Launcher);
    say(&Message::Prepared)?;
    let restored = receive_state(&Socket::from(predecessor))
        .and_then(|(saved, enclosures)| restore_server(saved, enclosures, own, restore));
    let server = restored.inspect_err(|reason| {
        // If it is gone, nobody is left to tell.
        let _ = say(&refused(reason));
    })?;
    say(&Message::Restored)?;
    match receive_until(supervision, Instant::now() + TURN) {
        Ok((Message::Go, _)) => {}
        _ => return Err(Error::ServesOn),
    }
    server.backend.begin_to_serve();
    say(&Message::Serving)?;
    Ok(server)
}

fn receive_state(predecessor: &Socket) -> Result<(Saved, Enclosures), Error> {
    let (count, file) = match receive_until(predecessor, Instant::now() + TURN) {
        Ok((Message::State { descriptors }, Some(file))) => (descriptors, file),
        Ok(_) | Err(SocketError::Malformed(_) | SocketError::NoDescriptor) => {
            return Err(Error::NoState);
        }
        Err(error) => return Err(Error::Wait(error)),
    };
    let mut descriptors = Vec::new();
    let deadline = Instant::now() + TRANSFER;
    for expected in 0..count {
        let received = match predecessor.wait_readable(deadline) {
            Ok(true) => predecessor.receive(),
            Ok(false) => Err(SocketError::WouldBlock),
            Err(error) => Err(error),
        };
        match received {
            Ok((tag, descriptor)) if tag == expected => descriptors.push(descriptor),
            Ok(_) => return Err(Error::DescriptorMissing),
            Err(error) => return Err(Error::Receive(error)),
        }
    }
    let state = read_state(File::from(file))?;
    parse(&state).map(|saved| (saved, Enclosures::from(descriptors)))
}

/// What lies in a file that the other server has sent, which may be any. Only what has a size is read, so that nothing has
/// to be waited for.
fn read_state(mut file: File) -> Result<Vec<u8>, Error> {
    let metadata = file.metadata().map_err(Error::Read)?;
    if !metadata.is_file() {
        return Err(Error::NoFile);
    }
    check_size(metadata.len())?;
    file.seek(SeekFrom::Start(0)).map_err(Error::Read)?;
    let mut state = Vec::new();
    file.take(metadata.len())
        .read_to_end(&mut state)
        .map_err(Error::Read)?;
    Ok(state)
}

fn parse(state: &[u8]) -> Result<Saved, Error> {
    let header: Header<'_> = serde_json::from_slice(state).map_err(Error::Damaged)?;
    if (header.format, header.protocol) != (FORMAT, PROTOCOL_VERSION) {
        return Err(Error::Format {
            format: header.format,
            protocol: header.protocol,
        });
    }
    check_rest(state.len(), header.books)?;
    serde_json::from_slice(state).map_err(Error::Damaged)
}

fn restore_server(
    saved: Saved,
    mut enclosures: Enclosures,
    own: Own,
    restore: impl FnOnce(serde_json::Value, &mut Enclosures) -> Result<Arc<dyn Backend>, backend::Error>,
) -> Result<Arc<Server>, Error> {
    let geometry = Geometry {
        ring_entries: saved.ring_entries,
        arena_bytes: saved.arena_bytes,
    };
    let region = Region::attach(enclosures.take(saved.region)?, geometry)?;
    let socket = Socket::from(enclosures.take(saved.socket)?);
    let position = |(own, peer)| Position { own, peer };
    let channel = ServerChannel::resume(
        region,
        socket,
        position(saved.submissions),
        position(saved.completions),
    );
    let channel = channel.ok_or(Error::Positions)?;
    let backend = restore(saved.backend, &mut enclosures)?;
    let books = Books::restore(&saved.books, own.limits)?;
    let mut slots = Vec::new();
    for SavedEntry {
        slot,
        event_granted,
        file,
    } in saved.entries
    {
        let file = backend.restore_file(file, &mut enclosures)?;
        let generation = saved.generations.get(slot).copied();
        let handle = generation.map(|generation| handles::name(slot, generation));
        let handle = handle.ok_or(Error::Handle)?;
        let account = Account::new(&books, handle);
        let entry = Entry {
            description: Description { file, account },
            event_granted,
        };
        slots.push((slot, entry));
    }
    backend.finish_restoring();
    let handles = HandleTable::restore(slots, saved.generations)?;
    let server = Server::with_handles(backend, own.abi, books, channel, own.ring, handles)?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_another_format_is_refused_by_its_number() {
        let refusal = |state: &str| parse(state.as_bytes()).map(drop).unwrap_err().to_string();
        assert_eq!(
            refusal(r#"{"format": 10, "protocol": 1, "anything": []}"#),
            "the running server hands over in format 10.1, and this one takes 9.1: use a release with the same"
        );
        assert!(refusal(r#"{"format": 9, "protocol": 1}"#).starts_with("the state is damaged: "));
        assert!(refusal("").starts_with("the state is damaged: "));
        let list = "{},".repeat(MAXIMUM_REST / 3) + "{}";
        let besides = |books: &str, host: &str| {
            refusal(&format!(
                r#"{{"format": 9, "protocol": 1, "books": [{books}], "host": [{host}]}}"#
            ))
        };
        assert!(
            besides("", &list).contains(" bytes besides the ledger, and no more than 16777216 ")
        );
        assert!(besides(&list, "").starts_with("the state is damaged: missing field"));
    }
}
