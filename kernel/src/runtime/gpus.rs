//! Whether a container has GPUs, and in which way it was given them.
//!
//! The idea: there are few ways to a node of NVIDIA's driver, and each leaves its own mark in the specification. A node
//! is in `linux.devices` or is mounted, as CDI, device plugins and `--device` have it; a rule of the cgroup lets the
//! program make one; a hook of NVIDIA's puts it there later. All are looked for. What is missed here reaches the driver
//! without a sandbox, so that in doubt a container has GPUs.
//!
//! A node is recognised by where it is, in the container or outside, and by its major number: 195, or one that the
//! kernel gave to one of NVIDIA's drivers (`/proc/devices`), since a node can be given another name in a container.
//!
//! NVIDIA's hook is in every container where NVIDIA's runtime is the default one. It puts nothing there unless it is
//! asked: by variables, of which a container's image may set all, or by mounts. What they mean is said in NVIDIA's
//! toolkit, `internal/config/image/cuda_image.go`. One thing is not known here. An administrator can give the first
//! of the variables another name (`swarm-resource`); names like that of NVIDIA's example are known.
//!
//! The value `none` stands for no GPU. But the hook does its work for it, and puts the driver's control nodes there,
//! `/dev/nvidiactl` among them, by which the driver is reached; and a container's image may set it. So such a container has
//! its sandbox, too.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::Value;

use super::specification::{Specification, number, text};

/// Whose driver a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// The one that Ringfence mediates.
    Nvidia,
    /// That of NVIDIA's systems on a chip, which is another.
    Tegra,
}

/// How the paths of a driver's nodes begin.
const NODES: &[(&str, Driver)] = &[
    ("/dev/nvidia", Driver::Nvidia),
    ("/dev/nvhost", Driver::Tegra),
    ("/dev/nvmap", Driver::Tegra),
    ("/dev/nvgpu", Driver::Tegra),
    ("/dev/nvsciipc", Driver::Tegra),
    ("/dev/tegra", Driver::Tegra),
];

/// The only major number of NVIDIA's that is the same everywhere (linux/Documentation/admin-guide/devices.txt).
pub const MAJOR: u32 = 195;

/// Whose a hook is, which decides whether it has to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// It puts nodes and libraries into the container, if the environment asks for GPUs.
    Legacy,
    /// It finishes what CDI's edits have put there, or puts nodes there by itself, whatever the environment says.
    Cdi,
}

/// The names of hooks' executables.
const HOOKS: &[(&str, HookKind)] = &[
    ("nvidia-container-runtime-hook", HookKind::Legacy),
    ("nvidia-container-toolkit", HookKind::Legacy),
    ("nvidia-container-cli", HookKind::Legacy),
    ("nvidia-cdi-hook", HookKind::Cdi),
    ("nvidia-ctk", HookKind::Cdi),
];
/// What NVIDIA's operator adds to the name of an executable that a script of the old name starts.
const WRAPPED: &str = ".real";

const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// The value by which CDI keeps the hook from doing its work again.
const VOID: &str = "void";
/// The values by which the hook is not asked for anything.
const NOTHING: [&str; 2] = ["", VOID];
/// How variables begin by which Docker's swarm asks for GPUs.
const SWARM: &str = "DOCKER_RESOURCE_";
/// Where a mount asks for the GPU that its name says.
const MOUNTS_THAT_ASK: &str = "/var/run/nvidia-container-devices/";

/// How a node was given to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is made there: `linux.devices`.
    Device,
    /// It is mounted there.
    Mount,
}

/// A node, or a directory of nodes, that a container was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is in the container.
    pub path: String,
    pub way: Way,
    pub driver: Driver,
}

/// A hook of NVIDIA's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub path: String,
    pub kind: HookKind,
}

/// What a container was given, and what it was asked to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// In the specification's order.
    pub nodes: Vec<Node>,
    /// The numbers of devices of NVIDIA's that the container's cgroup lets it open, as in `c 195:*`.
    pub rules: Vec<String>,
    /// NVIDIA's hooks.
    pub hooks: Vec<Hook>,
    /// What `NVIDIA_VISIBLE_DEVICES` names: `all`, a list, or `none`, if it asks the hook for anything.
    pub visible: Option<String>,
}

