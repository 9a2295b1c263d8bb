//! `ringfence drivers`: what is known of the driver's releases, for people and for programs.
//!
//! Everything shown comes from the catalogue, which the importer derived from the driver's own source; what a sandbox
//! makes of it comes from the tables. Nothing here asks the driver of this machine anything but its version.

mod diff;
mod list;
mod show;

use std::str::FromStr;

use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::support::{Basis, support};
use nvproxy_abi::version::DriverVersion;
use nvproxy_abi_catalogue::{Catalogue, Release};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::log;
use serde::Serialize;

use crate::endings;

/// Prints every release of which the tables are known, and this machine's. Returns the exit status.
pub fn list(json: bool) -> Result<u8, Failure> {
    let releases = list::releases();
    print(json, &releases, || list::text(&releases))
}

/// Prints the bare versions, one a line.
pub fn list_versions() -> Result<u8, Failure> {
    let lines: String = nvproxy_abi::releases()
        .map(|version| format!("{version}\n"))
        .collect();
    write(&lines)
}

/// Prints what a release is like, or one request or structure of it.
pub fn show(version: &str, name: Option<&str>, json: bool) -> Result<u8, Failure> {
    let version = parse(version)?;
    let catalogue = catalogue()?;
    let release = find(&catalogue, &version)?;
    match name {
        None => {
            let summary = show::summary(release)?;
            print(json, &summary, || show::summary_text(&summary))
        }
        Some(name) => {
            let found = show::named(release, name)?;
            print(json, &found, || show::named_text(&found))
        }
    }
}

/// Prints what changed from one release to another.
pub fn diff(from: &str, to: &str, json: bool) -> Result<u8, Failure> {
    let (from, to) = (parse(from)?, parse(to)?);
    let catalogue = catalogue()?;
    let differences = diff::between(find(&catalogue, &from)?, find(&catalogue, &to)?);
    print(json, &differences, || diff::text(&differences))
}

/// Reads a version that the user wrote.
pub fn parse(text: &str) -> Result<DriverVersion, Failure> {
    DriverVersion::from_str(text).attempt(format_args!("'{text:.40}'"))
}

fn catalogue() -> Result<Catalogue, Failure> {
    Catalogue::decode(nvproxy_abi::CATALOGUE).attempt("the catalogue of driver releases")
}

/// The release in the catalogue that describes `version`, with a note on stderr if it is another.
fn find<'a>(catalogue: &'a Catalogue, version: &DriverVersion) -> Result<&'a Release, Failure> {
    let support = support(version, Capabilities::default());
    let support = support.map_err(|error| Failure::setup(error.to_string()))?;
    if support.basis != Basis::Exact {
        log::print(&format!(
            "ringfence: the tables do not have {version}: showing {}\n",
            support.tables
        ));
    }
    let release = catalogue.release(&support.tables);
    release.ok_or_else(|| Failure::setup(format!("the catalogue lacks {}", support.tables)))
}

/// Prints `value` as JSON, or as text.
fn print<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce() -> String,
) -> Result<u8, Failure> {
    if json {
        let mut output = serde_json::to_string_pretty(value).attempt("JSON")?;
        output.push('\n');
        write(&output)
    } else {
        write(&text())
    }
}

fn write(text: &str) -> Result<u8, Failure> {
    endings::print(text).map(|()| 0)
}
