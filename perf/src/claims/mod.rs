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
//! | [`suite`] | short programs of many kinds that use a GPU |
//! | [`phases`] | a program of CUDA's driver interface, phase by phase |
//! | [`crowd`] | many programs that use a GPU at once |
//! | [`python`] | programs of PyTorch: the loading of data, a first inference |
//! | [`idle`] | many sandboxes that do nothing |
//! | [`compiled`] | programs of CUDA's that are compiled here (no claim) |

pub mod compiled;
pub mod crowd;
pub mod files;
pub mod idle;
pub mod memory;
pub mod phases;
pub mod pins;
pub mod programs;
pub mod python;
pub mod requests;
pub mod ring;
pub mod start;
pub mod suite;
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
    idle::IDLE,
    pins::PINS,
    programs::TORCH,
    programs::LAUNCH,
    requests::REQUESTS,
    suite::SUITE,
    phases::PHASES,
    crowd::CROWD,
    python::DATALOADER,
    python::INFERENCE,
];

/// The claim of this name.
pub fn find(name: &str) -> Option<&'static Claim> {
    ALL.iter().find(|claim| claim.name == name)
}