impl fmt::Display for Asked {
    /// By what the container was given its GPUs, in a few words.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.iter().map(|node| node.path.clone());
        let rules = self.rules.iter().map(|rule| format!("the rule {rule}"));
        let hooks = self
            .hooks
            .iter()
            .map(|hook| format!("the hook {}", hook.path));
        let mut ways: Vec<String> = nodes.chain(rules).chain(hooks).collect();
        let more = ways.len().saturating_sub(SHOWN);
        ways.truncate(SHOWN);
        write!(formatter, "{}", ways.join(", "))?;
        match more {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

/// How many ways a line names.
const SHOWN: usize = 3;

/// What has to be known of the machine.
pub trait Machine {
    /// The major numbers of NVIDIA's drivers.
    fn majors(&self) -> BTreeSet<u32>;
    /// The major number of the character device at a path, wherever links lead. `None` if there is something else, or nothing.
    fn major_at(&self, path: &Path) -> Option<u32>;
}

/// This machine.
pub struct This;

impl Machine for This {
    fn majors(&self) -> BTreeSet<u32> {
        let devices = fs::read_to_string("/proc/devices").unwrap_or_default();
        nvidias(&devices)
    }

    fn major_at(&self, path: &Path) -> Option<u32> {
        let status = fs::metadata(path).ok()?;
        let is_character = status.file_type().is_char_device();
        is_character.then(|| rustix::fs::major(status.rdev()))
    }
}

/// NVIDIA's major numbers, in the text of `/proc/devices`.
fn nvidias(devices: &str) -> BTreeSet<u32> {
    let (characters, _) = devices
        .split_once("Block devices:")
        .unwrap_or((devices, ""));
    let lines = characters.lines().filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        name.starts_with("nvidia").then(|| number.parse().ok())?
    });
    lines.chain([MAJOR]).collect()
}

/// What of GPUs a container was given. `None`: it has none.
pub fn recognise(specification: &Specification, machine: &dyn Machine) -> Option<Asked> {
    let search = Search {
        specification,
        machine,
        majors: machine.majors(),
    };
    let hooks: Vec<Hook> = specification.hooks().filter_map(hook).collect();
    let asked = Asked {
        nodes: search.devices().chain(search.mounts()).collect(),
        rules: search.rules(),
        visible: visible(specification),
        hooks,
    };
    let has = |kind| asked.hooks.iter().any(|hook| hook.kind == kind);
    let is_given = !asked.nodes.is_empty() || !asked.rules.is_empty() || has(HookKind::Cdi);
    let will_be_given = has(HookKind::Legacy) && asks_the_hook(specification, &asked);
    (is_given || will_be_given).then_some(asked)
}

struct Search<'a> {
    specification: &'a Specification,
    machine: &'a dyn Machine,
    majors: BTreeSet<u32>,
}

impl<'a> Search<'a> {
    fn devices(&self) -> impl Iterator<Item = Node> {
        let devices = self.specification.devices().iter();
        devices.filter_map(|device| {
            let path = text(device, "path").unwrap_or_default();
            let is_nvidias = || {
                let major = number(device, "major")?;
                let is_character = matches!(text(device, "type"), Some("c" | "u"));
                let is_nvidias = is_character && self.majors.contains(&major);
                is_nvidias.then_some(Driver::Nvidia)
            };
            Some(Node {
                path: path.to_owned(),
                way: Way::Device,
                driver: is_nvidias().or_else(|| driver_of(path))?,
            })
        })
    }

    fn mounts(&self) -> impl Iterator<Item = Node> {
        let mounts = self.specification.mounts().iter();
        mounts.filter(|mount| is_bind(mount)).filter_map(|mount| {
            let source = text(mount, "source").unwrap_or_default();
            let path = text(mount, "destination").unwrap_or_default();
            let driver = match self.machine.major_at(Path::new(source)) {
                Some(major) if self.majors.contains(&major) => Some(Driver::Nvidia),
                // It hides what would be there, as /dev/null does.
                Some(_) if driver_of(source).is_none() => None,
                _ => driver_of(source).or_else(|| driver_of(path)),
            };
            Some(Node {
                path: path.to_owned(),
                way: Way::Mount,
                driver: driver?,
            })
        })
    }

