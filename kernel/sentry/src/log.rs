//! Ringfence's own log: where it goes, and how much of it there can be.
//!
//! The idea: a program can cause most lines as often as it likes, so no place that writes one has to care. The log itself
//! counts them, by kind, which is the place in the source that they come from, and in all. Beyond a bound they are left
//! out, and a line says so once. Errors are bounded by kind alone, so that nothing a program floods the log with hides them.
//!
//! Each process counts its own lines.
//!
//! Sentry and servers write to a pipe of the launcher's, which may not take what they write (`launch/pipes.rs`). They wait
//! for it once, for [`GRACE`]. On stderr that is until a line was shown, so that it stands before what comes of it: the pipe for
//! messages has room again when all was. From then on lines that find no room are left out, and the next one that does comes
//! after one that says how many. A line is shorter than what a pipe takes at once, so it is written whole or not.
//!
//! The launcher writes to these pipes, too, while it has a sandbox ([`divert`]). Whoever reads what the caller has open may
//! stop reading, and then a line would keep the launcher from all else.
//!
//! What a process of a container's sandbox says at its end stands there as a line of the log ([`failing`]): many containers write to
//! one file, and who reads it wants to know which one has failed, and when.
//!
//! `unsafe` is here because what is written to is kept as a bare number, so that another can take its place.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::locks::IgnorePoison;
use tracing::{Level, Metadata, callsite};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// Most lines of a kind.
const LINES_OF_A_KIND: u32 = 1024;
/// Most lines in all.
const LINES: u32 = 8 << 10;
/// Most bytes of a line.
const LENGTH: usize = 1 << 10;
/// How long the launcher may take nothing until what is written for it is left out.
pub const GRACE: Duration = Duration::from_secs(1);
/// How long nobody may take what the launcher writes, once there is no program any more, until it is given up.
pub const UNTAKEN: Duration = Duration::from_secs(5);

/// Whether what is written to stderr was shown when there is room again.
static IS_CONFIRMED: AtomicBool = AtomicBool::new(false);

/// From now on the process waits until what it writes to stderr was shown. For those whose stderr is the pipe for messages.
pub fn confirm() {
    IS_CONFIRMED.store(true, Ordering::Relaxed);
}

/// Lines that found no room, since the last one that did.
static MISSING: AtomicU32 = AtomicU32::new(0);

/// The number of the log's file, if it has one.
static NUMBER: OnceLock<RawFd> = OnceLock::new();

/// The descriptors that what is for stderr is written to, and the log if it has a file.
static MESSAGES: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);
static FILE: AtomicI32 = AtomicI32::new(-1);

/// Has this process write its messages and its log to these, until [`write_directly`]. They are of descriptions at which
/// nobody waits.
///
/// # Safety
///
/// They stay open until then.
pub unsafe fn divert(messages: BorrowedFd<'_>, log: Option<BorrowedFd<'_>>) {
    MESSAGES.store(messages.as_raw_fd(), Ordering::Relaxed);
    if let Some(log) = log {
        FILE.store(log.as_raw_fd(), Ordering::Relaxed);
    }
}

/// Has this process write to stderr and the log's own number.
pub fn write_directly() {
    MESSAGES.store(libc::STDERR_FILENO, Ordering::Relaxed);
    FILE.store(number().unwrap_or(-1), Ordering::Relaxed);
}

/// Where messages go, or the log.
#[derive(Clone, Copy)]
struct Outlet(&'static AtomicI32);

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: stderr and the log are never closed, nor is what is written to in their place, as `divert` demands.
        unsafe { BorrowedFd::borrow_raw(self.0.load(Ordering::Relaxed)) }
    }
}

impl Write for &Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The number of the descriptor that the log is written to, if it has a file. It is never closed.
pub fn number() -> Option<RawFd> {
    NUMBER.get().copied()
}

/// Ahead of each line of a container's sandbox: when it was written, and for which container. Many of them write to one file.
struct OfContainer(String);

impl FormatTime for OfContainer {
    fn format_time(&self, line: &mut Writer<'_>) -> std::fmt::Result {
        SystemTime.format_time(line)?;
        write!(line, " {}", self.0)
    }
}

/// Has warnings printed to stderr, for a container of this name. To be called once, in place of [`write_to`].
pub fn write_for_container(name: &str) {
    tracing_subscriber::fmt()
        .with_target(false)
        .with_ansi(false)
        .with_timer(OfContainer(name.to_owned()))
        .with_max_level(Level::WARN)
        .with_writer(Bounded::new(Outlet(&MESSAGES)))
        .init();
}

/// The container whose log stderr is, if it is one's.
static CONTAINER: OnceLock<String> = OnceLock::new();

