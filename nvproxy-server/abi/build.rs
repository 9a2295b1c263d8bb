//! Makes the tables of every release (see the crate nvproxy-abi-derivation) and fails, saying everything that is wrong, if
//! the catalogue, the rules and the policy do not fit together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use nvproxy_abi_catalogue::Catalogue;
use nvproxy_abi_derivation::policy::{self, List};
use nvproxy_abi_derivation::{derive, render, rules};

const CATALOGUE: &str = "data/releases.bin";
const RULES: &str = "rules.toml";
const POLICY: &str = "policy";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors {
                // Cargo shows these lines without the rest of a failed script's output around them.
                println!("cargo::error={error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Vec<String>> {
    println!("cargo::rerun-if-changed=build.rs");
    let bytes = read(CATALOGUE, |path| fs::read(path))?;
    let catalogue =
        Catalogue::decode(&bytes).map_err(|error| vec![format!("{CATALOGUE}: {error}")])?;
    let rules = read(RULES, |path| fs::read_to_string(path))?;
    let rules = rules::parse(&rules).map_err(|error| vec![format!("{RULES}: {error}")])?;
    let lists = lists()?;
    let names = policy::in_order(&lists).map_err(|error| vec![format!("{POLICY}: {error}")])?;
    let adds_to = policy::foundations(&lists, &names);
    let adds_to = adds_to.map_err(|error| vec![format!("{POLICY}: {error}")])?;
    write("capabilities.rs", &render::capabilities(&names, &adds_to))?;
    let policies: Vec<List> = lists.into_values().collect();
    let tables = derive(&catalogue, &rules, &policies)?;
    write("tables.rs", &render::render(&tables))
}

/// What each capability allows, by its name, which is that of its file.
fn lists() -> Result<BTreeMap<String, List>, Vec<String>> {
    let mut lists = BTreeMap::new();
    for entry in read(POLICY, |path| fs::read_dir(path))? {
        let entry = entry.map_err(|error| vec![format!("{POLICY}: {error}")])?;
        let path = PathBuf::from(entry.file_name());
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), Some("toml")) = (name, path.extension().and_then(|it| it.to_str())) {
            let file = format!("{POLICY}/{name}.toml");
            let text = read(&file, |path| fs::read_to_string(path))?;
            let list = policy::parse(&text).map_err(|error| vec![format!("{file}: {error}")])?;
            lists.insert(name.to_owned(), list);
        }
    }
    Ok(lists)
}

/// Writes a file that this crate includes.
fn write(file: &str, source: &str) -> Result<(), Vec<String>> {
    let directory = env::var_os("OUT_DIR").ok_or_else(|| vec!["OUT_DIR is not set".to_owned()])?;
    let output = PathBuf::from(directory).join(file);
    fs::write(&output, source).map_err(|error| vec![format!("{}: {error}", output.display())])
}

/// Reads a file of this crate, on which the build then depends.
fn read<T>(file: &str, reader: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T, Vec<String>> {
    println!("cargo::rerun-if-changed={file}");
    reader(Path::new(file)).map_err(|error| vec![format!("{file}: {error}")])
}
