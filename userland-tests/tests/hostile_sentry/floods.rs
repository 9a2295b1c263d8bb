//! More than the server has room for, and words of the rings that are none of the sentry's: it serves on.

use ringfence_ipc::PushError;
use userland_tests::eventually;

use super::*;

/// Answers that nobody takes are lost, and nothing but that.
#[test]
fn a_flood_costs_the_server_nothing() {
    let mut peer = Peer::new("");
    let client = peer.client();
    peer.channel
        .arena
        .write(0, &probe_payload(client.1))
        .expect("the arena");
    let request = Submission {
        payload_length: PROBE_LENGTH,
        ..probe(client.0)
    };
    let malformed = Submission { kind: 0, ..request };
    let flood = |peer: &mut Peer, count: u32| {
        for index in 0..count {
            let asked = if index % 2 == 0 { request } else { malformed };
            while let Err(error) = peer.submit(asked) {
                assert_eq!(error, PushError::Full);
                std::thread::yield_now();
            }
        }
        // The server has taken all when the ring has room for a whole ring again.
        eventually("the flood is over", || {
            let mut head = [0; 4];
            let read = nix::sys::uio::pread(peer.region.as_fd(), &mut head, SUBMISSION_HEAD);
            let mut tail = [0; 4];
            let also = nix::sys::uio::pread(peer.region.as_fd(), &mut tail, SUBMISSION_TAIL);
            (read, also) == (Ok(4), Ok(4)) && head == tail
        });
    };
    flood(&mut peer, 2000);
    let before = peer.status("VmRSS");
    flood(&mut peer, 50_000);
    let after = peer.status("VmRSS");
    assert!(after < before + 1024, "{before} KiB, then {after}");
    assert!(peer.status("Threads") < 10);
    // Room is made, and it serves.
    while peer.channel.completions.pop().expect("a ring").is_some() {}
    peer.expect_service(client);
    assert_eq!(
        peer.close(),
        served(&[
            "malformed message: an unknown kind",
            "a completion is lost: the ring is full: the peer consumes too slowly",
        ])
    );
}

/// Descriptions are as many as the server may have descriptors, and all can be had again.
#[test]
fn opening_and_never_closing_ends_in_emfile() {
    let mut peer = Peer::new("server.take@2=exhaust-descriptors:80");
    let client = peer.client();
    for _ in 0..3 {
        // Closing is left to other threads, so what the round before has given back comes bit by bit.
        let mut handles = Vec::new();
        eventually("there is room for more than 20", || {
            let errno = loop {
                match peer.open(Node::Control) {
                    Ok(handle) => handles.push(handle),
                    Err(errno) => break errno,
                }
                assert!(handles.len() < 100);
            };
            assert_eq!(errno, -(Errno::EMFILE as i64));
            handles.len() > 20
        });
        peer.expect_service(client);
        for handle in handles {
            assert_eq!(
                peer.ask(submission(Kind::Close, handle, Node::Control))
                    .result,
                0
            );
        }
    }
    peer.expect_service(client);
    assert_eq!(peer.close().status, Some(0));
}

/// What the sentry may write besides: the server looks at none of it, or loses that sentry's answers.
#[test]
fn other_words_of_the_rings_do_no_harm() {
    let mut peer = Peer::new("");
    let client = peer.client();
    for value in [0, 1, 2, u32::MAX] {
        peer.set_word(SUBMISSION_HEAD, value);
        peer.set_word(SUBMISSION_SLEEP, value);
        let asked = submission(Kind::Close, 0, Node::Control);
        let cookie = peer.submit(asked).expect("room");
        peer.channel.submissions.ring_again();
        // The server's own index is announced with its next answer.
        let completion = peer.next_with(cookie);
        assert_eq!(completion.result, EBADF);
    }
    peer.expect_service(client);
    // From here on no answer can be published.
    peer.set_word(COMPLETION_HEAD, 0x8000_0000);
    for _ in 0..600 {
        while peer
            .submit(submission(Kind::Close, 0, Node::Control))
            .is_err()
        {
            std::thread::yield_now();
        }
    }
    let lost = "a completion is lost: the ring is corrupt: the peer announced an index that it cannot have reached";
    assert_eq!(peer.close(), served(&[lost]));
}
