//! A number of bytes as a user writes it: `4GiB`, `512MiB`, `4G`, `1073741824`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. What a user writes is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(u64);

/// Units, in either case, and how many bytes they are, as powers of two.
static UNITS: &[(&str, u32)] = &[
    ("", 0),
    ("B", 0),
    ("K", 10),
    ("KiB", 10),
    ("M", 20),
    ("MiB", 20),
    ("G", 30),
    ("GiB", 30),
    ("T", 40),
    ("TiB", 40),
    ("P", 50),
    ("PiB", 50),
];

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
        "'{0}' is no size: write a whole number of bytes, or one with a unit, as in 512MiB or 4GiB"
    )]
    NoSize(String),
    /// It is nothing.
    #[error("it has to be more than 0")]
    Nothing,
    /// It is more than can be.
    #[error("'{0}' is more than 2^64 bytes")]
    TooMuch(String),
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Size, Error> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let mut units = UNITS.iter();
        let known = units.find(|(known, _)| known.eq_ignore_ascii_case(unit));
        let Some((_, power)) = known.filter(|_| !number.is_empty()) else {
            return Err(Error::NoSize(text.to_owned()));
        };
        let number: Option<u64> = number.parse().ok();
        match number.and_then(|number| number.checked_mul(1 << power)) {
            Some(0) => Err(Error::Nothing),
            Some(bytes) => Ok(Size(bytes)),
            None => Err(Error::TooMuch(text.to_owned())),
        }
    }
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
            ("512MiB", 512 << 20),
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
            "", "G", "GiB", "-1", "+1", "1.5GiB", "4 GiB", "4GB", "4Gi", "4GiBs", "4x", "0x10",
            "4BiB", "٤",
        ] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert!(error.contains("is no size"), "{text}: {error}");
        }
        for text in ["0", "0GiB"] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert_eq!(error, "it has to be more than 0");
        }
        for text in ["18446744073709551616", "16384PiB"] {
            let error = text.parse::<Size>().expect_err(text).to_string();
            assert_eq!(error, format!("'{text}' is more than 2^64 bytes"));
        }
    }
}
