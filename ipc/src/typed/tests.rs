use std::io::{Read, pipe};
use std::os::fd::AsFd;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Word {
    Silence,
    Number(u32),
    Text(String),
    Pipe,
}

impl Message for Word {
    const MAXIMUM_BYTES: usize = 16;

    fn has_descriptor(&self) -> bool {
        matches!(self, Word::Pipe)
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Named {
    Ask,
    Tell(String),
}

impl Message for Named {
    const MAXIMUM_BYTES: usize = 32;
    const FORMAT: Format = Format::Json;
}

/// What is made of a message of these bytes, and of a descriptor with it.
fn heard<M: Message>(bytes: &[u8], descriptor: bool) -> Result<M, SocketError> {
    let (one, other) = Socket::pair().unwrap();
    let (mut reader, writer) = pipe().unwrap();
    let attached = descriptor.then(|| writer.as_fd());
    one.send_message(bytes, attached).unwrap();
    drop(writer);
    let heard = other.hear_at_once::<M>().map(|(message, _)| message);
    // Whatever became of the message, its descriptor is closed with it: only then does reading end.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    heard
}

#[test]
fn what_was_said_is_heard() {
    let (one, other) = Socket::pair().unwrap();
    let (reader, writer) = pipe().unwrap();
    one.say(&Word::Number(7), None).unwrap();
    one.say(&Word::Text("fourteen bytes".to_owned()), None)
        .unwrap();
    one.say(&Word::Pipe, Some(writer.as_fd())).unwrap();
    drop((reader, writer));
    assert_eq!(other.hear::<Word>().unwrap().0, Word::Number(7));
    let text = Word::Text("fourteen bytes".to_owned());
    assert_eq!(other.hear::<Word>().unwrap().0, text);
    assert!(matches!(
        other.hear::<Word>().unwrap(),
        (Word::Pipe, Some(_))
    ));
    let none = other.hear_at_once::<Word>().unwrap_err();
    assert_eq!(none, SocketError::WouldBlock);
    let soon = Instant::now() + Duration::from_millis(1);
    let none = other.hear_until::<Word>(soon).unwrap_err();
    assert_eq!(none, SocketError::WouldBlock);
    drop(one);
    assert_eq!(other.hear::<Word>().unwrap_err(), SocketError::Closed);
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let (one, _other) = Socket::pair().unwrap();
    let long = Word::Text("as many as fifteen".to_owned());
    assert_eq!(one.say(&long, None), Err(SocketError::TooLong));
    let long = Named::Tell("as many as thirty-two bytes or so".to_owned());
    assert_eq!(one.say(&long, None), Err(SocketError::TooLong));
}

#[test]
fn what_is_no_message_is_an_error() {
    let malformed = |bytes: &[u8]| match heard::<Word>(bytes, false) {
        Err(SocketError::Malformed(reason)) => reason,
        other => panic!("{bytes:?}: {other:?}"),
    };
    // A variant that is not there, a number that is cut off or too large, and text that is cut off, longer than the message,
    // or none.
    for bytes in [
        &[4][..],
        &[0xff; 16],
        &[1],
        &[1, 0x80],
        &[1, 0xff, 0xff, 0xff, 0xff, 0x1f],
        &[2, 3, b'a', b'b'],
        &[
            2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
        ],
        &[2, 1, 0xff],
    ] {
        assert!(!malformed(bytes).is_empty());
    }
    assert_eq!(malformed(&[0, 0]), "something follows it");
    assert_eq!(heard::<Word>(&[0; 17], false), Err(SocketError::WrongSize));
    assert_eq!(heard::<Word>(&[3], false), Err(SocketError::NoDescriptor));
    assert_eq!(
        heard::<Word>(&[0], true),
        Err(SocketError::UnwantedDescriptor)
    );
    assert_eq!(heard(&[1, 9], false), Ok(Word::Number(9)));
}

#[test]
fn in_json_a_variant_has_a_name() {
    let mut buffer = [0; 32];
    assert_eq!(write(&Named::Ask, &mut buffer), Ok(&br#""Ask""#[..]));
    let told = Named::Tell("so".to_owned());
    assert_eq!(write(&told, &mut buffer), Ok(&br#"{"Tell":"so"}"#[..]));
    assert_eq!(read(br#"{"Tell":"so"}"#), Ok(told));
    let Err(SocketError::Malformed(reason)) = read::<Named>(br#""Sing""#) else {
        panic!("an unknown name");
    };
    assert!(reason.starts_with("unknown variant `Sing`, expected `Ask` or `Tell`"));
    let followed = read::<Named>(br#""Ask" 1"#);
    assert!(matches!(followed, Err(SocketError::Malformed(_))));
}

#[test]
fn text_is_cut_between_characters() {
    assert_eq!(shortened("häuser", 6), "häuse");
    assert_eq!(shortened("häuser", 2), "h");
    assert_eq!(shortened("häuser", 0), "");
    assert_eq!(shortened("häuser", 99), "häuser");
}
