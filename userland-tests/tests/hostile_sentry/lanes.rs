//! A task that was taken over and has a lane: whatever it writes there, nothing is issued that the trap would refuse, or
//! that its own descriptors do not mean, and nobody else notices.
//!
//! The sentry, which is the test, too, is an honest one here but for the last tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nvproxy_abi::structs::frontend::{NVOS00_PARAMETERS, nv_ioctl_register_fd_t};
use nvproxy_server::protocol::{ARGUMENT_HANDLE, ARGUMENT_NODE};
use ringfence_ipc::lane::{
    Answer, GEOMETRY as LANE_GEOMETRY, LaneClient, LaneServer, Request, SLOT_BYTES, SLOTS, Waited,
};
use ringfence_ipc::{Region, Spin};
use userland_tests::eventually;
use zerocopy::{FromZeros, IntoBytes};

use super::*;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
const EAGAIN: i64 = -(Errno::EAGAIN as i64);
const ESRCH: i64 = -(Errno::ESRCH as i64);

fn about(kind: Kind, lane: u64) -> Submission {
    Submission {
        kind: kind as u16,
        target: lane,
        ..Submission::default()
    }
}

/// Opens a lane: its memory, or a negated errno.
fn open_lane(peer: &mut Peer, name: u64) -> Result<LaneClient, i64> {
    let done = peer.ask(about(Kind::LaneOpen, name));
    if done.result != 0 {
        return Err(done.result);
    }
    let (_, descriptor) = peer.channel.socket.receive().expect("a descriptor");
    let region = Region::attach(descriptor, LANE_GEOMETRY).expect("a region");
    Ok(LaneClient::new(&region).expect("a lane"))
}

/// Vouches for a handle: its subject, or a negated errno.
fn vouch(peer: &mut Peer, lane: u64, handle: u64, node: Node) -> Result<u64, i64> {
    let mut asked = about(Kind::LaneVouch, lane);
    asked.arguments[ARGUMENT_NODE] = node.to_wire();
    asked.arguments[ARGUMENT_HANDLE] = handle;
    let done = peer.ask(asked);
    if done.result == 0 {
        Ok(done.values[0])
    } else {
        Err(done.result)
    }
}

/// Makes a request in a slot, with this payload and whatever length it says that it has.
fn ask(task: &LaneClient, slot: usize, payload: &[u8], request: Request) -> Answer {
    let offset = LaneServer::payload_offset(slot);
    task.arena().write(offset, payload).expect("in the arena");
    let lane = task.lane().expect("a lane");
    lane.post(slot, request);
    match lane.wait(slot, Spin::NONE, PATIENCE) {
        Waited::Answered(answer) => answer,
        waited => panic!("{waited:?} of {request:x?}"),
    }
}

fn probe_request(subject: u64) -> Request {
    Request {
        subject,
        operation: probe(0).code,
        length: PROBE_LENGTH,
    }
}

/// A good request in a slot, and that its answer is right.
fn expect_lane(task: &LaneClient, slot: usize, subject: u64, root: u32) {
    let answer = ask(task, slot, &probe_payload(root), probe_request(subject));
    assert_eq!(answer, Answer::Done(0));
    let mut gpus = [0; 12];
    let at = LaneServer::payload_offset(slot) + PROBE_LENGTH - 384;
    task.arena().read(at, &mut gpus).expect("in the arena");
    let expected: Vec<u8> = [0x100, 0x200, u32::MAX].map(u32::to_ne_bytes).concat();
    assert_eq!(gpus[..], expected[..]);
}

/// What has been issued by lanes, as the server counts.
fn issued(peer: &mut Peer) -> u64 {
    peer.ask(about(Kind::LaneCount, 0)).values[0]
}

