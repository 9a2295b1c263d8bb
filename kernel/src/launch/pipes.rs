//! What sentry and servers write for the user goes by pipes: messages, the log, a trace, a recording.
//!
//! The idea: whoever holds a terminal can read what is typed there, and whoever holds a file can shorten and rewrite it.
//! So neither a sentry nor a server holds anything that its caller has open. Each has the ends of pipes, by which nothing can
//! be done but to add to what was written, and the launcher, which is the caller's own, copies from there. Of messages and the
//! log it makes text that is fit to be shown (`visible.rs`); all else it copies unread.
//!
//! Nobody waits for the launcher while a program runs, which may be stopped, or be kept waiting itself by who reads its
//! stderr: messages that nobody takes are left out and counted (`log.rs`), and so are requests in a trace
//! (`sentry/tracer`). Only at the end of a sandbox, when there is no program to hinder, the sentry waits.
//!
//! Messages on stderr are to stand before what comes of them: a refusal before the program's own complaint. So whoever writes
//! one waits for a moment until it was shown. The pipe for them holds one page, and so has room again only when it is empty;
//! and what is in it is taken out when it was written.
//!
//! In the launcher a thread for each pipe copies. From the moment at which [`Outlets::copy`] returns until nobody is left
//! who could write, these threads take no memory and no lock, so that the launcher can fork as if it had one thread.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use ringfence_faults::{Act, Point, number};
use rustix::pipe::{SpliceFlags, tee};

use super::{Options, descriptors};
use crate::failure::{Attempt, Failure};
use crate::log;
use crate::visible;

/// Most bytes that all processes of a sandbox get to write to stderr, or to the log. Those that keep to the bounds of
/// `log.rs` need a fraction.
const MESSAGES: u32 = 64 << 20;
/// The same for a trace and a recording, which have bounds of their own.
const FILES: u64 = (1 << 30) + (1 << 20);
/// So many bytes are copied at once: as much as a pipe holds, so that what was written at once is not torn.
const PIECE: usize = 64 << 10;
/// The size of the pipe for messages.
const PAGE: libc::c_int = 4096;
/// Enough for a thread that calls read and write.
pub const STACK: usize = 128 << 10;

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

/// What a server has.
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

    /// Ends for a server.
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
    open(path.as_str(), flags, Mode::empty()).attempt("a pipe's end")
}

impl SentryEnds {
    /// Puts these ends in the place of all that the caller has open, in the sentry, and closes everything else but `needed`.
    ///
    /// # Safety
    ///
    /// Nobody in this process uses any other descriptor from now on.
    pub unsafe fn take_place(
        self,
        options: &Options,
        needed: &[BorrowedFd<'_>],
    ) -> Result<(), Failure> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Descriptors) == Some(Act::Drop) {
            return Ok(());
        }
        let Each {
            messages,
            log,
            trace,
            recording,
        } = self.0;
        // There is nothing to read at the end of a pipe that is there to be written to.
        let mut places: Vec<(&OwnedFd, RawFd)> = (0..3).map(|number| (&messages, number)).collect();
        places.extend(log.iter().zip(log::number()));
        let traced = options.trace.as_ref().map(|output| output.file().0);
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
        drop((messages, log, trace, recording));
        // SAFETY: as the caller promises.
        unsafe { descriptors::close_all_but(kept) }?;
        log::confirm();
        Ok(())
    }
}

fn most_messages() -> u32 {
    number(Point::Messages, MESSAGES)
}

/// The threads that copy.
pub struct Copying(Each<JoinHandle<Copied>>);

/// What came of one of them.
struct Copied {
    /// How many bytes were copied, always all that was written at once.
    bytes: u64,
    /// Why no more were.
    error: Option<io::Error>,
}

/// Whether the launcher is kept waiting by who takes what it copies.
#[derive(Clone, Default)]
pub struct Pace(Arc<AtomicU32>);

