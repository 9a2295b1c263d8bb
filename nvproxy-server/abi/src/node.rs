//! The device nodes of the driver that a program may open, and how the sentry names one to the server.
//!
//! Three kinds of nodes take requests, and there is code for each. All others are *open-only*: a program opens one to show by the
//! descriptor that it could, and names that in a request on another. They are rows of [`OPEN_ONLY`].

use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;

use crate::policy::Capabilities;

/// The highest minor number that the driver gives a GPU (NV_MINOR_DEVICE_NUMBER_REGULAR_MAX,
/// kernel-open/common/inc/nv-chardev-numbers.h).
pub const MAXIMUM_GPU_MINOR: u8 = 247;

/// In every node's name, and in few other paths.
pub const IN_EVERY_NAME: &str = "nvidia";

/// A device node in `/dev`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    /// `nvidiactl`
    Control,
    /// `nvidia0`, `nvidia1` and so on, by minor number.
    Gpu(u8),
    /// `nvidia-uvm`
    Uvm,
    /// One of [`OPEN_ONLY`].
    OpenOnly(OpenOnly),
}

/// Open-only nodes that differ by a number.
#[derive(Debug)]
pub struct Series {
    /// The name in `/dev`, without the number.
    pub prefix: &'static str,
    /// What opens of these are called in statistics and traces.
    pub shown: &'static str,
    /// The lowest and the highest number that the driver gives one.
    pub numbers: RangeInclusive<u16>,
    /// Which 65,536 numbers on the wire are theirs. Recordings have these numbers too, so a new row takes the first block that
    /// no row had before it. Block 0 is that of all other nodes.
    pub block: u16,
    /// A sandbox that has one of these capabilities has those of the host's nodes that its user may read and write.
    pub given_to: Capabilities,
}

/// The prefix of the series that is for parts of GPUs (MIG).
const OF_PARTS: &str = "nvidia-caps/nvidia-cap";

/// What there is of open-only nodes. A new kind is a row here, at any place, and nothing else.
pub static OPEN_ONLY: &[Series] = &[
    // What may be done with the parts of a GPU (MIG). Number 0 is for who manages NVLink (nv_cap_tables_init and
    // NV_CAP_DRV_MINOR_COUNT, kernel-open/nvidia/nv-caps.c, 580.142). No capability brings one: a sandbox has those of the parts that it
    // was given.
    Series {
        prefix: OF_PARTS,
        shown: "/dev/nvidia-caps/nvidia-cap#",
        numbers: 1..=8191,
        block: 1,
        given_to: Capabilities::NONE,
    },
];

/// An open-only node.
#[derive(Clone, Copy, Debug)]
pub struct OpenOnly {
    series: &'static Series,
    number: u16,
}

/// The node by which a program shows that it may use a part of a GPU (MIG), by the number that the driver has given it.
pub fn of_part(number: u16) -> Option<Node> {
    let mut all = OPEN_ONLY.iter();
    all.find(|series| series.prefix == OF_PARTS)?.node(number)
}

/// A series is told by its prefix.
impl OpenOnly {
    /// Its number among those of its series.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn key(&self) -> (&'static str, u16) {
        (self.series.prefix, self.number)
    }

    fn file_name(&self) -> String {
        format!("{}{}", self.series.prefix, self.number)
    }
}

impl PartialEq for OpenOnly {
    fn eq(&self, other: &OpenOnly) -> bool {
        self.key() == other.key()
    }
}

impl Eq for OpenOnly {}

impl Hash for OpenOnly {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Series {
    /// The node with this number, if the driver can have given one that.
    pub fn node(&'static self, number: u16) -> Option<Node> {
        let series = self;
        let node = OpenOnly { series, number };
        self.numbers
            .contains(&number)
            .then_some(Node::OpenOnly(node))
    }

    /// Whether a sandbox with these capabilities has them.
    pub fn is_for(&self, capabilities: Capabilities) -> bool {
        self.given_to.intersects(capabilities)
    }

    fn wire(&self, number: u16) -> u64 {
        u64::from(self.block) << 16 | u64::from(number)
    }

    /// The first of them.
    pub fn first(&'static self) -> Node {
        let (series, number) = (self, *self.numbers.start());
        Node::OpenOnly(OpenOnly { series, number })
    }
}

/// The wire form of a GPU is this plus its minor number.
const WIRE_GPU: u64 = 0x100;
const WIRE_CONTROL: u64 = 1;
const WIRE_UVM: u64 = 2;

impl Node {
    /// The node called `name` in `/dev`. Other nodes of the driver (`nvidia-modeset`, `nvidia-uvm-tools`) are none of
    /// a sandbox's.
    pub fn from_file_name(name: &str) -> Option<Node> {
        match name {
            "nvidiactl" => Some(Node::Control),
            "nvidia-uvm" => Some(Node::Uvm),
            _ => {
                let number_after = |prefix| name.strip_prefix(prefix)?.parse::<u16>().ok();
                let gpu = || Node::gpu(number_after("nvidia")?.try_into().ok()?);
                let mut all = OPEN_ONLY.iter();
                let open_only = || all.find_map(|series| series.node(number_after(series.prefix)?));
                let node = gpu().or_else(open_only)?;
                // Refuses what parses as a number and is no node's name: "nvidia00", "nvidia+1".
                (node.file_name() == name).then_some(node)
            }
        }
    }

