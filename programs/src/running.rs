//! A program that is run to its end, or to its limit.
//!
//! The idea: the program leads a process group, reads nothing, and writes into files, so that nobody has to read along and a
//! process that it leaves behind holds nobody up. When it has ended, or its time is over, all that came of it is ended, too.
//! One program is run at a time, or several that begin and end together.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus, waitpid};

use crate::{below, leftovers};

/// How long to wait between two attempts to end what is over its time: it may start others meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Status(i32),
    Signal(i32),
    /// It was killed, since it took longer than it may.
    Late(Duration),
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ran {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub took: Duration,
}

/// Runs a program.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Ran> {
    run_and(command, limit, |child| ended(child, WaitOptions::empty()))
}

/// Runs programs at the same time. The limit is that of all together.
pub fn run_all(commands: &mut [Command], limit: Duration) -> io::Result<Vec<Ran>> {
    below::adopt_orphans()?;
    let began = Instant::now();
    let mut started = Vec::new();
    let mut failed = None;
    for command in commands {
        match Started::new(command) {
            Ok(program) => started.push(program),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let is_late = AtomicBool::new(false);
    let groups: Vec<Pid> = started.iter().map(|program| program.group).collect();
    // Nobody waits for those that were started beside one that could not be.
    let limit = if failed.is_some() {
        Duration::ZERO
    } else {
        limit
    };
    let statuses: Vec<_> = thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        scope.spawn(|| end_when_late(&groups, limit, told, &is_late));
        let all = groups.iter().map(|group| {
            let status = ended(*group, WaitOptions::empty());
            (status, began.elapsed())
        });
        let statuses = all.collect();
        drop(tell);
        statuses
    });
    end_groups(&groups);
    if let Some(error) = failed {
        return Err(error);
    }
    let late = is_late.load(Ordering::Acquire).then_some(limit);
    let all = started.into_iter().zip(statuses);
    all.map(|(program, (status, took))| program.ran(status?, late, took))
        .collect()
}

/// Runs a program for whose end `await_end` waits, which returns its status.
pub fn run_and(
    command: &mut Command,
    limit: Duration,
    await_end: impl FnOnce(Pid) -> io::Result<WaitStatus>,
) -> io::Result<Ran> {
    below::adopt_orphans()?;
    let began = Instant::now();
    let program = Started::new(command)?;
    let group = program.group;
    let is_late = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        scope.spawn(|| end_when_late(&[group], limit, told, &is_late));
        let status = await_end(group);
        drop(tell);
        status
    });
    let took = began.elapsed();
    end_groups(&[group]);
    let late = is_late.load(Ordering::Acquire).then_some(limit);
    program.ran(status?, late, took)
}

/// A program that was started.
struct Started {
    /// It has the number of the program.
    group: Pid,
    stdout: File,
    stderr: File,
}

impl Started {
    fn new(command: &mut Command) -> io::Result<Started> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?);
        let child = command.spawn()?.id();
        leftovers::note_group(child);
        Ok(Started {
            group: Pid::from_raw(child as i32),
            stdout,
            stderr,
        })
    }

    /// What came of it, if it has ended so; `late` is the limit if that was over.
    fn ran(self, status: WaitStatus, late: Option<Duration>, took: Duration) -> io::Result<Ran> {
        let signal = || End::Signal(status.terminating_signal().unwrap_or_default());
        let by_itself = || status.exit_status().map_or_else(signal, End::Status);
        Ok(Ran {
            end: late.map_or_else(by_itself, End::Late),
            stdout: content(self.stdout)?,
            stderr: content(self.stderr)?,
            took,
        })
    }
}

/// Ends whoever is left of programs that have ended.
fn end_groups(groups: &[Pid]) {
    for group in groups {
        // It may have others in it, also if its leader is gone.
        let _ = killpg(*group, Signal::SIGKILL);
    }
    below::end_all();
    for group in groups {
        leftovers::group_has_ended(group.as_raw() as u32);
    }
}

/// Waits until the child stops or ends, with further options.
pub fn ended(child: Pid, options: WaitOptions) -> io::Result<WaitStatus> {
    let child = rustix::process::Pid::from_raw(child.as_raw());
    loop {
        match waitpid(child, options) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills the groups and all that is below this process, again and again, from the limit on until it is told of the end.
fn end_when_late(groups: &[Pid], limit: Duration, told: mpsc::Receiver<()>, is_late: &AtomicBool) {
    let mut patience = limit;
    while told.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        is_late.store(true, Ordering::Release);
        for group in groups {
            // It may be that nobody is left in it.
            let _ = killpg(*group, Signal::SIGKILL);
        }
        below::kill_all();
        patience = PAUSE;
    }
}

fn content(mut file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}
