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

pub mod node;
pub mod number;
pub mod plan;
pub mod refusal;
pub mod status;
pub mod structs;
pub mod table;
pub use nvproxy_abi_catalogue::version;

mod r580;

use table::{Family, Request};
use version::DriverVersion;

/// The tables of one branch of driver releases.
#[derive(Debug)]
pub struct Abi {
    branch: u16,
    /// Sorted by (id, size).
    frontend: &'static [Request],
    /// Sorted by id, as are the rest.
    control: &'static [Request],
    class: &'static [Request],
    uvm: &'static [Request],
    names: Names,
}

/// What the driver's headers call requests that the tables have no row for, so that a refusal can name them.
#[derive(Debug)]
pub(crate) struct Names {
    frontend: &'static [(u32, &'static str)],
    control: &'static [(u32, &'static str)],
    class: &'static [(u32, &'static str)],
    uvm: &'static [(u32, &'static str)],
}

/// No tables for this release of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedVersion(pub DriverVersion);

impl std::fmt::Display for UnsupportedVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "NVIDIA driver {} is not supported: there are tables for releases of the {} branch only",
            self.0,
            r580::ABI.branch
        )
    }
}

impl std::error::Error for UnsupportedVersion {}

impl Abi {
    /// The tables for a release of the driver. Any release of the 580 branch has them.
    pub fn for_version(version: &DriverVersion) -> Result<&'static Abi, UnsupportedVersion> {
        if version.branch() == r580::ABI.branch {
            Ok(&r580::ABI)
        } else {
            Err(UnsupportedVersion(*version))
        }
    }

    /// The branch of releases that these tables describe, as in 580.
    pub fn branch(&self) -> u16 {
        self.branch
    }

    /// The row of an ioctl on `/dev/nvidiactl` or a GPU, by its number and the size of its argument in bytes.
    pub fn frontend(&self, number: u32, size: u32) -> Option<&'static Request> {
        let first = self.frontend.partition_point(|row| row.id < number);
        self.frontend[first..]
            .iter()
            .take_while(|row| row.id == number)
            .find(|row| row.accepts(size))
    }

    /// The row of a control command.
    pub fn control(&self, command: u32) -> Option<&'static Request> {
        find(self.control, command)
    }

    /// The row of an allocation class.
    pub fn class(&self, class: u32) -> Option<&'static Request> {
        find(self.class, class)
    }

    /// The row of an ioctl on `/dev/nvidia-uvm`, by its whole command word.
    pub fn uvm(&self, command: u32) -> Option<&'static Request> {
        find(self.uvm, command)
    }

    /// Every row of a family, in order of id.
    pub fn rows(&self, family: Family) -> &'static [Request] {
        match family {
            Family::Frontend => self.frontend,
            Family::Control => self.control,
            Family::Alloc => self.class,
            Family::Uvm => self.uvm,
        }
    }

    /// What the driver's headers call a request, whether or not there is a row for it.
    pub fn name(&self, family: Family, id: u32) -> Option<&'static str> {
        let names = match family {
            Family::Frontend => self.names.frontend,
            Family::Control => self.names.control,
            Family::Alloc => self.names.class,
            Family::Uvm => self.names.uvm,
        };
        let named = names
            .binary_search_by_key(&id, |&(known, _)| known)
            .ok()
            .map(|index| names[index].1);
        named.or_else(|| {
            self.rows(family)
                .iter()
                .find(|row| row.id == id)
                .map(|row| row.name)
        })
    }
}

/// Looks an id up in a table sorted by id.
fn find(rows: &'static [Request], id: u32) -> Option<&'static Request> {
    rows.binary_search_by_key(&id, |row| row.id)
        .ok()
        .map(|index| &rows[index])
}
