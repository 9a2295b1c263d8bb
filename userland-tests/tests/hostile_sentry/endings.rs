//! What cannot come of an honest sentry at all: the server says why, and ends.

use ringfence_ipc::{Geometry, PROTOCOL_VERSION, Region, Socket};

use super::*;

/// What is sent on the socket pairs up with submissions by order. Where it does not, the server ends.
#[test]
fn descriptors_that_do_not_fit_end_the_server() {
    let announcing = |count: u64| {
        let mut asked = submission(Kind::Ioctl, 0, Node::Uvm);
        asked.arguments[ARGUMENT_DESCRIPTORS] = count;
        asked
    };
    for (count, sent, reason) in [
        (
            1,
            0,
            "the control socket: the channel's socket is not ready",
        ),
        (
            2,
            1,
            "the control socket: the channel's socket is not ready",
        ),
        (3, 3, "a submission with more descriptors than any has"),
        (
            u64::MAX,
            0,
            "a submission with more descriptors than any has",
        ),
    ] {
        let mut peer = Peer::new("");
        let file = File::open("/dev/null").expect("/dev/null");
        for _ in 0..sent {
            peer.channel.socket.send(1, file.as_fd()).expect("sent");
        }
        peer.submit(announcing(count)).expect("room");
        assert_eq!(
            peer.expect_end(),
            failed(reason),
            "{count} announced, {sent} sent"
        );
    }
    // One that nobody announced, and one too many in one message.
    for (descriptors, tag, reason) in [
        (1, 77u64, "a descriptor belongs to another submission"),
        (
            2,
            1,
            "the control socket: the peer sent a message with more than one descriptor",
        ),
        (
            0,
            1,
            "the control socket: the peer sent a message without the descriptor it needs",
        ),
    ] {
        let mut peer = Peer::new("");
        let files: Vec<OwnedFd> = (0..descriptors)
            .map(|_| File::open("/dev/null").expect("/dev/null").into())
            .collect();
        send(&peer.channel.socket, &tag.to_ne_bytes(), &files);
        peer.submit(announcing(1)).expect("room");
        assert_eq!(peer.expect_end(), failed(reason));
    }
}

/// An index that cannot be ends the server: there is no meaning left to recover.
#[test]
fn an_impossible_index_ends_the_server() {
    let reason = "submission ring: the ring is corrupt: the peer announced an index that it cannot have reached";
    for tail in [257, 1000, 1 << 31, u32::MAX] {
        let peer = Peer::new("");
        peer.set_word(SUBMISSION_TAIL, tail);
        peer.channel.submissions.ring_again();
        assert_eq!(peer.expect_end(), failed(reason), "{tail}");
    }
}

#[test]
fn a_closed_socket_ends_the_server() {
    let mut peer = Peer::new("");
    let client = peer.client();
    peer.expect_service(client);
    assert_eq!(peer.close(), served(&[]));
}

/// Offers of a channel that the server must not take: it says why, and ends.
#[test]
fn a_bad_offer_is_refused() {
    const REFUSED: u32 = 3;
    let good = Geometry::default();
    let geometry = |ring_entries, arena_bytes| Geometry {
        ring_entries,
        arena_bytes,
    };
    let hello = |geometry| peer::hello(PROTOCOL_VERSION, geometry);
    let region = || {
        let region = Region::create(good).expect("a region");
        region.as_fd().try_clone_to_owned().expect("a copy")
    };
    let plain = || memfd_create("unsealed", MFdFlags::MFD_ALLOW_SEALING).expect("a memory file");
    let mut magic = hello(good);
    magic[0] = b'R';
    let bare = "the peer sent a message without the descriptor it needs";
    let versions = |theirs: u32| {
        format!(
            "the peer speaks version {theirs} of the channel protocol, this process version {PROTOCOL_VERSION}: both \
             must come from the same release"
        )
    };
    let malformed = |what: &str| format!("the peer's handshake is malformed: {what}");
    let offers: Vec<(Vec<u8>, Vec<OwnedFd>, String)> = vec![
        (peer::hello(0, good), vec![region()], versions(0)),
        (peer::hello(2, good), vec![region()], versions(2)),
        (
            peer::hello(u32::MAX, good),
            vec![region()],
            versions(u32::MAX),
        ),
        (magic, vec![region()], malformed("not of this protocol")),
        (
            vec![1; 3],
            vec![region()],
            malformed("too short for any version"),
        ),
        (
            hello(good)[..20].to_vec(),
            vec![region()],
            malformed("an offer of the wrong size"),
        ),
        (hello(good), vec![], bare.to_owned()),
        (
            hello(good),
            vec![region(), region()],
            "the peer sent a message with more than one descriptor".to_owned(),
        ),
        (
            hello(good),
            vec![plain()],
            "the shared region has seals 0x0, but must not shrink, grow or change seals (SealFlag(F_SEAL_SEAL | F_SEAL_SHRINK | \
             F_SEAL_GROW))".to_owned(),
        ),
        (
            hello(good),
            vec![File::open("/dev/null").expect("/dev/null").into()],
            "the shared region is not a memory file".to_owned(),
        ),
        (
            hello(geometry(255, 4096)),
            vec![region()],
            "a ring of 255 entries: must be a power of two, at most 65536".to_owned(),
        ),
        (
            hello(geometry(1 << 31, 4096)),
            vec![region()],
            "a ring of 2147483648 entries: must be a power of two, at most 65536".to_owned(),
        ),
        (
            hello(geometry(256, u32::MAX)),
            vec![region()],
            "an arena of 4294967295 bytes: must be a multiple of 4096, at most 1073741824"
                .to_owned(),
        ),
    ];
    for (message, descriptors, reason) in offers {
        let (child, socket) = spawn("");
        let socket = Socket::from(socket);
        send(&socket, &message, &descriptors);
        assert_eq!(answer(&socket), (REFUSED, reason));
        assert_eq!(end_of(child).status, Some(1));
    }
}
