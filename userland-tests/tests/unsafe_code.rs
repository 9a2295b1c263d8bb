//! Where `unsafe` is: what docs/ARCHITECTURE.md says of it, read off the manifests and the source.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(directory: &Path) -> Table {
    read(&directory.join("Cargo.toml"))
        .parse()
        .expect("a manifest")
}

/// The directories of the workspace's crates.
fn crates() -> Vec<PathBuf> {
    let workspace = manifest(&root());
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("members");
    let members = members.iter().filter_map(|member| member.as_str());
    members.map(|member| root().join(member)).collect()
}

/// All files of Rust in a directory, at any depth.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn every_crate_denies_it_by_the_lints_of_the_workspace() {
    let lints = &manifest(&root())["workspace"]["lints"];
    assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("deny"));
    let blocks = &lints["clippy"]["undocumented_unsafe_blocks"];
    assert_eq!(blocks.as_str(), Some("deny"));
    for directory in crates() {
        let lints = &manifest(&directory)["lints"];
        let inherited = lints["workspace"].as_bool();
        assert_eq!(inherited, Some(true), "{}", directory.display());
    }
}

#[test]
fn every_module_that_allows_it_says_why_at_its_top() {
    let mut allowing = 0;
    let folders = ["src", "tests"];
    let directories = crates()
        .into_iter()
        .flat_map(|directory| folders.map(|folder| directory.join(folder)));
    for path in directories.flat_map(|directory| sources(&directory)) {
        let source = read(&path);
        let allows = |line: &str| {
            let line = line.trim_start();
            line.starts_with("#![allow(unsafe_code") || line.starts_with("#[allow(unsafe_code")
        };
        if source.lines().any(allows) {
            let mut top = source.lines().take_while(|line| line.starts_with("//!"));
            let says = top.any(|line| line.contains("`unsafe` is here"));
            assert!(says, "{} does not say why", path.display());
            allowing += 1;
        }
    }
    assert!(allowing > 10, "{allowing} modules were found");
}

/// By the words of the table of crates: "no `unsafe`".
#[test]
fn crates_that_are_said_to_have_none_forbid_it() {
    let document = read(&root().join("docs/ARCHITECTURE.md"));
    let said: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with("| `") && line.to_lowercase().contains("no `unsafe`"))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    assert!(said.contains(&"nvproxy-server/abi/"), "{said:?}");
    for directory in said {
        let source = read(&root().join(directory).join("src/lib.rs"));
        let forbids = source.lines().any(|line| line == "#![forbid(unsafe_code)]");
        assert!(forbids, "{directory}");
    }
}
