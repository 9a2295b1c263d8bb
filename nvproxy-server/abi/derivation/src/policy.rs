//! What each capability allows: one file each, in `nvproxy-server/abi/policy/`, that names requests by symbol.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::families::ByFamily;

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

/// What the policy allows: each request with the capabilities that allow it.
pub(crate) struct Allowed<'a> {
    pub(crate) names: ByFamily<BTreeMap<&'a str, Vec<Capability>>>,
    /// By command: the size of its parameters, as recorded.
    pub(crate) unlisted: BTreeMap<u32, (u32, Vec<Capability>)>,
}

impl<'a> Allowed<'a> {
    pub(crate) fn new(policies: &'a [(Capability, List)]) -> Allowed<'a> {
        let mut names: ByFamily<BTreeMap<&str, Vec<Capability>>> = ByFamily::default();
        let mut unlisted: BTreeMap<u32, (u32, Vec<Capability>)> = BTreeMap::new();
        let mut sorted: Vec<_> = policies.iter().collect();
        sorted.sort_by_key(|(capability, _)| *capability);
        for (capability, list) in sorted {
            for (family, listed) in [
                (&mut names.frontend, &list.frontend),
                (&mut names.control, &list.control),
                (&mut names.class, &list.class),
                (&mut names.uvm, &list.uvm),
            ] {
                for name in listed {
                    let capabilities = family.entry(name.as_str()).or_default();
                    if !capabilities.contains(capability) {
                        capabilities.push(*capability);
                    }
                }
            }
            for command in &list.unlisted {
                let entry = unlisted
                    .entry(command.command)
                    .or_insert((command.size, Vec::new()));
                entry.1.push(*capability);
            }
        }
        Allowed { names, unlisted }
    }

    /// Every name in the lists.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        let ByFamily {
            frontend,
            control,
            class,
            uvm,
        } = &self.names;
        [frontend, control, class, uvm]
            .into_iter()
            .flat_map(|family| family.keys().copied())
    }
}
