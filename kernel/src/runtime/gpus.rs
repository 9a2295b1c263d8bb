//! Whether a container has GPUs, and in which way it was given them.
//!
//! The idea: there are few ways to a node of NVIDIA's driver, and each leaves its own mark in the specification. A node
//! is in `linux.devices` or is mounted; a rule of the cgroup lets the program make one; a hook of NVIDIA's puts it there
//! later. All are looked for. What is missed here reaches the driver without a sandbox, so that in doubt a container has
//! GPUs. Which ones it has is another question (`selection.rs`).
//!
//! | way | what is in the specification, and who says so |
//! |---|---|
//! | `docker run --gpus` | the legacy hook in `prestart`, and `NVIDIA_VISIBLE_DEVICES` behind the variables of the image: `all`, the names, or 0 to N-1 (moby, `daemon/devices_nvidia_linux.go`, v2.0.0-beta.24). Where that finds `nvidia-cdi-hook`, it is CDI |
//! | `nvidia-container-runtime`, mode `legacy` | the same hook in `prestart`, without arguments and variables of its own (NVIDIA's toolkit, `internal/modifier/stable.go`, v1.20.2) |
//! | its mode `cdi`, and CDI of Docker, containerd and podman | nodes in `linux.devices`, a rule for each, mounts, hooks in `createContainer`; the last `NVIDIA_VISIBLE_DEVICES` becomes `void`, and others before it stay (`internal/modifier/cdi.go`; CDI, `pkg/cdi/container-edits.go`, v1.1.1) |
//! | its mode `csv`, for systems on a chip | the same, with the nodes that files name (`internal/modifier/csv.go`) |
//! | k8s-device-plugin, `envvar` | `NVIDIA_VISIBLE_DEVICES` with UUIDs or indices, for the legacy hook; nodes besides with `PASS_DEVICE_SPECS` (`internal/plugin/server.go`, v0.20.0) |
//! | `volume-mounts` | for the hook, `/dev/null` mounted at `/var/run/nvidia-container-devices/` and a UUID, and that directory as the value of the variable |
//! | `cdi-annotations`, `cdi-cri` | annotations `cdi.k8s.io/...`, or a field of CRI's: the engine, or NVIDIA's runtime, makes CDI's edits of them |
//! | GKE's device plugin | nodes, and the libraries mounted at `/usr/local/nvidia` (`pkg/gpu/nvidia/beta_plugin.go`, v1.0.20) |
//! | `management.nvidia.com/gpu` | CDI with every node of NVIDIA's that there is (`pkg/nvcdi/management.go`) |
//!
//! A node is recognised by where it is, in the container or outside, and by its number, since it can be given another name in
//! a container: its major number is 195, or one that the kernel gave to one of NVIDIA's drivers (`/proc/devices`), or it is
//! a node of the kernel's for graphics (DRM) behind which is NVIDIA's driver. CDI gives these besides, and they take
//! requests past the others.
//!
//! The legacy hook is in every container where NVIDIA's runtime is the default one, and does nothing unless it is asked
//! (`toolkit.rs`). What asks it under some configuration of it is taken for asking, whatever the configuration is. One thing is not
//! known here: an administrator can give the first of its variables another name (`swarm-resource`); names like that of
//! NVIDIA's example are known.
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

use nvproxy_abi::node::{self, MAXIMUM_GPU_MINOR};
use serde_json::Value;

use super::specification::{Specification, number, text};
use super::toolkit::{self, VISIBLE, VOID};
use crate::text::name_in_devices;

/// Whose driver a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// The one that Ringfence mediates.
    Nvidia,
    /// That of NVIDIA's systems on a chip, which is another.
    Tegra,
    /// One of those by which other devices reach GPU memory.
    GpuDirect,
    /// The one that shares memory of GPUs among machines.
    Imex,
}

