//! A thread of the launcher copies what comes by one pipe to what the caller has open, and is watched while it does.
//!
//! The idea: what the caller has open need not be a file. It may be a pipe that nobody reads, or a terminal that is held, and
//! then a write there does not return. So each thread counts its writes, when they begin and when they end. The launcher's
//! first thread looks at these numbers ([`Pace`]). If nothing was taken for a while after the program's end, it puts an end
//! of a pipe that nobody writes to in the place of the one that is copied from. Whoever writes there, or waits for room, finds
//! that nobody reads, and goes on. The thread that copies is left behind, and ends with the launcher.
//!
//! From the moment at which all threads have started until nobody is left who could write, they take no memory and no lock,
//! so that the launcher can fork as if it had one thread.
//!
//! `unsafe` is here because one descriptor is put in the place of another, which has an owner.

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_faults::{Act, Point};
use ringfence_sentry::failure::{A_THREAD, Attempt, Failure};
use ringfence_sentry::{log, visible};
use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{SpliceFlags, tee};

use super::descriptors;

/// So many bytes are copied at once: as much as a pipe holds, so that what was written at once is not torn.
const PIECE: usize = 64 << 10;
/// So often is looked at the end whether something is still being copied: more often than it takes to empty a pipe.
const MOST_LOOKS: u32 = 4;
/// What it ends with if there is more to copy than was allowed.
const OWN_BOUND: io::ErrorKind = io::ErrorKind::FileTooLarge;
/// Enough for a thread that calls read and write.
pub const STACK: usize = 128 << 10;

/// A thread that copies.
pub struct Copier {
    thread: JoinHandle<Copied>,
    /// Can be read when the thread has ended.
    ended: OwnedFd,
    /// What it has done so far.
    progress: Arc<Progress>,
    /// Whether it writes to a file, which takes all.
    is_to_file: bool,
}

/// What came of one.
#[derive(Default)]
pub struct Copied {
    /// How many bytes were written, always all that came at once.
    pub bytes: u64,
    /// Why no more were.
    pub error: Option<io::Error>,
}

/// How far a thread is. Its end of the pipe is here, so that it stays what it is while it is looked at.
struct Progress {
    pipe: PipeReader,
    /// How many writes have begun and how many have ended, in all: odd while something is being written.
    steps: AtomicU64,
    /// Whether nobody takes anything, and it was given up.
    is_given_up: AtomicBool,
}

/// Whether something is being written after so many steps.
fn is_in_write(steps: u64) -> bool {
    steps % 2 == 1
}

impl Progress {
    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let written = write();
        self.steps.fetch_add(1, Ordering::Relaxed);
        written
    }

    /// Puts `nothing` in the place of the pipe, once.
    fn give_up(&self, nothing: &OwnedFd) {
        if !self.is_given_up.swap(true, Ordering::Relaxed) {
            let number = self.pipe.as_raw_fd();
            // SAFETY: who reads there goes on at the end of any pipe.
            let _ = unsafe { descriptors::put_in_place(nothing, number) };
        }
    }
}

/// Whether the launcher is kept waiting by who takes what it copies, and for how long it lets itself be.
#[derive(Default)]
pub struct Pace {
    watched: OnceCell<Vec<Watched>>,
    is_asked: Cell<bool>,
    /// What takes the place of an end that is closed: one of a pipe that nobody writes to.
    nothing: OnceCell<OwnedFd>,
}

/// A thread that is watched.
struct Watched {
    progress: Arc<Progress>,
    is_to_file: bool,
    /// The steps that were seen last, and for how long there were no others.
    seen: Cell<(u64, Duration)>,
}

impl Pace {
    /// Watches these threads.
    pub fn watch<'a>(&self, copiers: impl Iterator<Item = &'a Copier>) -> Result<(), Failure> {
        let (nothing, _) = io::pipe().attempt("pipe")?;
        self.nothing.get_or_init(|| nothing.into());
        let watched = copiers.map(|copier| Watched {
            progress: Arc::clone(&copier.progress),
            is_to_file: copier.is_to_file,
            seen: Cell::default(),
        });
        self.watched.get_or_init(|| watched.collect());
        Ok(())
    }

    /// Somebody asks for the end, or has ended the program: it would not have waited any longer, either.
    pub fn hurry(&self) {
        self.is_asked.set(true);
    }

    pub fn is_hurried(&self) -> bool {
        self.is_asked.get()
    }

    /// How long nothing may be taken until it is given up; `None` if it never is.
    pub fn patience(&self) -> Option<Duration> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Untaken) == Some(Act::Drop) {
            return None;
        }
        Some(match self.is_hurried() {
            true => log::GRACE,
            false => log::UNTAKEN,
        })
    }

    /// Whether something is being written to a file at this moment.
    pub fn is_writing(&self) -> bool {
        let mut watched = self.watched.get().into_iter().flatten();
        watched.any(|watched| watched.is_to_file && is_in_write(watched.progress.steps()))
    }

    /// Gives up what nobody takes. So much time has gone by since the last look.
    pub fn look(&self, elapsed: Duration) {
        let Some(patience) = self.patience() else {
            return;
        };
        for watched in self.watched.get().into_iter().flatten() {
            if watched.held_for(elapsed) >= patience
                && let Some(nothing) = self.nothing.get()
            {
                watched.progress.give_up(nothing);
            }
        }
    }
}

