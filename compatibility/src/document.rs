//! docs/COMPATIBILITY.md: the table of what was run on which GPU, the commands, and what is to be known of each row.
//!
//! It is made of files alone, so that a test can compare it with them.

use crate::markdown::{block, code, head, row};
use crate::reasons::Reasons;
use crate::refusals::{Beyond, By};
use crate::seen::{Seen, Side, Tried, Verdict};
use crate::surveys::{Survey, times};

const OPENING: &str = "\
# What runs

What was run on which GPU, outside of a sandbox and inside, and what came of it. Nothing stands here that was not run. The document
is made of the files in `compatibility/`, by

    cargo run --package ringfence-compatibility -- table compatibility/seen/* > docs/COMPATIBILITY.md

## To add a GPU or a program

With a checkout, on a machine with a GPU:

    cargo build --release --package ringfence --package ringfence-compatibility
    cd target/x86_64-unknown-linux-gnu/release
    ./ringfence-compatibility run --ringfence ./ringfence --programs ../../../compatibility/programs.toml --work /tmp/work --out GPU.toml

Both executables are static, and can be copied to a machine without Rust, with `compatibility/programs.toml` and the folder
`compatibility/programs/` beside it. `GPU.toml` belongs into `compatibility/seen/`; so do findings of surveys (`.json`).
Names of hosts and folders, UUIDs, serial numbers and PCI addresses are taken out of it.

With nothing but Ringfence, and a program of yours, `ringfence survey` says which of the program's requests a sandbox would refuse.
[What to do with its findings](DRIVERS.md#a-program-or-a-gpu-that-nobody-has-tried) is said elsewhere.

";

const LEGEND: &str = "\
\"The same\" is: it ended with status 0 outside and inside, and what is compared was equal. \"Fails outside, too\": it failed inside as
it did outside, so that it shows nothing of a sandbox. \"Requests not known\": nobody could tell which were refused inside. What is
compared, and what was noticed besides, is said of [each program](#programs).

";

/// What the document is made of.
#[derive(Debug, Default)]
pub struct Sources {
    pub seen: Vec<Seen>,
    pub surveys: Vec<Survey>,
    pub reasons: Reasons,
}

impl Sources {
    /// Adds a file: results (`.toml`) or the findings of a survey (`.json`).
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let in_file = |error: String| format!("{name}: {error}");
        match name.rsplit('.').next() {
            Some("toml") => self.seen.push(Seen::parse(text).map_err(in_file)?),
            Some("json") => self.surveys.push(Survey::parse(text).map_err(in_file)?),
            _ => {
                let kinds = "neither results (.toml) nor findings of a survey (.json)";
                return Err(format!("{name}: it is {kinds}"));
            }
        }
        Ok(())
    }

    /// The programs, each as it was run first.
    fn programs(&self) -> Vec<&Tried> {
        let mut programs: Vec<&Tried> = Vec::new();
        for tried in self.seen.iter().flat_map(|seen| &seen.programs) {
            if programs.iter().all(|known| known.name != tried.name) {
                programs.push(tried);
            }
        }
        programs
    }
}

impl Seen {
    /// A program that was tried there.
    fn tried(&self, name: &str) -> Option<&Tried> {
        self.programs.iter().find(|tried| tried.name == name)
    }

    fn title(&self) -> String {
        format!("{}, driver {}", self.gpu, self.driver)
    }
}

/// The document's text.
pub fn document(sources: &Sources) -> String {
    let mut text = OPENING.to_owned();
    text += &results(sources);
    text += &surveys(&sources.surveys);
    let programs = sources.programs();
    if !programs.is_empty() {
        text += "## Programs\n";
    }
    for program in programs {
        text += &described(program);
        for seen in &sources.seen {
            if let Some(tried) = seen.tried(&program.name) {
                text += &noticed(program, tried, seen, &sources.reasons);
            }
        }
    }
    text.trim_end().to_owned() + "\n"
}

fn results(sources: &Sources) -> String {
    if sources.seen.is_empty() {
        return "## Results\n\nNothing was run yet.\n\n".to_owned();
    }
    let mut text = "## Results\n\n".to_owned();
    text += &head(&["GPU", "architecture", "driver", "Ringfence", "date"].map(str::to_owned));
    for seen in &sources.seen {
        let cells = [
            &seen.gpu,
            &seen.architecture,
            &seen.driver,
            &seen.ringfence,
            &seen.date,
        ];
        text += &row(&cells.map(String::clone));
    }
    text += "\n";
    text += LEGEND;
    let titles = sources.seen.iter().map(Seen::title);
    let cells = ["program", "what it shows"]
        .map(str::to_owned)
        .into_iter()
        .chain(titles);
    text += &head(&cells.collect::<Vec<_>>());
    for program in sources.programs() {
        let mut cells = vec![linked(&program.name), program.shows.clone()];
        cells.extend(
            sources
                .seen
                .iter()
                .map(|seen| match seen.tried(&program.name) {
                    Some(tried) => result(tried),
                    None => "not tried".to_owned(),
                }),
        );
        text += &row(&cells);
    }
    text + "\n"
}

/// A link to what is said of a program. (The heading is code, and an anchor keeps letters, digits, `_` and `-`.)
fn linked(name: &str) -> String {
    let anchor = name.to_lowercase();
    let kept = anchor.chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ => character.is_alphanumeric().then_some(character),
    });
    format!("[{}](#{})", code(name), kept.collect::<String>())
}

/// A cell of the table.
fn result(tried: &Tried) -> String {
    let mut words = vec![tried.result()];
    words.extend(tried.refused_in_words());
    words.extend(surveyed(tried));
    words.join("; ")
}

/// What the survey came to, if that was not just that nothing would be refused.
fn surveyed(tried: &Tried) -> Vec<String> {
    let requests = |count: u64| match count {
        1 => "1 request".to_owned(),
        _ => format!("{count} requests"),
    };
    let found = tried.survey.as_ref().map_or(0, Vec::len) as u64;
    let found = (found > 0).then(|| format!("the survey found {}", requests(found)));
    let unreadable = tried.survey_unreadable;
    let not_read =
        (unreadable > 0).then(|| format!("the survey could not read {}", requests(unreadable)));
    let failed = &tried.survey_failed;
    let failed = failed.as_ref().map(|_| "the survey failed".to_owned());
    found.into_iter().chain(not_read).chain(failed).collect()
}

fn surveys(surveys: &[Survey]) -> String {
    if surveys.is_empty() {
        return String::new();
    }
    let mut text =
        "## Surveys that users have sent\n\nNothing was refused: a sandbox would refuse it.\n\n"
            .to_owned();
    let names = [
        "GPU",
        "architecture",
        "driver",
        "Ringfence",
        "program",
        "with",
        "would be refused",
        "could not be read",
    ];
    text += &head(&names.map(str::to_owned));
    for survey in surveys {
        let lines = survey.lines();
        text += &row(&[
            or_unknown(survey.gpus.join(", ")),
            or_unknown(survey.architectures.join(", ")),
            survey.driver.clone(),
            survey.ringfence.clone(),
            code(survey.program()),
            or_unknown(survey.capabilities.clone()),
            match lines.is_empty() {
                true => "nothing".to_owned(),
                false => lines.join("\n"),
            },
            match survey.unreadable {
                0 => "nothing".to_owned(),
                count => times(count),
            },
        ]);
    }
    text + "\n"
}

fn or_unknown(text: String) -> String {
    match text.is_empty() {
        true => "unknown".to_owned(),
        false => text,
    }
}

/// What a program is, and how it was run.
fn described(program: &Tried) -> String {
    let mut text = format!("\n### {}\n\n", code(&program.name));
    text += &sentence(&program.shows);
    text += "\n\n";
    if let Some(build) = &program.build {
        text += &block(build.trim());
    }
    text += &block(&program.command);
    text += &format!("\nCompared: {}.", program.compared);
    if !program.options.is_empty() {
        let options = code(&program.options.join(" "));
        text += &format!(" Options of `ringfence run`: {options}.");
    }
    if let Some(because) = &program.because {
        text += " ";
        text += &sentence(because);
    }
    text + "\n"
}

/// Text that begins and ends as a sentence does.
fn sentence(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string());
    let whole = first.unwrap_or_default() + rest.as_str();
    match whole.ends_with('.') {
        true => whole,
        false => whole + ".",
    }
}

/// What came of a program on one machine, as far as there is more to say than that it was the same.
fn noticed(program: &Tried, tried: &Tried, seen: &Seen, reasons: &Reasons) -> String {
    let mut points = Vec::new();
    let as_before = (&program.build, &program.command, &program.options);
    if (&tried.build, &tried.command, &tried.options) != as_before {
        points.push(format!("Run as {}.", code(&tried.command)));
    }
    points.extend(outcome(tried));
    points.extend(tried.notes.iter().map(|note| sentence(note)));
    let found = tried.survey.iter().flatten();
    points.extend(found.map(|line| {
        let reason = reasons.of_line(line);
        let reason = reason.map(|reason| format!(" {reason}"));
        let reason = reason.unwrap_or_default();
        format!("By the survey a sandbox would refuse: {line}.{reason}")
    }));
    points.extend(
        tried
            .survey_failed
            .iter()
            .map(|why| format!("The survey failed: {why}.")),
    );
    let refused_inside = tried.refused.as_deref().unwrap_or_default();
    if points.is_empty() && refused_inside.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}:\n\n", seen.title());
    for point in &points {
        text += &format!("- {point}\n");
    }
    if !points.is_empty() && !refused_inside.is_empty() {
        text += "\n";
    }
    text + &refused(refused_inside, reasons)
}

/// What came of it on each side, where that has to be said.
fn outcome(tried: &Tried) -> Vec<String> {
    let verdict = tried.verdict();
    let is_alike = match verdict {
        Verdict::Same | Verdict::SucceedsInside | Verdict::NotRun => return Vec::new(),
        Verdict::FailsAlike => true,
        // What differs was compared.
        Verdict::Differs | Verdict::FailsInside | Verdict::TrialFailed => tried.equal.is_none(),
    };
    let sides = [("Outside", &tried.outside), ("Inside", &tried.inside)];
    let sides = sides
        .into_iter()
        .filter_map(|(where_, side)| Some((where_, side.as_ref()?)));
    sides
        .map(|(where_, side)| on_side(where_, side, is_alike))
        .collect()
}

fn on_side(where_: &str, side: &Side, is_alike: bool) -> String {
    let lines = |lines: &[String]| {
        let lines: Vec<String> = lines.iter().map(|line| code(line)).collect();
        lines.join(", ")
    };
    let mut text = format!("{where_}: {}", side.ended);
    if !side.printed.is_empty() {
        let what = if is_alike { "it printed" } else { "only there" };
        text += &format!("; {what}: {}", lines(&side.printed));
    }
    if !side.complained.is_empty() {
        text += &format!("; on stderr: {}", lines(&side.complained));
    }
    text + "."
}

fn refused(refused: &[Beyond], reasons: &Reasons) -> String {
    if refused.is_empty() {
        return String::new();
    }
    let names = [
        "refused inside",
        "with",
        "by",
        "how often",
        "outside",
        "why",
    ];
    let mut text = head(&names.map(str::to_owned));
    for it in refused {
        text += &row(&[
            it.request.clone(),
            it.answer.clone(),
            match it.by {
                By::Ringfence => "Ringfence".to_owned(),
                By::Driver => "the driver".to_owned(),
            },
            times(it.times),
            match &it.outside {
                None => "not watched".to_owned(),
                Some(answers) if answers.is_empty() => "not refused".to_owned(),
                Some(answers) => answers.join(", "),
            },
            match reasons.of(&it.request) {
                Some(reason) => reason.to_owned(),
                None => "**not known**".to_owned(),
            },
        ]);
    }
    text
}