/// From now on all that this process says on stderr is for the log of this container's sandbox: so failures and panics are lines of it.
pub fn stderr_is_log_of(name: &str) {
    CONTAINER.get_or_init(|| name.to_owned());
    std::panic::set_hook(Box::new(|panic| {
        let text = crate::visible::escaped(&panic.to_string().replace('\n', " ")).into_owned();
        // Once, and it waits for nobody: what comes next is the process's end.
        let _ = (&Outlet(&MESSAGES)).write(failing(&text).as_bytes());
    }));
}

/// The line in which a process says what it ends of.
pub fn failing(reason: &dyn std::fmt::Display) -> String {
    match CONTAINER.get() {
        Some(name) => of_container(name, reason),
        None => format!("ringfence: {reason}\n"),
    }
}

/// An error, as a container's log has it: as tracing's own lines are.
fn of_container(name: &str, reason: &dyn std::fmt::Display) -> String {
    let mut line = String::new();
    // Text grows as it has to.
    let _ = OfContainer(name.to_owned()).format_time(&mut Writer::new(&mut line));
    format!("{line} {} {reason}\n", Level::ERROR)
}

/// Has the log appended to `file`, with debug messages, or warnings printed to stderr. To be called once.
pub fn write_to(file: Option<OwnedFd>) {
    let builder = tracing_subscriber::fmt()
        .with_target(false)
        .with_ansi(false);
    match file {
        Some(file) => {
            NUMBER.get_or_init(|| file.into_raw_fd());
            write_directly();
            builder
                .with_max_level(Level::DEBUG)
                .with_writer(Bounded::new(Outlet(&FILE)))
                .init();
        }
        None => {
            let builder = builder.without_time().with_max_level(Level::WARN);
            builder.with_writer(Bounded::new(Outlet(&MESSAGES))).init();
        }
    }
}

/// Prints all of `text` to stderr, and waits as long as it takes until it is taken. For what a process has to say at its end.
pub fn print(text: &str) {
    let stderr = Outlet(&MESSAGES);
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match (&stderr).write(left) {
            Ok(length) => left = left.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_for_room(stderr.as_fd(), None);
            }
            // Nobody is left to tell.
            Err(_) => return,
        }
    }
}

/// The same, but does not wait longer than `limit`. For a process that is about to exit, with which a thread ends that still
/// waits.
pub fn print_last(text: &str, limit: Duration) {
    let (sender, receiver) = channel();
    let copy = text.to_owned();
    let printing = std::thread::Builder::new().spawn(move || {
        print(&copy);
        // Nobody waits any more, perhaps.
        let _ = sender.send(());
    });
    match printing {
        Ok(_) => drop(receiver.recv_timeout(limit)),
        Err(_) => print(text),
    }
}

/// Says how many lines are missing at the end, if any are, and waits until that can be taken: as long as it takes, if there
/// is no `limit`.
pub fn finish(limit: Option<Duration>) {
    let missing = MISSING.swap(0, Ordering::Relaxed);
    if missing == 0 {
        return;
    }
    let outlet = match number() {
        Some(_) => Outlet(&FILE),
        None => Outlet(&MESSAGES),
    };
    if wait_for_room(outlet.as_fd(), limit) {
        tracing::warn!("{}", left_out(missing));
    }
}

/// What stands in the place of so many lines.
fn left_out(lines: u32) -> String {
    format!("{lines} lines were left out before this: nobody took them")
}

/// Waits until something can be written to `to`, at most for `limit`; whether it can, as far as is known.
pub fn wait_for_room(to: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
    let mut polled = [PollFd::new(to, PollFlags::POLLOUT)];
    let limit = limit.map(|limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    !matches!(poll(&mut polled, limit.unwrap_or(PollTimeout::NONE)), Ok(0))
}

/// Whether a write to `to` fails where it would have to wait.
fn is_unwaiting(to: BorrowedFd<'_>) -> bool {
    fcntl(to, FcntlArg::F_GETFL).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
}

/// Writes lines to `to` as long as there are not too many.
struct Bounded<W> {
    to: W,
    counts: Mutex<Counts>,
    /// Whether it was waited for room, and there was none.
    is_behind: AtomicBool,
}

#[derive(Default)]
struct Counts {
    kinds: HashMap<callsite::Identifier, u32>,
    all: u32,
}

impl Counts {
    /// What becomes of a further line.
    fn next(&mut self, metadata: &Metadata<'_>) -> Fate {
        // A test leaves this out, to show that it would notice.
        if at(Point::Lines) == Some(Act::Drop) {
            return Fate::Written;
        }
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
            is_behind: AtomicBool::new(false),
        }
    }
}

