//! The options of `run` that are the server's: each stands in the crate `nvproxy-protocol`, with its help, and here is what makes
//! an option of the command line of it.

use clap::builder::ValueParser;
use clap::error::{Error, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use nvproxy_protocol::options::{Reason, Settings, UserOption};

/// What the user may ask of the server.
#[derive(Default)]
pub struct ServerSettings(pub Settings);

impl Args for ServerSettings {
    fn augment_args(command: Command) -> Command {
        Settings::ALL.iter().fold(command, |command, option| {
            let arg = Arg::new(option.name)
                .long(option.name)
                .value_name(option.value_name)
                // So that it is said what is wrong with a number below 0.
                .allow_negative_numbers(true)
                .value_parser(ValueParser::new(move |text: &str| check(option, text)));
            command.arg(with_help(arg, option.help))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        ServerSettings::augment_args(command)
    }
}

impl FromArgMatches for ServerSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServerSettings, Error> {
        let mut settings = ServerSettings::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for option in Settings::ALL {
            if let Some(text) = matches.get_one::<String>(option.name) {
                (option.set)(&mut self.0, text)
                    .map_err(|reason| Error::raw(ErrorKind::ValueValidation, reason))?;
            }
        }
        Ok(())
    }
}

/// The text, if the option can be that.
fn check(option: &UserOption<Settings>, text: &str) -> Result<String, Reason> {
    (option.set)(&mut Settings::default(), text).map(|()| text.to_owned())
}

/// The first paragraph is what `-h` shows of it, and all of them what `--help` does.
fn with_help(arg: Arg, lines: &[&str]) -> Arg {
    let paragraphs = lines.split(|line| line.trim().is_empty());
    let paragraphs: Vec<String> = paragraphs
        .map(|lines| {
            lines
                .iter()
                .map(|line| line.trim())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let short = arg.help(paragraphs[0].clone());
    match paragraphs.len() {
        1 => short,
        _ => short.long_help(paragraphs.join("\n\n")),
    }
}
