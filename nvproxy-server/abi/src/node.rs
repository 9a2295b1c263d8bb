//! The device nodes of the driver that a program may open, and how the sentry names one to the server.

/// The highest minor number that the driver gives a GPU (NV_MINOR_DEVICE_NUMBER_REGULAR_MAX,
/// kernel-open/common/inc/nv-chardev-numbers.h).
pub const MAXIMUM_GPU_MINOR: u8 = 247;

/// A device node in `/dev`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Node {
    /// `nvidiactl`
    Control,
    /// `nvidia0`, `nvidia1` and so on, by minor number.
    Gpu(u8),
    /// `nvidia-uvm`
    Uvm,
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
                let minor = name.strip_prefix("nvidia")?;
                let node = Node::gpu(minor.parse().ok()?)?;
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
            Node::Control | Node::Uvm => None,
        }
    }

    /// The node's name in `/dev`.
    pub fn file_name(self) -> String {
        match self {
            Node::Control => "nvidiactl".to_owned(),
            Node::Gpu(minor) => format!("nvidia{minor}"),
            Node::Uvm => "nvidia-uvm".to_owned(),
        }
    }

    /// The number by which the sentry names the node to the server.
    pub fn to_wire(self) -> u64 {
        match self {
            Node::Control => WIRE_CONTROL,
            Node::Uvm => WIRE_UVM,
            Node::Gpu(minor) => WIRE_GPU + u64::from(minor),
        }
    }

    /// The node that a number from the wire names.
    pub fn from_wire(wire: u64) -> Option<Node> {
        match wire {
            WIRE_CONTROL => Some(Node::Control),
            WIRE_UVM => Some(Node::Uvm),
            _ => Node::gpu(wire.checked_sub(WIRE_GPU)?.try_into().ok()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wire_numbers_are_read_back() {
        let gpus = (0..=MAXIMUM_GPU_MINOR).map(Node::Gpu);
        for node in gpus.chain([Node::Control, Node::Uvm]) {
            assert_eq!(Node::from_file_name(&node.file_name()), Some(node));
            assert_eq!(Node::from_wire(node.to_wire()), Some(node));
        }
        assert_eq!(Node::from_file_name("nvidia0"), Some(Node::Gpu(0)));
        assert_eq!(Node::Gpu(12).file_name(), "nvidia12");
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
        for wire in [0, 3, WIRE_GPU - 1, WIRE_GPU + 248, WIRE_GPU + 256, u64::MAX] {
            assert_eq!(Node::from_wire(wire), None, "{wire:#x}");
        }
    }
}
