//! What is compared: requests, by kind and number, and the capabilities that gVisor serves them for.

use std::collections::{BTreeMap, BTreeSet};

/// The kinds of requests. Numbers of different kinds have nothing to do with each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// An ioctl on `/dev/nvidiactl` or a GPU, by its number.
    Frontend,
    /// An ioctl on `/dev/nvidia-uvm`.
    Uvm,
    /// A control command.
    Control,
    /// All control commands of a range that gVisor passes whole: those with a bit, or of a class. The number is of one.
    ControlRange,
    /// A class of objects, by NV_ESC_RM_ALLOC.
    Class,
    /// A class of memory, by NV_ESC_RM_ALLOC_MEMORY.
    MemoryClass,
}

impl Kind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Frontend => "frontend",
            Kind::Uvm => "uvm",
            Kind::Control => "control",
            Kind::ControlRange => "control-range",
            Kind::Class => "class",
            Kind::MemoryClass => "memory-class",
        }
    }
}

/// A request that gVisor serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// gVisor's name, which mostly is NVIDIA's.
    pub name: String,
    /// The names of the capabilities, each of which suffices.
    pub capabilities: BTreeSet<String>,
}

/// What a release serves, by kind and number.
pub type Served = BTreeMap<(Kind, u32), Granted>;
