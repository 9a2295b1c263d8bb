//! The command line.
//!
//! The commands are made of the table of claims, so that none can be missing here.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::claims;
use crate::options::Options;

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
