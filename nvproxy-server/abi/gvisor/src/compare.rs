//! What gVisor serves against our own tables, release by release.
//!
//! A request counts as refused if a sandbox with all capabilities is refused it, or else if one with the capability for
//! which gVisor serves it is. A capability that adds to others is compared with these beside it, since a sandbox needs
//! both. Tables are chosen as for a sandbox: a release's own, or a neighbour's where its neighbours agree.

use std::collections::{BTreeMap, BTreeSet};

use nvproxy_abi::Abi;
use nvproxy_abi::number::NV_ESC_RM_ALLOC_MEMORY;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::support::{Basis, support};
use nvproxy_abi::table::Family;
use nvproxy_abi::version::DriverVersion;

use crate::error::Error;
use crate::request::Kind;
use crate::table::Release;

/// A request that gVisor serves and we refuse.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    pub kind: Kind,
    /// gVisor's name for it.
    pub name: String,
    /// The capability with which we refuse it and gVisor does not; `None` if we refuse it whatever a sandbox has.
    pub capability: Option<String>,
}

/// Where a difference was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub number: u32,
    /// The capabilities for which gVisor serves it, in some release.
    pub served_for: BTreeSet<String>,
    /// Places in [`Comparison::releases`].
    pub releases: Vec<usize>,
}

/// All that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    /// The releases that were compared, in order.
    pub releases: Vec<DriverVersion>,
    /// How many of them by the tables of a neighbour.
    pub inferred: usize,
    /// Releases of gVisor's that we have no tables for, in order.
    pub without_tables: Vec<DriverVersion>,
    pub differences: BTreeMap<Difference, Found>,
}

/// Compares every release of gVisor's table that we have tables for.
pub fn compare(releases: &[Release]) -> Result<Comparison, Error> {
    let mut comparison = Comparison::default();
    for release in releases {
        let version = driver_version(release.version)?;
        let Ok(support) = support(&version, Capabilities::ALL) else {
            comparison.without_tables.push(version);
            continue;
        };
        comparison.inferred += usize::from(support.basis != Basis::Exact);
        comparison.releases.push(version);
        comparison.add(&Ours::new(&support.tables)?, release);
    }
    Ok(comparison)
}

impl Comparison {
    /// Compares the release that was noted last.
    fn add(&mut self, ours: &Ours, release: &Release) {
        let place = self.releases.len() - 1;
        for ((kind, number), granted) in &release.served {
            let (kind, number) = (*kind, *number);
            let lacking: Vec<Option<&String>> = if !ours.all.serves(kind, number) {
                vec![None]
            } else {
                let refuses = |capability: &&String| ours.refuses(capability, kind, number);
                granted
                    .capabilities
                    .iter()
                    .filter(refuses)
                    .map(Some)
                    .collect()
            };
            for capability in lacking {
                let difference = Difference {
                    kind,
                    name: granted.name.clone(),
                    capability: capability.cloned(),
                };
                let found = self.differences.entry(difference).or_default();
                found.number = number;
                found
                    .served_for
                    .extend(granted.capabilities.iter().cloned());
                found.releases.push(place);
            }
        }
    }

    /// The releases at these places, neighbours as ranges.
    pub fn ranges(&self, places: &[usize]) -> String {
        let text = |place: usize| self.releases.get(place).map(DriverVersion::to_string);
        let text = |place| text(place).unwrap_or_default();
        if places.len() == self.releases.len() {
            return "all releases".to_owned();
        }
        let ranges = places.chunk_by(|one, other| one + 1 == *other);
        let ranges = ranges.filter_map(|range| match range {
            [] => None,
            [only] => Some(text(*only)),
            [first, .., last] => Some(format!("{} to {}", text(*first), text(*last))),
        });
        ranges.collect::<Vec<_>>().join(", ")
    }
}

/// Of our tables for a release, what each capability allows.
struct Ours {
    all: Allowed,
    /// By name, with what each adds to.
    each: BTreeMap<&'static str, Allowed>,
}

impl Ours {
    fn new(tables: &DriverVersion) -> Result<Ours, Error> {
        let mut each = BTreeMap::new();
        for name in Capabilities::ALL.names() {
            let alone = name.parse::<Capabilities>();
            let alone = alone.map_err(|error| Error::new(error.to_string()))?;
            let beside = alone
                .incomplete()
                .map_or(Capabilities::NONE, |(_, others)| others);
            each.insert(name, Allowed::new(tables, alone.union(beside))?);
        }
        let all = Allowed::new(tables, Capabilities::ALL)?;
        Ok(Ours { all, each })
    }

    /// Whether a capability of the same name refuses the request. One that we do not have is compared with all of ours.
    fn refuses(&self, capability: &str, kind: Kind, number: u32) -> bool {
        let allowed = self.each.get(capability);
        allowed.is_some_and(|allowed| !allowed.serves(kind, number))
    }
}

/// What sandboxes with certain capabilities may ask.
struct Allowed {
    abi: Abi,
}

