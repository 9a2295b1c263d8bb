//! Which driver a sandbox has, as the launcher has decided it: what the sentry and every server of the sandbox start from.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use nvproxy_abi::node::Node;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::version::DriverVersion;

use crate::arguments::{Reason, Value, options, parse_text, text, word};

/// Which driver a server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA's kernel modules on this machine.
    Host,
    /// The simulated one.
    Simulated,
    /// One that was recorded.
    Recorded,
}

const NAMES: [(Kind, &str); 3] = [
    (Kind::Host, "host"),
    (Kind::Simulated, "sim"),
    (Kind::Recorded, "recorded"),
];

impl Kind {
    /// Whether tasks open this node themselves, to be read: an open-only one takes no request, and is known by its device number where a
    /// request names its descriptor. A simulated driver has no device.
    pub fn lets_be_opened(self, node: Node) -> bool {
        self == Kind::Host && matches!(node, Node::OpenOnly(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(kind, _)| kind == self);
        formatter.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for Kind {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Kind, Reason> {
        let kind = NAMES.iter().find(|(_, name)| *name == text);
        kind.map(|(kind, _)| *kind)
            .ok_or(Reason::NoneOf("host, sim, recorded"))
    }
}

text!(Kind);

/// Names with commas between them. An option that is not there is an empty list.
impl Value for Vec<Node> {
    fn write(&self, name: &str, words: &mut Vec<OsString>) {
        let names: Vec<String> = self.iter().map(|node| node.file_name()).collect();
        if !names.is_empty() {
            words.push(word(name, names.join(",")));
        }
    }

    fn absent() -> Option<Vec<Node>> {
        Some(Vec::new())
    }

    fn parse(text: &OsStr) -> Result<Vec<Node>, Reason> {
        let text = text.to_str().ok_or(Reason::NoText)?;
        let node =
            |name: &str| Node::from_file_name(name).ok_or_else(|| Reason::Node(name.to_owned()));
        text.split(',').map(node).collect()
    }
}

/// An option that is not there grants the least.
impl Value for FirmwareCommands {
    fn write(&self, name: &str, words: &mut Vec<OsString>) {
        words.push(word(name, self.to_string()));
    }

    fn absent() -> Option<FirmwareCommands> {
        Some(FirmwareCommands::Listed)
    }

    fn parse(text: &OsStr) -> Result<FirmwareCommands, Reason> {
        parse_text(text)
    }
}

options! {
    /// A driver, and what of it a sandbox may use.
    Driver {
        /// Which one it is.
        kind: Kind = "driver",
        /// The release that it is.
        version: DriverVersion = "driver-version",
        /// The release whose tables serve it.
        tables: DriverVersion = "tables",
        /// What the sandbox may ask of it.
        capabilities: Capabilities = "driver-capabilities",
        /// Which of the firmware's own commands it may ask.
        firmware_commands: FirmwareCommands = "firmware-commands",
        /// The nodes that the sandbox has: none with `--gpus none`.
        nodes: Vec<Node> = "nodes",
        /// The directory that they lie in on the host.
        directory: PathBuf = "nodes-in",
    }
}

impl Driver {
    /// The nodes of a sandbox that has these GPUs, by minor number.
    pub fn nodes_of(gpus: &[u8]) -> Vec<Node> {
        let gpus = gpus.iter().copied().map(Node::Gpu);
        [Node::Control, Node::Uvm].into_iter().chain(gpus).collect()
    }

    /// The minor numbers of its GPUs.
    pub fn minors(&self) -> Vec<u8> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|node| node.minor()).collect()
    }

    /// Its open-only nodes.
    pub fn open_only(&self) -> Vec<Node> {
        let nodes = self.nodes.iter().copied();
        nodes
            .filter(|node| matches!(node, Node::OpenOnly(_)))
            .collect()
    }

    /// All that decides what the sandbox may ask of it.
    pub fn granted(&self) -> Granted {
        Granted {
            capabilities: self.capabilities,
            firmware_commands: self.firmware_commands,
        }
    }

    /// One line that says what was chosen.
    pub fn describe(&self) -> String {
        let gpus = match self.minors().len() {
            1 => "1 GPU".to_owned(),
            count => format!("{count} GPUs"),
        };
        match self.kind {
            Kind::Host => format!("NVIDIA driver {}, {gpus}", self.version),
            Kind::Recorded => {
                format!("NVIDIA driver {} as recorded, {gpus}", self.version)
            }
            Kind::Simulated => {
                format!("no NVIDIA driver here: simulating {}, {gpus}", self.version)
            }
        }
    }

    /// Where this node lies on the host.
    pub fn path(&self, node: Node) -> PathBuf {
        self.directory.join(node.file_name())
    }

    /// Whether the sandbox has this node.
    pub fn has(&self, node: Node) -> bool {
        self.nodes.contains(&node)
    }
}
