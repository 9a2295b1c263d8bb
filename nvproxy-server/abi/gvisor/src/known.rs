//! The differences that are meant, each with its reason (`differences.toml`), and what of a comparison they leave open.

use std::collections::{BTreeMap, BTreeSet};

use nvproxy_abi::version::DriverVersion;
use serde::Deserialize;

use crate::compare::{Comparison, Difference, Found};
use crate::error::Error;
use crate::request::Kind;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Releases of gVisor's that we have no tables for.
    #[serde(default, rename = "release")]
    releases: Vec<Releases>,
    #[serde(default, rename = "difference")]
    groups: Vec<Group>,
}

/// Releases that are not compared for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Releases {
    versions: BTreeSet<String>,
    reason: String,
}

/// Requests that are refused for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Group {
    /// The capability with which they are refused; without it, they are whatever a sandbox has.
    capability: Option<String>,
    /// The releases in which they are, as the comparison writes them; without it, any.
    releases: Option<String>,
    reason: String,
    #[serde(default)]
    frontend: BTreeSet<String>,
    #[serde(default)]
    uvm: BTreeSet<String>,
    #[serde(default)]
    control: BTreeSet<String>,
    #[serde(default)]
    control_range: BTreeSet<String>,
    #[serde(default)]
    class: BTreeSet<String>,
    #[serde(default)]
    memory_class: BTreeSet<String>,
}

impl Group {
    fn requests(&self) -> impl Iterator<Item = (Kind, &String)> {
        let kinds = [
            (Kind::Frontend, &self.frontend),
            (Kind::Uvm, &self.uvm),
            (Kind::Control, &self.control),
            (Kind::ControlRange, &self.control_range),
            (Kind::Class, &self.class),
            (Kind::MemoryClass, &self.memory_class),
        ];
        let of = |(kind, names)| std::iter::repeat(kind).zip::<&BTreeSet<String>>(names);
        kinds.into_iter().flat_map(of)
    }

    fn differences(&self) -> impl Iterator<Item = Difference> {
        self.requests().map(|(kind, name)| Difference {
            kind,
            name: name.clone(),
            capability: self.capability.clone(),
        })
    }
}

/// What does not fit together, in lines for a person. Nothing, if it does.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Open(pub Vec<String>);

impl Known {
    /// Reads the file's text. A request stands in it once for each capability.
    pub fn parse(text: &str) -> Result<Known, Error> {
        let known: Known = toml::from_str(text).map_err(|error| Error::new(error.to_string()))?;
        let mut seen = BTreeSet::new();
        for group in &known.groups {
            if group.reason.trim().is_empty() {
                return Err(Error::new("a difference has no reason"));
            }
            for difference in group.differences() {
                let line = subject(&difference);
                if !seen.insert(difference) {
                    return Err(Error::new(format!("{line} is there twice")));
                }
            }
        }
        Ok(known)
    }

    /// The reason for each difference that is meant.
    pub fn reasons(&self) -> BTreeMap<Difference, &str> {
        let groups = self.by_difference().into_iter();
        groups
            .map(|(it, group)| (it, group.reason.as_str()))
            .collect()
    }

    fn by_difference(&self) -> BTreeMap<Difference, &Group> {
        let groups = self.groups.iter();
        let each = groups.flat_map(|group| group.differences().map(move |it| (it, group)));
        each.collect()
    }

    /// What of a comparison has no reason here, and what here is none of its differences.
    pub fn open(&self, comparison: &Comparison) -> Open {
        let groups = self.by_difference();
        let has_reason = |difference: &Difference, found: &Found| {
            let meant = groups.get(difference).map(|group| group.releases.as_ref());
            meant.is_some_and(|meant| {
                meant.is_none_or(|it| *it == comparison.ranges(&found.releases))
            })
        };
        let differences = &comparison.differences;
        let without = differences
            .iter()
            .filter(|(it, found)| !has_reason(it, found));
        let mut lines: Vec<String> = without.map(|(it, _)| describe(it, comparison)).collect();
        let stale = groups.keys().filter(|it| !differences.contains_key(*it));
        lines.extend(stale.map(|it| format!("has a reason and is no difference: {}", subject(it))));

        let known = self.releases.iter().flat_map(|group| &group.versions);
        let known: BTreeSet<&str> = known.map(String::as_str).collect();
        let found = comparison
            .without_tables
            .iter()
            .map(DriverVersion::to_string);
        let found: BTreeSet<String> = found.collect();
        let new = found.iter().filter(|it| !known.contains(it.as_str()));
        lines.extend(new.map(|it| format!("not compared, as we have no tables: {it}")));
        let gone = known.iter().filter(|it| !found.contains(**it));
        lines.extend(gone.map(|it| format!("has a reason and is compared, or not gVisor's: {it}")));
        Open(lines)
    }

    /// The table for the documentation: a row for each reason.
    pub fn table(&self) -> String {
        let mut table = String::from("| refused | requests | reason |\n|---|---|---|\n");
        for Releases { versions, reason } in &self.releases {
            let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
            table += &format!(
                "| not compared | {} | {} |\n",
                versions.join(", "),
                one_line(reason)
            );
        }
        for group in &self.groups {
            let refused = match &group.capability {
                Some(capability) => format!("with `{capability}`"),
                None => "always".to_owned(),
            };
            let refused = match &group.releases {
                Some(releases) => format!("{refused}, in {releases}"),
                None => refused,
            };
            let requests: Vec<String> = group.requests().map(requested).collect();
            let (requests, reason) = (requests.join(", "), one_line(&group.reason));
            table += &format!("| {refused} | {requests} | {reason} |\n");
        }
        table
    }
}

