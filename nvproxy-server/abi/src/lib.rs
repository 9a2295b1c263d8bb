//! The request ABI of NVIDIA's kernel driver as data, and the plan by which a request is marshalled.
//!
//! A driver request is a row in a table ([`table::Request`]): how long its parameters are, where pointers and
//! descriptor numbers lie in them, and what is peculiar about issuing it. [`plan::Planner`] walks the rows over the
//! bytes of one request. The sentry runs it to learn which task memory to copy; the server runs it again over what it
//! was sent, to validate it and to learn where pointers and descriptors are to be substituted. There is no I/O here
//! and no `unsafe`: every function is a pure one over bytes that nobody vouches for.
//!
//! The authority on every number is the driver's source, <https://github.com/NVIDIA/open-gpu-kernel-modules>;
//! comments name files of it, at the tag 580.142 unless they say otherwise.

#![forbid(unsafe_code)]

pub mod firmware;
pub mod node;
pub mod number;
pub mod plan;
pub mod policy;
pub mod refusal;
pub mod status;
pub mod structs;
pub mod support;
pub mod table;
mod tables;
pub mod words;
pub use nvproxy_abi_catalogue::version;

use policy::{FirmwareCommands, Granted};
use refusal::What;
use ringfence_faults::{Act, Point, at};
use table::{Family, Request, Reserved};
use tables::{NAMES, PUBLISHED, RELEASES, ROWS, Release};
use version::DriverVersion;

/// The tables of one release, as far as they concern one sandbox.
#[derive(Debug)]
pub struct Abi {
    release: &'static Release,
    granted: Granted,
}

/// The release has no tables of its own. Those of which to use instead: [`support::support`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTables(pub DriverVersion);

impl std::fmt::Display for NoTables {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.0;
        write!(
            formatter,
            "there are no tables of NVIDIA driver {version}: ringfence drivers list shows those that there are"
        )
    }
}

impl std::error::Error for NoTables {}

/// Everything that is known of every release, in the format of the crate nvproxy-abi-catalogue. The tables were made of
/// it when this crate was built; people look things up in it.
pub const CATALOGUE: &[u8] = include_bytes!("../data/releases.bin");

/// Every release that has tables of its own, in order.
pub fn releases() -> impl Iterator<Item = DriverVersion> {
    RELEASES.iter().map(|release| release.version)
}