impl Pace {
    /// Whether something is being written at this moment.
    pub fn is_writing(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn while_writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        let written = write();
        self.0.fetch_sub(1, Ordering::Relaxed);
        written
    }
}

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
            let to = File::from(to.try_clone_to_owned().attempt(what)?);
            let started = Arc::clone(&started);
            let pace = pace.clone();
            let thread = thread::Builder::new()
                .name(what.to_owned())
                .stack_size(STACK);
            thread
                .spawn(move || copy_all(from, to, most, &started, &pace))
                .attempt("a thread")
        };
        let stderr = io::stderr();
        // SAFETY: the log stays open as long as the process lives.
        let log_file = log::number().map(|number| unsafe { BorrowedFd::borrow_raw(number) });
        let trace_file = options.trace.as_ref().map(|output| output.file().0.as_fd());
        let recording_file = options.record.as_ref().map(|output| output.file().as_fd());
        let if_wanted = |from: Option<PipeReader>, to: Option<BorrowedFd<'_>>, most, what| {
            let ends = from.zip(to);
            let source = |pipe| Source {
                pipe,
                is_text: what == "log",
                look: None,
            };
            ends.map(|(pipe, to)| copy(source(pipe), to, most, what))
                .transpose()
        };
        let shown = Source {
            pipe: messages,
            is_text: true,
            look: Some(io::pipe().attempt("pipe")?),
        };
        let most = most_messages().into();
        let copying = Copying(Each {
            messages: copy(shown, stderr.as_fd(), most, "stderr")?,
            log: if_wanted(log, log_file, most, "log")?,
            trace: if_wanted(trace, trace_file, FILES, "trace")?,
            recording: if_wanted(recording, recording_file, FILES, "recording")?,
        });
        started.wait();
        Ok(copying)
    }
}

/// Copies until nobody is left who could write. Takes no memory and no lock once it has `started`. Text is made fit to be
/// shown.
fn copy_all(mut source: Source, mut to: File, most: u64, started: &Barrier, pace: &Pace) -> Copied {
    let mut piece = vec![0; PIECE];
    let mut text = source.is_text.then(|| visible::Stream::new(PIECE));
    let mut copied = Copied {
        bytes: 0,
        error: None,
    };
    started.wait();
    loop {
        let length = match source.look(&mut piece) {
            Ok(0) => {
                // Nobody waits for this, nor needs to know whether it was written.
                let rest = text.as_mut().map(visible::Stream::rest);
                let _ = to.write_all(rest.unwrap_or_default());
                return copied;
            }
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return copied,
        };
        let taken = piece.get_mut(..length).unwrap_or_default();
        if copied.error.is_none() {
            let bytes = copied.bytes + length as u64;
            let written = if bytes > most {
                Err(io::ErrorKind::FileTooLarge.into())
            } else {
                let shown = match &mut text {
                    Some(text) => text.next(taken),
                    None => taken,
                };
                pace.while_writing(|| to.write_all(shown))
            };
            match written {
                Ok(()) => copied.bytes = bytes,
                Err(error) => copied.error = Some(error),
            }
        }
        source.take(taken);
    }
}

/// A pipe that is copied from.
struct Source {
    pipe: PipeReader,
    /// Whether it brings text that is to be shown.
    is_text: bool,
    /// By which is looked at what is in the pipe, where whoever writes waits until that was copied.
    look: Option<(PipeReader, PipeWriter)>,
}

impl Source {
    /// What is in the pipe, at most as much as `piece` holds.
    fn look(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let Some((look, into)) = &mut self.look else {
            return self.pipe.read(piece);
        };
        let length = tee(&self.pipe, &*into, piece.len(), SpliceFlags::empty())?;
        look.read_exact(piece.get_mut(..length).unwrap_or_default())?;
        Ok(length)
    }

    /// Makes room for as much as was looked at.
    fn take(&mut self, looked_at: &mut [u8]) {
        if self.look.is_some() {
            // It is there, and nobody else takes it.
            let _ = self.pipe.read_exact(looked_at);
        }
    }
}

impl Copying {
    /// Waits until everything is copied: until whoever could write has ended. Fails if there is no whole recording.
    pub fn finish(self, options: &Options) -> Result<(), Failure> {
        let Each {
            messages,
            log,
            trace,
            recording,
        } = self.0;
        let end = |thread: JoinHandle<Copied>| {
            // These threads do not panic.
            thread.join().unwrap_or(Copied {
                bytes: 0,
                error: None,
            })
        };
        for (thread, what) in [(Some(messages), "stderr"), (log, "--log")] {
            if let Some(error) = thread.and_then(|thread| end(thread).error)
                && error.kind() == io::ErrorKind::FileTooLarge
            {
                tracing::warn!(
                    "{what}: sentry and server wrote more than {} bytes: what followed is missing",
                    most_messages()
                );
            }
        }
        if let (Some(thread), Some(output)) = (trace, &options.trace) {
            let Copied { bytes, error } = end(thread);
            if let Some(error) = error {
                output.cut(bytes, &error);
            }
        }
        match recording.map(end).zip(options.record.as_ref()) {
            Some((
                Copied {
                    error: Some(error), ..
                },
                output,
            )) => Err(output.failure(&error)),
            _ => Ok(()),
        }
    }
}
