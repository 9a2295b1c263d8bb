//! Submissions that no honest sentry makes: what is wrong is refused, and only what was validated reaches the driver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nvproxy_abi::plan::MAXIMUM_PAYLOAD;
use nvproxy_abi::status::NV_ERR_INSUFFICIENT_RESOURCES;
use nvproxy_protocol::requests::{ARGUMENT_HANDLES, ARGUMENT_NODE, ARGUMENT_RESULT, VALUE_HANDLE};
use ringfence_ipc::FLAG_DESCRIPTOR;
use userland_tests::LIMIT;

use super::*;

/// Asserts that a request was refused with `errno` before it reached the driver, and that no byte of the arena changed.
fn expect_refusal(peer: &mut Peer, submission: Submission, errno: i64) {
    let mut before = vec![0; peer.channel.arena.size()];
    peer.channel.arena.read(0, &mut before).expect("the arena");
    let done = peer.ask(submission);
    assert_eq!(done.result, errno, "{submission:x?}");
    assert_eq!(
        (done.payload_length, done.driver_nanoseconds),
        (0, 0),
        "{submission:x?}"
    );
    assert_eq!((done.flags, done.values), (0, [0; 4]), "{submission:x?}");
    let mut after = vec![0; before.len()];
    peer.channel.arena.read(0, &mut after).expect("the arena");
    assert!(before == after, "{submission:x?}");
}

#[test]
fn what_the_tables_lack_does_not_reach_the_driver() {
    // One call for the client; the next would be the server's end.
    let mut peer = Peer::new("server.call@2+=kill");
    let (handle, root) = peer.client();
    let gpu = peer.open(Node::Gpu(0)).expect("a handle");
    let uvm = peer.open(Node::Uvm).expect("a handle");
    let targets = [
        (handle, Node::Control),
        (gpu, Node::Gpu(0)),
        (uvm, Node::Uvm),
    ];
    let mut refuse = |target: u64, node: Node, code: u32, payload: &[u8]| {
        peer.channel.arena.write(0, payload).expect("the arena");
        let submission = Submission {
            code,
            payload_length: payload.len() as u32,
            ..submission(Kind::Ioctl, target, node)
        };
        expect_refusal(&mut peer, submission, EPROTO);
    };
    for (target, node) in targets {
        // Numbers that no table has; ones of RM's type with every size that is not theirs; none of RM's at all.
        for code in [0, 1, 0x7e, 0x5401, 0x5421, 0xc0de_f00d, u32::MAX] {
            refuse(target, node, code, &[0; 64]);
        }
        for number in [0x00, 0x77, 0xff] {
            refuse(target, node, ioctl_word(number, 32), &[0; 32]);
        }
        for size in [0, 1, 31, 33, 4096] {
            refuse(
                target,
                node,
                ioctl_word(NV_ESC_RM_CONTROL, size),
                &vec![0; size],
            );
        }
    }
    // Control commands: unknown, NVIDIA's own for administrators, of capabilities that this sandbox lacks, and of the firmware's one
    // that no list has and one for administrators: this sandbox has the listed ones.
    for command in [
        0x2080_7fff,
        0x2080_0112,
        0x2080_0147,
        0x2080_a06d,
        0x2080_e06d,
        u32::MAX,
    ] {
        let mut payload = probe_payload(root);
        payload[8..12].copy_from_slice(&command.to_ne_bytes());
        refuse(handle, Node::Control, probe(handle).code, &payload);
    }
    // A class that no table has.
    let mut class = [0u8; 48];
    class[12..16].copy_from_slice(&0xfeed_u32.to_ne_bytes());
    refuse(
        handle,
        Node::Control,
        ioctl_word(NV_ESC_RM_ALLOC, 48),
        &class,
    );
    // On a node that does not take it.
    refuse(uvm, Node::Uvm, probe(handle).code, &probe_payload(root));
    // The server lives, so none of them was issued.
    assert!(peer.open(Node::Control).is_ok());
    let ended = peer.close();
    assert_eq!(ended.status, Some(0));
}

