//! How a task asks the sentry for a lane (`ringfence run --fast`): ioctls of the driver's type with numbers that the driver
//! does not use, so that the tasks' filter stops them as it stops the driver's.
//!
//! | number | descriptor | argument | returns |
//! |---|---|---|---|
//! | [`OPEN`] | – | the address of [`LaneParameters`] | a descriptor of the lane's region, which becomes the task's |
//! | [`VOUCH`] | one of the driver's | the lane | what the descriptor is called in the lane: the subject of requests, below [`SUBJECTS`] |
//! | [`ASK`] | – | the lane | 0 if it is served |
//!
//! Without `--fast` they are answered as the driver's unknown numbers are. With it they fail with `ENOTTY` if the
//! descriptor is none of the driver's that a lane can name, `EBADF` if there is none, `ESRCH` if the lane is not served,
//! `EPROTO` if the two were not built together, and otherwise as the server says.
//!
//! A request in a lane is a payload as [`crate::plan`] lays it out. Its operation is the ioctl's command word.

use crate::number::NV_IOCTL_MAGIC;
use crate::policy::Capabilities;
use crate::version::DriverVersion;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The command word with this number. It carries no size: no argument is the driver's.
const fn word(number: u32) -> u32 {
    (NV_IOCTL_MAGIC as u32) << 8 | number
}

/// Opens a lane for the calling process, in the place of the one that it has.
pub const OPEN: u32 = word(0xfd);
/// Asks what a descriptor is called in a lane.
pub const VOUCH: u32 = word(0xfe);
/// Asks whether a lane is served.
pub const ASK: u32 = word(0xff);

/// Grows with every change of what a lane's process and its server have to agree upon.
pub const PROTOCOL: u32 = 1;

/// The argument of [`OPEN`]: the task writes `protocol`, the sentry the rest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LaneParameters {
    pub protocol: u32,
    pub capabilities: u8,
    pub has_patch: u8,
    pub patch: u8,
    pub padding: u8,
    pub branch: u16,
    pub minor: u16,
    pub padding2: u32,
    /// What the lane is called.
    pub lane: u64,
}

impl LaneParameters {
    /// What a sentry answers that has the tables of `version` and grants `capabilities`.
    pub fn new(lane: u64, version: DriverVersion, capabilities: Capabilities) -> LaneParameters {
        LaneParameters {
            protocol: PROTOCOL,
            capabilities: capabilities.bits(),
            has_patch: version.patch().is_some().into(),
            patch: version.patch().unwrap_or(0),
            padding: 0,
            branch: version.branch(),
            minor: version.minor(),
            padding2: 0,
            lane,
        }
    }

    /// The release whose tables the server has.
    pub fn version(&self) -> DriverVersion {
        let patch = (self.has_patch != 0).then_some(self.patch);
        DriverVersion::new(self.branch, self.minor, patch)
    }

    /// What the sandbox may ask of the driver.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(self.capabilities & Capabilities::ALL.bits())
    }
}

/// One more than the highest subject.
pub const SUBJECTS: u32 = 1 << 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Abi;
    use crate::number::parts;
    use crate::table::Family;

    #[test]
    fn no_release_has_a_request_with_one_of_these_numbers() {
        for version in crate::releases() {
            let abi = Abi::new(&version, Capabilities::ALL).expect("tables");
            for word in [OPEN, VOUCH, ASK] {
                let (_, number, _) = parts(word);
                assert_eq!(abi.name(Family::Frontend, number), None, "{version}");
                let row = abi.rows(Family::Frontend).find(|row| row.id == number);
                assert_eq!(row, None, "{version}");
            }
        }
    }

    #[test]
    fn what_is_answered_is_read_back() {
        for version in crate::releases() {
            let parameters = LaneParameters::new(7, version, Capabilities::ALL);
            assert_eq!(parameters.version(), version);
            assert_eq!(parameters.capabilities(), Capabilities::ALL);
        }
    }
}
