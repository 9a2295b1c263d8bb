//! Which driver a sandbox gets, and which GPUs.
//!
//! What the real driver says of itself is read from `/proc/driver/nvidia` and `/sys/module/nvidia` (their content:
//! kernel-open/nvidia/nv-procfs.c, 580.142), without opening a device, which could take seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use nvproxy_abi::node::{Node, OPEN_ONLY, Series};
use nvproxy_abi::policy::{Capabilities, FirmwareCommands};
use nvproxy_abi::support::{Basis, list, support};
use nvproxy_abi::version::DriverVersion;
pub use nvproxy_protocol::driver::{Driver, Kind};
use nvproxy_sim::MACHINE_GPUS;
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{Attempt, Failure};

use crate::mig::{self, Capability, HOW_TO_NAME, Name};
use crate::text::{field, number};

/// The release that the simulated driver is, unless it is asked to be another.
const SIMULATED_VERSION: DriverVersion = DriverVersion::new(580, 142, None);

/// `--driver`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The real driver if there is one, else the simulated one
    Auto,
    /// NVIDIA's driver on this machine
    #[default]
    Host,
    /// The simulated driver, for machines without a GPU
    Sim,
}

/// `--gpus`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    All,
    None,
    /// Each by its index or its UUID, or a part of one by its name ([`mig::Name`]).
    Listed(Vec<String>),
}

/// This is the name of no GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoName {
    #[error(
        "'{0}' is neither an index like 0, nor a UUID like GPU-5a3e..., nor a part of a GPU like 0/1/0"
    )]
    Unknown(String),
    #[error(
        "'{0}' calls a part of a GPU by a UUID that only the driver could look up: {HOW_TO_NAME}"
    )]
    Part(String),
}

impl FromStr for Selection {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Selection, NoName> {
        match text {
            "all" => Ok(Selection::All),
            "none" => Ok(Selection::None),
            _ => {
                let names: Vec<String> = text.split(',').map(str::to_owned).collect();
                let is_a_name = |name: &String| {
                    let of_part = Name::parse(name).is_some();
                    of_part || number::<u32>(name).is_some() || name.starts_with("GPU-")
                };
                match names.iter().find(|name| !is_a_name(name)) {
                    Some(name) if mig::is_uuid(name) => Err(NoName::Part(name.clone())),
                    Some(name) => Err(NoName::Unknown(name.clone())),
                    None => Ok(Selection::Listed(names)),
                }
            }
        }
    }
}

/// One GPU of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The number of its node, as in /dev/nvidia0.
    pub minor: u8,
    pub uuid: String,
    pub model: String,
}

/// Who asks, and so how what is asked for is written: for remedies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// By options of a command.
    CommandLine,
    /// A container, whose settings are in this file.
    Container(PathBuf),
}

impl Asker {
    /// What asks for GPUs.
    fn of_gpus(&self) -> &'static str {
        match self {
            Asker::CommandLine => "--gpus",
            Asker::Container(_) => "the container's GPUs",
        }
    }

    /// What asks for capabilities.
    fn of_capabilities(&self) -> &'static str {
        match self {
            Asker::CommandLine => "--driver-capabilities",
            Asker::Container(_) => "the container's driver capabilities",
        }
    }

    /// How to have the driver simulated.
    fn simulating(&self) -> String {
        match self {
            Asker::CommandLine => "use --driver sim".to_owned(),
            Asker::Container(file) => format!(
                "to try containers without a GPU, write driver = \"sim\" in [runtime] of {}",
                file.display()
            ),
        }
    }

    /// How to have the driver taken for this release.
    fn taking_for(&self, release: &DriverVersion) -> String {
        match self {
            Asker::CommandLine => format!("--driver-abi {release}"),
            Asker::Container(file) => {
                let file = file.display();
                format!("driver-abi = \"{release}\" in [runtime] of {file}")
            }
        }
    }
}

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Demand {
    pub choice: Choice,
    pub gpus: Selection,
    /// Parts of GPUs besides.
    pub parts: Vec<Capability>,
    /// The release to take the driver for.
    pub abi: Option<DriverVersion>,
    pub capabilities: Capabilities,
    pub firmware_commands: FirmwareCommands,
    pub asker: Asker,
}

