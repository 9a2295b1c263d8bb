//! An entry put into a configuration, and taken out.
//!
//! The idea: both are functions from text to text. So whether a file has nothing but what was put into a kept copy, or into
//! nothing, can be found out by doing it again.

use std::path::Path;

use ringfence_sentry::failure::Failure;

use super::document::{Document, Keys, Value, below};
use super::engines::{Engine, Syntax};
use super::file::ConfigurationFile;
use super::layout::Layout;
use super::syntax::parse;
use super::{containerd, crio, program};

/// The first line of a file that was not there.
const HEADING: &str =
    "# Written by `ringfence runtime configure`, which takes its entry out again with --remove.\n";

/// The runtime that engines have by themselves.
const ORDINARY: &str = "runc";

/// The runtime that an engine is to know.
#[derive(Clone, Debug)]
pub struct Request {
    pub engine: Engine,
    pub name: String,
    /// The path of its program.
    pub program: String,
    /// Whether it is to be the default.
    pub is_default: bool,
    /// Of the format, for a file that is not there.
    pub version: Option<u8>,
}

/// What is to become of a file.
#[derive(Debug)]
pub struct Outcome {
    /// What it is to have. `None` if it is not to be there.
    pub text: Option<String>,
    /// Whether what it has would be lost otherwise.
    pub keep_copy: bool,
    pub warnings: Vec<String>,
}

impl Outcome {
    pub fn changes(&self, file: &ConfigurationFile) -> bool {
        self.text.as_deref() != file.text()
    }
}

/// Puts the runtime's entry into the file's text.
pub fn add(request: &Request, file: &ConfigurationFile) -> Result<Outcome, Failure> {
    let path = file.path();
    let before = file.text().unwrap_or_default();
    let (made, keep_copy) = match wholly_ours(request, path, before) {
        // It is written anew, so that it can still be told to be.
        Some(present) => {
            let request = Request {
                is_default: request.is_default || present.is_default,
                version: present.version,
                ..request.clone()
            };
            (added(&request, path, "")?, false)
        }
        None => (added(request, path, before)?, true),
    };
    let (text, warnings) = made;
    Ok(Outcome {
        text: Some(text),
        keep_copy,
        warnings,
    })
}

/// Takes it out again.
pub fn remove(request: &Request, file: &ConfigurationFile) -> Result<Outcome, Failure> {
    let path = file.path();
    let text = file.text().unwrap_or_default();
    let document = read(request.engine, path, text)?;
    let outcome = |text: Option<&str>, keep_copy| Outcome {
        text: text.map(str::to_owned),
        keep_copy,
        warnings: Vec::new(),
    };
    let Some(present) = present(request, path, document.as_ref())? else {
        return Ok(outcome(file.text(), false));
    };
    for copy in file.copies() {
        if is_made_from(&present, path, &copy, text) {
            return Ok(outcome(Some(&copy), false));
        }
    }
    if is_made_from(&present, path, "", text) {
        return Ok(outcome(None, false));
    }
    let rest = without(&present, file, document)?;
    Ok(outcome(Some(&rest), true))
}

/// The text with the entry in it, and what may keep the engine from heeding it.
fn added(request: &Request, path: &Path, before: &str) -> Result<(String, Vec<String>), Failure> {
    let engine = request.engine;
    let failure = |reason: String| cannot_edit(path, &reason);
    // Comments alone stand before what is new, not behind it.
    let is_new = engine.facts().syntax == Syntax::Toml && says_nothing(before);
    let mut document = match is_new {
        true => read(engine, path, "")?,
        false => read(engine, path, before)?,
    };
    let mut warnings = Vec::new();
    let version = match (engine, is_new) {
        (Engine::Containerd, true) => {
            let (version, warning) = match request.version {
                Some(version) => (version, None),
                None => containerd::version_for_new_file(),
            };
            warnings.extend(warning);
            let key = ["version".to_owned()];
            document
                .set(&key, &Value::Number(version))
                .map_err(failure)?;
            version
        }
        (Engine::Containerd, false) => {
            containerd::version_of(document.as_ref()).map_err(failure)?
        }
        _ => 0,
    };
    let layout = Layout::of(engine, version);
    let settings = settings(request, &layout, path, document.as_mut())?;
    for (place, value) in &settings {
        document.set(place, value).map_err(failure)?;
    }
    let mut text = document.text();
    if is_new {
        let comments = match before.trim_end() {
            "" => String::new(),
            comments => format!("{comments}\n\n"),
        };
        text = format!("{comments}{HEADING}{text}");
    }
    let written = read(engine, path, &text)?;
    if settings
        .iter()
        .any(|(place, value)| written.get(place).as_ref() != Some(value))
    {
        return Err(cannot_edit(
            path,
            "its tables are written in a way that leaves no place for another",
        ));
    }
    if engine == Engine::Containerd {
        warnings.extend(containerd::warnings(path, written.as_ref(), version));
    }
    Ok((text, warnings))
}

