//! What sentry and servers write for the user goes by pipes: messages, the log, a trace, a recording.
//!
//! The idea: whoever holds a terminal can read what is typed there, and whoever holds a file can shorten and rewrite it.
//! So neither a sentry nor a server holds anything that its caller has open. Each has the ends of pipes, by which nothing can
//! be done but to add to what was written, and the launcher, which is the caller's own, copies from there. Of messages and the
//! log it makes text that is fit to be shown (`visible.rs`); all else it copies unread.
//!
//! Nobody waits for the launcher while a program runs, which may be stopped, or be kept waiting itself by who reads its
//! stderr: messages that nobody takes are left out and counted (`log.rs`), and so are requests in a trace
//! (`sentry/tracer`). Only at the end of a sandbox, when there is no program to hinder, the sentry waits, for as long as the
//! launcher copies.
//!
//! The launcher writes its own messages to these pipes, too, so that it is kept waiting by nobody who reads them. A thread for
//! each pipe copies (`copying.rs`), as long as somebody takes what it copies.
//!
//! Messages on stderr are to stand before what comes of them: a refusal before the program's own complaint. So whoever writes
//! one waits for a moment until it was shown. The pipe for them holds one page, and so has room again only when it is empty;
//! and what is in it is taken out when it was written.
//!
//! `unsafe` is here because descriptors are put in the place of others, and everything else is closed, whoever owns it.

#![allow(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use ringfence_faults::{Act, Point, number};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::log;
use ringfence_sentry::remedies;

use super::copying::{Copied, Copier, Pace, Source, is_own_bound};
use super::{Options, descriptors};

/// Most bytes that all processes of a sandbox get to write to stderr, or to the log. Those that keep to the bounds of
/// `log.rs` need a fraction.
const MESSAGES: u32 = 64 << 20;
/// The same for a trace and a recording, which have bounds of their own.
const FILES: u64 = (1 << 30) + (1 << 20);
/// The size of the pipe for messages.
const PAGE: libc::c_int = 4096;

/// One of a kind for each thing that is written.
struct Each<T> {
    messages: T,
    log: Option<T>,
    trace: Option<T>,
    recording: Option<T>,
}

/// Where processes get their ends of the pipes. It is the launcher's; until it is dropped [`Copying::finish`] waits.
pub struct Inlets(Each<PipeWriter>);

/// The other ends.
pub struct Outlets(Each<PipeReader>);

/// What the sentry has to write to.
pub struct SentryEnds(Each<OwnedFd>);

/// What a server has, and the launcher.
pub struct ServerEnds {
    pub messages: OwnedFd,
    pub log: Option<OwnedFd>,
}

/// The pipes of a sandbox.
pub fn create(options: &Options) -> Result<(Inlets, Outlets), Failure> {
    let pipe = || io::pipe().attempt("pipe");
    let if_wanted = |wanted: bool| wanted.then(pipe).transpose();
    let (messages, messages_in) = pipe()?;
    let page = FcntlArg::F_SETPIPE_SZ(PAGE);
    fcntl(&messages, page).attempt("the size of a pipe")?;
    let (log, log_in) = if_wanted(options.log.is_some())?.unzip();
    let (trace, trace_in) = if_wanted(options.trace.is_some())?.unzip();
    let (recording, recording_in) = if_wanted(options.record.is_some())?.unzip();
    Ok((
        Inlets(Each {
            messages: messages_in,
            log: log_in,
            trace: trace_in,
            recording: recording_in,
        }),
        Outlets(Each {
            messages,
            log,
            trace,
            recording,
        }),
    ))
}

impl Inlets {
    /// Ends for the sentry.
    pub fn for_sentry(&self) -> Result<SentryEnds, Failure> {
        let Each {
            messages,
            log,
            trace,
            recording,
        } = &self.0;
        Ok(SentryEnds(Each {
            messages: unwaiting(messages)?,
            log: log.as_ref().map(unwaiting).transpose()?,
            trace: trace.as_ref().map(unwaiting).transpose()?,
            // It is written when the program has ended.
            recording: recording
                .as_ref()
                .map(|recording| end(recording, OFlag::empty()))
                .transpose()?,
        }))
    }

