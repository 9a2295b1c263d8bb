//! The GPU's firmware's own commands that no list has, and by which rule they are passed.
//!
//! Which there are nobody can enumerate: other GPUs and other releases ask for others, and the published source has none. It says
//! what they can do to the driver, though, and that is the same of all: it copies their parameters, hands the copy to the
//! firmware, and copies the answer back ([`nvproxy_abi_catalogue::firmware`]). So no pointer in them is followed on the
//! processor, and they need no row. Three things have to be looked after, and are here:
//!
//! - Those that the driver leaves to administrators are never passed. It asks whether the server is one, not whose it is.
//! - Those for which some release has an entry all the same go by their names: what the driver says of such a command is not
//!   asked when it is handed on (`PUBLISHED` of the tables).
//! - How many bytes there are the driver does not check before it sets memory aside for them. So they are bounded, here by [`Request::MOST`].

pub use nvproxy_abi_catalogue::firmware::{UNNAMED, is_of_firmware, is_privileged};

use crate::policy::Capabilities;
use crate::table::{Request, Traits};

/// The row of every command that is passed by the rule. Its number is not a command's: [`crate::plan::Plan::id`] is.
pub(crate) static BY_RULE: Request = Request {
    id: 0,
    name: UNNAMED,
    structure: None,
    size: Request::BOUNDED,
    pointers: &[],
    descriptors: &[],
    status_at: None,
    traits: Traits {
        may_block: true,
        pins: false,
        makes_event: false,
        forced_bits: None,
        answered: false,
    },
    variants: None,
    refused_flags: None,
    // The others add to one of these.
    capabilities: Capabilities::COMPUTE.union(Capabilities::UTILITY),
    reserved: None,
    clients: &[],
    effect: None,
    memory_list: None,
    gpus: &[],
    passed: &[],
    gpu_lists: &[],
    cleared: &[],
};

/// Whether this is the row of the commands that are passed by the rule.
pub fn is_by_rule(row: &Request) -> bool {
    std::ptr::eq(row, &BY_RULE)
}
