//! What each capability allows: one file each, in `nvproxy-server/abi/policy/`, that names requests by symbol.

use serde::Deserialize;

/// What a sandbox can be given, as `NVIDIA_DRIVER_CAPABILITIES` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    Compute,
    Utility,
    Graphics,
    Video,
    Display,
    Profiling,
}

impl Capability {
    pub const ALL: [Capability; 6] = [
        Capability::Compute,
        Capability::Utility,
        Capability::Graphics,
        Capability::Video,
        Capability::Display,
        Capability::Profiling,
    ];

    /// The name of its file, without the extension.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Compute => "compute",
            Capability::Utility => "utility",
            Capability::Graphics => "graphics",
            Capability::Video => "video",
            Capability::Display => "display",
            Capability::Profiling => "profiling",
        }
    }
}

/// One capability's list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// NV_ESC_*
    pub frontend: Vec<String>,
    /// The header's names of control commands.
    pub control: Vec<String>,
    /// The header's names of classes.
    pub class: Vec<String>,
    /// UVM_*
    pub uvm: Vec<String>,
    pub unlisted: Vec<Unlisted>,
}

/// A control command for which the driver's public source has no entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unlisted {
    pub command: u32,
    /// Bytes of its parameters, as recorded.
    pub size: u32,
    /// The workload for which it is on the list.
    pub needed_by: String,
}

/// Reads one capability's file.
pub fn parse(text: &str) -> Result<List, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}
