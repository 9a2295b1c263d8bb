//! Which crate may use which: what decides how much of the source has to be trusted can be read off the manifests.
//!
//! The expected arrows are those of docs/ARCHITECTURE.md. A new one is a decision, and is made here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Each crate of the workspace, with the others of the workspace that it uses. Those that it uses for tests alone are left out.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "fuzz-checks",
        &[
            "nvproxy-abi",
            "nvproxy-protocol",
            "nvproxy-server",
            "nvproxy-sim",
            "ringfence",
            "ringfence-ipc",
            "ringfence-recording",
            "ringfence-sentry",
        ],
    ),
    (
        "nvproxy-abi",
        &[
            "nvproxy-abi-catalogue",
            "nvproxy-abi-derivation",
            "nvproxy-abi-effects",
            "ringfence-faults",
        ],
    ),
    ("nvproxy-abi-catalogue", &[]),
    (
        "nvproxy-abi-derivation",
        &["nvproxy-abi-catalogue", "nvproxy-abi-effects"],
    ),
    ("nvproxy-abi-effects", &[]),
    ("nvproxy-abi-gvisor", &["nvproxy-abi"]),
    ("nvproxy-abi-importer", &["nvproxy-abi-catalogue"]),
    (
        "nvproxy-protocol",
        &["nvproxy-abi", "ringfence-faults", "ringfence-ipc"],
    ),
    (
        "nvproxy-server",
        &[
            "nvproxy-abi",
            "nvproxy-protocol",
            "ringfence-confinement",
            "ringfence-faults",
            "ringfence-ipc",
        ],
    ),
    (
        "nvproxy-sim",
        &[
            "nvproxy-abi",
            "nvproxy-server",
            "ringfence-faults",
            "ringfence-ipc",
        ],
    ),
    (
        "ringfence",
        &[
            "nvproxy-abi",
            "nvproxy-abi-catalogue",
            "nvproxy-protocol",
            "nvproxy-server",
            "nvproxy-sim",
            "ringfence-confinement",
            "ringfence-faults",
            "ringfence-ipc",
            "ringfence-recording",
            "ringfence-sentry",
        ],
    ),
    (
        "ringfence-compatibility",
        &[
            "nvproxy-abi",
            "ringfence",
            "ringfence-confinement",
            "ringfence-programs",
            "ringfence-sentry",
        ],
    ),
    ("ringfence-confinement", &[]),
    ("ringfence-faults", &[]),
    ("ringfence-ipc", &["ringfence-faults"]),
    ("ringfence-perf", &[]),
    ("ringfence-programs", &["ringfence-ipc"]),
    ("ringfence-recording", &["nvproxy-abi"]),
    (
        "ringfence-sentry",
        &[
            "nvproxy-abi",
            "nvproxy-protocol",
            "ringfence-confinement",
            "ringfence-faults",
            "ringfence-ipc",
            "ringfence-recording",
        ],
    ),
    ("userland-tests", &[]),
];

/// Crates that only tests, the measurements, the demonstration or the command line need.
const NOT_TRUSTED: &[&str] = &[
    "clap",
    "fuzz-checks",
    "indicatif",
    "nvproxy-sim",
    "plotters",
    "regex",
    "ringfence",
    "ringfence-compatibility",
    "ringfence-perf",
    "ringfence-programs",
    "tempfile",
    "toml",
    "userland-tests",
];

/// What stands between a task and the driver, and so is trusted.
const TRUSTED: &[&str] = &[
    "nvproxy-abi",
    "nvproxy-protocol",
    "nvproxy-server",
    "ringfence-confinement",
    "ringfence-ipc",
    "ringfence-sentry",
];

/// What packages use, by name.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// What the packages of the workspace, and those that they use, say of each other.
struct Graph {
    /// What is linked into each.
    linked: Uses,
    /// The same, and what each is built with.
    used: Uses,
}

impl Graph {
    fn read() -> Graph {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let output = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--offline",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
                "--manifest-path",
            ])
            .arg(manifest)
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo");
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
        let names: BTreeMap<&str, &str> = list(&metadata["packages"])
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let uses = |kinds: &[Value]| -> Uses {
            let nodes = list(&metadata["resolve"]["nodes"]).map(|node| {
                let used = list(&node["deps"]).filter(|used| {
                    list(&used["dep_kinds"]).any(|kind| kinds.contains(&kind["kind"]))
                });
                let used = used.map(|used| names[text(&used["pkg"])].to_owned());
                (names[text(&node["id"])].to_owned(), used.collect())
            });
            nodes.collect()
        };
        Graph {
            // `null` is an ordinary dependency.
            linked: uses(&[Value::Null]),
            used: uses(&[Value::Null, Value::from("build")]),
        }
    }

    /// Everything that is linked into `package`, at any distance.
    fn all_of(&self, package: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut next = vec![package];
        while let Some(package) = next.pop() {
            for used in &self.linked[package] {
                if found.insert(used.as_str()) {
                    next.push(used);
                }
            }
        }
        found
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn crates_use_what_the_plan_of_the_house_lets_them_use() {
    let graph = Graph::read();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for (name, expected) in ARROWS {
        // These two look at all the rest from outside.
        if matches!(*name, "ringfence-perf" | "userland-tests") {
            continue;
        }
        let used: Vec<&str> = graph.used[*name]
            .iter()
            .map(String::as_str)
            .filter(|used| ours.contains(used))
            .collect();
        assert_eq!(used, *expected, "{name}");
    }
}

#[test]
fn what_is_trusted_links_nothing_that_only_tests_or_the_command_line_need() {
    let graph = Graph::read();
    for name in TRUSTED {
        let linked = graph.all_of(name);
        let wrong: Vec<&&str> = NOT_TRUSTED
            .iter()
            .filter(|wrong| linked.contains(**wrong))
            .collect();
        assert!(wrong.is_empty(), "{name} links {wrong:?}");
    }
}
