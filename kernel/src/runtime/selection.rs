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
use ringfence_sentry::failure::{Attempt, Failure};

use super::gpus::{self, Asked, Driver, Gpus, HookKind};
use super::specification::Specification;
use super::toolkit::{self, Configuration, Request};
use crate::driver::{self, Choice, Gpu, Selection};
use crate::mig::{self, Capability, HOW_TO_NAME, Name};
use crate::text::number;
use crate::withheld;

/// The GPUs that the container of this name is to have, and the parts of GPUs.
pub fn of(
    container: &str,
    specification: &Specification,
    asked: &Asked,
    choice: Choice,
) -> Result<(Selection, Vec<Capability>), Failure> {
    let requests = requests(specification)?;
    // Without a driver that is the first to be said.
    if choice == Choice::Host && driver::host_version().is_none() {
        return Ok((Selection::All, Vec::new()));
    }
    let kind = driver::kind(choice);
    let wanted = Wanted {
        container,
        asked,
        requests: &requests,
    };
    let all = match wanted.needs_list() {
        true => driver::gpus(kind)?,
        false => Vec::new(),
    };
    wanted.among(&all, &driver::parts(kind))
}

/// What the log is to say of nodes that the container was given and has not. `has` are those that it has.
pub fn left_out(container: &str, asked: &Asked, has: &[Node]) -> Option<String> {
    let given = asked
        .nodes
        .iter()
        .filter(|node| node.driver == Driver::Nvidia);
    let left = given.filter_map(|node| {
        let row = withheld::of(Path::new(&node.path))?;
        let is_there = node.part.is_some_and(|node| has.contains(&node));
        (!is_there).then(|| format!("{} ({}: {})", node.path, row.reason, row.remedy))
    });
    let left: Vec<String> = left.collect();
    (!left.is_empty()).then(|| format!("container {container} goes without {}", left.join(", ")))
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

/// What a container was given, and what NVIDIA's hooks are asked for.
struct Wanted<'a> {
    container: &'a str,
    asked: &'a Asked,
    requests: &'a [Request],
}