impl Watched {
    /// For how long it has been waiting in the same write, now that so much time has gone by since the last look. A file
    /// takes all in the end.
    fn held_for(&self, elapsed: Duration) -> Duration {
        let steps = self.progress.steps();
        let (seen, before) = self.seen.get();
        let is_held = !self.is_to_file && is_in_write(steps) && steps == seen;
        let since = match is_held {
            true => before + elapsed,
            false => Duration::ZERO,
        };
        self.seen.set((steps, since));
        since
    }
}

/// Copies until nobody is left who could write. Takes no memory and no lock once it has `started`. Text is made fit to be
/// shown.
fn copy_all(mut source: Source, mut to: File, most: u64, started: &Barrier) -> Copied {
    let mut piece = vec![0; PIECE];
    let mut text = source.is_text.then(|| visible::Stream::new(PIECE));
    let mut copied = Copied::default();
    started.wait();
    loop {
        let length = match source.look(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return copied,
        };
        let taken = piece.get_mut(..length).unwrap_or_default();
        if copied.error.is_none() {
            let shown = match &mut text {
                Some(text) if taken.is_empty() => text.rest(),
                Some(text) => text.next(taken),
                None => taken,
            };
            let bytes = copied.bytes + shown.len() as u64;
            let written = if bytes > most {
                Err(OWN_BOUND.into())
            } else {
                source.progress.while_writing(|| write_all(&mut to, shown))
            };
            match written {
                Ok(()) => copied.bytes = bytes,
                Err(error) => copied.error = Some(error),
            }
        }
        if taken.is_empty() {
            return copied;
        }
        source.take(taken);
    }
}

/// Whether this came of the most that was to be copied. A file that the kernel lets grow no further ends with the same kind of
/// error, and a number.
pub fn is_own_bound(error: &io::Error) -> bool {
    error.kind() == OWN_BOUND && error.raw_os_error().is_none()
}

/// Writes all of it. The program has the caller's description, perhaps, and has it not wait: then it is waited for here.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                log::wait_for_room(to.as_fd(), None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A pipe that is copied from.
pub struct Source {
    progress: Arc<Progress>,
    /// Whether it brings text that is to be shown.
    is_text: bool,
    /// By which is looked at what is in the pipe, where whoever writes waits until that was copied.
    look: Option<(PipeReader, PipeWriter)>,
}

impl Source {
    /// By `look` whoever writes waits until it was copied.
    pub fn new(pipe: PipeReader, is_text: bool, look: Option<(PipeReader, PipeWriter)>) -> Source {
        let steps = AtomicU64::new(0);
        Source {
            progress: Arc::new(Progress {
                pipe,
                steps,
                is_given_up: AtomicBool::new(false),
            }),
            is_text,
            look,
        }
    }

    /// What is in the pipe, at most as much as `piece` holds.
    fn look(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let mut pipe = &self.progress.pipe;
        let Some((look, into)) = &mut self.look else {
            return pipe.read(piece);
        };
        let length = tee(pipe, &*into, piece.len(), SpliceFlags::empty())?;
        look.read_exact(piece.get_mut(..length).unwrap_or_default())?;
        Ok(length)
    }

    /// Makes room for as much as was looked at.
    fn take(&mut self, looked_at: &mut [u8]) {
        if self.look.is_some() {
            // It is there, and nobody else takes it.
            let mut pipe = &self.progress.pipe;
            let _ = pipe.read_exact(looked_at);
        }
    }
}

impl Copier {
    /// Starts to copy at most so many bytes from there to `to`, once all have `started`.
    pub fn start(
        from: Source,
        to: BorrowedFd<'_>,
        most: u64,
        what: &'static str,
        started: Arc<Barrier>,
    ) -> Result<Copier, Failure> {
        let to = File::from(to.try_clone_to_owned().attempt(what)?);
        let is_to_file = to.metadata().is_ok_and(|status| status.is_file());
        let progress = Arc::clone(&from.progress);
        let ended = eventfd(0, EventfdFlags::CLOEXEC).attempt("eventfd")?;
        let end = ended.try_clone().attempt("eventfd")?;
        let thread = thread::Builder::new()
            .name(what.to_owned())
            .stack_size(STACK);
        let thread = thread.spawn(move || {
            let copied = copy_all(from, to, most, &started);
            // It has room for one.
            let _ = nix::unistd::write(&end, &1u64.to_ne_bytes());
            copied
        });
        Ok(Copier {
            thread: thread.attempt(A_THREAD)?,
            ended,
            progress,
            is_to_file,
        })
    }

