//! What the processes of a sandbox say to one another beside the rings: to the launcher, who is trusted most, and to a server.
//!
//! The peer sends one message of any bytes with any descriptors. Whether that is a message follows from the bytes and the
//! number of descriptors alone, and one that was received can be sent on and received again as the same.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use nvproxy_protocol::supervision::{self, Message};
use ringfence::launch::jobs::{self, Event};
use ringfence_ipc::{Socket, SocketError};
use ringfence_sentry::liaison::{self, News, Plea};

use crate::descriptors::none_left_behind;
use crate::handshake::{Attached, send};
use crate::input::Input;

/// Sends one message to one of those that hear.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    none_left_behind(|| match input.byte() % 4 {
        0 => plea(&mut input),
        1 => news(&mut input),
        2 => event(&mut input),
        _ => supervision(&mut input),
    });
}

/// Which variant of its enum a message is, and its fields: the number has seven bits in each byte, the lowest first, and
/// may be written longer than it needs be.
fn variant(message: &[u8]) -> Option<(u32, &[u8])> {
    let end = message.iter().take(5).position(|byte| *byte < 0x80)?;
    let (number, fields) = message.split_at(end + 1);
    let number = number
        .iter()
        .rev()
        .fold(0u64, |number, byte| number << 7 | u64::from(*byte & 0x7f));
    Some((u32::try_from(number).ok()?, fields))
}

/// A sentry asks its launcher for something.
fn plea(input: &mut Input<'_>) {
    let (launcher, sentry) = liaison::pair().expect("a pair of sockets");
    let attached = Attached::new(input);
    let message = input.0;
    send(sentry.as_fd(), message, &attached);
    let expected = match (message, attached.descriptors.len()) {
        ([0], 0) => Some("another server"),
        ([1], 0) => Some("the end of the server"),
        ([2], 1) => Some("to hold the listener"),
        ([3], 0) => Some("nothing any more"),
        _ => None,
    };
    let asked = launcher.next().map(|plea| match plea {
        Plea::AnotherServer => "another server",
        Plea::EndServer => "the end of the server",
        Plea::HoldListener(_) => "to hold the listener",
        Plea::Over => "nothing any more",
    });
    assert_eq!(asked.clone().ok(), expected, "{:?}", asked.err());
}

/// A launcher tells its sentry something, and then ends.
fn news(input: &mut Input<'_>) {
    let (launcher, sentry) = liaison::pair().expect("a pair of sockets");
    let attached = Attached::new(input);
    let message = input.0;
    send(launcher.as_fd(), message, &attached);
    drop(launcher);
    let count = attached.descriptors.len();
    match sentry.wait() {
        Ok(News::Succeeded { .. }) => {
            assert_eq!((variant(message), count), (Some((3, &[][..])), 1))
        }
        Ok(News::NoFurther(reason)) => {
            let (number, fields) = variant(message).expect("a message");
            assert_eq!((number, count), (4, 0));
            assert!(fields.ends_with(reason.as_bytes()));
        }
        Ok(News::Started { .. }) => panic!("a server whose socket and memory were never sent"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Init tells the launcher of the program.
fn event(input: &mut Input<'_>) {
    let (mut launcher, init) = jobs::pair().expect("a pair of sockets");
    let attached = Attached::new(input);
    let message = input.0;
    send(init.as_fd(), message, &attached);
    let heard = launcher
        .hear()
        .map(|event| event.expect("nothing is about to be continued"));
    let count = attached.descriptors.len();
    let short = message.len() <= 8;
    match (variant(message).filter(|_| short), &heard) {
        (Some((0, [])), Ok(Event::Terminal(_))) => assert_eq!(count, 1),
        (Some((1, [])), Ok(Event::Started(_))) => assert_eq!(count, 1),
        (Some((2, [_, ..])), Ok(Event::Stopped(_))) => assert_eq!(count, 0),
        (Some((3, [0])), Ok(Event::Ended(None))) => assert_eq!(count, 0),
        (Some((3, [1, _, ..])), Ok(Event::Ended(Some(_)))) => assert_eq!(count, 0),
        (Some((4, [])), Ok(Event::Obeyed)) => assert_eq!(count, 0),
        (_, Ok(_)) => panic!("{message:?} with {count} descriptors was taken for an event"),
        (Some((0 | 1, [])), Err(error)) => assert_ne!(count, 1, "{error}"),
        (Some((3, [0]) | (4, [])), Err(error)) => assert_ne!(count, 0, "{error}"),
        (_, Err(error)) => assert!(!error.to_string().is_empty()),
    }
}

/// A server says something to the launcher or to the server that takes its place, or the launcher to a server.
fn supervision(input: &mut Input<'_>) {
    let (ours, theirs) = Socket::pair().expect("a pair of sockets");
    let theirs = OwnedFd::from(theirs);
    let attached = Attached::new(input);
    let bytes = input.0;
    send(theirs.as_fd(), bytes, &attached);
    // What is empty is like the end, after which nothing is waited for.
    let heard = supervision::receive(&ours);
    let (message, descriptor) = match heard {
        Ok(heard) => heard,
        Err(error) => {
            let is_plain = matches!(variant(bytes), Some((0 | 3 | 5..=10, [])));
            assert!(!is_plain || !attached.descriptors.is_empty(), "{error}");
            return;
        }
    };
    let wants_one = matches!(message, Message::HandOver | Message::State { .. });
    assert_eq!(attached.descriptors.len(), usize::from(wants_one));
    assert_eq!(descriptor.is_some(), wants_one);
    let descriptor = descriptor.as_ref().map(AsFd::as_fd);
    supervision::send(&ours, &message, descriptor).expect("sent");
    let mut again = [0; 2048];
    let length = recv(theirs.as_raw_fd(), &mut again, MsgFlags::MSG_DONTWAIT).expect("a message");
    assert!(length <= bytes.len());
    let (ours, theirs) = Socket::pair().expect("a pair of sockets");
    supervision::send(&theirs, &message, descriptor).expect("sent");
    let (same, _) = supervision::receive(&ours).expect("a message");
    assert_eq!(same, message);
    drop(theirs);
    assert_eq!(
        supervision::receive(&ours).unwrap_err(),
        SocketError::Closed
    );
}
