//! Why a request is not issued, and what the program sees instead: what the driver itself would have answered.

use std::fmt;

use crate::policy::Capabilities;
use crate::table::{Family, Reserved};

/// Linux's `EINVAL`, which is also all that the driver answers to an ioctl it does not accept: `nvidia_ioctl` turns
/// every status but NV_OK into it (kernel-open/nvidia/nv.c).
pub const EINVAL: i32 = 22;
/// Linux's `EFAULT`.
pub const EFAULT: i32 = 14;
/// Linux's `ENOSYS`.
pub const ENOSYS: i32 = 38;

/// A request that is not issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub what: What,
    pub answer: Answer,
}

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// The tables have no row for it; `name` is what the driver's headers call it.
    Unknown {
        family: Family,
        id: u32,
        name: Option<&'static str>,
    },
    /// The sandbox was given none of the capabilities that allow it.
    NotGranted {
        family: Family,
        id: u32,
        name: &'static str,
        capabilities: Capabilities,
    },
    /// The driver's own tables reserve it.
    Reserved {
        family: Family,
        id: u32,
        name: &'static str,
        reserved: Reserved,
    },
    /// There is a row, and the request's parameters are not of its size.
    BadSize {
        family: Family,
        id: u32,
        name: &'static str,
        size: u32,
    },
    /// Parameters of `length` bytes are more than the driver takes, or more than [`crate::plan::MAXIMUM_PAYLOAD`].
    TooLarge {
        family: Family,
        id: u32,
        name: &'static str,
        length: u64,
    },
    /// A flag that this implementation does not carry to the driver.
    Flags {
        family: Family,
        id: u32,
        name: &'static str,
        flags: u32,
    },
    /// A field has a value with which the request is not passed to the driver ([`crate::table::Passed`]).
    Value {
        family: Family,
        id: u32,
        name: &'static str,
        field: &'static str,
        value: u64,
    },
    /// The payload is not as long as what was asked for. No program causes it: the sender is at fault.
    Malformed,
}

/// What the program sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The ioctl fails with this errno.
    Errno(i32),
    /// The ioctl returns 0, and `status` stands at byte `at` of its argument.
    Status { at: u32, status: u32 },
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Family::Frontend => "ioctl",
            Family::Control => "control command",
            Family::Alloc => "class",
            Family::Uvm => "UVM ioctl",
        })
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Reserved::Privileged => "administrators",
            Reserved::Internal => "itself",
        })
    }
}

/// A name in brackets. That of a request without a name stands in some already.
struct InBrackets<'a>(&'a str);

impl fmt::Display for InBrackets<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            name if name.starts_with('(') => formatter.write_str(name),
            name => write!(formatter, "({name})"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Unknown {
                family,
                id,
                name: None,
            } => write!(formatter, "unknown {family} {id:#x}"),
            What::Unknown {
                family,
                id,
                name: Some(name),
            } => write!(
                formatter,
                "unknown {family} {id:#x} {name}",
                name = InBrackets(name)
            ),
            What::NotGranted {
                family,
                id,
                name,
                capabilities,
            } => write!(
                formatter,
                "{family} {id:#x} {name} needs a capability that the sandbox lacks: {capabilities}",
                name = InBrackets(name)
            ),
            What::Reserved {
                family,
                id,
                name,
                reserved,
            } => write!(
                formatter,
                "{family} {id:#x} {name} is reserved by the driver for {reserved}",
                name = InBrackets(name)
            ),
            What::BadSize {
                family,
                id,
                name,
                size,
            } => {
                write!(
                    formatter,
                    "{family} {id:#x} {name} with parameters of {size} bytes",
                    name = InBrackets(name)
                )
            }
            What::TooLarge {
                family,
                id,
                name,
                length,
            } => {
                write!(
                    formatter,
                    "{family} {id:#x} {name} asks for {length} bytes at once",
                    name = InBrackets(name)
                )
            }
            What::Flags {
                family,
                id,
                name,
                flags,
            } => {
                write!(
                    formatter,
                    "{family} {id:#x} {name} with unsupported flags {flags:#x}",
                    name = InBrackets(name)
                )
            }
            What::Value {
                family,
                id,
                name,
                field,
                value,
            } => {
                write!(
                    formatter,
                    "{family} {id:#x} {name} is not passed with {field} = {value:#x}",
                    name = InBrackets(name)
                )
            }
            What::Malformed => formatter.write_str("payload of another length than was asked for"),
        }
    }
}
