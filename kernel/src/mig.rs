//! Parts of GPUs (MIG): what one is called, and the nodes by which a program shows that it may use it.
//!
//! The idea: whoever wants to use a part names descriptors of two nodes in `/dev/nvidia-caps` in his requests, that of the GPU
//! instance and that of the compute instance in it. The driver looks at the number of each node, and at nothing else that would tell
//! one part's user from another's (`osRmCapAcquire`, src/nvidia/arch/nvalloc/unix/src/os.c). So a sandbox has a part if it has these
//! two nodes, and has none besides. Which nodes they are says the driver in files of
//! its own, `/proc/driver/nvidia/capabilities/gpuN/mig/giG/access` and `.../ciC/access`, without a request.
//!
//! A part is called by its GPU and the numbers of both instances, as in `0/1/0`, or `MIG-GPU-5a3e.../1/0` as NVIDIA's tools have called
//! it. Later ones call it by a UUID of its own. That is in no file: the driver tells it to who subscribes to the part, by a request
//! (NVC638_CTRL_CMD_GET_UUID). The launcher makes none, so such a name is refused, with a line that says how to find the other.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use nvproxy_abi::node::{Node, of_part};
use nvproxy_sim::MACHINE_GPUS;
use nvproxy_sim::partitions::{self, INSTANCES};

use crate::text::{field, number};

/// How names of parts begin in NVIDIA's tools.
const PREFIX: &str = "MIG-";
/// Where the driver says what nodes are for.
const CAPABILITIES: &str = "/proc/driver/nvidia/capabilities";
/// How to find the name that is taken.
pub const HOW_TO_NAME: &str = "write GPU/GI/CI, as in 0/1/0: nvidia-smi -L shows the GPU of each part and its number there, and nvidia-smi \
                               the GI ID and CI ID that belong to this number";

/// What a part is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The GPU: its index, or its UUID.
    pub gpu: &'a str,
    pub instance: u32,
    pub compute: u32,
}

impl Name<'_> {
    /// Reads a name of the form that is taken. `MIG-` is before a UUID only.
    pub fn parse(text: &str) -> Option<Name<'_>> {
        let as_nvidias = text.strip_prefix(PREFIX);
        let mut parts = as_nvidias.unwrap_or(text).split('/');
        let (gpu, instance, compute) = (parts.next()?, parts.next()?, parts.next()?);
        let is_index = as_nvidias.is_none() && number::<u32>(gpu).is_some();
        let is_a_gpu = is_index || gpu.starts_with("GPU-");
        (is_a_gpu && parts.next().is_none()).then_some(())?;
        Some(Name {
            gpu,
            instance: number(instance)?,
            compute: number(compute)?,
        })
    }
}

/// Whether this is the name of a part in a form that is not taken: its UUID.
pub fn is_uuid(text: &str) -> bool {
    let begins = text.get(..PREFIX.len());
    let begins = begins.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    begins && !text.contains('/')
}

/// A part of a GPU, or what all of its own parts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The minor number of the GPU's node.
    pub gpu: u8,
    pub instance: u32,
    /// `None`: the GPU instance as such.
    pub compute: Option<u32>,
}

/// There is no such part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("GPU {gpu} has no part with GI ID {instance} and CI ID {compute}: it has {has}")]
pub struct NoPart {
    gpu: String,
    instance: u32,
    compute: u32,
    has: String,
}

/// A node in `/dev/nvidia-caps`, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    pub part: Part,
    pub node: Node,
}

impl fmt::Display for Part {
    /// As the driver names its file below `capabilities`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "gpu{}/mig/gi{}", self.gpu, self.instance)?;
        match self.compute {
            Some(compute) => write!(formatter, "/ci{compute}"),
            None => Ok(()),
        }
    }
}

/// What the real driver says that it has, in the files below this directory.
pub fn of_host(directory: &Path) -> Vec<Capability> {
    let gpus = numbered(directory, "gpu").into_iter();
    let instances = gpus.flat_map(|(gpu, path)| {
        let instances = numbered(&path.join("mig"), "gi").into_iter();
        instances.map(move |(instance, path)| (gpu, instance, path))
    });
    let mut capabilities = Vec::new();
    for (gpu, instance, path) in instances {
        let Ok(gpu) = u8::try_from(gpu) else { continue };
        let computes = numbered(&path, "ci").into_iter();
        let computes = computes.map(|(compute, path)| (Some(compute), path));
        let files = [(None, path.clone())].into_iter().chain(computes);
        capabilities.extend(files.filter_map(|(compute, path)| {
            let part = Part {
                gpu,
                instance,
                compute,
            };
            let text = fs::read_to_string(path.join("access")).ok()?;
            let node = of_part(number(field(&text, "DeviceFileMinor")?)?)?;
            Some(Capability { part, node })
        }));
    }
    capabilities.sort_unstable_by_key(|capability| capability.part);
    capabilities
}

