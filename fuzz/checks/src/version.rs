//! What users and the driver write in text: releases, capabilities, GPUs, nodes. And which tables a
//! release is served by.
//!
//! An input is lines: a release, another, capabilities, GPUs, a node. Any may be missing.

use nvproxy_abi::node::Node;
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::support::{Basis, Reason, support};
use nvproxy_abi::version::DriverVersion;
use ringfence::driver::Selection;
use ringfence::drivers;

use crate::tables;

/// Reads each line as what it is.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let versions = [version(next()), version(next())];
    let granted = capabilities(next());
    selection(next());
    node(next());
    for version in versions.iter().flatten() {
        served(version, granted);
    }
    if let [Some(one), Some(other)] = versions {
        let key = |version: DriverVersion| (version.branch(), version.minor(), version.patch());
        assert_eq!(one.cmp(&other), key(one).cmp(&key(other)));
    }
}

fn version(text: &str) -> Option<DriverVersion> {
    let parsed: Option<DriverVersion> = text.parse().ok();
    if let Some(version) = parsed {
        assert_eq!(version.to_string(), text);
        let parts: Vec<u32> = text.split('.').flat_map(str::parse).collect();
        let mut found = vec![version.branch().into(), version.minor().into()];
        found.extend(version.patch().map(u32::from));
        assert_eq!(found, parts);
        assert!(
            text.bytes()
                .all(|byte| byte == b'.' || byte.is_ascii_digit())
        );
    }
    match drivers::parse(text) {
        Ok(version) => assert_eq!(Some(version), parsed),
        // Quoted in part: a line for the user stays a line's length.
        Err(failure) => assert!(parsed.is_none() && failure.message.chars().count() < 200),
    }
    parsed
}

fn served(version: &DriverVersion, granted: Capabilities) {
    let known = |version: &DriverVersion| tables::by_version(version).is_some();
    match support(version, granted) {
        Ok(support) => {
            assert!(known(&support.tables) && support.tables <= *version);
            assert_eq!(support.tables.branch(), version.branch());
            assert_eq!(support.basis == Basis::Exact, support.tables == *version);
            if let Basis::Inferred(releases) = support.basis {
                assert!(!known(version));
                sorted_and_of_branch(&releases, version);
                assert!(releases.contains(&support.tables));
            }
        }
        Err(unsupported) => {
            assert!(!known(version) && known(&unsupported.nearest));
            assert_eq!(unsupported.version, *version);
            assert!(unsupported.to_string().contains(&version.to_string()));
            if let Reason::Differ(releases) = &unsupported.reason {
                sorted_and_of_branch(releases, version);
            }
            // What agrees in everything agrees in a part of it.
            assert!(support(version, Capabilities::ALL).is_err());
        }
    }
}

fn sorted_and_of_branch(releases: &[DriverVersion], version: &DriverVersion) {
    assert!(releases.len() >= 2 && releases.is_sorted_by(|one, next| one < next));
    assert!(releases.iter().all(|release| {
        release.branch() == version.branch() && tables::by_version(release).is_some()
    }));
}

fn capabilities(text: &str) -> Capabilities {
    match text.parse::<Capabilities>() {
        Ok(granted) => {
            assert_eq!(granted.to_string().parse(), Ok(granted));
            granted
        }
        Err(error) => {
            assert!(error.to_string().chars().count() < 200);
            Capabilities::default()
        }
    }
}

fn selection(text: &str) {
    if let Ok(Selection::Listed(names)) = text.parse() {
        assert_eq!(names.join(","), text);
    }
}

fn node(text: &str) {
    if let Some(node) = Node::from_file_name(text) {
        assert_eq!(node.file_name(), text);
        assert_eq!(Node::from_wire(node.to_wire()), Some(node));
    }
}