#[test]
fn what_a_lane_must_not_make_is_left_to_the_trap() {
    // One call for the client; the next would be the server's end.
    let mut peer = Peer::new("server.call@2+=kill");
    let (handle, root) = peer.client();
    let gpu = peer.open(Node::Gpu(0)).expect("a handle");
    let task = open_lane(&mut peer, 1).expect("a lane");
    let control = vouch(&mut peer, 1, handle, Node::Control).expect("a subject");
    let node = vouch(&mut peer, 1, gpu, Node::Gpu(0)).expect("a subject");
    let refuse = |subject: u64, operation: u32, payload: &[u8]| {
        let request = Request {
            subject,
            operation,
            length: payload.len() as u32,
        };
        let answer = ask(&task, 0, payload, request);
        assert_eq!(answer, Answer::Refused, "{request:x?}");
    };
    for subject in [control, node] {
        // What the tables do not have.
        for code in [0, 1, 0x7e, 0x5401, 0x5421, 0xc0de_f00d, u32::MAX] {
            refuse(subject, code, &[0; 64]);
        }
        for size in [0, 1, 31, 33, 4096] {
            let code = ioctl_word(NV_ESC_RM_CONTROL, size);
            refuse(subject, code, &vec![0; size]);
        }
        for command in [0x2080_ffff, 0x2080_0112, 0x2080_0147, u32::MAX] {
            let mut payload = probe_payload(root);
            payload[8..12].copy_from_slice(&command.to_ne_bytes());
            refuse(subject, probe(0).code, &payload);
        }
        // What names descriptors, whatever stands there.
        for number in [-1, 0, 3, i32::MAX] {
            let request = nv_ioctl_register_fd_t { ctl_fd: number };
            let code = ioctl_word(NV_ESC_REGISTER_FD, size_of_val(&request));
            refuse(subject, code, request.as_bytes());
        }
    }
    // What pins, or may take long.
    let mut pin = [0; 56];
    pin[12..16].copy_from_slice(&NV01_MEMORY_SYSTEM_OS_DESCRIPTOR.to_ne_bytes());
    refuse(node, ioctl_word(NV_ESC_RM_ALLOC_MEMORY, 56), &pin);
    // Lengths that are not the payload's.
    let payload = probe_payload(root);
    for length in [
        0,
        1,
        PROBE_LENGTH - 8,
        PROBE_LENGTH - 1,
        PROBE_LENGTH + 1,
        PROBE_LENGTH + 8,
        SLOT_BYTES as u32,
        SLOT_BYTES as u32 + 1,
        u32::MAX,
    ] {
        let request = Request {
            length,
            ..probe_request(control)
        };
        assert_eq!(
            ask(&task, 0, &payload, request),
            Answer::Refused,
            "{length}"
        );
    }
    // The server lives, so none of them was issued.
    assert_eq!(issued(&mut peer), 0);
    assert_eq!(peer.close(), served(&[]));
}

#[test]
fn a_lane_names_only_what_was_vouched_for_in_it() {
    let mut peer = Peer::new("");
    let (handle, root) = peer.client();
    let other = peer.client();
    let (first, second) = (
        open_lane(&mut peer, 7).expect("a lane"),
        open_lane(&mut peer, 8).expect("a lane"),
    );
    let refused = |task: &LaneClient, subject: u64, root: u32| {
        let answer = ask(task, 3, &probe_payload(root), probe_request(subject));
        assert_eq!(answer, Answer::Refused, "{subject:#x}");
    };
    // Not even what is open.
    for subject in [0, 1, handle, other.0, u64::MAX, 1 << 32] {
        refused(&first, subject, root);
    }
    let subject = vouch(&mut peer, 7, handle, Node::Control).expect("a subject");
    assert_eq!(vouch(&mut peer, 7, handle, Node::Control), Ok(subject));
    expect_lane(&first, 3, subject, root);
    for unnamed in (subject + 1..subject + 5).chain([handle, other.0, subject + (1 << 32)]) {
        refused(&first, unnamed, root);
    }
    // What was vouched for in one lane is nothing in another.
    refused(&second, subject, root);
    // What is closed is nothing any more, and what takes its place is not meant.
    let closed = peer.ask(submission(Kind::Close, handle, Node::Control));
    assert_eq!(closed.result, 0);
    let (again, root) = peer.client();
    refused(&first, subject, root);
    let new = vouch(&mut peer, 7, again, Node::Control).expect("a subject");
    expect_lane(&first, 3, new, root);
    refused(&first, subject, root);
    peer.expect_service((again, root));
    assert_eq!(peer.close(), served(&[]));
}

