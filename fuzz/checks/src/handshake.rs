//! What travels on the socket beside a channel: an offer, the answer to one, and parcels.
//!
//! The peer sends one message of any bytes with any descriptors, and is then waited for in vain. What
//! this side makes of it has to follow from the message alone.

use std::fmt::Display;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use ringfence_ipc::handshake::{MAX_REASON_BYTES, accept, offer};
use ringfence_ipc::{Geometry, HandshakeError, PROTOCOL_VERSION, Region, Socket};

use crate::descriptors::none_left_behind;
use crate::input::Input;

const PREFIX_BYTES: usize = 16;
const HELLO: u32 = 1;
const ACCEPTED: u32 = 2;
const REFUSED: u32 = 3;
/// The longest message that is read.
const MAXIMUM_MESSAGE: usize = 1024;

/// Sends one message to one of those that receive.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    none_left_behind(|| match input.byte() % 3 {
        0 => offered(&mut input),
        1 => answered(&mut input),
        _ => parcel(&mut input),
    });
}

/// What goes with a message.
pub(crate) struct Attached {
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The geometry of the region, if the only descriptor is that of one.
    region: Option<Geometry>,
}

impl Attached {
    pub(crate) fn new(input: &mut Input<'_>) -> Attached {
        let kind = input.byte();
        let geometry = Geometry {
            ring_entries: 1 << (input.byte() % 4),
            arena_bytes: u32::from(input.byte() % 4) << 12,
        };
        let region = || descriptor_of(&Region::create(geometry).expect("a region"));
        let unsealed = || memfd_create(c"unsealed", MFdFlags::MFD_CLOEXEC).expect("a memory file");
        let other = || OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
        let descriptors = match kind % 6 {
            0 => Vec::new(),
            1 | 2 => vec![region()],
            3 => vec![unsealed()],
            4 => vec![other()],
            _ => vec![region(), other()],
        };
        Attached {
            descriptors,
            region: matches!(kind % 6, 1 | 2).then_some(geometry),
        }
    }
}

fn descriptor_of(region: &Region) -> OwnedFd {
    region.as_fd().try_clone_to_owned().expect("a descriptor")
}

pub(crate) fn send(peer: BorrowedFd<'_>, message: &[u8], attached: &Attached) {
    let raw: Vec<i32> = attached
        .descriptors
        .iter()
        .map(AsRawFd::as_raw_fd)
        .collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &[] } else { &rights[..] };
    let parts = [IoSlice::new(message)];
    sendmsg::<()>(peer.as_raw_fd(), &parts, rights, MsgFlags::empty(), None).expect("a message");
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// The kind of a message of this version.
fn kind(message: &[u8]) -> Option<u32> {
    let ours = message.starts_with(b"ringfenc") && word(message, 8) == Some(PROTOCOL_VERSION);
    word(message, 12).filter(|_| ours && message.len() <= MAXIMUM_MESSAGE)
}

/// A client offers something to a server.
fn offered(input: &mut Input<'_>) {
    let (ours, theirs) = Socket::pair().expect("a pair of sockets");
    let theirs = OwnedFd::from(theirs);
    let attached = Attached::new(input);
    let ready = match input.byte() {
        0 => Ok(()),
        length => Err("ä".repeat(length.into())),
    };
    let message = input.0;
    send(theirs.as_fd(), message, &attached);

    let acceptable = kind(message) == Some(HELLO)
        && message.len() == PREFIX_BYTES + 8
        && attached.region.is_some_and(|region| fits(message, region));
    let expected = acceptable && ready.is_ok();
    let ready = ready.as_ref().map(|_| ());
    let accepted = accept(
        ours,
        ready.map_err(|reason: &String| reason as &dyn Display),
    );
    assert_eq!(accepted.is_ok(), expected, "{:?}", accepted.err());

    let mut answer = [0; 2 * MAXIMUM_MESSAGE];
    let length = recv(theirs.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).expect("an answer");
    let answer = &answer[..length];
    if expected {
        assert_eq!((kind(answer), length), (Some(ACCEPTED), PREFIX_BYTES));
    } else {
        assert_eq!(kind(answer), Some(REFUSED));
        let reason = std::str::from_utf8(&answer[PREFIX_BYTES..]).expect("a reason in UTF-8");
        assert!(reason.len() <= MAX_REASON_BYTES);
    }
}

/// Whether the geometry in an offer is one that a region of `made` has the size of.
fn fits(offer: &[u8], made: Geometry) -> bool {
    let field = |at| word(offer, at).unwrap_or_default();
    let offered = Geometry {
        ring_entries: field(16),
        arena_bytes: field(20),
    };
    // As `ringfence_ipc::region` documents the layout.
    let bytes = |geometry: Geometry| {
        let rings = (2 * 64 * u64::from(geometry.ring_entries)).next_multiple_of(4096);
        4096 + rings + u64::from(geometry.arena_bytes)
    };
    offered.validate().is_ok() && bytes(offered) == bytes(made)
}

/// A server answers a client.
fn answered(input: &mut Input<'_>) {
    let (ours, theirs) = Socket::pair().expect("a pair of sockets");
    let theirs = OwnedFd::from(theirs);
    let attached = Attached::new(input);
    let message = input.0;
    send(theirs.as_fd(), message, &attached);

    let kind = kind(message).filter(|_| attached.descriptors.is_empty());
    let geometry = Geometry {
        ring_entries: 1,
        arena_bytes: 0,
    };
    match offer(ours, geometry) {
        Ok(_) => assert_eq!(kind, Some(ACCEPTED)),
        Err(HandshakeError::Refused(reason)) => {
            assert_eq!(kind, Some(REFUSED));
            assert!(reason.chars().count() <= MAX_REASON_BYTES);
            assert!(!reason.contains(char::is_control));
        }
        Err(error) => {
            assert!(!matches!(kind, Some(ACCEPTED | REFUSED)), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// A parcel: a tag of 8 bytes with one descriptor.
fn parcel(input: &mut Input<'_>) {
    let (ours, theirs) = Socket::pair().expect("a pair of sockets");
    let theirs = OwnedFd::from(theirs);
    let attached = Attached::new(input);
    let message = input.0;
    send(theirs.as_fd(), message, &attached);
    match ours.receive() {
        Ok((tag, _)) => {
            assert_eq!(message, tag.to_ne_bytes());
            assert_eq!(attached.descriptors.len(), 1);
        }
        Err(error) => {
            assert!(
                message.len() != 8 || attached.descriptors.len() != 1,
                "{error}"
            );
        }
    }
}