impl Abi {
    /// The tables of exactly this release, for a sandbox that may ask for this. They live as long as the process,
    /// which needs them once.
    pub fn of_release(
        version: &DriverVersion,
        granted: impl Into<Granted>,
    ) -> Result<&'static Abi, NoTables> {
        let found = Abi::new(version, granted)?;
        Ok(Box::leak(Box::new(found)))
    }

    /// The same, for who has a place for them.
    pub fn new(version: &DriverVersion, granted: impl Into<Granted>) -> Result<Abi, NoTables> {
        let found = RELEASES.binary_search_by_key(version, |release| release.version);
        let release = found.ok().and_then(|index| RELEASES.get(index));
        let release = release.ok_or(NoTables(*version))?;
        let granted = granted.into();
        Ok(Abi { release, granted })
    }

    /// The release that these tables describe.
    pub fn version(&self) -> DriverVersion {
        self.release.version
    }

    /// The row of an ioctl on `/dev/nvidiactl` or a GPU, by its number and the size of its argument in bytes.
    pub fn frontend(&self, number: u32, size: u32) -> Result<&'static Request, What> {
        let family = Family::Frontend;
        let rows = || with_id(self.release.frontend, number);
        let row = rows().find(|row| row.accepts(size));
        let row = row.ok_or_else(|| match rows().next() {
            Some(row) => What::BadSize {
                family,
                id: number,
                name: row.name,
                size,
            },
            None => self.unknown(family, number),
        })?;
        self.permitted(family, row)
    }

    /// The row of a control command. Those of the firmware's that no list has share one ([`firmware::is_by_rule`]).
    pub fn control(&self, command: u32) -> Result<&'static Request, What> {
        match self.find(Family::Control, command) {
            Err(refused) if firmware::is_of_firmware(command) => self.by_rule(command, refused),
            found => found,
        }
    }

    /// The row of a command of the firmware's that the sandbox's lists do not have, which is what `refused` says.
    fn by_rule(&self, command: u32, refused: What) -> Result<&'static Request, What> {
        // A test leaves this out, to show that it would notice.
        if at(Point::Firmware) == Some(Act::Drop) {
            return Ok(&firmware::BY_RULE);
        }
        if firmware::is_privileged(command) {
            return Err(What::Reserved {
                family: Family::Control,
                id: command,
                name: self
                    .name(Family::Control, command)
                    .unwrap_or(firmware::UNNAMED),
                reserved: Reserved::Privileged,
            });
        }
        let Granted {
            capabilities,
            firmware_commands,
        } = self.granted;
        let is_granted = firmware_commands == FirmwareCommands::All
            && firmware::BY_RULE.capabilities.intersects(capabilities);
        if !is_granted || PUBLISHED.binary_search(&command).is_ok() {
            return Err(refused);
        }
        // What another capability's list has is no more than what none has, and of some of it the size is known.
        match refused {
            What::Unknown { .. } => Ok(&firmware::BY_RULE),
            What::NotGranted { .. } => {
                let mut rows = with_id(self.release.control, command);
                rows.next().ok_or(refused)
            }
            _ => Err(refused),
        }
    }

    /// The row of an allocation class.
    pub fn class(&self, class: u32) -> Result<&'static Request, What> {
        self.find(Family::Alloc, class)
    }

    /// The row of an ioctl on `/dev/nvidia-uvm`, by its whole command word.
    pub fn uvm(&self, command: u32) -> Result<&'static Request, What> {
        self.find(Family::Uvm, command)
    }

    /// Every row of a family, in order of id, whether or not this sandbox may use it.
    pub fn rows(&self, family: Family) -> impl Iterator<Item = &'static Request> {
        self.indices(family).iter().filter_map(row)
    }

    /// The rows of a family that this sandbox may use, in order of id.
    pub fn granted(&self, family: Family) -> impl Iterator<Item = &'static Request> {
        self.rows(family)
            .filter(move |row| self.permitted(family, row).is_ok())
    }

    /// What the driver's headers call a request, whether or not there is a row for it.
    pub fn name(&self, family: Family, id: u32) -> Option<&'static str> {
        let in_rows = with_id(self.indices(family), id).next().map(|row| row.name);
        in_rows.or_else(|| {
            let names = match family {
                Family::Frontend => NAMES.frontend,
                Family::Control => NAMES.control,
                Family::Alloc => NAMES.class,
                Family::Uvm => NAMES.uvm,
            };
            let found = names.binary_search_by_key(&id, |(known, _)| *known);
            names.get(found.ok()?).map(|(_, name)| *name)
        })
    }

    /// What is to be said of a request that has no row.
    pub(crate) fn unknown(&self, family: Family, id: u32) -> What {
        What::Unknown {
            family,
            id,
            name: self.name(family, id),
        }
    }

    fn indices(&self, family: Family) -> &'static [u16] {
        match family {
            Family::Frontend => self.release.frontend,
            Family::Control => self.release.control,
            Family::Alloc => self.release.class,
            Family::Uvm => self.release.uvm,
        }
    }

    fn find(&self, family: Family, id: u32) -> Result<&'static Request, What> {
        let row = with_id(self.indices(family), id).next();
        self.permitted(family, row.ok_or_else(|| self.unknown(family, id))?)
    }

    /// The two gates: what the sandbox was given, and what the driver leaves to programs at all.
    fn permitted(&self, family: Family, row: &'static Request) -> Result<&'static Request, What> {
        let Request { id, name, .. } = *row;
        if let Some(reserved) = row.reserved {
            return Err(What::Reserved {
                family,
                id,
                name,
                reserved,
            });
        }
        if !row.capabilities.intersects(self.granted.capabilities) {
            return Err(What::NotGranted {
                family,
                id,
                name,
                capabilities: row.capabilities,
            });
        }
        Ok(row)
    }
}

fn row(index: &u16) -> Option<&'static Request> {
    ROWS.get(usize::from(*index))
}

/// The rows with an id, of a list sorted by id.
fn with_id(indices: &'static [u16], id: u32) -> impl Iterator<Item = &'static Request> {
    let first = indices.partition_point(|index| row(index).is_some_and(|row| row.id < id));
    let rows = indices.get(first..).unwrap_or_default();
    rows.iter()
        .map_while(row)
        .take_while(move |row| row.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Capabilities;

    /// No list names what the driver reserves, today. If one did, it would not help.
    #[test]
    fn what_the_driver_reserves_is_refused_whatever_the_policy() {
        let version = "580.142".parse().expect("a version");
        let abi = Abi::of_release(&version, Capabilities::ALL).expect("tables");
        let allowed = abi.rows(Family::Control).next().expect("a row");
        for reserved in [Reserved::Privileged, Reserved::Internal] {
            let row: &'static Request = Box::leak(Box::new(Request {
                reserved: Some(reserved),
                ..*allowed
            }));
            let refused = abi.permitted(Family::Control, row).expect_err("reserved");
            let expected = What::Reserved {
                family: Family::Control,
                id: row.id,
                name: row.name,
                reserved,
            };
            assert_eq!(refused, expected);
        }
    }
}
