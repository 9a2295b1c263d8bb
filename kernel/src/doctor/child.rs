//! Processes in which to try things: what they break or enter ends with them.
//!
//! A child ends by a time limit at the latest, and what it started ends with it: it leads a process group, and is killed
//! when its parent ends.
//!
//! `unsafe` is here because of fork(2), after which a process may go on as if nothing had happened only if it had one
//! thread. That is looked up first.

#![allow(unsafe_code)]

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pause, setpgid};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::system_calls::exit_at_once;

use crate::launch::namespaces::fork_into_user_namespace;

/// How long a probe may take. All take milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes: less than what a pipe takes in one piece (pipe(7)).
const MAXIMUM_ANSWER: usize = 2048;
/// The first byte of an answer.
const SUCCEEDED: u8 = b'+';
const FAILED: u8 = b'-';

/// Where a child lives.
#[derive(Clone, Copy)]
pub enum Place {
    /// In the caller's namespaces.
    Here,
    /// In a user namespace of its own, as the sentry does, and in these others.
    Inside(CloneFlags),
}

/// Runs `probe` in a child and returns what it returned, which is cut to 2 KiB.
pub fn attempt(place: Place, probe: fn() -> Result<String, Failure>) -> Result<String, Failure> {
    let (answer, report) = std::io::pipe().attempt("pipe")?;
    let child = start(place, || {
        // The limit holds for what the probe itself starts, too.
        let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
        tell(&probe(), report);
    })?;
    // The child does the same; whoever is first, it is done before it can matter.
    let _ = setpgid(child, child);
    let answer = read_answer(answer, Instant::now() + LIMIT);
    let _ = killpg(child, Signal::SIGKILL);
    end(child);
    answer
}

/// Starts a child that runs `body` and then idles, as a task that the caller supervises; calls `examine` with its
/// number; and ends it.
pub fn with_task<T>(
    body: impl FnOnce(),
    examine: impl FnOnce(Pid) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let task = start(Place::Here, || {
        body();
        loop {
            pause();
        }
    })?;
    let result = examine(task);
    end(task);
    result
}

/// Forks a child that runs `body`, ends when this process does, and returns to nothing of the caller's.
fn start(place: Place, body: impl FnOnce()) -> Result<Pid, Failure> {
    let threads = fs::read_dir("/proc/self/task").attempt("/proc/self/task")?;
    if threads.count() != 1 {
        return Err(Failure::setup("a process with threads cannot try this"));
    }
    match place {
        // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
        Place::Here => match unsafe { fork() }.attempt("fork")? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => run(body),
        },
        Place::Inside(namespaces) => match fork_into_user_namespace(namespaces, None)? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => run(body),
        },
    }
}

fn run(body: impl FnOnce()) -> ! {
    if set_pdeathsig(Signal::SIGKILL).is_ok() {
        body();
    }
    exit_at_once(0)
}

fn end(child: Pid) {
    // It may have ended by itself.
    let _ = kill(child, Signal::SIGKILL);
    while waitpid(child, None) == Err(Errno::EINTR) {}
}

fn tell(answer: &Result<String, Failure>, mut report: PipeWriter) {
    let (mark, text) = match answer {
        Ok(text) => (SUCCEEDED, text),
        Err(failure) => (FAILED, &failure.message),
    };
    let mut bytes = vec![mark];
    bytes.extend(text.bytes().take(MAXIMUM_ANSWER - 1));
    // If the parent is gone, nobody is left to tell.
    let _ = report.write_all(&bytes);
}

fn read_answer(mut answer: PipeReader, deadline: Instant) -> Result<String, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(
            &mut [PollFd::new(answer.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(0) => {
                let seconds = LIMIT.as_secs();
                return Err(Failure::setup(format!("no answer within {seconds} s")));
            }
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).attempt("poll"),
        }
    }
    let mut bytes = [0; MAXIMUM_ANSWER];
    let length = answer.read(&mut bytes).attempt("pipe")?;
    match bytes[..length].split_first() {
        Some((&SUCCEEDED, text)) => Ok(String::from_utf8_lossy(text).into_owned()),
        Some((_, text)) => Err(Failure::setup(String::from_utf8_lossy(text))),
        None => Err(Failure::setup("the process that tried it was killed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answer: Result<String, Failure>) -> Result<String, Failure> {
        let (reader, writer) = std::io::pipe().unwrap();
        tell(&answer, writer);
        read_answer(reader, Instant::now() + LIMIT)
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        assert_eq!(told(Ok("there".to_owned())), Ok("there".to_owned()));
        let failure = Failure::setup("gone");
        assert_eq!(told(Err(failure.clone())), Err(failure));
        let long = told(Ok("x".repeat(1 << 20))).unwrap();
        assert_eq!(long, "x".repeat(MAXIMUM_ANSWER - 1));
    }

    #[test]
    fn a_child_that_does_not_answer_is_reported() {
        let (reader, writer) = std::io::pipe().unwrap();
        let silent = read_answer(reader, Instant::now()).unwrap_err();
        assert_eq!(silent.message, "no answer within 10 s");
        drop(writer);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let killed = read_answer(reader, Instant::now() + LIMIT).unwrap_err();
        assert_eq!(killed.message, "the process that tried it was killed");
    }
}
