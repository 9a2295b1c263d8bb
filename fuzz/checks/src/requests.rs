//! A session with a compromised sentry: submissions of which every byte is its choice, validated as the
//! server validates them, and what passes entered in the ledger and answered by the simulated driver.
//!
//! An input is a list of operations. Most are shaped like a submission that a sentry makes, since of
//! purely random ones none would get far; one kind is 64 bytes as they are. Handles and descriptors are
//! named by their place among those that were given out, so that a recorded session is an input.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use nvproxy_protocol::requests::{
    ARGUMENT_DESCRIPTORS, ARGUMENT_HANDLES, ARGUMENT_NODE, ARGUMENT_RESULT, CLOSED_DESCRIPTOR,
    Kind, MAXIMUM_DESCRIPTORS, decode_result, encode_result,
};
use nvproxy_server::request::{Action, Buffer, Descriptors, Executed, Rejection};
use ringfence_ipc::{Arena, Geometry, Region, ServerChannel, Socket, Submission};
use zerocopy::FromBytes;

use crate::descriptors::none_left_behind;
use crate::input::Input;
use crate::sandbox::{self, Sandbox};

/// What one input can do at most.
const MAXIMUM_OPERATIONS: usize = 100;
/// Room for the largest payload.
const ARENA_BYTES: u32 = 2 << 20;

/// The operations, by an input's byte.
pub const OPEN: u8 = 0;
pub const CLOSE: u8 = 1;
pub const REQUEST: u8 = 2;
pub const RAW: u8 = 3;
const OPERATIONS: u8 = 4;

/// Runs a session to its end.
pub fn check(data: &[u8]) {
    // Made before descriptors are counted.
    let abi = sandbox::tables();
    none_left_behind(|| {
        let mut input = Input(data);
        let mut session = Session {
            sandbox: Sandbox::new(abi),
            arena: arena(),
        };
        for _ in 0..MAXIMUM_OPERATIONS {
            if input.is_empty() {
                break;
            }
            match input.byte() % OPERATIONS {
                OPEN => session.sandbox.open(input.short().into()),
                CLOSE => session.close(input.byte()),
                REQUEST => session.request(&mut input),
                _ => session.raw(&mut input),
            }
        }
        session.sandbox.end();
    });
}

fn arena() -> Arena {
    let geometry = Geometry {
        ring_entries: 1,
        arena_bytes: ARENA_BYTES,
    };
    let region = Region::create(geometry).expect("a region");
    let (socket, _) = Socket::pair().expect("a pair of sockets");
    ServerChannel::new(region, socket).arena
}

struct Session {
    sandbox: Sandbox,
    arena: Arena,
}

impl Session {
    fn close(&mut self, place: u8) {
        self.sandbox.close(self.handle(place));
    }

    /// The handle at a place, counted from 1; 0 is none, and what lies beyond is no handle.
    fn handle(&self, place: u8) -> u64 {
        match place.checked_sub(1) {
            None => CLOSED_DESCRIPTOR,
            Some(place) => {
                let given = self.sandbox.given.get(usize::from(place));
                given.map_or(u64::from(place), |given| given.handle)
            }
        }
    }

    fn descriptor(&self, place: u8) -> OwnedFd {
        match self.sandbox.given.get(usize::from(place)) {
            Some(given) => given.granted.try_clone().expect("a descriptor"),
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
        let context = self.sandbox.context(&self.arena);
        match context.prepare(submission, node, action, carried, Buffer::default()) {
            Ok(prepared) => {
                let before = prepared.buffer.bytes().to_vec();
                assert_eq!(before.len(), prepared.plan.total_length());
                let passage = self.sandbox.books.pass(&prepared);
                let executed = self.sandbox.issue(prepared, passage);
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
