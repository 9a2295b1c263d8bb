//! The table of claims, and a module for how each is measured.
//!
//! | module | claims |
//! |---|---|
//! | [`ring`] | the rings, awake and asleep |
//! | [`trap`] | a trapped ioctl |
//! | [`tasks`] | many tasks at once |
//! | [`start`] | a sandbox's start and end |
//! | [`memory`] | the memory of sentry and server |
//! | [`files`] | a program that uses the file system |
//! | [`pins`] | a program that pins memory |
//! | [`programs`] | programs that use a GPU |
//! | [`requests`] | light requests to NVIDIA's driver |

pub mod files;
pub mod memory;
pub mod pins;
pub mod programs;
pub mod requests;
pub mod ring;
pub mod start;
pub mod tasks;
pub mod trap;

use crate::claim::{Claim, Measurement};
use crate::session::Session;
use crate::value::{Attempt, Bar, Curve, Limit, Line, NotMeasured, Unit, Value};

/// Every claim, in the order in which they are shown.
pub static ALL: &[Claim] = &[
    ring::HOT,
    ring::ASLEEP,
    trap::TRAP,
    tasks::TASKS,
    start::START,
    memory::MEMORY,
    files::FILE_SYSTEM,
    pins::PINS,
    programs::CONTEXT,
    programs::TORCH,
    programs::LAUNCH,
    requests::REQUESTS,
];

/// The claim of this name.
pub fn find(name: &str) -> Option<&'static Claim> {
    ALL.iter().find(|claim| claim.name == name)
}