/// What the document is to have, and where. What the entry follows of another is copied into the document by this.
fn settings(
    request: &Request,
    layout: &Layout,
    path: &Path,
    document: &mut dyn Document,
) -> Result<Vec<(Keys, Value)>, Failure> {
    let name = &request.name;
    let entry = layout.entry(name);
    let mut settings = layout.settings(name, &request.program);
    if document.has(&entry) {
        expect_ours(request, layout, path, document)?;
    } else if layout.follows_ordinary {
        if !document.has(&layout.runtimes) {
            keep_ordinary(layout, path, document)?;
        }
        // So Ringfence's containers get, for one, the control groups that Kubernetes expects: SystemdCgroup.
        if let Some(ordinary) = ordinary(layout, document, name) {
            let copied = document.copy(&layout.entry(&ordinary), &entry);
            copied.map_err(|reason| cannot_edit(path, &reason))?;
        }
    } else if request.engine == Engine::Crio {
        let monitor = crio::monitor(path, layout, name).into_iter();
        settings.extend(monitor.map(|(key, value)| (below(&entry, &[key]), value)));
    }
    // Before the program, which has a table of its own, so that they are written where one expects them.
    let annotations = layout.annotations(name, document);
    let program = settings.len().saturating_sub(1);
    settings.splice(program..program, annotations);
    if request.is_default {
        settings.push((layout.default.clone(), Value::Text(name.clone())));
    }
    Ok(settings)
}

/// Names the engine's own runtime, which it has by itself where the file has no table of runtimes: containerd before 2.0 drops
/// it as soon as there is one, and then starts nothing.
fn keep_ordinary(layout: &Layout, path: &Path, document: &mut dyn Document) -> Result<(), Failure> {
    let set = layout.fixed_settings(&layout.entry(ORDINARY));
    let mut set = set.into_iter();
    set.try_for_each(|(place, value)| document.set(&place, &value))
        .map_err(|reason| cannot_edit(path, &reason))
}

/// The runtime by which the engine starts containers where none is named, if it is of the same kind as Ringfence, or else its
/// own.
fn ordinary(layout: &Layout, document: &dyn Document, name: &str) -> Option<String> {
    let default = match document.get(&layout.default) {
        Some(Value::Text(default)) => Some(default),
        _ => None,
    };
    let runtimes = default.into_iter().chain([ORDINARY.to_owned()]);
    let mut runtimes = runtimes.filter(|runtime| runtime != name);
    runtimes.find(|runtime| {
        let mut fixed = layout.fixed_settings(&layout.entry(runtime)).into_iter();
        fixed.all(|(place, value)| document.get(&place) == Some(value))
    })
}

/// The runtime that the document has, as it would be asked for. `None` if it has none of this name.
fn present(
    request: &Request,
    path: &Path,
    document: &dyn Document,
) -> Result<Option<Request>, Failure> {
    let version = match request.engine {
        Engine::Containerd => {
            containerd::version_of(document).map_err(|reason| cannot_edit(path, &reason))?
        }
        _ => 0,
    };
    let layout = Layout::of(request.engine, version);
    if !document.has(&layout.entry(&request.name)) {
        return Ok(None);
    }
    expect_ours(request, &layout, path, document)?;
    Ok(Some(Request {
        program: program_in(&layout, document, &request.name).unwrap_or_default(),
        is_default: document.get(&layout.default) == Some(Value::Text(request.name.clone())),
        version: Some(version),
        ..request.clone()
    }))
}

