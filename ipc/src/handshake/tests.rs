//! Honest handshakes, and what either side makes of a peer that is not.

use std::{io::pipe, thread};

use super::*;
use crate::{Completion, Submission};

const SMALL: Geometry = Geometry {
    ring_entries: 2,
    arena_bytes: 4096,
};

/// A hello as an honest client sends it.
fn hello() -> Hello {
    Hello {
        prefix: prefix(HELLO),
        ring_entries: 2,
        arena_bytes: 4096,
    }
}

/// What a server makes of a client that sends this and closes; and what it answers.
fn accept_from(
    bytes: &[u8],
    descriptor: Option<std::os::fd::BorrowedFd<'_>>,
    ready: Result<(), &dyn fmt::Display>,
) -> (HandshakeError, Vec<u8>) {
    let (client, server) = Socket::pair().unwrap();
    client.send_message(bytes, descriptor).unwrap();
    let error = accept(server, ready).err().expect("the offer was accepted");
    let mut answer = [0; MAX_MESSAGE_BYTES];
    let (length, descriptor) = client
        .receive_message(&mut answer, MsgFlags::empty())
        .unwrap();
    assert!(descriptor.is_none());
    (error, answer[..length].to_vec())
}

/// What a client makes of a server that answers with this.
fn offer_to(answer: &[u8]) -> HandshakeError {
    let (client, server) = Socket::pair().unwrap();
    server.send_message(answer, None).unwrap();
    offer(client, SMALL)
        .err()
        .expect("the answer was taken for an acceptance")
}

fn refused(reason: &[u8]) -> Vec<u8> {
    [prefix(REFUSED).as_bytes(), reason].concat()
}

fn malformed_offer(bytes: &[u8]) -> HandshakeError {
    let region = Region::create(SMALL).unwrap();
    let (error, answer) = accept_from(bytes, Some(region.as_fd()), Ok(()));
    assert_eq!(answer, refused(error.to_string().as_bytes()));
    error
}

#[test]
fn a_channel_works_after_the_handshake() {
    let (client, server) = Socket::pair().unwrap();
    let server = thread::spawn(move || accept(server, Ok(())));
    let mut client = offer(client, SMALL).unwrap();
    let mut server = server.join().unwrap().unwrap();

    let asked = Submission {
        cookie: 3,
        payload_length: 2,
        ..Submission::default()
    };
    client.arena.write(0, b"hi").unwrap();
    client.submissions.push(&asked).unwrap();
    assert_eq!(server.submissions.pop(), Ok(Some(asked)));
    let mut payload = [0; 2];
    server.arena.read(0, &mut payload).unwrap();
    assert_eq!(&payload, b"hi");

    let answered = Completion {
        cookie: 3,
        result: -5,
        ..Completion::default()
    };
    server.completions.push(&answered).unwrap();
    assert_eq!(client.completions.pop(), Ok(Some(answered)));
    assert_eq!(
        (client.submissions.capacity(), client.arena.size()),
        (2, 4096)
    );
}

#[test]
fn another_version_is_refused_by_name_on_both_sides() {
    let mut newer = hello();
    newer.prefix.version = PROTOCOL_VERSION + 1;
    // A newer client's message may have any size.
    let longer = [newer.as_bytes(), &[0; 100]].concat();
    for bytes in [newer.as_bytes(), &longer] {
        let error = malformed_offer(bytes);
        assert_eq!(
            error,
            HandshakeError::Version {
                ours: PROTOCOL_VERSION,
                theirs: PROTOCOL_VERSION + 1
            }
        );
        assert!(error.to_string().contains("speaks version 2 of"), "{error}");
        assert!(
            error.to_string().contains("this process version 1"),
            "{error}"
        );
    }

    let mut older = prefix(ACCEPTED);
    older.version = 0;
    let expected = HandshakeError::Version {
        ours: PROTOCOL_VERSION,
        theirs: 0,
    };
    assert_eq!(offer_to(older.as_bytes()), expected);
}

#[test]
fn malformed_offers_are_refused() {
    let mut magic = hello();
    magic.prefix.magic ^= 1;
    let mut kind = hello();
    kind.prefix.kind = ACCEPTED;
    let whole = hello();
    let whole = whole.as_bytes();
    let cases = [
        (magic.as_bytes(), "not of this protocol"),
        (kind.as_bytes(), "not an offer"),
        (&whole[..8], "too short for any version"),
        (&whole[..23], "an offer of the wrong size"),
        (&[whole, &[0]].concat(), "an offer of the wrong size"),
    ];
    for (bytes, what) in cases {
        assert_eq!(malformed_offer(bytes), HandshakeError::Malformed(what));
    }
    let huge = malformed_offer(&[0; MAX_MESSAGE_BYTES + 1]);
    assert_eq!(huge, HandshakeError::Socket(SocketError::WrongSize));
}

