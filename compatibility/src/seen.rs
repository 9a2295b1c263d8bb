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
    /// Why it was not run, if it was not: this machine lacks something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
    /// Why it could not be run to its end, though nothing is known to be lacking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
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
    /// How many requests the survey could not read, so that nothing is known of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub survey_unreadable: u64,
    /// Why there is no survey, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survey_failed: Option<String>,
    /// Requests that were refused inside and not outside; nothing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Vec<Beyond>>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
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
    /// It could not be run to its end.
    TrialFailed,
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
            _ if self.failed.is_some() => Verdict::TrialFailed,
            Some(true) if succeeds_inside => Verdict::Same,
            Some(true) => Verdict::FailsAlike,
            Some(false) => Verdict::Differs,
            None if succeeds_inside => Verdict::SucceedsInside,
            None => Verdict::FailsInside,
        }
    }

    /// Whether nothing about it has to be looked into. What is not known has to be.
    pub fn is_as_it_should_be(&self) -> bool {
        let is_right = match self.verdict() {
            Verdict::NotRun => return true,
            Verdict::TrialFailed | Verdict::Differs | Verdict::FailsInside => false,
            Verdict::Same | Verdict::FailsAlike | Verdict::SucceedsInside => true,
        };
        is_right
            && self.refused.is_some()
            && self.survey.as_ref().is_none_or(Vec::is_empty)
            && self.survey_unreadable == 0
            && self.survey_failed.is_none()
    }

    /// What it comes to, in words, and why where that is all there is to say.
    pub fn result(&self) -> String {
        let verdict = self.verdict();
        let reason = match verdict {
            Verdict::NotRun => self.not_run.as_ref(),
            Verdict::TrialFailed => self.failed.as_ref(),
            _ => None,
        };
        match reason {
            Some(reason) => format!("{}: {reason}", verdict.shown()),
            None => verdict.shown().to_owned(),
        }
    }

    /// What is known of requests that were refused inside alone, in words, if there is anything to say.
    pub fn refused_in_words(&self) -> Option<String> {
        match self.refused.as_ref().map(Vec::len) {
            _ if self.inside.is_none() => None,
            None => Some("requests not known".to_owned()),
            Some(0) => None,
            Some(1) => Some("1 request refused inside alone".to_owned()),
            Some(count) => Some(format!("{count} requests refused inside alone")),
        }
    }
}

impl Verdict {
    pub fn shown(self) -> &'static str {
        match self {
            Verdict::NotRun => "not run here",
            Verdict::TrialFailed => "**the trial failed**",
            Verdict::Same => "the same",
            Verdict::FailsAlike => "fails outside, too",
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
