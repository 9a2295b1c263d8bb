//! docs/DRIVERS.md has the differences from gVisor, with the reasons of differences.toml.

use nvproxy_abi_gvisor::known::Known;

#[test]
fn the_documentation_has_the_table_of_differences() {
    let known = Known::parse(include_str!("../differences.toml")).expect("it can be read");
    let documentation = include_str!("../../../../docs/DRIVERS.md");
    let (_, section) = documentation
        .split_once("\n## What gVisor serves\n")
        .expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    assert!(
        section.contains(&known.table()),
        "replace the table by what cargo run -p nvproxy-abi-gvisor -- --table prints"
    );
}

/// As the table is one of Markdown.
#[test]
fn no_reason_ends_a_cell() {
    assert!(!include_str!("../differences.toml").contains('|'));
}
