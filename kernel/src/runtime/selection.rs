//! Which GPUs a container is to have: those that it would have without a sandbox.
//!
//! The idea: what it was given counts, and not what it says. A node that the container was given, and a rule of its cgroup, grant the
//! GPU that has this number. What NVIDIA's legacy hook would add is found by its own rules (`toolkit.rs`). So where CDI's edits give
//! one GPU, it stays one, though the image's `NVIDIA_VISIBLE_DEVICES` says `all`, as that of every image of CUDA does.
//!
//! Parts of GPUs (MIG) are given likewise: by their nodes, or by names that the hook takes. A container that was given a node of a part has what its
//! number grants. Others of these nodes, by which GPUs are divided and watched, it has not.
//!
//! The hook's names are indices and UUIDs (libnvidia-container, `src/cli/common.c`). What the driver says of its GPUs tells which node is whose:
//! `/proc/driver/nvidia/gpus/*/information` has UUID and minor number of each, and the order of these directories is that of the indices.

use std::path::Path;

use nvproxy_abi::node::Node;
use nvproxy_protocol::driver::Kind;
use ringfence_sentry::failure::Failure;

use super::gpus::{self, Asked, Driver, Gpus, HookKind};
use super::specification::Specification;
use super::toolkit::{self, Configuration, Request};
use crate::driver::{self, Choice, Gpu, Selection};
use crate::mig::{self, HOW_TO_NAME, Name};
use crate::withheld;

/// The GPUs that the container of this name is to have, and the nodes of parts of them that it was given.
pub fn of(
    container: &str,
    specification: &Specification,
    asked: &Asked,
    choice: Choice,
) -> Result<(Selection, Vec<Node>), Failure> {
    let whole = gpus(container, specification, asked, choice)?;
    let there = driver::parts(match driver::host_version() {
        Some(_) if choice != Choice::Sim => Kind::Host,
        _ => Kind::Simulated,
    });
    let there: Vec<Node> = there.iter().map(|capability| capability.node).collect();
    let parts = asked.nodes.iter().filter_map(|node| node.open_only);
    let parts = parts.filter(|node| there.contains(node));
    Ok((whole, parts.collect()))
}

/// What the log is to say of nodes that the container was given and has not. `has` are those that it has.
pub fn left_out(container: &str, asked: &Asked, has: &[Node]) -> Option<String> {
    let given = asked
        .nodes
        .iter()
        .filter(|node| node.driver == Driver::Nvidia);
    let left = given.filter_map(|node| {
        let row = withheld::of(Path::new(&node.path))?;
        let is_there = node.open_only.is_some_and(|node| has.contains(&node));
        (!is_there).then(|| format!("{} ({}: {})", node.path, row.reason, row.remedy))
    });
    let left: Vec<String> = left.collect();
    (!left.is_empty()).then(|| format!("container {container} goes without {}", left.join(", ")))
}

/// The GPUs, and parts of them by name.
fn gpus(
    container: &str,
    specification: &Specification,
    asked: &Asked,
    choice: Choice,
) -> Result<Selection, Failure> {
    let requests = requests(specification)?;
    let gives_all = asked.rules.iter().any(|rule| rule.gpus == Gpus::All);
    if gives_all || requests.contains(&Request::All) {
        return Ok(Selection::All);
    }
    // Without a driver that is the first to be said.
    if choice == Choice::Host && driver::host_version().is_none() {
        return Ok(Selection::All);
    }
    let all = driver::gpus(choice)?;
    chosen(container, asked, &requests, &all)
}

/// What NVIDIA's hooks are asked for, of which there is one, or none.
fn requests(specification: &Specification) -> Result<Vec<Request>, Failure> {
    let hooks = specification
        .hooks()
        .filter(|hook| gpus::hook(hook).is_some_and(|hook| hook.kind == HookKind::Legacy));
    hooks
        .map(|hook| Ok(toolkit::request(specification, &Configuration::of(hook)?)))
        .collect()
}

fn chosen(
    container: &str,
    asked: &Asked,
    requests: &[Request],
    all: &[Gpu],
) -> Result<Selection, Failure> {
    let by_rules = asked.rules.iter().filter_map(|rule| match rule.gpus {
        Gpus::One(minor) => Some(minor),
        Gpus::None | Gpus::All => None,
    });
    let by_nodes = asked.nodes.iter().filter_map(|node| node.gpu);
    let mut minors: Vec<u8> = by_nodes.chain(by_rules).collect();
    let mut parts: Vec<String> = Vec::new();
    for request in requests {
        let Request::Named(names) = request else {
            continue;
        };
        for name in names {
            match Name::parse(name) {
                Some(part) => {
                    named(container, part.gpu, all)?;
                    parts.push(name.clone());
                }
                None => minors.push(named(container, name, all)?.minor),
            }
        }
    }
    let given = all.iter().filter(|gpu| minors.contains(&gpu.minor));
    let given = given.map(|gpu| gpu.uuid.clone());
    Ok(Selection::Listed(given.chain(parts).collect()))
}

