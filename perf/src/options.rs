//! What every command of the command line takes.

use std::path::PathBuf;

use clap::Args;
use ringfence::driver::Choice;

/// How to measure, and what to do with the results.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which driver: sim measures nothing that needs a GPU, host fails without one, auto is host where there is one
    #[arg(long, value_enum, default_value = "auto")]
    pub driver: Choice,
    /// The ringfence executable to measure [default: the one beside this; under cargo, it is built first]
    #[arg(long, value_name = "PATH")]
    pub ringfence: Option<PathBuf>,
    /// The runsc to measure beside Ringfence, which no program of PATH is taken for
    #[arg(long, value_name = "PATH")]
    pub runsc: Option<PathBuf>,
    /// Write the results to this file as JSON; the file is made anew before anything is measured
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results to this file as a page with plots, which needs no other file; made anew as that of --json
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Measure less, in a fraction of the time: the figures are rougher
    #[arg(long)]
    pub quick: bool,
    /// How many samples to take of each thing that takes microseconds [default: 40000, or 3000 with --quick]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// End with status 1 if a measured value misses its bar, or if a measurement went wrong
    #[arg(long)]
    pub check: bool,
    /// How many times as wide --check takes each bar
    #[arg(long, value_name = "X", default_value = "1", value_parser = slack)]
    pub slack: f64,
}

fn slack(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(slack) if slack >= 1.0 && slack.is_finite() => Ok(slack),
        Ok(_) => Err("it has to be 1 or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