/// How the names of a driver's nodes in `/dev` begin. The first row that fits holds.
const NODES: &[(&str, Driver)] = &[
    ("nvidia-fs", Driver::GpuDirect),
    ("gdrdrv", Driver::GpuDirect),
    ("nvidia-caps-imex-channels/", Driver::Imex),
    ("nvidia", Driver::Nvidia),
    ("nvhost", Driver::Tegra),
    ("nvmap", Driver::Tegra),
    ("nvgpu", Driver::Tegra),
    ("nvsciipc", Driver::Tegra),
    ("tegra", Driver::Tegra),
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

/// The values by which the hook is not asked for anything.
const NOTHING: [&str; 2] = ["", VOID];
/// How variables begin by which Docker's swarm asks for GPUs.
const SWARM: &str = "DOCKER_RESOURCE_";

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
    /// The minor number, if it is a GPU's.
    pub gpu: Option<u8>,
    /// The node of a part of a GPU that it is, if it is one.
    pub part: Option<node::Node>,
}

/// A rule that lets a container open devices of NVIDIA's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As the kernel writes it: `c 195:*`.
    pub shown: String,
    pub gpus: Gpus,
}

/// Of which GPUs it lets nodes be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpus {
    None,
    One(u8),
    All,
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
    /// By which the container's cgroup lets it open devices of NVIDIA's.
    pub rules: Vec<Rule>,
    /// NVIDIA's hooks.
    pub hooks: Vec<Hook>,
}

impl Asked {
    pub fn has_hook(&self, kind: HookKind) -> bool {
        self.hooks.iter().any(|hook| hook.kind == kind)
    }
}

impl fmt::Display for Asked {
    /// By what the container was given its GPUs, in a few words.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.iter().map(|node| node.path.clone());
        let rules = self
            .rules
            .iter()
            .map(|rule| format!("the rule {}", rule.shown));
        let hooks = self
            .hooks
            .iter()
            .map(|hook| format!("the hook {}", hook.path));
        let mut ways: Vec<String> = nodes.chain(rules).chain(hooks).collect();
        let mut seen = BTreeSet::new();
        ways.retain(|way| seen.insert(way.clone()));
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

/// The numbers of NVIDIA's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The major numbers of NVIDIA's drivers.
    pub majors: BTreeSet<u32>,
    /// Major and minor numbers of nodes for graphics that one of them is behind.
    pub graphics: BTreeSet<(u32, u32)>,
    /// The major number of nodes of parts of GPUs. `None`: the kernel has no driver that has such nodes.
    pub parts: Option<u32>,
}

impl Numbers {
    /// Whether these are the numbers of a device of NVIDIA's, or, without a minor number, of some.
    pub fn have(&self, major: u32, minor: Option<u32>) -> bool {
        let is_one = |minor| self.graphics.contains(&(major, minor));
        self.majors.contains(&major) || minor.is_some_and(is_one)
    }
}

/// What has to be known of the machine.
pub trait Machine {
    fn numbers(&self) -> Numbers;
    /// Major and minor number of the character device at a path, wherever links lead. `None` if there is something else, or
    /// nothing.
    fn device_at(&self, path: &Path) -> Option<(u32, u32)>;
}

/// This machine.
pub struct This;

/// Where the kernel has its nodes for graphics: each has a directory with the file `dev`, its numbers, and the link
/// `device/driver` to the driver behind it (sysfs(5), Documentation/ABI/testing/sysfs-bus-pci).
const GRAPHICS: &str = "/sys/class/drm";

impl Machine for This {
    fn numbers(&self) -> Numbers {
        let devices = fs::read_to_string("/proc/devices").unwrap_or_default();
        let entries = fs::read_dir(GRAPHICS).into_iter().flatten().flatten();
        Numbers {
            majors: nvidias(&devices).map(|(major, _)| major).collect(),
            graphics: entries
                .filter_map(|entry| graphics(&entry.path()))
                .collect(),
            parts: of_parts(&devices),
        }
    }

    fn device_at(&self, path: &Path) -> Option<(u32, u32)> {
        let status = fs::metadata(path).ok()?;
        let is_character = status.file_type().is_char_device();
        let number = status.rdev();
        is_character.then(|| (rustix::fs::major(number), rustix::fs::minor(number)))
    }
}