fn named<'a>(container: &str, name: &str, all: &'a [Gpu]) -> Result<&'a Gpu, Failure> {
    if is_part(name) {
        return Err(Failure::setup(format!(
            "container {container} asks NVIDIA's hook for {name}, a part of a GPU (MIG), by a name that only the driver could look up: \
             give it by CDI, or {HOW_TO_NAME}, with MIG-GPU-UUID in place of the index"
        )));
    }
    driver::named(all, name).ok_or_else(|| {
        Failure::setup(format!(
            "container {container} asks NVIDIA's hook for GPU {name}, and this machine has {}: ask for one of these",
            driver::shown(all)
        ))
    })
}

/// Whether this names a part of a GPU in a form that is not taken: by its UUID, or as in `0:1`.
fn is_part(name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let by_place = name.split_once(':');
    mig::is_uuid(name) || by_place.is_some_and(|(gpu, part)| is_number(gpu) && is_number(part))
}

#[cfg(test)]
mod tests {
    use nvproxy_abi::node::of_part;

    use super::*;
    use crate::runtime::gpus::{Node as GivenNode, Rule, Way};

    fn machine() -> Vec<Gpu> {
        // The driver's numbers are not the places of the list.
        let gpu = |(minor, name): (u8, &str)| Gpu {
            minor,
            uuid: format!("GPU-{name}"),
            model: String::new(),
        };
        [(2, "aa"), (0, "bb"), (1, "cc")].map(gpu).into()
    }

    fn given(nodes: &[u8], rules: &[u8]) -> Asked {
        let nodes = nodes.iter().map(|minor| GivenNode {
            path: format!("/dev/nvidia{minor}"),
            way: Way::Device,
            driver: Driver::Nvidia,
            gpu: Some(*minor),
            open_only: None,
        });
        let rules = rules.iter().map(|minor| Rule {
            shown: String::new(),
            gpus: Gpus::One(*minor),
        });
        Asked {
            nodes: nodes.collect(),
            rules: rules.collect(),
            hooks: Vec::new(),
        }
    }

    #[test]
    fn nodes_and_rules_give_gpus_by_number_and_names_by_place() {
        let named =
            |names: &[&str]| Request::Named(names.iter().map(ToString::to_string).collect());
        for (asked, requests, expected) in [
            (given(&[], &[]), vec![], &[][..]),
            (given(&[2], &[]), vec![], &["GPU-aa"]),
            (given(&[2], &[0]), vec![], &["GPU-aa", "GPU-bb"]),
            (given(&[9], &[]), vec![], &[]),
            (
                given(&[], &[]),
                vec![named(&["0", "gpu-CC"])],
                &["GPU-aa", "GPU-cc"],
            ),
            (given(&[0], &[]), vec![named(&["1"])], &["GPU-bb"]),
            (given(&[0], &[]), vec![Request::Nothing], &["GPU-bb"]),
            (
                given(&[0], &[]),
                vec![named(&["MIG-GPU-cc/1/0"])],
                &["GPU-bb", "MIG-GPU-cc/1/0"],
            ),
        ] {
            let found = chosen("c", &asked, &requests, &machine());
            let expected = expected.iter().map(ToString::to_string).collect();
            assert_eq!(found, Ok(Selection::Listed(expected)), "{requests:?}");
        }
    }

    #[test]
    fn what_a_container_goes_without_is_said_with_the_reason() {
        let node = |path: &str| GivenNode {
            path: path.to_owned(),
            way: Way::Device,
            driver: Driver::Nvidia,
            gpu: None,
            open_only: path.strip_prefix("/dev/").and_then(Node::from_file_name),
        };
        let paths = [
            "/dev/nvidiactl",
            "/dev/nvidia-modeset",
            "/dev/nvidia-caps/nvidia-cap12",
            "/dev/nvidia-caps/nvidia-cap21",
        ];
        let asked = Asked {
            nodes: paths.map(node).into(),
            ..Asked::default()
        };
        let twelfth: Vec<Node> = of_part(12).into_iter().collect();
        let said = left_out("c", &asked, &twelfth).expect("a line");
        let expected = "container c goes without /dev/nvidia-modeset (it sets modes of displays, for the whole GPU, by requests of another \
                        kernel module that no table has: leave it out: what computes, and EGL and Vulkan without a display, need none), \
                        /dev/nvidia-caps/nvidia-cap21 (a node there is for a part of a GPU (MIG), or for who divides GPUs and looks after \
                        them all: choose parts by --gpus, as in 0/1/0, or in a container by their nodes or names)";
        assert_eq!(said, expected);
        assert_eq!(left_out("c", &given(&[0], &[]), &[]), None);
    }
}