    /// What came of it, once it was [waited for](Self::wait_for_all); `None` if there is nothing more to be expected of it
    /// before it ends.
    pub fn end(self, pace: &Pace) -> Option<Copied> {
        let ends = pace.patience().is_none() || is_any_ready(&[&self.ended], Duration::ZERO);
        // These threads do not panic.
        ends.then(|| self.thread.join().unwrap_or_default())
    }

    /// Waits until all have ended of which something is to be expected. All of them are waited for at the same time, so that
    /// who holds many is not waited for longer than who holds one.
    pub fn wait_for_all(copiers: &[&Copier], pace: &Pace) {
        let Some(patience) = pace.patience() else {
            return;
        };
        let awaited = copiers.iter().map(|copier| Awaited::new(copier, patience));
        let mut awaited: Vec<Awaited<'_>> = awaited.collect();
        while let Some(first) = awaited.iter().map(|awaited| awaited.until).min() {
            let ends: Vec<_> = awaited.iter().map(|it| &it.copier.ended).collect();
            let limit = first.saturating_duration_since(Instant::now());
            is_any_ready(&ends, limit);
            awaited.retain_mut(|awaited| awaited.goes_on(patience));
        }
    }
}

/// Whether one of these can be read, at the latest after so long; false as well if a signal came first.
fn is_any_ready(descriptors: &[&OwnedFd], limit: Duration) -> bool {
    let polled = descriptors.iter();
    let polled = polled.map(|descriptor| PollFd::new(descriptor.as_fd(), PollFlags::POLLIN));
    let mut polled: Vec<_> = polled.collect();
    // Rounded up, so that it is over then.
    let limit = match limit.is_zero() {
        true => limit,
        false => limit + Duration::from_millis(1),
    };
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    poll(&mut polled, limit).is_ok_and(|ready| ready > 0)
}

/// A thread that is waited for. All who could write have ended, so there is no more to copy than what a pipe holds, unless
/// the sandbox has given the pipe to somebody outside, who holds it, or goes on writing.
struct Awaited<'a> {
    copier: &'a Copier,
    /// How far it was at the last look.
    steps: u64,
    looks: u32,
    /// When it is looked at next.
    until: Instant,
}

impl<'a> Awaited<'a> {
    fn new(copier: &'a Copier, patience: Duration) -> Awaited<'a> {
        let limit = match copier.progress.is_given_up.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => patience,
        };
        Awaited {
            copier,
            steps: copier.progress.steps(),
            looks: 0,
            until: Instant::now() + limit,
        }
    }

    /// Whether it is to be waited for any longer.
    fn goes_on(&mut self, patience: Duration) -> bool {
        if is_any_ready(&[&self.copier.ended], Duration::ZERO) {
            return false;
        }
        if Instant::now() < self.until {
            return true;
        }
        let steps = self.copier.progress.steps();
        let is_moving = steps != self.steps;
        // A file takes all in the end.
        let is_held_by_file = !is_moving && self.copier.is_to_file && is_in_write(steps);
        self.looks += u32::from(!is_held_by_file);
        self.steps = steps;
        self.until = Instant::now() + patience;
        is_held_by_file || (is_moving && self.looks < MOST_LOOKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of this text where so many bytes may be, and whether something is missing.
    fn copied(text: &[u8], most: u64) -> (String, bool) {
        let ((from, mut said), (mut shown, to)) = (io::pipe().unwrap(), io::pipe().unwrap());
        said.write_all(text).unwrap();
        drop(said);
        let to = File::from(OwnedFd::from(to));
        let source = Source::new(from, true, None);
        let copied = copy_all(source, to, most, &Barrier::new(1));
        let mut text = String::new();
        shown.read_to_string(&mut text).unwrap();
        assert_eq!(copied.bytes, text.len() as u64);
        (text, copied.error.is_some())
    }

    #[test]
    fn what_is_shown_is_bounded_as_it_is_shown() {
        assert_eq!(copied(b"a\x1b", 7), ("a\\u{1b}".to_owned(), false));
        assert_eq!(copied(b"a\x1b", 6), (String::new(), true));
        // The first byte of a character is shown as a number when nothing follows.
        assert_eq!(copied(b"a\xc3", 5), ("a\\xc3".to_owned(), false));
        assert_eq!(copied(b"a\xc3", 4), ("a".to_owned(), true));
    }
}
