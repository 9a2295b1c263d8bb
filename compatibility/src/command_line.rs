//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ringfence::driver::Choice;

/// The command that only this program itself gives.
pub const WATCHED: &str = "watched";

/// Run programs outside and inside, and make the table of what came of it
#[derive(Debug, Parser)]
#[command(name = "ringfence-compatibility")]
pub struct Arguments {
    #[command(subcommand)]
    pub asked: Asked,
}

#[derive(Debug, Subcommand)]
pub enum Asked {
    /// Run each program outside, inside and under a survey
    ///
    /// The exit status is 0 if each that was run does the same inside as outside and no survey has found anything. It is 1 if not,
    /// or if that could not be found out: a run or a survey failed, or requests are not known. It is 2 if nothing was run or the
    /// results cannot be written.
    Run(RunArguments),
    /// Print docs/COMPATIBILITY.md
    ///
    /// It is made of the results of `run` (.toml), and of findings of `ringfence survey --out` (.json), which users have sent.
    Table(TableArguments),
    #[command(hide = true, name = WATCHED)]
    Watched {
        #[arg(last = true)]
        command: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub struct RunArguments {
    /// The ringfence executable
    #[arg(long, value_name = "PATH")]
    pub ringfence: PathBuf,
    /// The table of programs. Their sources are in the folder `programs` beside it
    #[arg(long, value_name = "FILE")]
    pub programs: PathBuf,
    /// The folder to build and run them in. What a build makes and is there already is not built again
    #[arg(long, value_name = "DIR")]
    pub work: PathBuf,
    /// Write the results to this file, as TOML; it is made anew before anything is run
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Run these programs only, and keep the results of the others that are in the file, if they are of the same day, GPU,
    /// driver and version of Ringfence
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub only: Vec<String>,
    /// The driver of the sandboxes: with the simulated one there is no survey
    #[arg(long, value_enum, default_value = "host")]
    pub driver: Choice,
    /// Where the driver's nodes are outside
    #[arg(long, value_name = "DIR", default_value = "/dev", hide = true)]
    pub devices: PathBuf,
}

#[derive(Args, Debug)]
pub struct TableArguments {
    /// Results of `run` (.toml) and findings of surveys (.json)
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Why requests are refused [default: reasons.toml in the folder above that of the first file]
    #[arg(long, value_name = "FILE")]
    pub reasons: Option<PathBuf>,
}