#[test]
fn every_wrong_payload_range_is_refused() {
    let mut peer = Peer::new("");
    let client = peer.client();
    let size = peer.channel.arena.size() as u32;
    let pattern = vec![0x5a; size as usize];
    let payload = probe_payload(client.1);
    for offset in [
        0,
        3,
        4096,
        size - PROBE_LENGTH,
        size - PROBE_LENGTH + 1,
        size - 1,
        size,
        u32::MAX - 7,
        u32::MAX,
    ] {
        for length in [
            0,
            1,
            8,
            31,
            32,
            PROBE_LENGTH - 8,
            PROBE_LENGTH - 1,
            PROBE_LENGTH,
            PROBE_LENGTH + 1,
            PROBE_LENGTH + 8,
            MAXIMUM_PAYLOAD as u32,
            MAXIMUM_PAYLOAD as u32 + 1,
            size,
            u32::MAX,
        ] {
            let arena = &peer.channel.arena;
            arena.write(0, &pattern).expect("the arena");
            let lies_inside = arena.write(offset, &payload).is_ok();
            let submission = Submission {
                payload_offset: offset,
                payload_length: length,
                ..probe(client.0)
            };
            if !lies_inside || length != PROBE_LENGTH {
                expect_refusal(&mut peer, submission, EPROTO);
                continue;
            }
            assert_eq!(peer.ask(submission).result, 0);
            assert_eq!(peer.probed(offset), (0, [0x100, 0x200, u32::MAX]));
            // Nothing around the answer changed.
            let mut after = vec![0; size as usize];
            peer.channel.arena.read(0, &mut after).expect("the arena");
            let (start, end) = (offset as usize, (offset + length) as usize);
            assert!(
                after[..start]
                    .iter()
                    .chain(&after[end..])
                    .all(|byte| *byte == 0x5a)
            );
        }
    }
    peer.expect_service(client);
    assert_eq!(
        peer.close(),
        served(&[
            "malformed message: a payload shorter than its plan",
            "malformed message: a payload longer than its plan",
            "malformed message: a payload outside the arena",
            "malformed message: a payload larger than any request",
            "refused after the sentry let it pass: unknown control command 0x5a5a5a5a",
        ])
    );
}

#[test]
fn handles_that_name_nothing_are_refused() {
    let mut peer = Peer::new("");
    let client = peer.client();
    let gone = peer.open(Node::Control).expect("a handle");
    let close = |handle| submission(Kind::Close, handle, Node::Control);
    assert_eq!(peer.ask(close(gone)).result, 0);
    // Its slot is taken again, by another generation.
    let next = peer.open(Node::Control).expect("a handle");
    assert_eq!(next as u32, gone as u32);
    let forged = [gone, client.0 + 1, client.0 + (1 << 32), 2, 1, u64::MAX];
    let payload = probe_payload(client.1);
    peer.channel.arena.write(0, &payload).expect("the arena");
    for handle in forged {
        let request = Submission {
            payload_length: PROBE_LENGTH,
            ..probe(handle)
        };
        // The slot after the client's is `next`'s.
        if handle != next {
            expect_refusal(&mut peer, request, EBADF);
            expect_refusal(&mut peer, close(handle), EBADF);
        }
    }
    // Handles that follow a request: forged, too few, too many, far too many.
    let node = peer.open(Node::Gpu(0)).expect("a handle");
    let mut register = |handles: &[u64], count: u64, errno: i64| {
        let mut payload = vec![0u8; 8];
        for handle in handles {
            payload.extend_from_slice(&handle.to_ne_bytes());
        }
        peer.channel.arena.write(0, &payload).expect("the arena");
        let mut asked = Submission {
            code: ioctl_word(NV_ESC_REGISTER_FD, 4),
            payload_length: payload.len() as u32,
            ..submission(Kind::Ioctl, node, Node::Gpu(0))
        };
        asked.arguments[ARGUMENT_HANDLES] = count;
        expect_refusal(&mut peer, asked, errno);
    };
    for handle in forged {
        if handle != next {
            register(&[handle], 1, EBADF);
        }
    }
    register(&[], 0, EPROTO);
    register(&[client.0, client.0], 2, EPROTO);
    for count in [2, 16, 17, 1 << 32, 1 << 61, u64::MAX] {
        register(&[client.0], count, EPROTO);
    }
    peer.expect_service(client);
    assert_eq!(peer.close().status, Some(0));
}

#[test]
fn messages_of_no_kind_are_refused() {
    let mut peer = Peer::new("");
    let client = peer.client();
    for kind in (10..=u16::MAX).step_by(977).chain([0, 10, u16::MAX]) {
        let asked = Submission {
            kind,
            ..probe(client.0)
        };
        expect_refusal(&mut peer, asked, EPROTO);
    }
    for node in [u64::MAX, 1 << 32] {
        let mut asked = submission(Kind::Open, 0, Node::Control);
        asked.arguments[ARGUMENT_NODE] = node;
        expect_refusal(&mut peer, asked, EPROTO);
    }
    // The host itself has no such node. That it was asked is measured.
    let done = peer.ask(submission(Kind::Open, 0, Node::Gpu(77)));
    assert_eq!(done.result, -(Errno::ENODEV as i64));
    assert_eq!((done.flags, done.values[VALUE_HANDLE]), (0, 0));
    peer.expect_service(client);
    let warnings = [
        "malformed message: an unknown kind",
        "malformed message: an unknown node",
    ];
    assert_eq!(peer.close(), served(&warnings));
}