    /// The node of the GPU with a minor number that the driver can have given one.
    fn gpu(minor: u8) -> Option<Node> {
        (minor <= MAXIMUM_GPU_MINOR).then_some(Node::Gpu(minor))
    }

    /// The minor number, if it is a GPU's.
    pub fn minor(self) -> Option<u8> {
        match self {
            Node::Gpu(minor) => Some(minor),
            Node::Control | Node::Uvm | Node::OpenOnly(_) => None,
        }
    }

    /// Whether it is for parts of GPUs.
    pub fn is_of_parts(self) -> bool {
        matches!(self, Node::OpenOnly(node) if node.series.prefix == OF_PARTS)
    }

    /// The node's name in `/dev`.
    pub fn file_name(self) -> String {
        match self {
            Node::Control => "nvidiactl".to_owned(),
            Node::Gpu(minor) => format!("nvidia{minor}"),
            Node::Uvm => "nvidia-uvm".to_owned(),
            Node::OpenOnly(node) => node.file_name(),
        }
    }

    /// What opens of it are called in statistics and traces.
    pub fn shown(self) -> &'static str {
        match self {
            Node::Control => "/dev/nvidiactl",
            Node::Gpu(_) => "/dev/nvidia#",
            Node::Uvm => "/dev/nvidia-uvm",
            Node::OpenOnly(node) => node.series.shown,
        }
    }

    /// The number by which the sentry names the node to the server.
    pub fn to_wire(self) -> u64 {
        match self {
            Node::Control => WIRE_CONTROL,
            Node::Uvm => WIRE_UVM,
            Node::Gpu(minor) => WIRE_GPU + u64::from(minor),
            Node::OpenOnly(node) => node.series.wire(node.number),
        }
    }

    /// The node that a number from the wire names.
    pub fn from_wire(wire: u64) -> Option<Node> {
        match wire {
            WIRE_CONTROL => Some(Node::Control),
            WIRE_UVM => Some(Node::Uvm),
            _ => {
                let gpu = || Node::gpu(u8::try_from(wire.checked_sub(WIRE_GPU)?).ok()?);
                let number = wire as u16;
                let mut all = OPEN_ONLY.iter();
                let open_only = || all.find(|series| series.wire(number) == wire)?.node(number);
                gpu().or_else(open_only)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_wire_numbers_are_read_back() {
        let gpus = (0..=MAXIMUM_GPU_MINOR).map(Node::Gpu);
        let ends = |series: &'static Series| {
            [series.numbers.start(), series.numbers.end()]
                .map(|number| series.node(*number).expect("a node"))
        };
        let open_only = OPEN_ONLY.iter().flat_map(ends);
        for node in gpus.chain([Node::Control, Node::Uvm]).chain(open_only) {
            assert_eq!(Node::from_file_name(&node.file_name()), Some(node));
            assert_eq!(Node::from_wire(node.to_wire()), Some(node));
            assert!(node.file_name().contains(IN_EVERY_NAME), "{node:?}");
        }
        assert_eq!(Node::from_file_name("nvidia0"), Some(Node::Gpu(0)));
        assert_eq!(Node::Gpu(12).file_name(), "nvidia12");
    }

    /// Whatever was recorded with a number on the wire means the same for ever.
    #[test]
    fn series_have_numbers_on_the_wire_of_their_own() {
        let mut taken = BTreeSet::from([0]);
        for Series { prefix, block, .. } in OPEN_ONLY {
            assert!(taken.insert(*block), "{prefix}: block {block} is another's");
        }
        assert_eq!(of_part(1).map(Node::to_wire), Some(0x1_0001));
    }

    #[test]
    fn nodes_of_parts_are_told_from_others() {
        let twelfth = of_part(12).expect("a node");
        assert_eq!(twelfth.file_name(), "nvidia-caps/nvidia-cap12");
        assert!(twelfth.is_of_parts());
        assert_eq!(of_part(0), None);
        assert!(!Node::Control.is_of_parts() && !Node::Gpu(12).is_of_parts());
    }

    #[test]
    fn what_is_no_node_is_refused() {
        for name in [
            "",
            "nvidia",
            "nvidia-1",
            "nvidia00",
            "nvidia+1",
            "nvidia248",
            "nvidia256",
            "nvidia-modeset",
            "nvidia-uvm-tools",
            "nvidiactl0",
            "Nvidia0",
            "nvidia0/",
        ] {
            assert_eq!(Node::from_file_name(name), None, "{name}");
        }
        for series in OPEN_ONLY {
            let beyond = (u32::from(*series.numbers.end()) + 1).to_string();
            for number in ["", "-1", "00", "+1", "01", &beyond, "65536", "1/"] {
                let name = format!("{}{number}", series.prefix);
                assert_eq!(Node::from_file_name(&name), None, "{name}");
            }
        }
        for wire in [0, 3, WIRE_GPU - 1, WIRE_GPU + 248, WIRE_GPU + 256, u64::MAX] {
            assert_eq!(Node::from_wire(wire), None, "{wire:#x}");
        }
    }
}
