//! Text of others, fit to be shown: what a terminal would take for a command is written out.
//!
//! The idea: a terminal obeys control characters, and sentry and servers, should they be taken over, write what they like.
//! So wherever their text is shown, be it a reason that a command prints or what is copied from them to the caller's stderr,
//! each control character but the end of a line and the tabulator is replaced by its escape in Rust's notation, and each byte
//! that is no text by its number. So is each character that shows nothing and has others shown in another order or place. Of
//! text without these nothing is changed.

use std::borrow::Cow;
use std::io::Write;
use std::str;

use ringfence_faults::{Act, Point};

/// As many bytes of escapes as a byte of text can come to.
const GROWTH: usize = 6;
/// The longest character, in bytes.
const CHARACTER: usize = 4;

/// One line of text, fit to be shown as a part of a line.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if is_left_out() || !text.contains(is_obeyed) {
        return text.into();
    }
    let escape = |character: char| match is_obeyed(character) {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

/// Text that comes in pieces, of which a character may lie in two.
pub struct Stream {
    text: Vec<u8>,
    shown: Vec<u8>,
}

impl Stream {
    /// Takes all memory that it will need for pieces of so many bytes.
    pub fn new(piece: usize) -> Stream {
        let room = CHARACTER + piece;
        Stream {
            text: Vec::with_capacity(room),
            shown: Vec::with_capacity(GROWTH * room),
        }
    }

    /// What to show of what has come up to the end of this piece, and was not shown yet.
    pub fn next(&mut self, piece: &[u8]) -> &[u8] {
        self.text.extend_from_slice(piece);
        self.shown.clear();
        let left = append(&self.text, &mut self.shown);
        self.text.drain(..self.text.len() - left);
        &self.shown
    }

    /// What to show of the rest, when no piece comes any more.
    pub fn rest(&mut self) -> &[u8] {
        self.shown.clear();
        append_numbers(&self.text, &mut self.shown);
        self.text.clear();
        &self.shown
    }
}

/// Appends what is in `bytes` to `to`, fit to be shown, and returns how many bytes at the end are the beginning of a
/// character, and were left. Takes no memory if `to` has room for [`GROWTH`] times as much.
fn append(bytes: &[u8], to: &mut Vec<u8>) -> usize {
    if is_left_out() {
        to.extend_from_slice(bytes);
        return 0;
    }
    let mut rest = bytes;
    loop {
        match str::from_utf8(rest) {
            Ok(text) => {
                append_text(text, to);
                return 0;
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                append_text(str::from_utf8(valid).unwrap_or_default(), to);
                let Some(length) = error.error_len() else {
                    return invalid.len();
                };
                let (wrong, after) = invalid.split_at(length);
                append_numbers(wrong, to);
                rest = after;
            }
        }
    }
}

/// Whether a terminal does something at this character other than to show it: those of Unicode's categories Cc, Zl and Zp,
/// interlinear annotations, and all that have the property Default_Ignorable_Code_Point, which show nothing, and join, part or
/// reorder others (Unicode 16.0, DerivedCoreProperties.txt).
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}'
            | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Appends the number of each of these bytes.
fn append_numbers(bytes: &[u8], to: &mut Vec<u8>) {
    for byte in bytes {
        // Writing to memory does not fail.
        let _ = write!(to, "\\x{byte:02x}");
    }
}

fn append_text(text: &str, to: &mut Vec<u8>) {
    for character in text.chars() {
        if is_obeyed(character) && !matches!(character, '\n' | '\t') {
            let _ = write!(to, "{}", character.escape_default());
        } else {
            to.extend_from_slice(character.encode_utf8(&mut [0; CHARACTER]).as_bytes());
        }
    }
}

/// For the tests of what is shown otherwise.
fn is_left_out() -> bool {
    ringfence_faults::at(Point::Shown) == Some(Act::Drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut shown = Vec::new();
        let mut stream = Stream::new(64);
        for piece in pieces {
            shown.extend_from_slice(stream.next(piece));
        }
        shown.extend_from_slice(stream.rest());
        String::from_utf8(shown).expect("text")
    }

    #[test]
    fn text_is_left_as_it_is() {
        let text = "ringfence: größer\tals 3 µs\n";
        assert_eq!(shown(&[text.as_bytes()]), text);
        assert_eq!(escaped("größer als 3 µs"), "größer als 3 µs");
    }

    #[test]
    fn nothing_is_left_that_has_others_shown_elsewhere() {
        let text = "a\u{202e}b\u{2028}c\u{200b}d\u{feff}e\u{2066}f\u{61c}g\u{34f}h\u{e0001}";
        let expected =
            "a\\u{202e}b\\u{2028}c\\u{200b}d\\u{feff}e\\u{2066}f\\u{61c}g\\u{34f}h\\u{e0001}";
        assert_eq!(shown(&[text.as_bytes()]), expected);
        assert_eq!(escaped(text), expected);
    }

    #[test]
    fn no_control_character_is_left() {
        let text = "a\u{1b}]0;b\u{7}\r\u{7f}\u{9b}2J\0";
        let expected = "a\\u{1b}]0;b\\u{7}\\r\\u{7f}\\u{9b}2J\\u{0}";
        assert_eq!(shown(&[text.as_bytes()]), expected);
        assert_eq!(escaped(text), expected);
        assert_eq!(escaped("one\ntwo"), "one\\ntwo");
    }

    #[test]
    fn what_is_no_text_is_numbers() {
        assert_eq!(shown(&[b"a\x9b\xff", b"b\xc3"]), "a\\x9b\\xffb\\xc3");
    }

    #[test]
    fn a_character_may_come_in_pieces() {
        let text = "µ€😀".as_bytes();
        for at in 0..=text.len() {
            let (one, other) = text.split_at(at);
            assert_eq!(shown(&[one, other]), "µ€😀");
        }
        let every: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(shown(&every), "µ€😀");
    }

    #[test]
    fn no_text_grows_more_than_said() {
        for byte in 0..=255u8 {
            for text in [vec![byte; 12], vec![0xc2, byte]] {
                let shown = shown(&[&text]);
                assert!(shown.len() <= GROWTH * text.len(), "{text:?}");
            }
        }
    }
}