impl<'a, W: AsFd + 'a> MakeWriter<'a> for Bounded<W>
where
    &'a W: Write,
{
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        // Only reached for what is no event, of which there is none.
        Line {
            log: self,
            fate: Fate::Written,
            place: None,
            level: Level::ERROR,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        // The lock is not held while the line is written, which can take as long as who reads it likes.
        let mut counts = self.counts.lock().ignore_poison();
        Line {
            log: self,
            fate: counts.next(metadata),
            place: metadata
                .file()
                .zip(metadata.line())
                .map(|(file, line)| format!("{file}:{line}")),
            level: *metadata.level(),
        }
    }
}

impl<W: AsFd> Bounded<W> {
    /// Whether something can be written. Waits for that, unless that was in vain before.
    fn has_room(&self) -> bool {
        let limit = match self.is_behind.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => GRACE,
        };
        let has_room = wait_for_room(self.to.as_fd(), Some(limit));
        self.is_behind.store(!has_room, Ordering::Relaxed);
        has_room
    }
}

/// Takes one line, whole.
struct Line<'a, W> {
    log: &'a Bounded<W>,
    fate: Fate,
    /// Where in the source it comes from.
    place: Option<String>,
    level: Level,
}

impl<'a, W: AsFd> Write for Line<'a, W>
where
    &'a W: Write,
{
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = match self.fate {
            Fate::LeftOut => return Ok(line.len()),
            Fate::Written if line.len() <= LENGTH => {
                self.put(line);
                return Ok(line.len());
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
        self.put(&text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.log.to).flush()
    }
}

impl<'a, W: AsFd> Line<'a, W>
where
    &'a W: Write,
{
    /// Writes `text`, and before it how many lines are missing, if there is room. If it is lost nobody is left to tell.
    fn put(&self, text: &[u8]) {
        let log = self.log;
        let missing = MISSING.swap(0, Ordering::Relaxed);
        let whole = match missing {
            0 => Cow::Borrowed(text),
            missing => [&self.note(text, &left_out(missing)), text].concat().into(),
        };
        // A write to what the caller has open may wait.
        let mut has_room = is_unwaiting(log.to.as_fd()) || log.has_room();
        while has_room {
            match (&log.to).write_all(&whole) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => has_room = log.has_room(),
                _ => {
                    if number().is_none() && IS_CONFIRMED.load(Ordering::Relaxed) {
                        log.has_room();
                    } else {
                        log.is_behind.store(false, Ordering::Relaxed);
                    }
                    return;
                }
            }
        }
        MISSING.fetch_add(missing + 1, Ordering::Relaxed);
    }
}

impl<W> Line<'_, W> {
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

    /// A path for this thread's log.
    fn own_file() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("ringfence-log-{:?}", std::thread::current().id()))
    }

    /// What is written to a log while `work` is done.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        let path = own_file();
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
    fn a_failure_stands_in_a_containers_log_as_any_error() {
        let file = own_file();
        let subscriber = tracing_subscriber::fmt()
            .with_target(false)
            .with_ansi(false)
            .with_timer(OfContainer("c".to_owned()))
            .with_writer(Bounded::new(File::create(&file).expect("a file")))
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::error!("it is over"));
        let logged = fs::read_to_string(&file).expect("the log");
        fs::remove_file(&file).expect("removed");
        let failure = of_container("c", &"it is over");
        for line in [&logged, &failure] {
            let (time, rest) = line.split_once(' ').expect("a time");
            assert_eq!((time.len(), rest), (27, "c ERROR it is over\n"), "{line}");
        }
    }

    /// In a process of its own, whose end it is.
    #[test]
    fn a_panic_is_one_line_of_a_containers_log() {
        const ASKED: &str = "RINGFENCE_TEST_PANICS";
        if std::env::var_os(ASKED).is_some() {
            stderr_is_log_of("c");
            panic!("one\nother");
        }
        let own = std::env::current_exe().expect("this program");
        let mut command = std::process::Command::new(own);
        command.args([
            "--exact",
            "log::tests::a_panic_is_one_line_of_a_containers_log",
        ]);
        let output = command.env(ASKED, "").output().expect("it runs");
        let said = String::from_utf8(output.stderr).expect("text");
        let line = said.lines().find(|line| line.contains("one other"));
        let (time, rest) = line.and_then(|line| line.split_once(' ')).expect(&said);
        assert!(
            time.len() == 27 && rest.starts_with("c ERROR panicked at "),
            "{said}"
        );
        assert!(!output.status.success());
    }

    #[test]
    fn a_line_has_an_end() {
        let lines = logged(|| tracing::warn!("{}", "x".repeat(5000)));
        let expected = format!(" WARN {}... (3983 more bytes)", "x".repeat(1018));
        assert_eq!(lines, [expected]);
    }
}
