//! What is wrong with a command line, in one line, as every other error of Ringfence: the thing, the reason, the remedy.
//!
//! The parser says it in paragraphs: what is wrong, perhaps lines of what would be right, perhaps a tip, the usage.

use clap::error::{ContextKind, Error, ErrorKind};
use ringfence_ipc::typed::shortened;

/// The name of the whole command.
const OWN: &str = "ringfence";
/// The usage, which is where the command's own name stands.
const USAGE: &str = "Usage: ";
/// What begins each remedy in a paragraph of them.
const TIP: &str = "tip: ";
/// How a remedy begins that is none here: what it says to write would be the program.
const AS_A_VALUE: &str = "to pass ";

/// Words that are right in another place: who gives one to `ringfence` itself, and what to write.
const ELSEWHERE: [(&[&str], &str); 2] = [
    (
        &OF_RUNTIMES,
        "call it by the name ringfence-runtime, as a container engine does",
    ),
    (&["configure"], "write ringfence runtime configure"),
];
/// Commands and options of runc's, but for those that are Ringfence's too.
const OF_RUNTIMES: [&str; 17] = [
    "checkpoint",
    "create",
    "delete",
    "events",
    "exec",
    "features",
    "kill",
    "pause",
    "restore",
    "resume",
    "start",
    "state",
    "update",
    "--log",
    "--log-format",
    "--root",
    "--systemd-cgroup",
];

/// How much of an argument is shown, in bytes.
const MOST: usize = 200;

/// The line. `None` if the error is none: help that was asked for, or the list of commands if none was given.
pub fn line(error: &Error) -> Option<String> {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let mut text = error.render().to_string();
    for (_, value) in error.context() {
        let value = value.to_string();
        if value.len() > MOST {
            text = text.replace(&value, &format!("{}...", shortened(&value, MOST)));
        }
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut paragraphs = text.split("\n\n").map(in_one_line);
    let problem = paragraphs.next().unwrap_or_default();
    let tips = paragraphs.filter_map(|paragraph| {
        let tip = paragraph.strip_prefix(TIP)?.split(TIP).next()?.trim();
        (!tip.starts_with(AS_A_VALUE)).then(|| tip.to_owned())
    });
    // What is wrong with a value comes with its own remedy.
    let is_explained = error.kind() == ErrorKind::ValueValidation;
    let elsewhere = elsewhere(error).map(str::to_owned);
    let remedy = elsewhere.or_else(|| tips.into_iter().next()).or_else(|| {
        let usage = error.get(ContextKind::Usage)?.to_string();
        (!is_explained).then(|| format!("see {} --help", command(&usage)))
    });
    Some(match remedy {
        Some(remedy) => format!("{problem}: {remedy}"),
        None => problem,
    })
}

/// What to write in the place of a word that `ringfence` itself does not know, if that is right elsewhere.
fn elsewhere(error: &Error) -> Option<&'static str> {
    let usage = error.get(ContextKind::Usage)?.to_string();
    if command(&usage) != OWN {
        return None;
    }
    let given = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg];
    let given = given.into_iter().find_map(|kind| error.get(kind))?;
    let given = given.to_string();
    let row = ELSEWHERE
        .iter()
        .find(|(words, _)| words.contains(&given.as_str()));
    row.map(|(_, remedy)| *remedy)
}

/// The words before the first option or argument.
fn command(usage: &str) -> String {
    let words = usage.trim_start_matches(USAGE).split_whitespace();
    let words: Vec<&str> = words
        .take_while(|word| word.starts_with(|first: char| first.is_ascii_alphanumeric()))
        .collect();
    words.join(" ")
}

fn in_one_line(paragraph: &str) -> String {
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}
