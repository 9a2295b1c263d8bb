//! A session with a compromised sentry: submissions of which every byte is its choice, validated as the
//! server validates them, and what passes entered in the ledger and answered by the simulated driver.
//!
//! An input is a list of operations. Most are shaped like a submission that a sentry makes, since of
//! purely random ones none would get far; one kind is 64 bytes as they are. Handles and descriptors are
//! named by their place among those that were given out, so that a recorded session is an input.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::version::DriverVersion;
use nvproxy_server::handles::HandleTable;
use nvproxy_server::host::{Host, OpenFlags};
use nvproxy_server::ledger::accounts::Limits;
use nvproxy_server::ledger::{self, Account, Books};
use nvproxy_server::protocol::{
    ARGUMENT_DESCRIPTORS, ARGUMENT_HANDLES, ARGUMENT_NODE, ARGUMENT_RESULT, CLOSED_DESCRIPTOR,
    Kind, MAXIMUM_DESCRIPTORS, decode_result, encode_result,
};
use nvproxy_server::request::{
    Action, Buffer, Context, Description, Descriptors, Executed, Files, Rejection,
};
use nvproxy_server::sim::{Configuration, Simulator};
use ringfence_ipc::{Arena, Geometry, Region, ServerChannel, Socket, Submission};
use serde_json::Value;
use zerocopy::FromBytes;

use crate::descriptors::none_left_behind;
use crate::input::Input;
use crate::tables;

/// What one input can do at most.
const MAXIMUM_OPERATIONS: usize = 100;
/// Room for the largest payload.
const ARENA_BYTES: u32 = 2 << 20;
/// The release that is simulated.
const VERSION: DriverVersion = DriverVersion::new(580, 142, None);

/// What the sandbox may have: little, so that a session gets to the end of it.
const LIMITS: Limits = Limits {
    memory: Some(8 << 20),
    clients: 4,
    objects: 32,
};

/// The operations, by an input's byte.
pub const OPEN: u8 = 0;
pub const CLOSE: u8 = 1;
pub const REQUEST: u8 = 2;
pub const RAW: u8 = 3;
const OPERATIONS: u8 = 4;

/// Runs a session to its end.
pub fn check(data: &[u8]) {
    // Made before descriptors are counted.
    let abi = tables::by_version(&VERSION).expect("tables of the simulated release");
    none_left_behind(|| {
        let mut input = Input(data);
        let mut session = Session::new(abi);
        for _ in 0..MAXIMUM_OPERATIONS {
            if input.is_empty() {
                break;
            }
            match input.byte() % OPERATIONS {
                OPEN => session.open(input.short().into()),
                CLOSE => session.close(input.byte()),
                REQUEST => session.request(&mut input),
                _ => session.raw(&mut input),
            }
        }
        session.end();
    });
}

struct Session {
    abi: &'static Abi,
    host: Simulator,
    books: Arc<Books>,
    files: Handles,
    /// Handles and the tasks' descriptors in the order in which they were given out, closed ones included.
    given: Vec<(u64, OwnedFd)>,
    arena: Arena,
}

struct Handles(HandleTable<Description>);

impl Files for Handles {
    fn file(&self, handle: u64) -> Result<Description, Errno> {
        self.0.get(handle).cloned()
    }
}

impl Session {
    fn new(abi: &'static Abi) -> Session {
        let mut configuration = Configuration::new(VERSION, abi, vec![0, 1]);
        configuration.memory = 16 << 20;
        configuration.register_gpu = Duration::ZERO;
        let geometry = Geometry {
            ring_entries: 1,
            arena_bytes: ARENA_BYTES,
        };
        let region = Region::create(geometry).expect("a region");
        let (socket, _) = Socket::pair().expect("a pair of sockets");
        Session {
            abi,
            host: Simulator::new(configuration).expect("a simulator"),
            books: Books::new(LIMITS),
            files: Handles(HandleTable::default()),
            given: Vec::new(),
            arena: ServerChannel::new(region, socket).arena,
        }
    }

    /// Closes everything, with which the ledger has to be empty.
    fn end(self) {
        drop((self.files, self.given));
        let saved = self.books.save().expect("a ledger that can be saved");
        for kept in ["clients", "descriptions", "allocations"] {
            let empty = match &saved[kept] {
                Value::Object(entries) => entries.is_empty(),
                Value::Array(entries) => entries.is_empty(),
                _ => false,
            };
            assert!(empty, "{kept} are left in {saved}");
        }
        assert!(
            saved["objects"] == 0 && saved["pending_clients"] == 0,
            "{saved}"
        );
        let charged = saved["charged"]
            .as_object()
            .expect("what each GPU is charged");
        assert!(charged.values().all(|bytes| *bytes == 0), "{saved}");
    }

    fn open(&mut self, node: u64) {
        let Some(node) = Node::from_wire(node) else {
            return;
        };
        if let Ok(opened) = self.host.open(node, OpenFlags::default()) {
            let file = opened.file.expect("the simulated driver keeps every file");
            let handle = self.files.0.insert(|handle| Description {
                file,
                account: Account::new(&self.books, handle),
            });
            let handle = handle.expect("a handle");
            self.given.push((handle, opened.granted));
        }
    }