    /// Ends for a server, or the launcher.
    pub fn for_server(&self) -> Result<ServerEnds, Failure> {
        Ok(ServerEnds {
            messages: unwaiting(&self.0.messages)?,
            log: self.0.log.as_ref().map(unwaiting).transpose()?,
        })
    }
}

/// An end that nobody waits at, of a description of its own: whether one waits concerns all who share it.
fn unwaiting(pipe: &PipeWriter) -> Result<OwnedFd, Failure> {
    end(pipe, OFlag::O_NONBLOCK)
}

fn end(pipe: &PipeWriter, flags: OFlag) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = flags | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    open(path.as_str(), flags, Mode::empty()).attempt(path)
}

impl ServerEnds {
    /// Has this process write what it has to say to these ends until what is returned is dropped.
    pub fn divert(self) -> Diverted {
        let log = self.log.as_ref().map(AsFd::as_fd);
        // SAFETY: they are closed when nothing is written there any more.
        unsafe { log::divert(self.messages.as_fd(), log) };
        Diverted(self)
    }
}

/// Ends that this process writes to.
pub struct Diverted(#[expect(dead_code, reason = "kept open")] ServerEnds);

impl Drop for Diverted {
    fn drop(&mut self) {
        log::finish(Some(Duration::ZERO));
        log::write_directly();
    }
}

impl<T: AsRawFd> Each<T> {
    fn numbers(&self) -> impl Iterator<Item = RawFd> {
        let Each {
            messages,
            log,
            trace,
            recording,
        } = self;
        let others = [log, trace, recording].into_iter().flatten();
        others.chain([messages]).map(AsRawFd::as_raw_fd)
    }
}

impl Inlets {
    /// The numbers of what this consists of.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.numbers()
    }
}

impl Outlets {
    /// The numbers of what this consists of.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.numbers()
    }
}

impl SentryEnds {
    /// The end for messages alone.
    pub fn into_messages(self) -> OwnedFd {
        self.0.messages
    }

    /// Has this process, and those that it forks, write what they have to say to these ends, until these take their places.
    /// They are not to be dropped, also if that fails: what came of it is said by them.
    pub fn divert(&self) {
        let log = self.0.log.as_ref().map(AsFd::as_fd);
        // SAFETY: they stay open as the caller promises; what is written to none is lost.
        unsafe { log::divert(self.0.messages.as_fd(), log) };
    }

    /// Puts these ends in the place of all that the caller has open, in the sentry, and closes everything else but `needed`.
    ///
    /// # Safety
    ///
    /// Nobody in this process uses any other descriptor from now on.
    pub unsafe fn take_place(
        &self,
        options: &Options,
        needed: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        log::write_directly();
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Descriptors) == Some(Act::Drop) {
            return Ok(());
        }
        let Each {
            messages,
            log,
            trace,
            recording,
        } = &self.0;
        // There is nothing to read at the end of a pipe that is there to be written to.
        let mut places: Vec<(&OwnedFd, RawFd)> = (0..3).map(|number| (messages, number)).collect();
        places.extend(log.iter().zip(log::number()));
        let traced = options.trace.as_ref().map(|output| output.file());
        places.extend(trace.iter().zip(traced.map(AsRawFd::as_raw_fd)));
        let recorded = options.record.as_ref().map(|output| output.file());
        places.extend(recording.iter().zip(recorded.map(AsRawFd::as_raw_fd)));
        for (end, number) in &places {
            // SAFETY: whoever owns the number writes to it and expects nothing else of it.
            unsafe { descriptors::put_in_place(end, *number) }?;
        }
        let needed = needed.iter().map(AsRawFd::as_raw_fd);
        let kept = needed.chain(places.iter().map(|(_, number)| *number));
        let kept = kept.collect();
        // SAFETY: as the caller promises; nor are these ends used or dropped any more.
        unsafe { descriptors::close_all_but(kept) }?;
        log::confirm();
        Ok(())
    }
}

fn most_messages() -> u32 {
    number(Point::Messages, MESSAGES)
}

