//! What came of the programs on one machine, as a file: `seen/*.toml`.
//!
//! It has what was run, and nothing that would have to be looked up elsewhere: commands change, and the file says which they were.

use serde::{Deserialize, Serialize};

use crate::refusals::Beyond;

/// How a program ends that has succeeded.
pub const SUCCESS: &str = "status 0";

/// A file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Seen {
    pub date: String,
    /// Ringfence's version.
    pub ringfence: String,
    pub driver: String,
    pub gpu: String,
    pub architecture: String,
    #[serde(default, rename = "program", skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<Tried>,
}

/// What came of one program.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tried {
    pub name: String,
    pub shows: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    pub command: String,
    /// Options of `ringfence run`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// What was compared, in words, and why no more was.
    pub compared: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Why it was not run, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
    /// Whether it did the same outside and inside, where it was run in both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal: Option<bool>,
    /// What is worth knowing besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Side>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<Side>,
    /// What a sandbox would refuse, by `ringfence survey`; nothing where that was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survey: Option<Vec<String>>,
    /// Requests that were refused inside and not outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Beyond>,
}

/// How a program ended on one side.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Side {
    /// As in `status 0`, `signal 11`, or `killed after 60 s`.
    pub ended: String,
    /// The first lines of what was compared; where both sides differ, of what only this one has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub printed: Vec<String>,
    /// The last lines of its stderr, unless it succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub complained: Vec<String>,
}

impl Side {
    pub fn succeeded(&self) -> bool {
        self.ended == SUCCESS
    }
}

/// What a row comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    NotRun,
    /// It succeeds, and does the same outside and inside.
    Same,
    /// It fails inside as it does outside.
    FailsAlike,
    Differs,
    /// It was run inside alone, and succeeds.
    SucceedsInside,
    FailsInside,
}

impl Tried {
    pub fn verdict(&self) -> Verdict {
        let succeeds_inside = self.inside.as_ref().is_some_and(Side::succeeded);
        match self.equal {
            _ if self.not_run.is_some() => Verdict::NotRun,
            Some(true) if succeeds_inside => Verdict::Same,
            Some(true) => Verdict::FailsAlike,
            Some(false) => Verdict::Differs,
            None if succeeds_inside => Verdict::SucceedsInside,
            None => Verdict::FailsInside,
        }
    }

    /// Whether nothing about it has to be looked into.
    pub fn is_as_it_should_be(&self) -> bool {
        let verdict = self.verdict();
        !matches!(verdict, Verdict::Differs | Verdict::FailsInside)
            && self.survey.as_ref().is_none_or(Vec::is_empty)
    }
}

impl Verdict {
    pub fn shown(self) -> &'static str {
        match self {
            Verdict::NotRun => "not run",
            Verdict::Same => "the same",
            Verdict::FailsAlike => "fails alike",
            Verdict::Differs => "**differs**",
            Verdict::SucceedsInside => "succeeds (inside alone)",
            Verdict::FailsInside => "**fails** (inside alone)",
        }
    }
}

impl Seen {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Seen, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// The file's text.
    pub fn text(&self) -> Result<String, String> {
        toml::to_string_pretty(self).map_err(|error| error.to_string())
    }
}