/// What the simulated driver has.
pub fn simulated() -> Vec<Capability> {
    let parts = (0..MACHINE_GPUS).flat_map(|gpu| {
        INSTANCES.iter().flat_map(move |(instance, computes)| {
            let computes = computes.iter().copied().map(Some);
            [None].into_iter().chain(computes).map(move |compute| Part {
                gpu,
                instance: *instance,
                compute,
            })
        })
    });
    let capabilities = parts.filter_map(|part| {
        let node = of_part(partitions::number(part.gpu, part.instance, part.compute)?)?;
        Some(Capability { part, node })
    });
    capabilities.collect()
}

/// The nodes of the part with this name, of the GPU with the minor number `gpu`: that of the GPU instance, and that of the compute
/// instance.
pub fn find(all: &[Capability], gpu: u8, name: Name<'_>) -> Result<[Capability; 2], NoPart> {
    let of = |compute: Option<u32>| {
        let part = Part {
            gpu,
            instance: name.instance,
            compute,
        };
        all.iter().find(|capability| capability.part == part)
    };
    match (of(None), of(Some(name.compute))) {
        (Some(instance), Some(compute)) => Ok([*instance, *compute]),
        _ => Err(NoPart {
            gpu: name.gpu.to_owned(),
            instance: name.instance,
            compute: name.compute,
            has: shown(all, gpu),
        }),
    }
}

/// The parts that a GPU has, for who has asked for another one.
fn shown(all: &[Capability], gpu: u8) -> String {
    let parts = all.iter().map(|capability| capability.part);
    let parts = parts.filter(|part| part.gpu == gpu);
    let names = parts.filter_map(|part| Some(format!("{}/{}", part.instance, part.compute?)));
    let names: Vec<String> = names.collect();
    match names.is_empty() {
        true => "none (nvidia-smi mig divides it)".to_owned(),
        false => names.join(", "),
    }
}

/// What the user has to know if a sandbox has these nodes, and among them that of some GPU that is divided, and none of a part of it. `all`
/// are the parts that there are.
pub fn without_part(all: &[Capability], nodes: &[Node]) -> Option<String> {
    let has_part = |gpu: u8| {
        let mut of_gpu = all.iter().filter(|capability| capability.part.gpu == gpu);
        of_gpu.any(|capability| nodes.contains(&capability.node))
    };
    let is_divided = |gpu: u8| all.iter().any(|capability| capability.part.gpu == gpu);
    let gpus = nodes.iter().filter_map(|node| node.minor());
    let without = gpus.filter(|gpu| is_divided(*gpu) && !has_part(*gpu));
    let without = without.map(|gpu| format!("/dev/nvidia{gpu} ({})", shown(all, gpu)));
    let without: Vec<String> = without.collect();
    (!without.is_empty()).then(|| {
        format!(
            "programs find no GPU where one is divided (MIG) and they have no part of it, as of {}: give some, in a container by \
             their nodes, else as in --gpus 0/1/0",
            without.join(", ")
        )
    })
}

/// The file in which the driver says which node is this part's.
pub fn file_of(part: Part) -> PathBuf {
    Path::new(CAPABILITIES).join(format!("{part}/access"))
}