/// The threads that copy.
pub struct Copying(Each<Copier>);

impl Outlets {
    /// Starts to copy to what the caller has open. Everything is copied until all who could write have ended, whatever
    /// becomes of it.
    pub fn copy(self, options: &Options, pace: &Pace) -> Result<Copying, Failure> {
        let Each {
            messages,
            log,
            trace,
            recording,
        } = self.0;
        let count = [&log, &trace, &recording].into_iter().flatten().count();
        // This thread, and one for each pipe.
        let started = Arc::new(Barrier::new(2 + count));
        let copy = |from: Source, to: BorrowedFd<'_>, most: u64, what: &'static str| {
            Copier::start(from, to, most, what, Arc::clone(&started))
        };
        let stderr = io::stderr();
        // SAFETY: the log stays open as long as the process lives.
        let log_file = log::number().map(|number| unsafe { BorrowedFd::borrow_raw(number) });
        let trace_file = options.trace.as_ref().map(|output| output.file().as_fd());
        let recording_file = options.record.as_ref().map(|output| output.file().as_fd());
        let if_wanted = |from: Option<PipeReader>, to: Option<BorrowedFd<'_>>, most, what| {
            let ends = from.zip(to);
            let source = |pipe| Source::new(pipe, what == "log", None);
            ends.map(|(pipe, to)| copy(source(pipe), to, most, what))
                .transpose()
        };
        let look = io::pipe().attempt("pipe")?;
        let shown = Source::new(messages, true, Some(look));
        let most = most_messages().into();
        let copying = Copying(Each {
            messages: copy(shown, stderr.as_fd(), most, "stderr")?,
            log: if_wanted(log, log_file, most, "log")?,
            trace: if_wanted(trace, trace_file, FILES, "trace")?,
            recording: if_wanted(recording, recording_file, FILES, "recording")?,
        });
        let Each {
            messages,
            log,
            trace,
            recording,
        } = &copying.0;
        let others = [log, trace, recording].into_iter().flatten();
        pace.watch([messages].into_iter().chain(others))?;
        started.wait();
        Ok(copying)
    }
}

impl Copying {
    /// Waits until everything is copied: until whoever could write has ended. Fails if there is no whole recording. What goes
    /// to no file is waited for only as long as something of it is taken; a pipe that the sandbox has given to somebody outside,
    /// only as long as something comes.
    pub fn finish(self, options: &Options, pace: &Pace) -> Result<(), Failure> {
        let Each {
            messages,
            log,
            trace,
            recording,
        } = self.0;
        let others = [&log, &trace, &recording].into_iter().flatten();
        let all: Vec<&Copier> = [&messages].into_iter().chain(others).collect();
        Copier::wait_for_all(&all, pace);
        let end = |copier: Copier| copier.end(pace);
        for (copier, what) in [(Some(messages), "stderr"), (log, "--log")] {
            let error = copier.and_then(end).and_then(|copied| copied.error);
            match (error, &options.log) {
                (Some(error), _) if is_own_bound(&error) => {
                    tracing::warn!(
                        "{what}: sentry and server wrote more than {} bytes: what followed is missing",
                        most_messages()
                    );
                }
                // Of stderr nobody could be told there, and the log is no place to say it, either.
                (Some(error), Some(path)) if what == "--log" => {
                    let path = path.display();
                    let error = remedies::spelled(&error.to_string());
                    let line =
                        format!("ringfence: --log {path}: {error}: what follows is missing\n");
                    log::print_last(&line, log::UNTAKEN);
                }
                _ => {}
            }
        }
        if let Some(Copied { bytes, error }) = trace.and_then(end)
            && let (Some(error), Some(output)) = (error, &options.trace)
        {
            output.cut(bytes, &error);
        }
        let (Some(recording), Some(output)) = (recording, &options.record) else {
            return Ok(());
        };
        match end(recording).map(|copied| copied.error) {
            Some(None) => Ok(()),
            Some(Some(error)) => Err(output.failure(&error)),
            None => Err(output.failure(&"somebody outside can still write to it")),
        }
    }
}
