//! The table of programs, and what of their output is compared.
//!
//! A program is data: how to build it, how to run it, and by what one sees that it did the same. What is not compared, or not
//! run, has its reason beside it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::Regex;
use ringfence_programs::finding::find;
use serde::Deserialize;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "program")]
    programs: Vec<Program>,
}

/// A row of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Program {
    pub name: String,
    /// What it shows, in one line.
    pub shows: String,
    /// A line for the shell that builds it.
    pub build: Option<String>,
    /// The file that this makes. One that is there already is taken as it is: a machine may lack what it takes to build it.
    pub makes: Option<String>,
    /// Without these it is not built.
    #[serde(default)]
    pub build_needs: Vec<Need>,
    /// Without these it is not run.
    #[serde(default)]
    pub needs: Vec<Need>,
    pub command: Words,
    pub compare: Compare,
    /// Why no more is compared, or no more is run.
    pub because: Option<String>,
    /// How many seconds it may take, each time.
    #[serde(default = "a_minute")]
    pub timeout: u64,
    /// Options of `ringfence run`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether it is run outside.
    #[serde(default = "yes")]
    pub outside: bool,
    /// Whether its requests are watched there. A debugger does not work below another one.
    #[serde(default = "yes")]
    pub watched: bool,
    /// Whether it is run under `ringfence survey`.
    #[serde(default = "yes")]
    pub survey: bool,
}

fn a_minute() -> u64 {
    60
}

fn yes() -> bool {
    true
}

/// What to execute.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// A line for the shell.
    Line(String),
    /// A program and its arguments.
    Words(Vec<String>),
}

impl Words {
    /// The program and its arguments.
    pub fn words(&self) -> Vec<String> {
        match self {
            Words::Line(line) => ["sh", "-c", line].map(str::to_owned).into(),
            Words::Words(words) => words.clone(),
        }
    }

