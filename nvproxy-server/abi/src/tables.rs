//! The tables of every release, as the build script makes them.
//!
//! A row is there once for all the releases in which it is the same; a release is four lists of indices into the rows.
//! They are constants: nothing is read or computed when a program starts.

use crate::policy::Capabilities;
use crate::status;
// Which of them the rows need depends on what the policy allows.
use crate::table::*;
use crate::version::DriverVersion;

/// One release: indices into [`ROWS`], sorted by id, then by size.
#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) version: DriverVersion,
    pub(crate) frontend: &'static [u16],
    pub(crate) control: &'static [u16],
    pub(crate) class: &'static [u16],
    pub(crate) uvm: &'static [u16],
}

impl Release {
    pub(crate) fn families(&self) -> [&'static [u16]; 4] {
        [self.frontend, self.control, self.class, self.uvm]
    }
}

/// What some release calls requests that no row describes: sorted by number.
pub(crate) struct Names {
    pub(crate) frontend: &'static [(u32, &'static str)],
    pub(crate) control: &'static [(u32, &'static str)],
    pub(crate) class: &'static [(u32, &'static str)],
    pub(crate) uvm: &'static [(u32, &'static str)],
}

// PUBLISHED are the commands with numbers of the firmware's for which some release has an entry, sorted.
include!(concat!(env!("OUT_DIR"), "/tables.rs"));