impl Default for Demand {
    fn default() -> Demand {
        Demand {
            choice: Choice::Auto,
            gpus: Selection::All,
            parts: Vec::new(),
            abi: None,
            capabilities: Capabilities::default(),
            firmware_commands: FirmwareCommands::default(),
            asker: Asker::CommandLine,
        }
    }
}

/// A driver, and why its tables serve it.
pub struct Chosen {
    pub driver: Driver,
    basis: Basis,
}

impl Chosen {
    /// What the user has to know.
    pub fn warnings(&self) -> Vec<String> {
        let parts = match self.driver.kind {
            Kind::Host => mig::without_part(&parts(Kind::Host), &self.driver.nodes),
            // These can be used as a whole besides.
            Kind::Simulated | Kind::Recorded => None,
        };
        self.about_tables().into_iter().chain(parts).collect()
    }

    /// That the tables are those of another release, if they are.
    fn about_tables(&self) -> Option<String> {
        let Basis::Inferred(releases) = &self.basis else {
            return None;
        };
        let (version, tables) = (&self.driver.version, &self.driver.tables);
        let releases = list(releases);
        Some(format!(
            "the tables do not have NVIDIA driver {version}: using those of {tables}, since {releases} agree in \
             everything that is allowed"
        ))
    }
}

/// The driver that the user's demands mean on this machine.
pub fn choose(demand: &Demand) -> Result<Chosen, Failure> {
    let Demand {
        choice,
        gpus: _,
        parts: _,
        abi,
        capabilities,
        firmware_commands,
        asker,
    } = demand;
    if let Some((name, adds_to)) = capabilities.incomplete() {
        let adds_to: Vec<&str> = adds_to.names().collect();
        return Err(Failure::setup(format!(
            "{} {capabilities}: {name} adds to {} and is of no use without: write {},{capabilities}",
            asker.of_capabilities(),
            adds_to.join(" or "),
            adds_to.first().copied().unwrap_or_default(),
        )));
    }
    let host = host_version();
    let (kind, version) = match (choice, host) {
        (Choice::Host, None) => {
            return Err(Failure::setup(format!(
                "this machine has no NVIDIA driver (/sys/module/nvidia/version is missing): load the nvidia \
                 module, or {}",
                asker.simulating()
            )));
        }
        (Choice::Host | Choice::Auto, Some(version)) => {
            let version = DriverVersion::from_str(&version)
                .attempt(format_args!("the driver's version '{version:.40}'"))?;
            (Kind::Host, version)
        }
        (Choice::Sim, _) | (Choice::Auto, None) => {
            (Kind::Simulated, abi.unwrap_or(SIMULATED_VERSION))
        }
    };
    let support = support(&abi.unwrap_or(version), *capabilities);
    let support = support.map_err(|error| {
        let taking = asker.taking_for(&error.nearest);
        Failure::setup(format!("{error}; {taking} treats the driver as that one"))
    })?;
    let driver = Driver {
        kind,
        version,
        tables: support.tables,
        capabilities: *capabilities,
        firmware_commands: *firmware_commands,
        nodes: nodes(kind, demand)?,
        directory: device_directory(),
    };
    Ok(Chosen {
        driver,
        basis: support.basis,
    })
}

/// Whether this user may open a node as every node is opened that takes requests.
pub fn may_open(path: &Path) -> Result<(), Errno> {
    access(path, AccessFlags::R_OK | AccessFlags::W_OK)
}

/// Whether this user may open an open-only node.
pub fn may_read(path: &Path) -> Result<(), Errno> {
    access(path, AccessFlags::R_OK)
}

/// Fails at the first of these nodes of the host that this user may not open.
fn check_permissions(nodes: &[Node]) -> Result<(), Failure> {
    for node in nodes {
        let path = device_directory().join(node.file_name());
        let Err(errno) = may_open(&path) else {
            continue;
        };
        let remedy = match errno {
            Errno::EACCES => "run as a user who may read and write it",
            Errno::ENOENT => "create it with nvidia-modprobe -c 0 -u",
            _ => "see ringfence doctor",
        };
        let (path, reason) = (path.display(), errno.desc());
        return Err(Failure::setup(format!("{path}: {reason}: {remedy}")));
    }
    Ok(())
}