/// The directories in this one that are called `prefix` and a number.
fn numbered(directory: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let name = entry.file_name();
        let number = number(name.to_str()?.strip_prefix(prefix)?)?;
        Some((number, entry.path()))
    });
    numbered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_nvidias_tools_or_by_index() {
        let name = |gpu, instance, compute| Name {
            gpu,
            instance,
            compute,
        };
        for (text, expected) in [
            ("0/1/0", Some(name("0", 1, 0))),
            ("MIG-GPU-5a3e/7/1", Some(name("GPU-5a3e", 7, 1))),
            ("GPU-5a3e/7/1", Some(name("GPU-5a3e", 7, 1))),
            ("MIG-5a3e", None),
            ("0/1", None),
            ("0/1/0/0", None),
            ("0/-1/0", None),
            ("0/+1/0", None),
            ("0/1/+0", None),
            ("+0/1/0", None),
            ("0/1/", None),
            ("MIG-0/1/0", None),
            ("first/1/0", None),
            ("0:1", None),
            ("", None),
        ] {
            assert_eq!(Name::parse(text), expected, "{text}");
        }
        for (text, expected) in [
            ("MIG-5a3e", true),
            ("mig-5a3e", true),
            ("MIG-GPU-5a3e/7/1", false),
            ("MIG-0/1/0", false),
            ("GPU-5a3e", false),
            ("0", false),
        ] {
            assert_eq!(is_uuid(text), expected, "{text}");
        }
    }

    #[test]
    fn the_drivers_files_say_which_node_is_whose() {
        let directory = std::env::temp_dir().join(format!("ringfence-mig-{}", std::process::id()));
        for (path, number) in [
            ("gpu4/mig/gi1", 552),
            ("gpu4/mig/gi1/ci0", 553),
            ("gpu4/mig/gi10/ci2", 636),
            ("gpu0/mig/gi2/ci0", 22),
        ] {
            let path = directory.join(path);
            fs::create_dir_all(&path).unwrap();
            let text =
                format!("DeviceFileMinor: {number}\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
            fs::write(path.join("access"), text).unwrap();
        }
        // What else is there is of no part.
        fs::create_dir_all(directory.join("mig")).unwrap();
        fs::write(directory.join("mig/config"), "DeviceFileMinor: 1\n").unwrap();
        fs::write(
            directory.join("fabric-imex-mgmt"),
            "DeviceFileMinor: 4323\n",
        )
        .unwrap();
        fs::create_dir_all(directory.join("gpu1/mig/gi3")).unwrap();
        fs::write(directory.join("gpu1/mig/gi3/access"), "no number\n").unwrap();
        let found: Vec<(String, String)> = of_host(&directory)
            .iter()
            .map(|found| (found.part.to_string(), found.node.file_name()))
            .collect();
        fs::remove_dir_all(&directory).unwrap();
        let expected = [
            ("gpu0/mig/gi2/ci0", "nvidia-caps/nvidia-cap22"),
            ("gpu4/mig/gi1", "nvidia-caps/nvidia-cap552"),
            ("gpu4/mig/gi1/ci0", "nvidia-caps/nvidia-cap553"),
            ("gpu4/mig/gi10/ci2", "nvidia-caps/nvidia-cap636"),
        ];
        assert_eq!(
            found,
            expected.map(|(part, node)| (part.to_owned(), node.to_owned()))
        );
        assert_eq!(of_host(Path::new("/nonexistent")), []);
    }

    #[test]
    fn simulated_parts_have_the_numbers_that_the_driver_would_give() {
        let all = simulated();
        let shown: Vec<String> = all
            .iter()
            .map(|capability| format!("{} {}", capability.part, capability.node.file_name()))
            .collect();
        assert_eq!(shown.len(), 10);
        assert_eq!(shown[0], "gpu0/mig/gi1 nvidia-caps/nvidia-cap12");
        assert_eq!(shown[4], "gpu0/mig/gi2/ci1 nvidia-caps/nvidia-cap23");
        assert_eq!(shown[5], "gpu1/mig/gi1 nvidia-caps/nvidia-cap147");
    }

    #[test]
    fn a_part_has_two_nodes_or_is_not_there() {
        let all = simulated();
        let find = |gpu, text| {
            let found = find(&all, gpu, Name::parse(text).expect("a name"));
            found.map(|found| found.map(|capability| capability.node.file_name()))
        };
        let nodes =
            |numbers: [u16; 2]| Ok(numbers.map(|number| format!("nvidia-caps/nvidia-cap{number}")));
        assert_eq!(find(0, "0/1/0"), nodes([12, 13]));
        assert_eq!(find(1, "1/2/1"), nodes([156, 158]));
        let missing = find(0, "0/1/1").unwrap_err().to_string();
        let expected = "GPU 0 has no part with GI ID 1 and CI ID 1: it has 1/0, 2/0, 2/1";
        assert_eq!(missing, expected);
        let whole = find(5, "5/1/0").unwrap_err().to_string();
        assert!(whole.ends_with("it has none (nvidia-smi mig divides it)"));
    }

    #[test]
    fn who_has_a_divided_gpu_and_no_part_is_told() {
        let all = simulated();
        let nodes = |gpus: &[u8], parts: &[u16]| -> Vec<Node> {
            let gpus = gpus.iter().copied().map(Node::Gpu);
            gpus.chain(parts.iter().filter_map(|number| of_part(*number)))
                .collect()
        };
        for (gpus, parts) in [
            (&[0][..], &[12, 13][..]),
            (&[0, 1], &[12, 13, 156]),
            (&[7], &[]),
            (&[], &[]),
        ] {
            assert_eq!(without_part(&all, &nodes(gpus, parts)), None, "{gpus:?}");
        }
        let said = without_part(&all, &nodes(&[0, 1], &[12])).expect("a line");
        assert!(
            said.contains("as of /dev/nvidia1 (1/0, 2/0, 2/1): give"),
            "{said}"
        );
    }

    #[test]
    fn the_file_of_a_part_is_named_for_remedies() {
        let part = Part {
            gpu: 0,
            instance: 1,
            compute: Some(0),
        };
        let file = "/proc/driver/nvidia/capabilities/gpu0/mig/gi1/ci0/access";
        assert_eq!(file_of(part), Path::new(file));
    }
}
