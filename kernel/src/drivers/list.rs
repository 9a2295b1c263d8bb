//! The releases, and on what grounds each is served.

use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::support::{self, Basis, Support};
use nvproxy_abi::version::DriverVersion;
use serde::Serialize;

use crate::driver::host_version;

/// One release.
#[derive(Serialize)]
pub struct Listed {
    version: String,
    branch: u16,
    /// "exact", "inferred" or "unsupported".
    tables: &'static str,
    /// For an inferred release: the releases that agree, of which the tables of one are used.
    inferred_from: Vec<String>,
    /// Whether it is the driver of this machine.
    this_machine: bool,
}

/// Every release with tables of its own, and the one on this machine, in order.
pub fn releases() -> Vec<Listed> {
    let here: Option<DriverVersion> = host_version().and_then(|text| text.parse().ok());
    let mut versions: Vec<DriverVersion> = nvproxy_abi::releases().chain(here).collect();
    versions.sort();
    versions.dedup();
    let listed = versions.iter().map(|version| {
        let support = support::support(version, Capabilities::default());
        let (tables, agreeing) = match &support {
            Ok(Support {
                basis: Basis::Exact,
                ..
            }) => ("exact", Vec::new()),
            Ok(Support {
                basis: Basis::Inferred(releases),
                ..
            }) => ("inferred", releases.clone()),
            Err(_) => ("unsupported", Vec::new()),
        };
        Listed {
            version: version.to_string(),
            branch: version.branch(),
            tables,
            inferred_from: agreeing.iter().map(DriverVersion::to_string).collect(),
            this_machine: here == Some(*version),
        }
    });
    listed.collect()
}

/// A table for people.
pub fn text(releases: &[Listed]) -> String {
    let mut text = format!("{:<12}  {:<6}  TABLES\n", "VERSION", "BRANCH");
    for release in releases {
        let mut tables = release.tables.to_owned();
        if !release.inferred_from.is_empty() {
            tables = format!("{tables} from {}", release.inferred_from.join(", "));
        }
        if release.this_machine {
            tables.push_str(" (this machine)");
        }
        text.push_str(&format!(
            "{:<12}  {:<6}  {tables}\n",
            release.version, release.branch
        ));
    }
    text
}
