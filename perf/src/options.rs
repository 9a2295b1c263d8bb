//! The command line.
//!
//! The commands are made of the table of claims, so that none can be missing here.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use ringfence::driver::Choice;

use crate::claims;

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which driver: sim measures nothing that needs a GPU, host fails without one, auto is host where there is one
    #[arg(long, value_enum, default_value = "auto")]
    pub driver: Choice,
    /// The ringfence executable to measure [default: the one beside this; under cargo, it is built first]
    #[arg(long, value_name = "PATH")]
    pub ringfence: Option<PathBuf>,
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

/// What was asked for.
#[derive(Debug)]
pub enum Asked {
    /// To measure every claim, or the one of this name.
    Measure {
        claim: Option<&'static str>,
        options: Options,
    },
    /// To be a measured program.
    Guest(Vec<String>),
}

/// The command that measures everything.
pub const ALL: &str = "all";
/// The command that only this program itself gives.
const GUEST: &str = "guest";

/// The command line as clap knows it.
pub fn command() -> Command {
    let command = Command::new("ringfence-perf")
        .about("Measure what Ringfence costs: each claim beside its floor or alternative, in the same run")
        .after_help(
            "Each value stands beside the bar that the project sets itself; what cannot be measured on this machine is \
             shown with the reason and a remedy. The exit status is 0 if it was measured, with --check 1 if a bar was \
             missed, and 2 if nothing could be measured at all.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true);
    // The options would else bring their own description.
    let measuring = |name: &'static str| Options::augment_args(Command::new(name));
    let all = measuring(ALL).about("Measure every claim");
    let claims = claims::ALL.iter().map(|claim| {
        measuring(claim.name)
            .about(claim.title)
            .after_long_help(claim.how)
    });
    let guest = Command::new(GUEST).hide(true).arg(
        Arg::new("arguments")
            .num_args(0..)
            .allow_hyphen_values(true),
    );
    command
        .subcommand(all)
        .subcommands(claims)
        .subcommand(guest)
}

/// Reads the command line.
pub fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Asked, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        Some((GUEST, given)) => Ok(Asked::Guest(words(given))),
        Some((name, given)) => Ok(Asked::Measure {
            claim: claims::find(name).map(|claim| claim.name),
            options: Options::from_arg_matches(given)?,
        }),
        None => Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand)),
    }
}

fn words(given: &ArgMatches) -> Vec<String> {
    given
        .get_many::<String>("arguments")
        .map(|words| words.cloned().collect())
        .unwrap_or_default()
}
