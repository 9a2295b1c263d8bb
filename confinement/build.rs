//! Turns the files of `policies/` into constants: `server.policy` becomes `SERVER`.
//!
//! Names of system calls, errors and arguments become names of the crate libc, so that one which does not exist fails
//! the build.

#[path = "src/text.rs"]
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

const POLICIES: &str = "policies";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/text.rs");
    println!("cargo::rerun-if-changed={POLICIES}");
    match render() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn render() -> Result<(), String> {
    let entries = fs::read_dir(POLICIES).map_err(|error| format!("{POLICIES}: {error}"))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{POLICIES}: {error}"))?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "policy")
    });
    paths.sort();
    let mut output = String::new();
    for path in &paths {
        output.push_str(&constant(path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let directory = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let file = PathBuf::from(directory).join("policies.rs");
    fs::write(&file, output).map_err(|error| format!("{}: {error}", file.display()))
}

fn constant(path: &Path) -> Result<String, String> {
    let role = path.file_stem().and_then(|stem| stem.to_str());
    let role = role.ok_or("a name that is no text")?;
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    // Mistakes in what is for others are found, too.
    for architecture in text::ARCHITECTURES {
        text::parse(&text, architecture)?;
    }
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let policy = text::parse(&text, &architecture)?.to_rust();
    let name = role.to_uppercase();
    Ok(format!(
        "/// `policies/{role}.policy`\npub static {name}: Policy<'static> = {policy};\n"
    ))
}