#[test]
fn a_pin_and_a_request_are_not_taken_for_one_another() {
    let mut peer = Peer::new("");
    let client = peer.client();
    peer.channel
        .arena
        .write(0, &probe_payload(client.1))
        .expect("the arena");
    for kind in [Kind::PinBegin, Kind::PinFinish] {
        for result in [0, -1, i64::MIN, i64::MAX] {
            let mut asked = Submission {
                kind: kind as u16,
                payload_length: PROBE_LENGTH,
                ..probe(client.0)
            };
            asked.arguments[ARGUMENT_RESULT] = result as u64;
            expect_refusal(&mut peer, asked, EPROTO);
        }
    }
    // NV_ESC_RM_ALLOC_MEMORY of class 0x71 pins; it is not issued as another request would be.
    let mut pin = [0u8; 56];
    // The object's handle, its class and the descriptor.
    pin[8..12].copy_from_slice(&1u32.to_ne_bytes());
    pin[12..16].copy_from_slice(&NV01_MEMORY_SYSTEM_OS_DESCRIPTOR.to_ne_bytes());
    pin[48..52].copy_from_slice(&(-1i32).to_ne_bytes());
    peer.channel.arena.write(0, &pin).expect("the arena");
    let node = peer.open(Node::Gpu(0)).expect("a handle");
    let asked = Submission {
        code: ioctl_word(NV_ESC_RM_ALLOC_MEMORY, pin.len()),
        payload_length: pin.len() as u32,
        ..submission(Kind::Ioctl, node, Node::Gpu(0))
    };
    expect_refusal(&mut peer, asked, EPROTO);
    peer.expect_service(client);
    assert_eq!(
        peer.close(),
        served(&["malformed message: a pinning request and its kind disagree"])
    );
}

/// What is said of a pin of as many bytes, on a GPU's node: that it begins, or what it returned. The answer's result.
fn pin(peer: &mut Peer, kind: Kind, (gpu, root): (u64, u32), bytes: u64) -> i64 {
    let mut parameters = [0u8; 56];
    parameters[0..4].copy_from_slice(&root.to_ne_bytes());
    parameters[4..8].copy_from_slice(&0x1000u32.to_ne_bytes());
    parameters[8..12].copy_from_slice(&0x2000u32.to_ne_bytes());
    parameters[12..16].copy_from_slice(&NV01_MEMORY_SYSTEM_OS_DESCRIPTOR.to_ne_bytes());
    parameters[32..40].copy_from_slice(&(bytes - 1).to_ne_bytes());
    parameters[48..52].copy_from_slice(&(-1i32).to_ne_bytes());
    let asked = Submission {
        code: ioctl_word(NV_ESC_RM_ALLOC_MEMORY, parameters.len()),
        ..submission(kind, gpu, Node::Gpu(0))
    };
    let done = peer.request(asked, 0, &parameters);
    if done.flags & u32::from(FLAG_DESCRIPTOR) != 0 {
        drop(peer.channel.socket.receive().expect("a descriptor"));
    }
    done.result
}

/// A server that may take 16 MiB of the host's memory, of which pins of a mebibyte take 16 KiB and more each, the
/// description that a client was made on, and what pins are issued on.
fn of_16_mib(rules: &str) -> (Peer, u64, (u64, u32)) {
    let mut peer = Peer::with(rules, &["--host-memory=16MiB"]);
    let (control, root) = peer.client();
    let gpu = peer.open(Node::Gpu(0)).expect("a handle");
    (peer, control, (gpu, root))
}

#[test]
fn a_pin_that_was_not_begun_is_not_finished() {
    let (mut peer, _, on) = of_16_mib("");
    let (begin, finish) = (Kind::PinBegin, Kind::PinFinish);
    // It would have taken 16 GiB.
    assert_eq!(pin(&mut peer, finish, on, 1 << 40), EPROTO);
    assert_eq!(pin(&mut peer, begin, on, 1 << 40), -(Errno::ENOMEM as i64));
    assert_eq!(pin(&mut peer, finish, on, 1 << 40), EPROTO);
    // One that was begun is finished once, with the length that it was begun with.
    assert_eq!(pin(&mut peer, begin, on, 1 << 20), 0);
    assert_eq!(pin(&mut peer, finish, on, 1 << 40), 0);
    assert_eq!(pin(&mut peer, finish, on, 1 << 20), EPROTO);
    let client = peer.client();
    peer.expect_service(client);
    assert_eq!(
        peer.close(),
        served(&["malformed message: the end of a pin that was not begun"])
    );
}