/// Fails at the first of these nodes of the host's parts that this user may not open.
fn check_parts(parts: &[Capability]) -> Result<(), Failure> {
    for Capability { part, node } in parts {
        let path = device_directory().join(node.file_name());
        let Err(errno) = may_read(&path) else {
            continue;
        };
        let remedy = match errno {
            Errno::EACCES => "run as a user who may read it".to_owned(),
            _ => format!(
                "create it with nvidia-modprobe -f {}",
                mig::file_of(*part).display()
            ),
        };
        let (path, reason) = (path.display(), errno.desc());
        return Err(Failure::setup(format!("{path}: {reason}: {remedy}")));
    }
    Ok(())
}

/// The directory that the driver's nodes lie in. A test puts other nodes in their place by naming another.
pub fn device_directory() -> PathBuf {
    let named = ringfence_faults::ENABLED.then(|| std::env::var_os("RINGFENCE_DEVICES"));
    named.flatten().map_or("/dev".into(), PathBuf::from)
}

/// Where the real driver says of itself what it has. A test has such files beside its nodes.
fn driver_files() -> PathBuf {
    let devices = device_directory();
    match devices == Path::new("/dev") {
        true => "/proc/driver/nvidia".into(),
        false => devices.join("proc"),
    }
}

/// The version of NVIDIA's driver on this machine, if it is loaded.
pub fn host_version() -> Option<String> {
    if device_directory() != Path::new("/dev") {
        return Some(SIMULATED_VERSION.to_string());
    }
    fs::read_to_string("/sys/module/nvidia/version")
        .ok()
        .map(|version| version.trim().to_owned())
}

/// The GPUs that the driver on this machine has, in the order in which NVIDIA's tools number them: by PCI address.
pub fn host_gpus() -> Result<Vec<Gpu>, Failure> {
    let directory = driver_files().join("gpus");
    let entries = fs::read_dir(&directory).attempt(directory.display())?;
    let mut addresses: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    addresses.sort();
    let gpus = addresses.iter().filter_map(|address| {
        let text = fs::read_to_string(address.join("information")).ok()?;
        gpu_from_information(&text)
    });
    Ok(gpus.collect())
}

/// Which driver is meant.
pub fn kind(choice: Choice) -> Kind {
    match (choice, host_version()) {
        (Choice::Host, _) | (Choice::Auto, Some(_)) => Kind::Host,
        (Choice::Sim, _) | (Choice::Auto, None) => Kind::Simulated,
    }
}

/// The GPUs that a driver has.
pub fn gpus(kind: Kind) -> Result<Vec<Gpu>, Failure> {
    match kind {
        Kind::Host => host_gpus(),
        Kind::Simulated | Kind::Recorded => Ok(simulated_gpus()),
    }
}

/// The GPU that has this name: its place among all, or its UUID.
pub fn named<'a>(all: &'a [Gpu], name: &str) -> Option<&'a Gpu> {
    let by_index = number::<usize>(name).and_then(|index| all.get(index));
    by_index.or_else(|| all.iter().find(|gpu| gpu.uuid.eq_ignore_ascii_case(name)))
}

/// The names of GPUs, for who has asked for another one.
pub fn shown(all: &[Gpu]) -> String {
    let names: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(index, gpu)| format!("{index} ({})", gpu.uuid))
        .collect();
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// Reads one GPU's `information` file.
fn gpu_from_information(text: &str) -> Option<Gpu> {
    Some(Gpu {
        minor: number(field(text, "Device Minor")?)?,
        uuid: field(text, "GPU UUID")?.to_owned(),
        model: field(text, "Model")?.to_owned(),
    })
}

fn simulated_gpus() -> Vec<Gpu> {
    (0..MACHINE_GPUS)
        .map(|minor| Gpu {
            minor,
            uuid: nvproxy_sim::gpu_uuid(minor),
            model: "simulated GPU".to_owned(),
        })
        .collect()
}

