//! Ringfence's own log: where it goes, and how much of it there can be.
//!
//! The idea: a program can cause most lines as often as it likes, so no place that writes one has to care. The log itself
//! counts them, by kind, which is the place in the source that they come from, and in all. Beyond a bound they are left
//! out, and a line says so once. Errors are bounded by kind alone, so that nothing a program floods the log with hides them.
//!
//! Each process counts its own lines.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tracing::{Level, Metadata, callsite};
use tracing_subscriber::fmt::MakeWriter;

use crate::failure::Failure;

/// Most lines of a kind.
const LINES_OF_A_KIND: u32 = 1024;
/// Most lines in all.
const LINES: u32 = 8 << 10;
/// Most bytes of a line.
const LENGTH: usize = 1 << 10;

/// Has the log appended to `file`, with debug messages, or warnings printed to stderr. To be called once.
pub fn write_to(file: Option<&Path>) -> Result<(), Failure> {
    let builder = tracing_subscriber::fmt()
        .with_target(false)
        .with_ansi(false);
    match file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file =
                file.map_err(|error| Failure::setup(format!("--log {}: {error}", path.display())))?;
            builder
                .with_max_level(Level::DEBUG)
                .with_writer(Bounded::new(file))
                .init();
        }
        None => {
            let builder = builder.without_time().with_max_level(Level::WARN);
            builder.with_writer(Bounded::new(io::stderr())).init();
        }
    }
    Ok(())
}

/// Writes lines to `to` as long as there are not too many.
struct Bounded<W> {
    to: W,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    kinds: HashMap<callsite::Identifier, u32>,
    all: u32,
}

impl Counts {
    /// What becomes of a further line.
    fn next(&mut self, metadata: &Metadata<'_>) -> Fate {
        let kind = self.kinds.entry(metadata.callsite()).or_default();
        *kind = kind.saturating_add(1);
        if *kind > LINES_OF_A_KIND {
            return match *kind - 1 {
                LINES_OF_A_KIND => Fate::LastOfItsKind,
                _ => Fate::LeftOut,
            };
        }
        if *metadata.level() == Level::ERROR {
            return Fate::Written;
        }
        self.all = self.all.saturating_add(1);
        match self.all {
            ..=LINES => Fate::Written,
            all if all - 1 == LINES => Fate::LastOfAll,
            _ => Fate::LeftOut,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    /// In its place stands that it and all further ones of its kind are left out.
    LastOfItsKind,
    /// In its place stands that it and all further ones are.
    LastOfAll,
    LeftOut,
}

impl<W> Bounded<W> {
    fn new(to: W) -> Bounded<W> {
        Bounded {
            to,
            counts: Mutex::default(),
        }
    }
}

impl<'a, W: 'a> MakeWriter<'a> for Bounded<W>
where
    &'a W: Write,
{
    type Writer = Line<&'a W>;

    fn make_writer(&'a self) -> Self::Writer {
        // Only reached for what is no event, of which there is none.
        Line {
            to: &self.to,
            fate: Fate::Written,
            place: None,
            level: Level::ERROR,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        // The lock is not held while the line is written, which can take as long as who reads it likes.
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Line {
            to: &self.to,
            fate: counts.next(metadata),
            place: metadata
                .file()
                .zip(metadata.line())
                .map(|(file, line)| format!("{file}:{line}")),
            level: *metadata.level(),
        }
    }
}

/// Takes one line, whole.
struct Line<W> {
    to: W,
    fate: Fate,
    /// Where in the source it comes from.
    place: Option<String>,
    level: Level,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = match self.fate {
            Fate::LeftOut => return Ok(line.len()),
            Fate::Written if line.len() <= LENGTH => {
                return self.to.write_all(line).map(|()| line.len());
            }
            Fate::Written => {
                let (kept, left) = line.split_at(LENGTH);
                let note = format!("... ({} more bytes)\n", left.len());
                [kept, note.as_bytes()].concat()
            }
            Fate::LastOfItsKind => {
                let place = self.place.as_deref().unwrap_or("an unknown place");
                self.note(line, &format!("more than {LINES_OF_A_KIND} such lines ({place}): further ones are left out"))
            }
            Fate::LastOfAll => self.note(
                line,
                &format!("more than {LINES} lines: all further ones but errors are left out"),
            ),
        };
        self.to.write_all(&text).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W> Line<W> {
    /// `line` with `text` in the place of what it says: what comes before, the time for one, ends with the level.
    fn note(&self, line: &[u8], text: &str) -> Vec<u8> {
        let level = self.level.as_str().as_bytes();
        let at = line.windows(level.len()).position(|part| part == level);
        let head = at
            .and_then(|at| line.get(..at + level.len()))
            .unwrap_or(level);
        [head, b" ", text.as_bytes(), b"\n"].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// What is written to a log while `work` is done.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        let path =
            std::env::temp_dir().join(format!("ringfence-log-{:?}", std::thread::current().id()));
        let file = File::create(&path).expect("a file");
        let subscriber = tracing_subscriber::fmt()
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .with_max_level(Level::DEBUG)
            .with_writer(Bounded::new(file))
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = fs::read_to_string(&path).expect("the log");
        fs::remove_file(&path).expect("removed");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_of_a_kind_are_bounded_at_every_level_and_do_not_hide_others() {
        let lines = logged(|| {
            for number in 0..3000 {
                tracing::debug!("debug {number}");
                tracing::warn!("warn {number}");
                tracing::error!("error {number}");
            }
            tracing::info!("another");
        });
        assert_eq!(lines.len(), 3 * 1025 + 1);
        assert_eq!(lines[3 * 1024 - 1], "ERROR error 1023");
        for (line, level) in lines[3 * 1024..].iter().zip(["DEBUG", " WARN", "ERROR"]) {
            let start = format!("{level} more than 1024 such lines (");
            assert!(line.starts_with(&start), "{line}");
            assert!(line.ends_with("): further ones are left out"), "{line}");
        }
        assert_eq!(lines.last().map(String::as_str), Some(" INFO another"));
    }

    #[test]
    fn lines_are_bounded_in_all_but_for_errors() {
        macro_rules! kinds {
            ($number:expr, $($_kind:literal)*) => { $(tracing::debug!("{} {}", $_kind, $number);)* };
        }
        let lines = logged(|| {
            for number in 0..1000 {
                kinds!(number, 0 1 2 3 4 5 6 7 8 9);
            }
            tracing::warn!("too late");
            tracing::error!("this matters");
        });
        let note = "DEBUG more than 8192 lines: all further ones but errors are left out";
        assert_eq!(lines.len(), 8194);
        assert_eq!(lines[8192], note);
        assert_eq!(lines[8193], "ERROR this matters");
    }

    #[test]
    fn a_line_has_an_end() {
        let lines = logged(|| tracing::warn!("{}", "x".repeat(5000)));
        let expected = format!(" WARN {}... (3983 more bytes)", "x".repeat(1018));
        assert_eq!(lines, [expected]);
    }
}