#[test]
fn an_offer_without_a_proper_region_is_refused() {
    let (error, _) = accept_from(hello().as_bytes(), None, Ok(()));
    assert_eq!(error, HandshakeError::Socket(SocketError::NoDescriptor));

    let (reader, _writer) = pipe().unwrap();
    let (error, answer) = accept_from(hello().as_bytes(), Some(reader.as_fd()), Ok(()));
    assert_eq!(error, HandshakeError::Region(RegionError::NotMemfd));
    assert_eq!(answer, refused(b"the shared region is not a memory file"));

    let mut larger = hello();
    larger.arena_bytes = 8192;
    let size = RegionError::Size {
        expected: 16384,
        actual: 12288,
    };
    assert_eq!(
        malformed_offer(larger.as_bytes()),
        HandshakeError::Region(size)
    );

    let mut odd = hello();
    odd.ring_entries = 3;
    let entries = RegionError::RingEntries(3);
    assert_eq!(
        malformed_offer(odd.as_bytes()),
        HandshakeError::Region(entries)
    );
}

#[test]
fn a_server_that_is_not_ready_says_why() {
    let (client, server) = Socket::pair().unwrap();
    let server = thread::spawn(move || accept(server, Err(&"no driver\nhere")));
    let error = offer(client, SMALL).err();
    assert_eq!(
        error,
        Some(HandshakeError::Refused("no driver here".into()))
    );
    let error = server.join().unwrap().err();
    assert_eq!(
        error,
        Some(HandshakeError::NotReady("no driver\nhere".into()))
    );
}

#[test]
fn a_server_that_could_not_start_refuses_before_it_is_asked() {
    let (client, server) = Socket::pair().unwrap();
    refuse(&server, &"no driver");
    drop(server);
    let refused = offer(client, SMALL).err();
    assert!(matches!(refused, Some(HandshakeError::Refused(reason)) if reason == "no driver"));
}

#[test]
fn a_server_that_could_not_start_refuses_what_was_offered_before() {
    let (client, server) = Socket::pair().unwrap();
    let offering = thread::spawn(move || offer(client, SMALL).err());
    let soon = Instant::now() + TIMEOUT;
    assert!(server.wait_readable(soon).unwrap());
    refuse(&server, &"no driver");
    drop(server);
    let refused = offering.join().unwrap();
    assert!(matches!(refused, Some(HandshakeError::Refused(reason)) if reason == "no driver"));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let region = Region::create(SMALL).unwrap();
    // Three bytes each: the 86th would end at byte 258.
    let long = "€".repeat(200);
    let (_, answer) = accept_from(hello().as_bytes(), Some(region.as_fd()), Err(&long));
    assert_eq!(answer, refused("€".repeat(85).as_bytes()));
    let exact = "x".repeat(MAX_REASON_BYTES);
    let (_, answer) = accept_from(hello().as_bytes(), Some(region.as_fd()), Err(&exact));
    assert_eq!(answer, refused(exact.as_bytes()));
}

#[test]
fn a_hostile_reason_is_cut_and_cleaned() {
    let error = offer_to(&refused(b"a\x1b[2Jb\x00\xff"));
    assert_eq!(error, HandshakeError::Refused("a [2Jb \u{fffd}".into()));
    let error = offer_to(&refused(&[b'x'; 900]));
    assert_eq!(error, HandshakeError::Refused("x".repeat(MAX_REASON_BYTES)));
}

#[test]
fn malformed_answers_are_errors() {
    let cases = [
        (&b"short"[..], "too short for any version"),
        (hello().as_bytes(), "neither accepted nor refused"),
        (&[0; 16], "not of this protocol"),
    ]
    .map(|(answer, what)| (offer_to(answer), what));
    for (error, what) in cases {
        assert_eq!(error, HandshakeError::Malformed(what));
    }

    let (client, server) = Socket::pair().unwrap();
    let (reader, _writer) = pipe().unwrap();
    server
        .send_message(prefix(ACCEPTED).as_bytes(), Some(reader.as_fd()))
        .unwrap();
    let error = offer(client, SMALL).err();
    assert_eq!(
        error,
        Some(HandshakeError::Malformed("an answer with a descriptor"))
    );
}

#[test]
fn a_peer_that_left_is_noticed() {
    let (client, server) = Socket::pair().unwrap();
    drop(client);
    assert_eq!(
        accept(server, Ok(())).err(),
        Some(HandshakeError::PeerClosed)
    );

    let (client, server) = Socket::pair().unwrap();
    drop(server);
    assert_eq!(offer(client, SMALL).err(), Some(HandshakeError::PeerClosed));

    // The server dies with the offer unread.
    let (client, server) = Socket::pair().unwrap();
    let watcher = thread::spawn(move || {
        server.wait_readable(Instant::now() + TIMEOUT).unwrap();
        drop(server);
    });
    assert_eq!(offer(client, SMALL).err(), Some(HandshakeError::PeerClosed));
    watcher.join().unwrap();
}

#[test]
fn a_silent_peer_is_given_up() {
    let (_client, server) = Socket::pair().unwrap();
    let error = accept_until(server, Ok(()), Instant::now()).err();
    assert_eq!(error, Some(HandshakeError::TimedOut));
}

#[test]
fn a_wrong_socket_is_refused_by_both() {
    let wrong = || Socket::from(OwnedFd::from(pipe().unwrap().0));
    let expected = Some(HandshakeError::Socket(SocketError::WrongKind));
    assert_eq!(offer(wrong(), SMALL).err(), expected);
    assert_eq!(accept(wrong(), Ok(())).err(), expected);
}
