//! Release numbers of the driver, as `/proc/driver/nvidia/version` and NV_ESC_CHECK_VERSION_STR spell them.
//!
//! A release is `BRANCH.MINOR` or `BRANCH.MINOR.PATCH`, the patch always of two digits: "580.142", "580.159.04". Only
//! that spelling is accepted, so that what is parsed prints as it was written.

use std::fmt;
use std::str::FromStr;

/// One release of the driver. Ordered by age: 580.142 precedes 580.159.03, which precedes 580.159.04.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverVersion {
    branch: u16,
    minor: u16,
    patch: Option<u8>,
}

/// The text is not a release number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidVersion;

impl fmt::Display for InvalidVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not a driver version: expected digits as in 580.142 or 580.159.04")
    }
}

impl std::error::Error for InvalidVersion {}

impl DriverVersion {
    /// A release of which the numbers are known to be of the right lengths.
    pub const fn new(branch: u16, minor: u16, patch: Option<u8>) -> DriverVersion {
        DriverVersion {
            branch,
            minor,
            patch,
        }
    }

    /// The branch, as in 580.
    pub const fn branch(&self) -> u16 {
        self.branch
    }

    /// The second number, as 159 in 580.159.04.
    pub const fn minor(&self) -> u16 {
        self.minor
    }

    /// The third number, where there is one.
    pub const fn patch(&self) -> Option<u8> {
        self.patch
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:02}", self.branch, self.minor)?;
        match self.patch {
            Some(patch) => write!(formatter, ".{patch:02}"),
            None => Ok(()),
        }
    }
}

impl FromStr for DriverVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<DriverVersion, InvalidVersion> {
        let mut parts = text.split('.');
        let branch = number(parts.next(), 3)?;
        let minor = number(parts.next(), 3)?;
        let patch = match parts.next() {
            None => None,
            part => Some(number(part, 2)? as u8),
        };
        let version = DriverVersion {
            branch,
            minor,
            patch,
        };
        // Leading zeros and a short patch would print differently from how they were written.
        if parts.next().is_none() && version.to_string() == text {
            Ok(version)
        } else {
            Err(InvalidVersion)
        }
    }
}

/// A decimal number of one to `digits` digits and nothing else.
fn number(part: Option<&str>, digits: usize) -> Result<u16, InvalidVersion> {
    let part = part.ok_or(InvalidVersion)?;
    if part.len() > digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidVersion);
    }
    part.parse().map_err(|_| InvalidVersion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DriverVersion {
        text.parse().expect("a valid version")
    }

    #[test]
    fn releases_print_as_they_were_written() {
        for text in [
            "580.142",
            "580.159.04",
            "580.65.06",
            "570.124.06",
            "390.48",
            "545.23.06",
        ] {
            assert_eq!(parse(text).to_string(), text);
            assert_eq!(parse(text).branch().to_string(), text[..3]);
        }
    }

    #[test]
    fn releases_are_ordered_by_age() {
        let ordered = [
            "570.195.03",
            "580.65.06",
            "580.142",
            "580.159.03",
            "580.159.04",
            "590.44.01",
        ]
        .map(parse);
        assert!(ordered.is_sorted_by(|older, newer| older < newer));
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "5".repeat(1 << 16);
        for text in [
            "",
            ".",
            "580",
            "580.",
            "580.142.",
            "580.142.4",
            "580.142.004",
            "580.1420",
            "580.159.04.1",
            "+580.142",
            " 580.142",
            "580.142\n",
            "580.-1",
            "0580.142",
            "580.0142",
            "5８0.142",
            &long,
        ] {
            assert_eq!(
                text.parse::<DriverVersion>(),
                Err(InvalidVersion),
                "{text:.20}"
            );
        }
    }
}