/// A request in a list in which its kind goes without saying, where it does.
fn requested((kind, name): (Kind, &String)) -> String {
    match kind {
        Kind::ControlRange => format!("control commands of {name}"),
        Kind::MemoryClass => format!("{name} (by NV_ESC_RM_ALLOC_MEMORY)"),
        _ => name.clone(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a difference is about, as one says it.
fn subject(difference: &Difference) -> String {
    let Difference { kind, name, .. } = difference;
    let kind = kind.name();
    match &difference.capability {
        Some(capability) => format!("{kind} {name} with {capability}"),
        None => format!("{kind} {name} with any capability"),
    }
}

/// A line about a difference.
pub fn describe(difference: &Difference, comparison: &Comparison) -> String {
    let Some(found) = comparison.differences.get(difference) else {
        return subject(difference);
    };
    let served_for: Vec<&str> = found.served_for.iter().map(String::as_str).collect();
    format!(
        "refused: {} ({:#x}); gVisor serves it for {}; {}",
        subject(difference),
        found.number,
        served_for.join(", "),
        comparison.ranges(&found.releases)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str = r#"
[[release]]
versions = ["610.43.02"]
reason = "no source"

[[difference]]
reason = "not for programs"
control = ["CMD_A"]
memory-class = ["MEMORY_A"]

[[difference]]
releases = "580.142"
reason = "not in that release"
control = ["CMD_B"]

[[difference]]
capability = "utility"
reason = """
It submits no
work."""
class = ["CLASS_A", "CLASS_B"]
"#;

    fn version(text: &str) -> DriverVersion {
        text.parse().expect("a version")
    }

    fn comparison(found: &[(Kind, &str, Option<&str>)]) -> Comparison {
        let entry = |(kind, name, capability): &(Kind, &str, Option<&str>)| {
            let difference = Difference {
                kind: *kind,
                name: (*name).to_owned(),
                capability: capability.map(str::to_owned),
            };
            let found = Found {
                number: 0x20,
                served_for: BTreeSet::from(["compute".to_owned(), "utility".to_owned()]),
                releases: vec![1],
            };
            (difference, found)
        };
        Comparison {
            releases: vec![version("570.86.15"), version("580.142")],
            inferred: 0,
            without_tables: vec![version("610.43.02")],
            differences: found.iter().map(entry).collect(),
        }
    }

    const FOUND: [(Kind, &str, Option<&str>); 5] = [
        (Kind::Control, "CMD_A", None),
        (Kind::Control, "CMD_B", None),
        (Kind::MemoryClass, "MEMORY_A", None),
        (Kind::Class, "CLASS_A", Some("utility")),
        (Kind::Class, "CLASS_B", Some("utility")),
    ];

    #[test]
    fn differences_with_reasons_leave_nothing_open() {
        let known = Known::parse(KNOWN).expect("a file");
        assert_eq!(known.open(&comparison(&FOUND)), Open::default());
    }

    #[test]
    fn a_difference_without_a_reason_and_a_reason_without_a_difference_stay_open() {
        let known = Known::parse(KNOWN).expect("a file");
        // The same request with another capability is another difference.
        let mut found = FOUND;
        found[0] = (Kind::Control, "CMD_A", Some("compute"));
        let mut comparison = comparison(&found);
        assert_eq!(
            known.open(&comparison).0,
            [
                "refused: control CMD_A with compute (0x20); gVisor serves it for compute, utility; 580.142",
                "has a reason and is no difference: control CMD_A with any capability",
            ]
        );
        comparison.differences = super::tests::comparison(&FOUND).differences;
        comparison.without_tables = vec![version("615.15.00")];
        assert_eq!(
            known.open(&comparison).0,
            [
                "not compared, as we have no tables: 615.15.00",
                "has a reason and is compared, or not gVisor's: 610.43.02",
            ]
        );
    }

    #[test]
    fn a_reason_for_some_releases_is_none_for_others() {
        let known = Known::parse(KNOWN).expect("a file");
        let mut comparison = comparison(&FOUND);
        for (difference, found) in &mut comparison.differences {
            if difference.kind == Kind::Control {
                found.releases = vec![0, 1];
            }
        }
        let line = "refused: control CMD_B with any capability (0x20); gVisor serves it for compute, utility; all releases";
        assert_eq!(known.open(&comparison).0, [line]);
    }

    #[test]
    fn a_request_stands_in_it_once() {
        let twice = format!("{KNOWN}\n[[difference]]\nreason = \"again\"\ncontrol = [\"CMD_A\"]\n");
        let error = Known::parse(&twice).expect_err("twice");
        assert_eq!(
            error.to_string(),
            "control CMD_A with any capability is there twice"
        );
        let without = KNOWN.replace("not for programs", " ");
        let error = Known::parse(&without).expect_err("no reason");
        assert_eq!(error.to_string(), "a difference has no reason");
        assert!(Known::parse("[[difference]]\nreason = \"x\"\ncontrols = []\n").is_err());
    }

    #[test]
    fn the_table_has_a_row_for_each_reason() {
        let known = Known::parse(KNOWN).expect("a file");
        assert_eq!(
            known.table(),
            "| refused | requests | reason |\n|---|---|---|\n\
             | not compared | 610.43.02 | no source |\n\
             | always | CMD_A, MEMORY_A (by NV_ESC_RM_ALLOC_MEMORY) | not for programs |\n\
             | always, in 580.142 | CMD_B | not in that release |\n\
             | with `utility` | CLASS_A, CLASS_B | It submits no work. |\n"
        );
    }
}