    /// As one would type it.
    pub fn shown(&self) -> String {
        match self {
            Words::Line(line) => line.trim().to_owned(),
            Words::Words(words) => words
                .iter()
                .map(|word| quoted(word))
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "-_=+./,:@%".contains(character);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// What has to be there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "String")]
pub enum Need {
    Path(PathBuf),
    Command(String),
    /// A module that python3 can import.
    Module(String),
}

impl From<String> for Need {
    fn from(text: String) -> Need {
        match text.strip_prefix("module:") {
            Some(module) => Need::Module(module.to_owned()),
            None if text.contains('/') => Need::Path(text.into()),
            None => Need::Command(text),
        }
    }
}

impl Need {
    /// Why it is not there, if it is not.
    pub fn lacking(&self) -> Option<String> {
        match self {
            Need::Path(path) => (!path.exists()).then(|| format!("no {}", path.display())),
            Need::Command(name) => find(name, &[]).is_none().then(|| format!("no {name}")),
            Need::Module(name) => (!has_module(name)).then(|| format!("no {name} for python3")),
        }
    }
}

/// Whether python3 would find it. It is not imported, which can take seconds.
fn has_module(name: &str) -> bool {
    let script =
        "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)";
    let mut command = Command::new("python3");
    command.args(["-c", script, name]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// By what one sees that a program did the same.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// All that it prints.
    Output,
    /// What matches in the lines that it prints: the first group, if there is one.
    Lines(Pattern),
    /// The exit status alone.
    Status,
}

/// A regular expression.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(text: String) -> Result<Pattern, regex::Error> {
        Regex::new(&text).map(Pattern)
    }
}

impl Compare {
    /// What is compared of an output.
    pub fn of(&self, stdout: &str) -> Vec<String> {
        match self {
            Compare::Output => stdout.lines().map(str::to_owned).collect(),
            Compare::Lines(Pattern(pattern)) => stdout
                .lines()
                .filter_map(|line| {
                    let captures = pattern.captures(line)?;
                    let part = captures.get(1).or_else(|| captures.get(0))?;
                    Some(part.as_str().to_owned())
                })
                .collect(),
            Compare::Status => Vec::new(),
        }
    }

    /// Whether two outputs are the same, as far as they are compared.
    pub fn equal(&self, outside: &[u8], inside: &[u8]) -> bool {
        let of = |bytes: &[u8]| self.of(&String::from_utf8_lossy(bytes));
        match self {
            Compare::Output => outside == inside,
            Compare::Lines(_) => of(outside) == of(inside),
            Compare::Status => true,
        }
    }

    /// In words.
    pub fn shown(&self) -> String {
        match self {
            Compare::Output => "exit status and output".to_owned(),
            Compare::Lines(Pattern(pattern)) => {
                format!("exit status and, of the output, what matches `{pattern}`")
            }
            Compare::Status => "exit status".to_owned(),
        }
    }
}

impl Program {
    /// Why it is not run on this machine, if it is not.
    pub fn lacking(&self) -> Option<String> {
        self.needs.iter().find_map(Need::lacking)
    }

    fn check(&self) -> Result<(), String> {
        let says_why = self.because.is_some();
        let needs_a_reason = matches!(self.compare, Compare::Status)
            || !self.outside
            || !self.watched
            || !self.survey;
        match self {
            _ if needs_a_reason && !says_why => Err("`because` has to say why".to_owned()),
            _ if self.shows.contains('\n') => Err("`shows` has to be one line".to_owned()),
            _ if self.words_are_missing() => Err("`command` names nothing".to_owned()),
            _ => Ok(()),
        }
    }

    fn words_are_missing(&self) -> bool {
        self.command.words().is_empty() || self.command.shown().is_empty()
    }
}

/// Reads the table's text.
pub fn parse(text: &str) -> Result<Vec<Program>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut names = BTreeSet::new();
    for program in &file.programs {
        let name = &program.name;
        program
            .check()
            .map_err(|error| format!("{name}: {error}"))?;
        if !names.insert(name) {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(file.programs)
}

/// Those of a table that are named; all, if none is.
pub fn select(programs: Vec<Program>, only: &[String]) -> Result<Vec<Program>, String> {
    let is_there = |name: &&String| programs.iter().any(|program| program.name == **name);
    if let Some(name) = only.iter().find(|name| !is_there(name)) {
        let all: Vec<&str> = programs.iter().map(|program| &*program.name).collect();
        return Err(format!(
            "there is no program {name}: there are {}",
            all.join(", ")
        ));
    }
    let is_asked = |program: &Program| only.is_empty() || only.contains(&program.name);
    Ok(programs.into_iter().filter(is_asked).collect())
}

/// The folder with the sources of the programs of a table.
pub fn sources(table: &Path) -> PathBuf {
    table.with_file_name("programs")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "[[program]]\nname = 'a'\nshows = 'b'\ncommand = 'c'\n";

    fn compare(rule: &str) -> Compare {
        let text = format!("{ROW}compare = {rule}\nbecause = 'd'\n");
        let mut programs = parse(&text).expect("a table");
        programs.remove(0).compare
    }

    #[test]
    fn what_is_compared_goes_by_the_rule() {
        let (first, second) = (b"took 3 s\nsum 12\n", b"took 4 s\nsum 12\n");
        assert!(!compare("'output'").equal(first, second));
        assert!(compare("'status'").equal(first, second));
        let whole = compare("{ lines = '^sum .*' }");
        assert_eq!(whole.of("took 3 s\nsum 12\n"), ["sum 12"]);
        assert!(whole.equal(first, second));
        let group = compare("{ lines = '^(\\w+) ' }");
        assert_eq!(group.of("took 3 s\nsum 12\n"), ["took", "sum"]);
    }

    #[test]
    fn what_is_left_out_has_a_reason() {
        let parsed = |rest: &str| parse(&format!("{ROW}{rest}")).map(drop);
        assert_eq!(parsed("compare = 'output'\n"), Ok(()));
        let why = Err("a: `because` has to say why".to_owned());
        for rest in [
            "compare = 'status'\n",
            "compare = 'output'\noutside = false\n",
        ] {
            assert_eq!(parsed(rest), why, "{rest}");
        }
        assert!(parsed("compare = 'nothing'\n").is_err());
        assert!(parsed("compare = { lines = '(' }\n").is_err());
        let twice = format!("compare = 'output'\n{ROW}compare = 'output'\n");
        assert_eq!(parsed(&twice), Err("a is there twice".to_owned()));
    }

    #[test]
    fn programs_are_chosen_by_name() {
        let all = || parse(&format!("{ROW}compare = 'output'\n")).expect("a table");
        let names = |only: &[String]| {
            let chosen = select(all(), only)?;
            Ok::<_, String>(chosen.into_iter().map(|it| it.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]), Ok(vec!["a".to_owned()]));
        let missing = Err("there is no program b: there are a".to_owned());
        assert_eq!(names(&["b".to_owned()]), missing);
    }

    #[test]
    fn words_are_shown_as_a_shell_takes_them() {
        let words = Words::Words(["a", "b c", "it's"].map(str::to_owned).into());
        assert_eq!(words.shown(), r"a 'b c' 'it'\''s'");
    }
}