#[test]
fn a_pin_that_was_not_begun_takes_what_it_says_if_nobody_looks() {
    let (mut peer, _, on) = of_16_mib("server.begun=drop");
    assert_eq!(pin(&mut peer, Kind::PinFinish, on, 1 << 40), 0);
    let control = peer.open(Node::Control).expect("a handle");
    assert_eq!(
        peer.allocate_client(control).0,
        NV_ERR_INSUFFICIENT_RESOURCES
    );
    drop(peer.close());
}

#[test]
fn pins_that_are_never_finished_are_charged() {
    let (mut peer, control, on) = of_16_mib("");
    let begun = (0..).take_while(|_| pin(&mut peer, Kind::PinBegin, on, 1 << 20) == 0);
    let begun = begun.count();
    // 16 MiB, by a record of 4 KiB and 64 bytes for each of 257 pages, and one for a client.
    assert_eq!(begun, 816);
    let further = (peer.open(Node::Gpu(0)).expect("a handle"), on.1);
    let closing = |handle, node| Submission {
        target: handle,
        ..submission(Kind::Close, handle, node)
    };
    // What they were to make would belong to the client.
    assert_eq!(peer.ask(closing(on.0, Node::Gpu(0))).result, 0);
    let refused = pin(&mut peer, Kind::PinBegin, further, 1 << 20);
    assert_eq!(refused, -(Errno::ENOMEM as i64));
    assert_eq!(peer.ask(closing(control, Node::Control)).result, 0);
    // What was opened is closed by another thread, after the answer.
    let deadline = Instant::now() + LIMIT;
    while pin(&mut peer, Kind::PinBegin, further, 1 << 20) != 0 {
        assert!(Instant::now() < deadline, "it still counts");
    }
    assert_eq!(peer.close(), served(&[]));
}

#[test]
fn descriptors_of_other_files_are_no_targets() {
    let mut peer = Peer::new("");
    let client = peer.client();
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let foreign: [OwnedFd; 4] = [
        reader.into(),
        File::open("/dev/null").expect("/dev/null").into(),
        memfd_create("nvidia-uvm", MFdFlags::empty()).expect("a memory file"),
        peer.region.as_fd().try_clone_to_owned().expect("a copy"),
    ];
    peer.channel.arena.write(0, &[0; 16]).expect("the arena");
    for descriptor in &foreign {
        let mut asked = Submission {
            code: UVM_INITIALIZE,
            payload_length: 16,
            ..submission(Kind::Ioctl, 0, Node::Uvm)
        };
        expect_refusal(&mut peer, asked, EPROTO);
        asked.arguments[ARGUMENT_DESCRIPTORS] = 1;
        // The cookie that the next submission will have.
        let cookie = peer.ask(submission(Kind::Close, 0, Node::Uvm)).cookie + 1;
        peer.channel
            .socket
            .send(cookie, descriptor.as_fd())
            .expect("sent");
        expect_refusal(&mut peer, asked, ENOTTY);
    }
    peer.expect_service(client);
    assert_eq!(
        peer.close(),
        served(&["malformed message: a request without a target"])
    );
}

/// Raises a flag when it is dropped, so that a failed test ends its threads.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A payload that changes while the server reads it is one value or another, all the way through.
#[test]
fn a_payload_is_read_once() {
    let mut peer = Peer::new("");
    let client = peer.client();
    let payload = probe_payload(client.1);
    let arena = peer.channel.arena.clone();
    arena.write(0, &payload).expect("the arena");
    let over = AtomicBool::new(false);
    let (mut issued, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        // The command and the size of its buffer, which both plans take together: a mixture fits neither.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (command, size) in [
                    (0x2080_7fffu32, 8u32),
                    (NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, PROBE_LENGTH - 32),
                ] {
                    // With what follows each: a whole word of the arena is written in one step.
                    for (at, word) in [(8, command), (24, size)] {
                        arena
                            .write(at, &u64::from(word).to_ne_bytes())
                            .expect("the arena");
                    }
                }
            }
        });
        let _guard = Raised(&over);
        for _ in 0..20_000 {
            arena.write(32, &payload[32..]).expect("the arena");
            arena.write(0, &payload[..8]).expect("the arena");
            let done = peer.ask(Submission {
                payload_length: PROBE_LENGTH,
                ..probe(client.0)
            });
            match done.result {
                0 => {
                    issued += 1;
                    assert_eq!(done.payload_length, PROBE_LENGTH);
                    assert_eq!(peer.probed(0), (0, [0x100, 0x200, u32::MAX]));
                }
                errno => {
                    refused += 1;
                    assert_eq!(errno, EPROTO);
                    assert_eq!((done.payload_length, done.driver_nanoseconds), (0, 0));
                    assert_eq!(peer.probed(0).1, [0; 3]);
                }
            }
        }
    });
    assert!(
        issued > 0 && refused > 0,
        "{issued} issued, {refused} refused"
    );
    peer.expect_service(client);
    assert_eq!(peer.close().status, Some(0));
}