    fn rules(&self) -> Vec<String> {
        let rules = self.specification.device_rules().iter();
        let rules = rules.filter_map(|rule| {
            let is_allowed = rule.get("allow")?.as_bool()?;
            let kind = text(rule, "type").filter(|kind| !kind.is_empty());
            let kind = kind.unwrap_or("a");
            let major = number(rule, "major")?;
            let is_nvidias = is_allowed && kind != "b" && self.majors.contains(&major);
            let minor = number(rule, "minor").map_or("*".to_owned(), |minor| minor.to_string());
            is_nvidias.then(|| format!("{kind} {major}:{minor}"))
        });
        rules.collect()
    }
}

/// The driver to which a node at this path belongs. Slashes and dots that change nothing are passed over.
fn driver_of(path: &str) -> Option<Driver> {
    let parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let path = parts.fold(String::new(), |path, part| path + "/" + part);
    let row = NODES.iter().find(|(start, _)| path.starts_with(start))?;
    Some(row.1)
}

fn is_bind(mount: &Value) -> bool {
    let options = mount.get("options").and_then(Value::as_array);
    let mut options = options.into_iter().flatten().filter_map(Value::as_str);
    text(mount, "type") == Some("bind") || options.any(|option| matches!(option, "bind" | "rbind"))
}

fn hook(hook: &Value) -> Option<Hook> {
    let path = text(hook, "path")?;
    let arguments = hook.get("args").and_then(Value::as_array);
    let mut arguments = arguments.into_iter().flatten().filter_map(Value::as_str);
    // What another program starts does its work unasked: so `containerd oci-hook` does for `ctr run --gpus`.
    let by_another = || {
        arguments
            .any(|word| kind_of(word).is_some())
            .then_some(HookKind::Cdi)
    };
    Some(Hook {
        path: path.to_owned(),
        kind: kind_of(path).or_else(by_another)?,
    })
}

/// Whose hook the executable at a path is, if it is NVIDIA's.
fn kind_of(path: &str) -> Option<HookKind> {
    let name = Path::new(path).file_name().map(OsStr::as_bytes)?;
    let name = name.strip_suffix(WRAPPED.as_bytes()).unwrap_or(name);
    let (_, kind) = HOOKS.iter().find(|(known, _)| known.as_bytes() == name)?;
    Some(*kind)
}

/// What `NVIDIA_VISIBLE_DEVICES` names. Of several values the last counts, but for `void` at the end: CDI's edits add that to
/// what they have done already.
fn visible(specification: &Specification) -> Option<String> {
    let values = specification
        .variables()
        .filter(|(name, _)| *name == VISIBLE);
    let values: Vec<&str> = values.map(|(_, value)| value).collect();
    let value = values.into_iter().rfind(|value| *value != VOID)?;
    (!NOTHING.contains(&value)).then(|| value.to_owned())
}

/// Whether NVIDIA's hook is asked to put nodes into the container.
fn asks_the_hook(specification: &Specification, asked: &Asked) -> bool {
    let has = |name: &str| {
        let mut variables = specification.variables();
        variables.any(|(of, value)| of == name && !value.is_empty())
    };
    // The hook takes an image of CUDA from before there were such variables to ask for all.
    let is_named = specification.variables().any(|(name, _)| name == VISIBLE);
    let is_old = !is_named && has("CUDA_VERSION") && !has("NVIDIA_REQUIRE_CUDA");
    let by_swarm = specification
        .variables()
        .any(|(name, value)| name.starts_with(SWARM) && !NOTHING.contains(&value));
    let by_mount = specification.mounts().iter().any(|mount| {
        let path = text(mount, "destination").unwrap_or_default();
        path.starts_with(MOUNTS_THAT_ASK)
    });
    asked.visible.is_some() || is_old || by_swarm || by_mount
}

#[cfg(test)]
mod tests;