/// The text of a document without the runtime that it has. If that is the default, then what was before is so again, as far as a
/// kept copy says what that was.
fn without(
    present: &Request,
    file: &ConfigurationFile,
    mut document: Box<dyn Document>,
) -> Result<String, Failure> {
    let (engine, path) = (present.engine, file.path());
    let layout = Layout::of(engine, present.version.unwrap_or_default());
    let entry = layout.entry(&present.name);
    document.remove(&entry);
    if present.is_default {
        let copies = file.copies().into_iter();
        let copies = copies.filter_map(|copy| parse(engine.facts().syntax, &copy).ok());
        let mut before = copies.filter(|copy| !copy.has(&entry));
        let default = before.next().and_then(|copy| copy.get(&layout.default));
        match default {
            None => document.remove(&layout.default),
            Some(default) => {
                let set = document.set(&layout.default, &default);
                set.map_err(|reason| cannot_edit(path, &reason))?;
            }
        }
    }
    let text = document.text();
    let rest = read(engine, path, &text)?;
    match rest.has(&entry) {
        false => Ok(text),
        true => Err(cannot_edit(
            path,
            "the entry is written in a way that cannot be taken out",
        )),
    }
}

fn program_in(layout: &Layout, document: &dyn Document, name: &str) -> Option<String> {
    match document.get(&layout.program(name))? {
        Value::Text(program) => Some(program),
        Value::List(programs) => programs.into_iter().next(),
        Value::Number(_) => None,
    }
}

/// Fails if the entry of this name is another program's.
fn expect_ours(
    request: &Request,
    layout: &Layout,
    path: &Path,
    document: &dyn Document,
) -> Result<(), Failure> {
    let name = &request.name;
    let program = program_in(layout, document, name).unwrap_or_else(|| "no program".to_owned());
    if program::is_ours(&program, &request.program) {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::setup(format!(
        "{path}: its runtime {name} is {program}, which is not Ringfence: choose another with --name, or name that program with \
         --runtime-path if it is"
    )))
}

/// The runtime that the file has, if it has nothing but what this command writes into one that is not there.
fn wholly_ours(request: &Request, path: &Path, text: &str) -> Option<Request> {
    let document = parse(request.engine.facts().syntax, text).ok()?;
    let present = present(request, path, document.as_ref()).ok()??;
    is_made_from(&present, path, "", text).then_some(present)
}

/// Whether `text` comes of `before` if the runtime is put into that, at once or before it is made the default.
fn is_made_from(present: &Request, path: &Path, before: &str, text: &str) -> bool {
    let syntax = present.engine.facts().syntax;
    let layout = Layout::of(present.engine, present.version.unwrap_or_default());
    let had_it = |document: Box<dyn Document>| document.has(&layout.entry(&present.name));
    if parse(syntax, before).map_or(true, had_it) {
        return false;
    }
    let add = |request: &Request, before: &str| Some(added(request, path, before).ok()?.0);
    let at_once = || add(present, before);
    let in_steps = || {
        let first = Request {
            is_default: false,
            ..present.clone()
        };
        add(present, &add(&first, before)?)
    };
    at_once().as_deref() == Some(text) || in_steps().as_deref() == Some(text)
}

/// Whether a text in TOML has nothing but comments.
fn says_nothing(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#'))
}

fn read(engine: Engine, path: &Path, text: &str) -> Result<Box<dyn Document>, Failure> {
    parse(engine.facts().syntax, text).map_err(|reason| cannot_edit(path, &reason))
}

fn cannot_edit(path: &Path, reason: &str) -> Failure {
    let path = path.display();
    // Some parsers say it in lines.
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Failure::setup(format!(
        "{path}: {reason}: correct the file first; nothing was written"
    ))
}
