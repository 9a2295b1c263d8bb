//! The command that lists what gVisor serves and Ringfence refuses.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nvproxy_abi_gvisor::compare::compare;
use nvproxy_abi_gvisor::error::Error;
use nvproxy_abi_gvisor::known::{Known, Open, describe};
use nvproxy_abi_gvisor::module;

const KNOWN: &str = include_str!("../differences.toml");

/// Lists every request that gVisor's nvproxy serves and Ringfence refuses, of each driver release that both have.
///
/// What is refused for a reason that differences.toml has is left out. It exits with 1 if a difference has no reason
/// there, or a reason no difference.
#[derive(Parser)]
#[command(
    after_help = "To fetch gVisor's newest module, of which the command prints the folder (Dir):\n  \
    go mod download -json gvisor.dev/gvisor@latest"
)]
struct Arguments {
    /// The folder of the module gvisor.dev/gvisor
    #[arg(value_name = "PATH", required_unless_present = "table")]
    module: Option<PathBuf>,
    /// Print the differences with a reason, too
    #[arg(long)]
    all: bool,
    /// Print the table for docs/DRIVERS.md, and nothing else
    #[arg(long, conflicts_with_all = ["module", "all"])]
    table: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(Open(lines)) if lines.is_empty() => ExitCode::SUCCESS,
        Ok(Open(lines)) => {
            for line in lines {
                println!("{line}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("nvproxy-abi-gvisor: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Open, Error> {
    let known = Known::parse(KNOWN)?;
    let Some(module) = &arguments.module else {
        print!("{}", known.table());
        return Ok(Open::default());
    };
    let comparison = compare(&module::read(module)?)?;
    eprintln!(
        "compared {} releases, {} of them by the tables of a neighbour; {} have no tables; {} differences",
        comparison.releases.len(),
        comparison.inferred,
        comparison.without_tables.len(),
        comparison.differences.len()
    );
    if arguments.all {
        let reasons = known.reasons();
        for difference in comparison.differences.keys() {
            if let Some(reason) = reasons.get(difference) {
                let reason: Vec<&str> = reason.split_whitespace().collect();
                println!(
                    "{}: {}",
                    describe(difference, &comparison),
                    reason.join(" ")
                );
            }
        }
    }
    Ok(known.open(&comparison))
}