impl Wanted<'_> {
    /// Whether it has all GPUs, whatever else it names.
    fn is_all(&self) -> bool {
        let mut rules = self.asked.rules.iter();
        rules.any(|rule| rule.gpus == Gpus::All) || self.requests.contains(&Request::All)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.requests.iter().filter_map(|request| match request {
            Request::Named(names) => Some(names),
            Request::Nothing | Request::All => None,
        });
        named.flatten().map(String::as_str)
    }

    /// Whether the machine's GPUs have to be looked up for it.
    fn needs_list(&self) -> bool {
        !self.is_all() || self.names().next().is_some()
    }

    /// The GPUs, of all of the machine, and the parts, of all that there are. Who has all GPUs has parts all the same: of a GPU that is divided
    /// he can use nothing else.
    fn among(
        &self,
        all: &[Gpu],
        parts: &[Capability],
    ) -> Result<(Selection, Vec<Capability>), Failure> {
        let by_rules = self.asked.rules.iter().filter_map(|rule| match rule.gpus {
            Gpus::One(minor) => Some(minor),
            Gpus::None | Gpus::All => None,
        });
        let nodes = &self.asked.nodes;
        let by_nodes = nodes.iter().filter_map(|node| node.gpu);
        let mut minors: Vec<u8> = by_nodes.chain(by_rules).collect();
        let is_given = |part: &&Capability| nodes.iter().any(|node| node.part == Some(part.node));
        let mut given: Vec<Capability> = parts.iter().filter(is_given).copied().collect();
        for name in self.names() {
            let part = Name::parse(name);
            let gpu = named(self.container, part.map_or(name, |part| part.gpu), all)?;
            minors.push(gpu.minor);
            if let Some(part) = part {
                let (container, minor) = (self.container, gpu.minor);
                let found = mig::find(parts, minor, part).attempt(format_args!(
                    "container {container} asks NVIDIA's hook for {name}"
                ))?;
                given.extend(found);
            }
        }
        let whole = all.iter().filter(|gpu| minors.contains(&gpu.minor));
        let whole = whole.map(|gpu| gpu.uuid.clone()).collect();
        match self.is_all() {
            true => Ok((Selection::All, given)),
            false => Ok((Selection::Listed(whole), given)),
        }
    }
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
    let is_number = |text: &str| number::<u32>(text).is_some();
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
            part: None,
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
        ] {
            let found = among(&asked, &requests);
            let expected = expected.iter().map(ToString::to_string).collect();
            let expected = Ok((Selection::Listed(expected), vec![]));
            assert_eq!(found, expected, "{requests:?}");
        }
    }

    /// The number of the nodes of parts besides the selection.
    fn among(asked: &Asked, requests: &[Request]) -> Result<(Selection, Vec<u16>), String> {
        let wanted = Wanted {
            container: "c",
            asked,
            requests,
        };
        let found = wanted.among(&machine(), &mig::simulated());
        let (whole, parts) = found.map_err(|failure| failure.message)?;
        let number = |part: &Capability| match part.node {
            Node::OpenOnly(node) => Some(node.number()),
            _ => None,
        };
        Ok((whole, parts.iter().filter_map(number).collect()))
    }

    fn named(names: &[&str]) -> Request {
        Request::Named(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn parts_are_given_by_name_and_by_node_whichever_gpus_there_are_besides() {
        let all_by_rule = Asked {
            rules: vec![Rule {
                shown: "c 195:*".to_owned(),
                gpus: Gpus::All,
            }],
            ..Asked::default()
        };
        let mut with_node = given(&[0], &[]);
        with_node.nodes[0].part = of_part(21);
        let listed =
            |names: &[&str]| Selection::Listed(names.iter().map(ToString::to_string).collect());
        // The driver's number of the GPU `cc` is 1.
        let part = || named(&["MIG-GPU-cc/1/0"]);
        for (asked, requests, whole, parts) in [
            (
                given(&[0], &[]),
                vec![part()],
                listed(&["GPU-bb", "GPU-cc"]),
                &[147, 148][..],
            ),
            (
                all_by_rule.clone(),
                vec![part()],
                Selection::All,
                &[147, 148],
            ),
            (
                given(&[], &[]),
                vec![Request::All, part()],
                Selection::All,
                &[147, 148],
            ),
            (with_node.clone(), vec![], listed(&["GPU-bb"]), &[21]),
            (with_node, vec![Request::All], Selection::All, &[21]),
            (all_by_rule, vec![], Selection::All, &[]),
        ] {
            let found = among(&asked, &requests);
            assert_eq!(found, Ok((whole, parts.to_vec())), "{requests:?}");
        }
    }

    #[test]
    fn names_of_nothing_are_refused_also_where_all_gpus_are_given() {
        for (name, expected) in [
            (
                "GPU-dd",
                "container c asks NVIDIA's hook for GPU GPU-dd, and this machine has 0 (GPU-aa)",
            ),
            (
                "MIG-GPU-dd/1/0",
                "container c asks NVIDIA's hook for GPU GPU-dd, and this machine has",
            ),
            (
                "MIG-0/1/0",
                "container c asks NVIDIA's hook for GPU MIG-0/1/0, and this machine has",
            ),
            (
                "0/+1/0",
                "container c asks NVIDIA's hook for GPU 0/+1/0, and this machine has",
            ),
            (
                "MIG-5a3e",
                "container c asks NVIDIA's hook for MIG-5a3e, a part of a GPU (MIG), by a name that only",
            ),
            (
                "MIG-GPU-cc/9/0",
                "container c asks NVIDIA's hook for MIG-GPU-cc/9/0: GPU GPU-cc has no part with GI ID 9 and CI ID 0: it has 1/0, 2/0, 2/1",
            ),
        ] {
            for requests in [vec![named(&[name])], vec![Request::All, named(&[name])]] {
                let refused = among(&Asked::default(), &requests).expect_err(name);
                assert!(refused.starts_with(expected), "{name}: {refused}");
            }
        }
    }

    #[test]
    fn what_a_container_goes_without_is_said_with_the_reason() {
        let node = |path: &str| GivenNode {
            path: path.to_owned(),
            way: Way::Device,
            driver: Driver::Nvidia,
            gpu: None,
            part: path.strip_prefix("/dev/").and_then(Node::from_file_name),
        };
        let paths = [
            "/dev/nvidiactl",
            "//dev/nvidia-modeset",
            "/dev/nvidia-caps/nvidia-cap12",
            "/dev/nvidia-caps/nvidia-cap21",
        ];
        let asked = Asked {
            nodes: paths.map(node).into(),
            ..Asked::default()
        };
        let twelfth: Vec<Node> = of_part(12).into_iter().collect();
        let said = left_out("c", &asked, &twelfth).expect("a line");
        let expected = "container c goes without //dev/nvidia-modeset (it sets modes of displays, for the whole GPU, by requests of another \
                        kernel module that no table has: leave it out: what computes, and EGL and Vulkan without a display, need none), \
                        /dev/nvidia-caps/nvidia-cap21 (a node there is for a part of a GPU (MIG), or for who divides GPUs and looks after \
                        them all: choose parts by --gpus, as in 0/1/0, or in a container by their nodes or names)";
        assert_eq!(said, expected);
        assert_eq!(left_out("c", &given(&[0], &[]), &[]), None);
    }
}
