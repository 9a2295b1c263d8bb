//! gVisor's module against our tables, in full. It needs the module's folder, which the environment variable GVISOR_MODULE
//! names; without the variable it is skipped.

use std::io::Write as _;
use std::path::Path;

use nvproxy_abi_gvisor::compare::compare;
use nvproxy_abi_gvisor::known::{Known, Open};
use nvproxy_abi_gvisor::module;

const VARIABLE: &str = "GVISOR_MODULE";

/// Past the test harness, which keeps what a test that passes prints.
fn say(text: &str) {
    writeln!(std::io::stderr(), "gvisor: {text}").expect("stderr can be written");
}

#[test]
fn every_difference_has_a_reason_and_every_reason_a_difference() {
    let Some(path) = std::env::var_os(VARIABLE) else {
        say(&format!(
            "SKIPPED: {VARIABLE} does not name the folder of the module gvisor.dev/gvisor"
        ));
        return;
    };
    let releases = module::read(Path::new(&path)).unwrap_or_else(|error| panic!("{error}"));
    let comparison = compare(&releases).unwrap_or_else(|error| panic!("{error}"));
    let known = Known::parse(include_str!("../differences.toml")).expect("it can be read");
    say(&format!(
        "{} releases compared, {} without tables, {} differences",
        comparison.releases.len(),
        comparison.without_tables.len(),
        comparison.differences.len()
    ));
    assert_eq!(known.open(&comparison), Open::default());
    // That something was read at all.
    let served: Vec<usize> = releases.iter().map(|it| it.served.len()).collect();
    assert!(
        releases.len() > 30 && served.iter().all(|count| *count > 250),
        "{served:?}"
    );
}