/// The numbers of the node for graphics that this directory describes, if NVIDIA's driver is behind it.
fn graphics(described: &Path) -> Option<(u32, u32)> {
    let driver = fs::read_link(described.join("device/driver")).ok()?;
    let is_nvidias = driver.file_name() == Some(OsStr::new("nvidia"));
    let numbers = fs::read_to_string(described.join("dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    is_nvidias.then_some((major.parse().ok()?, minor.parse().ok()?))
}

/// NVIDIA's major numbers and the names of their drivers, in the text of `/proc/devices`.
fn nvidias(devices: &str) -> impl Iterator<Item = (u32, &str)> {
    let (characters, _) = devices
        .split_once("Block devices:")
        .unwrap_or((devices, ""));
    let lines = characters.lines().filter_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        let is_nvidias = name.starts_with("nvidia");
        is_nvidias.then(|| Some((number.parse().ok()?, name)))?
    });
    lines.chain([(MAJOR, "nvidia")])
}

/// The major number of nodes of parts of GPUs (kernel-open/nvidia/nv-caps.c, 580.142).
fn of_parts(devices: &str) -> Option<u32> {
    let found = nvidias(devices).find(|(_, name)| *name == "nvidia-caps");
    found.map(|(major, _)| major)
}

/// What of GPUs a container was given. `None`: it has none.
pub fn recognise(specification: &Specification, machine: &dyn Machine) -> Option<Asked> {
    let search = Search {
        specification,
        machine,
        numbers: machine.numbers(),
    };
    let asked = Asked {
        nodes: search.devices().chain(search.mounts()).collect(),
        rules: search.rules(),
        hooks: specification.hooks().filter_map(hook).collect(),
    };
    let has_nodes = !asked.nodes.is_empty() || !asked.rules.is_empty();
    let is_given = has_nodes || asked.has_hook(HookKind::Cdi);
    let will_be_given = asked.has_hook(HookKind::Legacy) && asks_the_hook(specification);
    (is_given || will_be_given).then_some(asked)
}

struct Search<'a> {
    specification: &'a Specification,
    machine: &'a dyn Machine,
    numbers: Numbers,
}

impl<'a> Search<'a> {
    fn devices(&self) -> impl Iterator<Item = Node> {
        let devices = self.specification.devices().iter();
        devices.filter_map(|device| {
            let path = text(device, "path").unwrap_or_default();
            let is_character = matches!(text(device, "type"), Some("c" | "u"));
            let numbers = number(device, "major").zip(number(device, "minor"));
            let numbers = numbers.filter(|_| is_character);
            let driver = self.driver(numbers, &[path])?;
            Some(Node {
                path: path.to_owned(),
                way: Way::Device,
                driver,
                gpu: gpu(numbers, path),
                part: self.part(numbers, path),
            })
        })
    }

    fn mounts(&self) -> impl Iterator<Item = Node> {
        let mounts = self.specification.mounts().iter();
        mounts.filter(|mount| is_bind(mount)).filter_map(|mount| {
            let source = text(mount, "source").unwrap_or_default();
            let path = text(mount, "destination").unwrap_or_default();
            let numbers = self.machine.device_at(Path::new(source));
            let is_nvidias = |(major, minor)| self.numbers.have(major, Some(minor));
            let driver = match numbers {
                // It hides what would be there, as /dev/null does.
                Some(numbers) if !is_nvidias(numbers) && driver_of(source).is_none() => None,
                _ => self.driver(numbers, &[source, path]),
            };
            Some(Node {
                path: path.to_owned(),
                way: Way::Mount,
                driver: driver?,
                gpu: gpu(numbers, source),
                part: self.part(numbers, source),
            })
        })
    }

