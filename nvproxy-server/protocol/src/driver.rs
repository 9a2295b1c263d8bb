//! Which driver a sandbox has, as the launcher has decided it: what the sentry and every server of the sandbox start from.

use nvproxy_abi::node::Node;
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::support::list;
use nvproxy_abi::version::DriverVersion;

use crate::size::Size;

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

/// A driver and the GPUs of it that a sandbox may use.
#[derive(Clone, Debug)]
pub struct Driver {
    pub kind: Kind,
    /// The release that it is.
    pub version: DriverVersion,
    /// The release whose tables serve it.
    pub tables: DriverVersion,
    /// The releases from which it follows that they do, if they are not its own.
    pub inferred_from: Vec<DriverVersion>,
    /// What the sandbox may ask of it.
    pub capabilities: Capabilities,
    /// The minor numbers of its GPUs.
    pub minors: Vec<u8>,
    /// How much of each GPU's memory it may have.
    pub memory: Option<Size>,
    /// How much of the host's memory the driver may take for it.
    pub host_memory: Size,
    /// Whether the sandbox has the driver's nodes at all: with `--gpus none` it has not.
    pub visible: bool,
}

impl Driver {
    /// One line that says what was chosen.
    pub fn describe(&self) -> String {
        let gpus = match self.minors.len() {
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

    /// What the user has to know if the tables are those of another release.
    pub fn warning(&self) -> Option<String> {
        if self.inferred_from.is_empty() {
            return None;
        }
        let (version, tables, releases) = (&self.version, &self.tables, list(&self.inferred_from));
        Some(format!(
            "the tables do not have NVIDIA driver {version}: using those of {tables}, since {releases} agree in \
             everything that is allowed"
        ))
    }

    /// The names below `/dev` that the sandbox sees.
    pub fn node_names(&self) -> Vec<String> {
        if !self.visible {
            return Vec::new();
        }
        let mut names: Vec<String> = [Node::Control, Node::Uvm].map(Node::file_name).into();
        names.extend(
            self.minors
                .iter()
                .map(|minor| Node::Gpu(*minor).file_name()),
        );
        names
    }

    /// Whether the sandbox has this node.
    pub fn has(&self, node: Node) -> bool {
        self.visible
            && match node {
                Node::Control | Node::Uvm => true,
                Node::Gpu(minor) => self.minors.contains(&minor),
            }
    }

    /// Arguments from which the server's command line makes the same choice.
    pub fn to_arguments(&self) -> Vec<String> {
        let kind = match self.kind {
            Kind::Host => "host",
            Kind::Simulated => "sim",
            Kind::Recorded => "recorded",
        };
        let minors: Vec<String> = self.minors.iter().map(u8::to_string).collect();
        let mut arguments = vec![
            format!("--driver={kind}"),
            format!("--driver-version={}", self.version),
            format!("--tables={}", self.tables),
            format!("--driver-capabilities={}", self.capabilities),
            format!("--host-memory={}", self.host_memory),
        ];
        // An empty list would be read as one number that is missing.
        if !minors.is_empty() {
            arguments.push(format!("--minors={}", minors.join(",")));
        }
        if let Some(memory) = self.memory {
            arguments.push(format!("--gpu-memory={memory}"));
        }
        arguments
    }
}
