//! Makes the tables of every release (see the crate nvproxy-abi-derivation) and fails, saying everything that is wrong, if
//! the catalogue, the rules and the policy do not fit together.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use nvproxy_abi_catalogue::Catalogue;
use nvproxy_abi_derivation::policy::{self, Capability};
use nvproxy_abi_derivation::{derive, render::render, rules};

const CATALOGUE: &str = "data/releases.bin";
const RULES: &str = "rules.toml";

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
    let mut policies = Vec::new();
    for capability in Capability::ALL {
        let file = format!("policy/{}.toml", capability.name());
        let text = read(&file, |path| fs::read_to_string(path))?;
        let list = policy::parse(&text).map_err(|error| vec![format!("{file}: {error}")])?;
        policies.push((capability, list));
    }
    let tables = derive(&catalogue, &rules, &policies)?;
    let directory = env::var_os("OUT_DIR").ok_or_else(|| vec!["OUT_DIR is not set".to_owned()])?;
    let output = PathBuf::from(directory).join("tables.rs");
    fs::write(&output, render(&tables))
        .map_err(|error| vec![format!("{}: {error}", output.display())])
}

/// Reads a file of this crate, on which the build then depends.
fn read<T>(file: &str, reader: impl FnOnce(&Path) -> std::io::Result<T>) -> Result<T, Vec<String>> {
    println!("cargo::rerun-if-changed={file}");
    reader(Path::new(file)).map_err(|error| vec![format!("{file}: {error}")])
}