    /// The driver to which a node with these numbers, or at one of these paths, belongs.
    fn driver(&self, numbers: Option<(u32, u32)>, paths: &[&str]) -> Option<Driver> {
        let by_path = paths.iter().find_map(|path| driver_of(path));
        let is_nvidias = |(major, minor)| self.numbers.have(major, Some(minor));
        by_path.or_else(|| numbers.is_some_and(is_nvidias).then_some(Driver::Nvidia))
    }

    /// The node of a part that has these numbers, or, if there are none, this path. A path can be another's.
    fn part(&self, numbers: Option<(u32, u32)>, path: &str) -> Option<node::Node> {
        let by_path = || node::Node::from_file_name(&name_in_devices(path)?);
        let by_path = || by_path().filter(|node| node.is_of_parts());
        let Some((major, minor)) = numbers else {
            return by_path();
        };
        let is_one = match self.numbers.parts {
            Some(parts) => major == parts,
            // There are no such devices. Parts of the simulated driver go by path and minor number.
            None => !self.numbers.have(major, Some(minor)) && by_path().is_some(),
        };
        is_one.then(|| node::of_part(minor.try_into().ok()?))?
    }

    fn rules(&self) -> Vec<Rule> {
        let rules = self.specification.device_rules().iter();
        let rules = rules.filter_map(|rule| {
            let is_allowed = rule.get("allow")?.as_bool()?;
            let kind = text(rule, "type").filter(|kind| !kind.is_empty());
            let kind = kind.unwrap_or("a");
            let major = number(rule, "major")?;
            let minor = number(rule, "minor");
            let is_nvidias = is_allowed && kind != "b" && self.numbers.have(major, minor);
            let shown = minor.map_or("*".to_owned(), |minor| minor.to_string());
            let access = text(rule, "access").unwrap_or("rwm");
            let opens = access.contains(['r', 'w']);
            is_nvidias.then(|| Rule {
                shown: format!("{kind} {major}:{shown}"),
                gpus: match (major == MAJOR && opens, minor) {
                    (true, None) => Gpus::All,
                    (true, Some(minor)) => gpu_minor(minor).map_or(Gpus::None, Gpus::One),
                    (false, _) => Gpus::None,
                },
            })
        });
        rules.collect()
    }
}

/// The minor number of the GPU whose node has these numbers, or, if there are none, this path.
fn gpu(numbers: Option<(u32, u32)>, path: &str) -> Option<u8> {
    match numbers {
        Some((MAJOR, minor)) => gpu_minor(minor),
        Some(_) => None,
        None => {
            let name = Path::new(path).file_name()?.to_str()?;
            gpu_minor(name.strip_prefix("nvidia")?.parse().ok()?)
        }
    }
}

fn gpu_minor(minor: u32) -> Option<u8> {
    let minor = u8::try_from(minor).ok()?;
    (minor <= MAXIMUM_GPU_MINOR).then_some(minor)
}

/// The driver to which a node at this path belongs.
fn driver_of(path: &str) -> Option<Driver> {
    let name = name_in_devices(path)?;
    let row = NODES.iter().find(|(start, _)| name.starts_with(start))?;
    Some(row.1)
}

fn is_bind(mount: &Value) -> bool {
    let options = mount.get("options").and_then(Value::as_array);
    let mut options = options.into_iter().flatten().filter_map(Value::as_str);
    text(mount, "type") == Some("bind") || options.any(|option| matches!(option, "bind" | "rbind"))
}

/// The hook that this entry of a specification is, if it is one of NVIDIA's.
pub fn hook(hook: &Value) -> Option<Hook> {
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

/// Whether NVIDIA's hook is asked to put nodes into the container, be it by a value that one behind it overrides.
fn asks_the_hook(specification: &Specification) -> bool {
    let by_value = |name: &str| name == VISIBLE || name.starts_with(SWARM);
    let mut variables = specification.variables();
    variables.any(|(name, value)| by_value(name) && !NOTHING.contains(&value))
        || toolkit::is_of_old_image(specification)
        || toolkit::mounts_that_ask(specification).next().is_some()
}

#[cfg(test)]
mod tests;
