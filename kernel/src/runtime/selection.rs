//! Which GPUs a container is to have: those that it would have without a sandbox.
//!
//! The idea: what it was given counts, and not what it says. A node that the container was given, and a rule of its cgroup, grant the
//! GPU that has this number. What NVIDIA's legacy hook would add is found by its own rules (`toolkit.rs`). So where CDI's edits give
//! one GPU, it stays one, though the image's `NVIDIA_VISIBLE_DEVICES` says `all`, as that of every image of CUDA does.
//!
//! The hook's names are indices and UUIDs (libnvidia-container, `src/cli/common.c`). What the driver says of its GPUs tells which node is whose:
//! `/proc/driver/nvidia/gpus/*/information` has UUID and minor number of each, and the order of these directories is that of the indices.

use ringfence_sentry::failure::Failure;

use super::gpus::{self, Asked, Gpus, HookKind};
use super::specification::Specification;
use super::toolkit::{self, Configuration, Request};
use crate::driver::{self, Choice, Gpu, Selection};

/// The GPUs that the container of this name is to have.
pub fn of(
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
    for request in requests {
        let Request::Named(names) = request else {
            continue;
        };
        for name in names {
            minors.push(named(container, name, all)?.minor);
        }
    }
    let given = all.iter().filter(|gpu| minors.contains(&gpu.minor));
    Ok(Selection::Listed(
        given.map(|gpu| gpu.uuid.clone()).collect(),
    ))
}

fn named<'a>(container: &str, name: &str, all: &'a [Gpu]) -> Result<&'a Gpu, Failure> {
    if is_part(name) {
        return Err(Failure::setup(format!(
            "container {container} asks NVIDIA's hook for {name}, a part of a GPU (MIG), which no sandbox can have: ask for a whole GPU, \
             or run it with the engine's own runtime"
        )));
    }
    driver::named(all, name).ok_or_else(|| {
        Failure::setup(format!(
            "container {container} asks NVIDIA's hook for GPU {name}, and this machine has {}: ask for one of these",
            driver::shown(all)
        ))
    })
}

/// Whether this names a part of a GPU: by its UUID, or as in `0:1`.
fn is_part(name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let by_uuid = name
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case("MIG-"));
    let by_place = name.split_once(':');
    by_uuid || by_place.is_some_and(|(gpu, part)| is_number(gpu) && is_number(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::gpus::{Driver, Node, Rule, Way};

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
        let nodes = nodes.iter().map(|minor| Node {
            path: format!("/dev/nvidia{minor}"),
            way: Way::Device,
            driver: Driver::Nvidia,
            gpu: Some(*minor),
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
        ] {
            let found = chosen("c", &asked, &requests, &machine());
            let expected = expected.iter().map(ToString::to_string).collect();
            assert_eq!(found, Ok(Selection::Listed(expected)), "{requests:?}");
        }
    }
}
