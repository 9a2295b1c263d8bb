//! Where in a configuration a runtime's entry is, and what belongs into it.
//!
//! The idea: the engines differ in names only. Each has a table of runtimes, in it an entry for each, in that the path of a
//! program, and elsewhere the name of the runtime that is used where none is named.
//!
//! containerd hands on those annotations of pods and containers that an entry lists (its docs/cri/config.md); Docker, podman and
//! CRI-O hand on all. CRI-O's `allowed_annotations` is a list of its own ones, and takes no other
//! (`validateAllowedAndGenerateDisallowedAnnotations` in its pkg/config/config.go).

use super::containerd;
use super::document::{Document, Keys, Value, below};
use super::engines::Engine;

/// The annotations of a pod or container that Ringfence reads, as a pattern (Go's path.Match).
const OURS: &str = "dev.ringfence.*";

/// Where an engine's configuration has what concerns runtimes.
#[derive(Debug)]
pub struct Layout {
    /// Where the table of runtimes is.
    pub runtimes: Keys,
    /// Below an entry, where the program's path is.
    program: &'static [&'static str],
    /// Whether that is a list of paths, of which the first that exists counts.
    is_list: bool,
    /// Below an entry, what every entry for a program like ours has.
    fixed: &'static [(&'static str, &'static str)],
    /// Below an entry, which annotations the engine hands on to the runtime. Engines that hand on all have no such lists.
    annotations: &'static [&'static str],
    /// Where the name of the default runtime is.
    pub default: Keys,
    /// Whether a new entry gets what the engine's ordinary runtime has besides.
    pub follows_ordinary: bool,
}

impl Layout {
    /// That of an engine whose file has this version of its format. Only containerd's has versions.
    pub fn of(engine: Engine, version: u8) -> Layout {
        match engine {
            Engine::Docker => Layout {
                runtimes: keys(&["runtimes"]),
                program: &["path"],
                is_list: false,
                fixed: &[],
                annotations: &[],
                default: keys(&["default-runtime"]),
                follows_ordinary: false,
            },
            Engine::Containerd => {
                let plugin = containerd::plugin(version);
                Layout {
                    runtimes: keys(&["plugins", plugin, "containerd", "runtimes"]),
                    program: &["options", "BinaryName"],
                    is_list: false,
                    fixed: &[("runtime_type", "io.containerd.runc.v2")],
                    annotations: &["pod_annotations", "container_annotations"],
                    default: keys(&["plugins", plugin, "containerd", "default_runtime_name"]),
                    follows_ordinary: true,
                }
            }
            Engine::Podman => Layout {
                runtimes: keys(&["engine", "runtimes"]),
                program: &[],
                is_list: true,
                fixed: &[],
                annotations: &[],
                default: keys(&["engine", "runtime"]),
                follows_ordinary: false,
            },
            Engine::Crio => Layout {
                runtimes: keys(&["crio", "runtime", "runtimes"]),
                program: &["runtime_path"],
                is_list: false,
                fixed: &[("runtime_type", "oci")],
                annotations: &[],
                default: keys(&["crio", "runtime", "default_runtime"]),
                follows_ordinary: false,
            },
        }
    }

    /// Where the entry of the runtime `name` is.
    pub fn entry(&self, name: &str) -> Keys {
        below(&self.runtimes, &[name])
    }

    /// Where that entry has its program.
    pub fn program(&self, name: &str) -> Keys {
        below(&self.entry(name), self.program)
    }

    /// What the entry of a runtime is to have, and where.
    pub fn settings(&self, name: &str, program: &str) -> Vec<(Keys, Value)> {
        let fixed = self.fixed_settings(&self.entry(name)).into_iter();
        let program = match self.is_list {
            true => Value::List(vec![program.to_owned()]),
            false => Value::Text(program.to_owned()),
        };
        fixed.chain([(self.program(name), program)]).collect()
    }

    /// The lists of annotations that an entry is to have, and where: what they have by now in `document`, and Ringfence's.
    pub fn annotations(&self, name: &str, document: &dyn Document) -> Vec<(Keys, Value)> {
        let lists = self.annotations.iter().map(|key| {
            let place = below(&self.entry(name), &[key]);
            let mut list = match document.get(&place) {
                Some(Value::List(list)) => list,
                _ => Vec::new(),
            };
            if !list.iter().any(|pattern| pattern == OURS) {
                list.push(OURS.to_owned());
            }
            (place, Value::List(list))
        });
        lists.collect()
    }

    /// What every entry for a program like ours has, but for the program.
    pub fn fixed_settings(&self, entry: &[String]) -> Vec<(Keys, Value)> {
        let setting = |(key, value): &(&str, &str)| {
            let value = Value::Text((*value).to_owned());
            (below(entry, &[key]), value)
        };
        self.fixed.iter().map(setting).collect()
    }
}

fn keys(keys: &[&str]) -> Keys {
    below(&[], keys)
}
