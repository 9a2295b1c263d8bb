//! A number of bytes as people write it: `4g`, `4Gi`, `1.5GiB`, `512m`, `1073741824`.
//!
//! Every option that takes a size reads it here. All units are powers of two, `4GB` too, as Docker takes them: who means
//! powers of ten can write the bytes. A fraction is taken exactly, and what it has of less than a byte is left out.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. What a user writes is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

/// How a size is written, for help.
pub const FORM: &str = "\
    A SIZE is a number of bytes, or a number with a unit, as in 512m, 4GiB or 1.5G. The units are K, M, G, T and P, in either \
    case, alone or followed by i, B or iB. They are powers of 1024 all the same, as with Docker: 4g, 4Gi, 4GB and 4GiB are 4294967296 bytes.";

/// Letters of units, and the power of two that each stands for.
const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];
/// What may follow a unit's letter, in either case.
const ENDINGS: [&str; 4] = ["", "i", "B", "iB"];
/// The most digits of a fraction. So many units of the largest kind fit into 128 bits.
const FRACTION: usize = 18;

impl Size {
    /// None at all, which no text says.
    pub const NOTHING: Size = Size(0);

    /// As many bytes, or one if that is none.
    pub fn of_at_least_one(bytes: u64) -> Size {
        Size(bytes.max(1))
    }

    /// How many bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is written otherwise.
    #[error(
        "'{0}' is no size: write a number of bytes, or a number with the unit K, M, G, T or P, as in 512m, 4GiB or 1.5G"
    )]
    NoSize(String),
    /// It is nothing.
    #[error("it has to be more than 0")]
    Nothing,
    /// It is more than can be.
    #[error("'{0}' is more than 2^64 - 1 bytes")]
    TooMuch(String),
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Size, Error> {
        let no_size = || Error::NoSize(text.to_owned());
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let power = power(&text[number.len()..]).ok_or_else(no_size)?;
        let (whole, fraction) = match number.split_once('.') {
            // Of a byte there are no parts.
            Some((whole, fraction)) if power > 0 => (whole, fraction),
            Some(_) => return Err(no_size()),
            None => (number, "0"),
        };
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > FRACTION {
            return Err(no_size());
        }
        match bytes(whole, fraction, power) {
            Some(0) => Err(Error::Nothing),
            Some(bytes) => Ok(Size(bytes)),
            None => Err(Error::TooMuch(text.to_owned())),
        }
    }
}

/// The power of two that a unit stands for. Without a unit, and with that of bytes, it is none.
fn power(unit: &str) -> Option<u32> {
    let Some(letter) = unit.chars().next() else {
        return Some(0);
    };
    if unit.eq_ignore_ascii_case("B") {
        return Some(0);
    }
    let (_, power) = UNITS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(&letter))?;
    let mut endings = ENDINGS.iter();
    let is_known = endings.any(|ending| ending.eq_ignore_ascii_case(&unit[1..]));
    is_known.then_some(*power)
}

/// `whole.fraction` units of 2^`power` bytes; `None` if that is more than 64 bits hold. Both are digits.
fn bytes(whole: &str, fraction: &str, power: u32) -> Option<u64> {
    let whole: u64 = whole.parse().ok()?;
    let numerator: u128 = fraction.parse().ok()?;
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let rest = (numerator << power) / denominator;
    let bytes = (u128::from(whole) << power) + rest;
    bytes.try_into().ok()
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("1", 1),
            ("1073741824", 1 << 30),
            ("17B", 17),
            ("3K", 3 << 10),
            ("3k", 3 << 10),
            ("3KiB", 3 << 10),
            ("3kb", 3 << 10),
            ("512MiB", 512 << 20),
            ("512m", 512 << 20),
            ("4g", 4 << 30),
            ("4Gi", 4 << 30),
            ("4GB", 4 << 30),
            ("4gib", 4 << 30),
            ("1.5GiB", 3 << 29),
            ("0.1G", 107_374_182),
            ("0.000000001g", 1),
            ("0017", 17),
            ("4G", 4 << 30),
            ("4GiB", 4 << 30),
            ("2TiB", 2 << 40),
            ("15PiB", 15 << 50),
        ] {
            let size: Size = text.parse().expect(text);
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "G",
            "GiB",
            "-1",
            "+1",
            "1.5",
            "1.5B",
            "4 GiB",
            " 4G",
            "4G ",
            "4GiBs",
            "4x",
            "0x10",
            "4BiB",
            "4Bi",
            "4i",
            "1.G",
            ".5G",
            "1.2.3G",
            "1,5G",
            "1e9",
            "4GG",
            "4G4",
            "٤",
            "٤G",
            "1.0000000000000000001G",
            "max",
        ] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert!(error.contains("is no size"), "{text}: {error}");
        }
        for text in ["0", "0GiB", "0.0000000001G"] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert_eq!(error, "it has to be more than 0");
        }
        for text in ["18446744073709551616", "16384PiB", "16384.5p"] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert_eq!(error, format!("'{text}' is more than 2^64 - 1 bytes"));
        }
    }
}