/// A payload that changes while the server reads it is one value or another, all the way through.
#[test]
fn a_payload_in_a_lane_is_read_once() {
    let mut peer = Peer::new("");
    let (handle, root) = peer.client();
    let task = open_lane(&mut peer, 1).expect("a lane");
    let subject = vouch(&mut peer, 1, handle, Node::Control).expect("a subject");
    let payload = probe_payload(root);
    let over = AtomicBool::new(false);
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        // The command and the size of its buffer, which both plans take together: a mixture fits neither.
        scope.spawn(|| {
            let start = LaneServer::payload_offset(0);
            while !over.load(Ordering::Relaxed) {
                for (command, size) in [
                    (0x2080_ffffu32, 8u32),
                    (NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, PROBE_LENGTH - 32),
                ] {
                    for (at, word) in [(8, command), (24, size)] {
                        let word = u64::from(word).to_ne_bytes();
                        task.arena().write(start + at, &word).expect("the arena");
                    }
                }
            }
        });
        for _ in 0..20_000 {
            match ask(&task, 0, &payload, probe_request(subject)) {
                Answer::Done(0) => made += 1,
                Answer::Refused => refused += 1,
                answer => panic!("{answer:?}"),
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(made > 0 && refused > 0, "{made} made, {refused} refused");
    assert_eq!(issued(&mut peer), made);
    peer.expect_service((handle, root));
    assert_eq!(peer.close(), served(&[]));
}

/// Slots that are asked for again while they are being answered, bits that are no slots', and every word of the lane at
/// random: the other lane and the sentry are served meanwhile, and the server needs no more than before.
#[test]
fn whatever_is_written_into_a_lane_harms_no_other() {
    let mut peer = Peer::new("");
    let (handle, root) = peer.client();
    let (hostile, other) = (
        open_lane(&mut peer, 1).expect("a lane"),
        open_lane(&mut peer, 2).expect("a lane"),
    );
    let subject = vouch(&mut peer, 1, handle, Node::Control).expect("a subject");
    let others = vouch(&mut peer, 2, handle, Node::Control).expect("a subject");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            let words = hostile.arena().size() as u64 / 8;
            while !over.load(Ordering::Relaxed) {
                random = random.wrapping_mul(0xd129_42f0_2b1b_4e8d).wrapping_add(1);
                // Most times one of the words that say who asks, who sleeps and whether it is over.
                let word = match random >> 60 & 3 {
                    0 => 0,
                    1 => 16,
                    2 => 32,
                    _ => random % words,
                };
                let value = (random >> 7 & 0xff).wrapping_sub(3);
                let written = hostile.arena().write(word as u32 * 8, &value.to_ne_bytes());
                written.expect("the arena");
                if random & 0xf000 == 0
                    && let Some(lane) = hostile.lane()
                {
                    lane.post((random >> 20) as usize % SLOTS, probe_request(subject));
                }
            }
        });
        for round in 0..300 {
            expect_lane(&other, round % SLOTS, others, root);
            peer.expect_service((handle, root));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(peer.status("Threads") < 12);
    for name in [1, 2] {
        assert_eq!(peer.ask(about(Kind::LaneClose, name)).result, 0);
    }
    // A wake that the task had taken away is made up for at the latest when the server is replaced or ends.
    peer.expect_service((handle, root));
    assert_eq!(peer.close(), served(&[]));
}

#[test]
fn there_are_sixteen_lanes_and_what_is_closed_can_be_had_again() {
    let mut peer = Peer::new("");
    let client = peer.client();
    let mut lanes: Vec<_> = (0..16)
        .map(|name| open_lane(&mut peer, name).expect("a lane"))
        .collect();
    let threads = peer.status("Threads");
    assert_eq!(open_lane(&mut peer, 16).err(), Some(EAGAIN));
    for lane in &lanes {
        assert!(!lane.lane().expect("a lane").is_closed());
    }
    assert_eq!(peer.ask(about(Kind::LaneClose, 5)).result, 0);
    let closed = lanes.remove(5);
    eventually("it is closed", || {
        closed.lane().expect("a lane").is_closed()
    });
    // A request that comes too late can be taken back.
    let lane = closed.lane().expect("a lane");
    lane.post(0, probe_request(0));
    assert_eq!(lane.wait(0, Spin::NONE, PATIENCE), Waited::Closed);
    assert!(lane.withdraw(0));
    eventually("its thread is gone", || peer.status("Threads") < threads);
    let task = open_lane(&mut peer, 17).expect("a lane");
    let subject = vouch(&mut peer, 17, client.0, Node::Control).expect("a subject");
    expect_lane(&task, SLOTS - 1, subject, client.1);
    assert_eq!(peer.close(), served(&[]));
}

#[test]
fn a_sentry_that_was_taken_over_gains_nothing_by_lanes() {
    let mut peer = Peer::new("");
    let client = peer.client();
    let task = open_lane(&mut peer, 1).expect("a lane");
    assert_eq!(open_lane(&mut peer, 1).err(), Some(EPROTO));
    // Lanes and handles that there are not.
    for lane in [0, 2, u64::MAX] {
        let vouched = vouch(&mut peer, lane, client.0, Node::Control);
        assert_eq!(vouched, Err(ESRCH));
        assert_eq!(peer.ask(about(Kind::LaneClose, lane)).result, ESRCH);
    }
    for handle in [0, 1, client.0 + 1, client.0 + (1 << 32), u64::MAX] {
        let vouched = vouch(&mut peer, 1, handle, Node::Control);
        assert_eq!(vouched, Err(EBADF), "{handle:#x}");
    }
    let mut asked = about(Kind::LaneVouch, 1);
    asked.arguments[ARGUMENT_NODE] = u64::MAX;
    assert_eq!(peer.ask(asked).result, EPROTO);
    // More than a lane can name, all of which is open.
    let mut subjects = 0;
    let full = loop {
        let handle = peer.open(Node::Control).expect("a handle");
        match vouch(&mut peer, 1, handle, Node::Control) {
            Ok(_) => subjects += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!((subjects, full), (1024, -(Errno::ENOSPC as i64)));
    // What the sentry says of the node decides which tables hold, as it does with the sentry's own requests.
    let mut free = NVOS00_PARAMETERS::new_zeroed();
    free.hRoot = 0xdead_beef;
    let request = Request {
        subject: 0,
        operation: ioctl_word(NV_ESC_RM_FREE, size_of_val(&free)),
        length: size_of_val(&free) as u32,
    };
    assert_eq!(ask(&task, 0, free.as_bytes(), request), Answer::Refused);
    peer.expect_service(client);
    let warnings = [
        "malformed message: a lane that there is already",
        "malformed message: an unknown node",
    ];
    assert_eq!(peer.close(), served(&warnings));
}