impl Allowed {
    fn new(tables: &DriverVersion, granted: Capabilities) -> Result<Allowed, Error> {
        let granted = Granted {
            capabilities: granted,
            firmware_commands: FirmwareCommands::All,
        };
        let abi = Abi::new(tables, granted);
        let abi = abi.map_err(|error| Error::new(error.to_string()))?;
        Ok(Allowed { abi })
    }

    fn serves(&self, kind: Kind, number: u32) -> bool {
        let rows = |family| self.abi.granted(family);
        match kind {
            Kind::Frontend => rows(Family::Frontend).any(|row| row.id == number),
            Kind::Uvm => self.abi.uvm(number).is_ok(),
            Kind::Control | Kind::ControlRange => self.abi.control(number).is_ok(),
            Kind::Class => self.abi.class(number).is_ok(),
            Kind::MemoryClass => rows(Family::Frontend)
                .filter(|row| row.id == NV_ESC_RM_ALLOC_MEMORY)
                .flat_map(|row| row.variants)
                .any(|variants| variants.rows.iter().any(|class| class.id == number)),
        }
    }
}

/// A release as our tables name it. Of one with two numbers gVisor keeps the third as 0.
fn driver_version((branch, minor, patch): (u32, u32, u32)) -> Result<DriverVersion, Error> {
    let too_large = |_| {
        Error::new(format!(
            "{branch}.{minor}.{patch} is no release of the driver"
        ))
    };
    let branch = u16::try_from(branch).map_err(too_large)?;
    let minor = u16::try_from(minor).map_err(too_large)?;
    let patch = u8::try_from(patch).map_err(too_large)?;
    let with_two = DriverVersion::new(branch, minor, None);
    let is_known = nvproxy_abi::releases().any(|known| known == with_two);
    let patch = Some(patch).filter(|patch| *patch != 0 || !is_known);
    Ok(DriverVersion::new(branch, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Granted, Served};

    fn release(version: (u32, u32, u32), served: &[(Kind, u32, &str, &[&str])]) -> Release {
        let entry = |(kind, number, name, capabilities): &(Kind, u32, &str, &[&str])| {
            let granted = Granted {
                name: (*name).to_owned(),
                capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
            };
            ((*kind, *number), granted)
        };
        Release {
            version,
            supported: true,
            served: served.iter().map(entry).collect::<Served>(),
        }
    }

    fn lines(comparison: &Comparison) -> Vec<String> {
        let line = |(difference, found): (&Difference, &Found)| {
            let capability = difference.capability.as_deref().unwrap_or("any");
            let releases = comparison.ranges(&found.releases);
            format!("{} {capability}: {releases}", difference.name)
        };
        comparison.differences.iter().map(line).collect()
    }

    #[test]
    fn what_we_serve_for_the_capability_is_no_difference() {
        let served: &[(Kind, u32, &str, &[&str])] = &[
            (
                Kind::Frontend,
                0x2a,
                "NV_ESC_RM_CONTROL",
                &["compute", "utility"],
            ),
            (
                Kind::Control,
                0x102,
                "CPU_INFO",
                &["compute", "graphics", "utility"],
            ),
            (
                Kind::Uvm,
                0x3000_0001,
                "UVM_INITIALIZE",
                &["compute", "utility"],
            ),
            (Kind::Class, 0x80, "NV01_DEVICE_0", &["compute", "utility"]),
            (
                Kind::MemoryClass,
                0x71,
                "OS_DESCRIPTOR",
                &["compute", "graphics"],
            ),
            // We have no such capability, and serve it for another.
            (Kind::Class, 0xc5c0, "TURING_COMPUTE_A", &["ngx"]),
        ];
        let comparison = compare(&[release((580, 142, 0), served)]).expect("a comparison");
        assert_eq!(lines(&comparison), [] as [&str; 0]);
        assert_eq!(comparison.releases.len(), 1);
    }

    #[test]
    fn what_we_refuse_is_told_with_its_releases() {
        let served: &[(Kind, u32, &str, &[&str])] = &[
            (Kind::Control, 0xffff_0001, "NEVER", &["compute", "utility"]),
            (Kind::MemoryClass, 0xffff, "NO_MEMORY", &["compute"]),
            (
                Kind::Class,
                0xc5c0,
                "TURING_COMPUTE_A",
                &["compute", "utility"],
            ),
        ];
        let less = &served[1..];
        let releases = [
            release((535, 129, 3), served),
            release((550, 54, 14), served),
            release((560, 28, 3), less),
            release((580, 142, 0), served),
        ];
        assert_eq!(
            lines(&compare(&releases).expect("a comparison")),
            [
                "NEVER any: 535.129.03 to 550.54.14, 580.142",
                "TURING_COMPUTE_A utility: all releases",
                "NO_MEMORY any: all releases",
            ]
        );
    }

    #[test]
    fn releases_without_tables_are_told() {
        let comparison = compare(&[release((999, 1, 0), &[]), release((580, 142, 0), &[])]);
        let comparison = comparison.expect("a comparison");
        let texts = |versions: &[DriverVersion]| {
            versions
                .iter()
                .map(DriverVersion::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&comparison.without_tables), ["999.01.00"]);
        assert_eq!(texts(&comparison.releases), ["580.142"]);
        assert!(compare(&[release((70_000, 1, 0), &[])]).is_err());
    }
}