/// The nodes that a sandbox has. Without GPUs that were asked for it has none at all.
fn nodes(kind: Kind, demand: &Demand) -> Result<Vec<Node>, Failure> {
    if demand.gpus == Selection::None {
        return Ok(Vec::new());
    }
    let (minors, mut parts) = select(kind, &demand.gpus, &demand.asker)?;
    parts.extend(&demand.parts);
    let mut nodes = Driver::nodes_of(&minors);
    let open_only = series_for(demand.capabilities);
    match kind {
        Kind::Host => {
            check_permissions(&nodes)?;
            check_parts(&parts)?;
            // Few programs need one, so that none is a reason not to run.
            let directory = device_directory();
            let may_open = |node: &Node| may_read(&directory.join(node.file_name())).is_ok();
            nodes.extend(open_only.flat_map(host_nodes).filter(may_open));
        }
        Kind::Simulated | Kind::Recorded => nodes.extend(open_only.map(Series::first)),
    }
    for Capability { node, .. } in parts {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// The nodes of all parts of GPUs that a driver has.
pub fn parts(kind: Kind) -> Vec<Capability> {
    match kind {
        Kind::Host => mig::of_host(&driver_files().join("capabilities")),
        Kind::Simulated | Kind::Recorded => mig::simulated(),
    }
}

/// The open-only nodes of which a sandbox with these capabilities has what the host has.
pub fn series_for(capabilities: Capabilities) -> impl Iterator<Item = &'static Series> {
    // A test has those given that no sandbox has.
    let all = ringfence_faults::at(Point::OpenOnly) == Some(Act::Drop);
    let series = OPEN_ONLY.iter();
    series.filter(move |series| all || series.is_for(capabilities))
}

/// Those of a series that there are, if there are any.
pub fn host_nodes(series: &Series) -> Vec<Node> {
    let (directory, _) = series.prefix.rsplit_once('/').unwrap_or(("", ""));
    let entries = fs::read_dir(device_directory().join(directory));
    let names = entries.into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        Some(Path::new(directory).join(name).to_str()?.to_owned())
    });
    let nodes = names
        .filter(|name| name.starts_with(series.prefix))
        .filter_map(|name| Node::from_file_name(&name));
    let mut nodes: Vec<Node> = nodes.collect();
    nodes.sort_unstable_by_key(|node| node.to_wire());
    nodes
}

/// The minor numbers of the GPUs that `selection` means, and the nodes of the parts of some of them.
fn select(
    kind: Kind,
    selection: &Selection,
    asker: &Asker,
) -> Result<(Vec<u8>, Vec<Capability>), Failure> {
    match (selection, kind) {
        (Selection::None, _) => Ok((Vec::new(), Vec::new())),
        // Their nodes tell, without asking the driver to describe its GPUs.
        (Selection::All, Kind::Host) => Ok((host_minors()?, Vec::new())),
        (Selection::All, Kind::Simulated | Kind::Recorded) => {
            Ok(((0..MACHINE_GPUS).collect(), Vec::new()))
        }
        (Selection::Listed(names), _) => pick(&gpus(kind)?, &parts(kind), names, asker),
    }
}

/// The minor numbers of the GPUs whose nodes there are.
fn host_minors() -> Result<Vec<u8>, Failure> {
    let directory = device_directory();
    let entries = fs::read_dir(&directory).attempt(directory.display())?;
    let mut minors: Vec<u8> = entries
        .filter_map(|entry| Node::from_file_name(entry.ok()?.file_name().to_str()?)?.minor())
        .collect();
    minors.sort_unstable();
    Ok(minors)
}

/// The minor numbers of those of `all` that `names` names, by index or by UUID, and the nodes of the parts that it names.
fn pick(
    all: &[Gpu],
    parts: &[Capability],
    names: &[String],
    asker: &Asker,
) -> Result<(Vec<u8>, Vec<Capability>), Failure> {
    let mut minors: Vec<u8> = Vec::new();
    let mut chosen = Vec::new();
    for name in names {
        let part = Name::parse(name);
        let gpu = part.map_or(name.as_str(), |part| part.gpu);
        let minor = named(all, gpu).map(|gpu| gpu.minor).ok_or_else(|| {
            let known = shown(all);
            Failure::setup(format!(
                "{}: this machine has no GPU {gpu}; it has {known}",
                asker.of_gpus()
            ))
        })?;
        if !minors.contains(&minor) {
            minors.push(minor);
        }
        if let Some(part) = part {
            chosen.extend(mig::find(parts, minor, part).attempt(asker.of_gpus())?);
        }
    }
    Ok((minors, chosen))
}

#[cfg(test)]
mod tests;