    fn close(&mut self, place: u8) {
        let handle = self.handle(place);
        let was_open = self.files.file(handle).is_ok();
        assert_eq!(self.files.0.remove(handle).is_ok(), was_open);
        assert!(self.files.file(handle).is_err(), "a closed handle");
    }

    /// The handle at a place, counted from 1; 0 is none, and what lies beyond is no handle.
    fn handle(&self, place: u8) -> u64 {
        match place.checked_sub(1) {
            None => CLOSED_DESCRIPTOR,
            Some(place) => {
                let given = self.given.get(usize::from(place));
                given.map_or(u64::from(place), |(handle, _)| *handle)
            }
        }
    }

    fn descriptor(&self, place: u8) -> OwnedFd {
        match self.given.get(usize::from(place)) {
            Some((_, granted)) => granted.try_clone().expect("a descriptor"),
            None => File::open("/dev/null").expect("/dev/null").into(),
        }
    }

    /// A submission in the form that a sentry gives it.
    fn request(&mut self, input: &mut Input<'_>) {
        let mut submission = Submission {
            kind: u16::from(input.byte() % 8),
            target: self.handle(input.byte()),
            ..Submission::default()
        };
        submission.arguments[ARGUMENT_NODE] = input.short().into();
        submission.code = input.word();
        submission.arguments[ARGUMENT_RESULT] = i64::from(input.byte() as i8) as u64;
        let handles = input.byte() % 4;
        let handles: Vec<u64> = (0..handles).map(|_| self.handle(input.byte())).collect();
        let carried = input.byte() % (MAXIMUM_DESCRIPTORS as u8 + 1);
        let carried: Descriptors = (0..carried)
            .map(|_| self.descriptor(input.byte()))
            .collect();
        let length = usize::from(input.short());
        let mut payload = input.bytes(length).to_vec();
        payload.resize(payload.len().next_multiple_of(8), 0);
        payload.extend(handles.iter().flat_map(|handle| handle.to_ne_bytes()));
        self.arena.write(0, &payload).expect("a payload that fits");
        submission.arguments[ARGUMENT_HANDLES] = handles.len() as u64;
        submission.arguments[ARGUMENT_DESCRIPTORS] = carried.len() as u64;
        submission.payload_length = payload.len() as u32;
        self.submit(&submission, carried);
    }

    /// A submission of any bytes, over what is left in the arena.
    fn raw(&mut self, input: &mut Input<'_>) {
        let bytes: [u8; size_of::<Submission>()] = input.array();
        let submission = Submission::read_from_bytes(&bytes).expect("any bytes are a submission");
        let carried = submission.arguments[ARGUMENT_DESCRIPTORS] % 3;
        let carried = (0..carried as u8).map(|place| self.descriptor(place));
        let carried = carried.collect();
        self.submit(&submission, carried);
    }

    /// What the server does with a request.
    fn submit(&mut self, submission: &Submission, carried: Descriptors) {
        let issued = decode_result(submission.arguments[ARGUMENT_RESULT] as i64);
        let action = match Kind::from_wire(submission.kind) {
            Some(Kind::Ioctl) => Action::Issue,
            Some(Kind::PinBegin) => Action::Lend,
            Some(Kind::PinFinish) => Action::Pinned(issued),
            _ => return,
        };
        let Some(node) = Node::from_wire(submission.arguments[ARGUMENT_NODE]) else {
            return;
        };
        let context = Context {
            abi: self.abi,
            host: &self.host,
            files: &self.files,
            arena: &self.arena,
        };
        match context.prepare(submission, node, action, carried, Buffer::default()) {
            Ok(prepared) => {
                let before = prepared.buffer.bytes().to_vec();
                assert_eq!(before.len(), prepared.plan.total_length());
                let passage = self.books.pass(&prepared);
                let executed = match self.books.admit(&self.host, &prepared, passage) {
                    Ok(admission) => {
                        let mut executed = prepared.execute(&self.host);
                        self.books.settle(&self.host, admission, &mut executed);
                        executed
                    }
                    Err(status) => ledger::answer(prepared, status),
                };
                self.answer(&executed, &before);
            }
            Err(Rejection::Refused(refusal)) => assert!(!refusal.what.to_string().is_empty()),
            Err(Rejection::Errno(errno)) => assert_ne!(errno, Errno::UnknownErrno),
            Err(Rejection::Malformed(reason)) => assert!(!reason.is_empty()),
        }
    }

    /// The answer fits where the request was, and the program finds its own descriptor numbers in it.
    fn answer(&self, executed: &Executed, before: &[u8]) {
        let outcome = executed.outcome;
        assert_eq!(decode_result(encode_result(outcome)), outcome);
        let after = executed.prepared.buffer.bytes();
        assert_eq!(after.len(), before.len());
        for field in &executed.prepared.plan.descriptors {
            let at = field.at as usize;
            assert_eq!(after[at..at + 4], before[at..at + 4]);
        }
        let offset = executed.prepared.payload_offset;
        let written = self.arena.write(offset, after);
        written.expect("the range that the request was read from");
    }
}
