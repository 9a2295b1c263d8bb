//! Whether a program's arguments can be meant for Ringfence: `ringfence run true` needs no `--`, and with one nothing is
//! in doubt.
//!
//! What follows the program is the program's. Without `--` somebody could have added an option of Ringfence's at the end of the
//! line, `--gpu-memory 4g` say, and the sandbox would silently be without it. So such a line is refused.

use std::ffi::{OsStr, OsString};

use clap::{Args, Command};
use ringfence_sentry::failure::Failure;

/// Refuses the `command` at the end of `line` if `--` does not stand before it, and an argument of it is called like an
/// option of `Options`.
pub fn check<Options: Args>(line: &[OsString], command: &[OsString]) -> Result<(), Failure> {
    let before = line.len().checked_sub(command.len() + 1);
    if before
        .and_then(|before| line.get(before))
        .is_some_and(|word| word == "--")
    {
        return Ok(());
    }
    let options = Options::augment_args(Command::new(""));
    let names: Vec<&str> = options
        .get_arguments()
        .filter_map(|option| option.get_long())
        .collect();
    let arguments = command
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--");
    let mut doubtful = arguments.filter_map(|argument| long(argument));
    match doubtful.find(|name| names.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::setup(format!(
            "--{name} follows the program, and Ringfence has an option of this name: write it before the program, or \
             -- before the program, if it is the program's own"
        ))),
    }
}

/// The name of a long option, with a value or without.
fn long(argument: &OsStr) -> Option<&str> {
    let name = argument.to_str()?.strip_prefix("--")?;
    name.split('=').next()
}
