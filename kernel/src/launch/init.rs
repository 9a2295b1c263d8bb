//! Process 1 of the tasks' namespace: starts the program, passes signals on to it, reaps what its children leave, and
//! ends with its status. When it ends, whichever way, the kernel ends every task.
//!
//! It leads the tasks' session and is to the program what a shell is to a job (`jobs.rs`): it is outside the program's
//! group but in its session, without which the kernel would stop no program for its terminal's sake.
//!
//! `unsafe` is here because of fork(2), and because what is closed may have owners.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{ForkResult, Pid, fork};
use ringfence_confinement::{Confinement, policies};
use ringfence_faults::{Act, Point, Role};
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, SETUP, attempt_first};
use ringfence_sentry::signals::{self, Received};
use ringfence_sentry::system_calls::exit_at_once;
use rustix::process::{WaitOptions, ioctl_tiocsctty};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, tcsetattr, tcsetpgrp, tcsetwinsize};

use super::exec::{self, Program};
use super::jobs::{self, Order};
use super::terminal::Likeness;
use super::{descriptors, namespaces, network, root, title};

/// Runs as init until the program ends. A failure before that goes to `report`.
pub fn run(program: Program<'_>, report: Socket) -> ! {
    ringfence_faults::act_as(Role::Init);
    title::take(title::INIT);
    let signals = signals::descriptor();
    let signals = signals.map_err(|failure| failure.tell(&report));
    let status = signals.and_then(|signals| {
        let mut init = start(program, signals, &report)?;
        init.let_go(&report)
            .map_err(|failure| failure.tell(&report))?;
        confine().map_err(|failure| failure.tell(&report))?;
        drop(report);
        Ok(init.reap())
    });
    // A failure was reported; the sentry knows its status.
    exit_at_once(status.unwrap_or(i32::from(SETUP)))
}

/// Init of a program that runs.
struct Init {
    /// The program, which leads a process group.
    task: Pid,
    /// Whether it is stopped.
    is_stopped: bool,
    signals: signals::Descriptor,
    /// `None` when the launcher is gone.
    job: Option<jobs::InitEnd>,
    /// The program's end of its terminal.
    terminal: Option<OwnedFd>,
}

fn start(program: Program<'_>, signals: signals::Descriptor, report: &Socket) -> Result<Init, ()> {
    let started = set_up(&program).and_then(|terminal| {
        // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
        let start = || unsafe { fork() };
        match attempt_first("starting the program", start)? {
            ForkResult::Parent { child } => Ok((child, terminal)),
            ForkResult::Child => {
                ringfence_faults::act_as(Role::Program);
                exec::run(&program, terminal.as_ref()).map(|never: Infallible| match never {})
            }
        }
    });
    let (task, terminal) = started.map_err(|failure| failure.tell(report))?;
    // The child does the same. If it is so far that this fails, it has.
    let _ = jobs::lead_group(task);
    Ok(Init {
        task,
        is_stopped: false,
        signals,
        job: Some(program.job.end),
        terminal,
    })
}

/// Leaves this process what it needs until the program has ended: the calls of `confinement/policies/init.policy`.
pub fn confine() -> Result<(), Failure> {
    const ADDRESS_SPACE: u64 = 1 << 30;
    const DESCRIPTORS: u64 = 64;
    let program = policies::INIT.compile(&[]).attempt("init's filter")?;
    Confinement {
        kept: None,
        landlock: false,
        capabilities: &[],
        address_space: ADDRESS_SPACE,
        descriptors: DESCRIPTORS,
        file_size: 0,
        program: &program,
    }
    .enter()
    .attempt("init's confinement")
}

/// Makes the program's surroundings, and its end of a terminal if it is to have one.
fn set_up(program: &Program<'_>) -> Result<Option<OwnedFd>, Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).attempt("prctl")?;
    prctl::set_dumpable(false).attempt("prctl")?;
    namespaces::isolate_mounts()?;
    if !program.grants.network {
        network::bring_up_loopback()?;
    }
    root::build(program.grants, program.driver)?;
    jobs::leave_session()?;
    let likeness = program.job.likeness;
    likeness
        .map(|likeness| make_terminal(likeness, &program.job.end))
        .transpose()
}

/// Makes a terminal like the caller's the controlling one of this session, and hands the user's end to the launcher.
fn make_terminal(likeness: &Likeness, job: &jobs::InitEnd) -> Result<OwnedFd, Failure> {
    let make = || {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let user = openpt(flags)?;
        unlockpt(&user)?;
        let program = ioctl_tiocgptpeer(&user, flags)?;
        tcsetattr(&program, OptionalActions::Now, &likeness.settings)?;
        tcsetwinsize(&program, likeness.size)?;
        ioctl_tiocsctty(&program)?;
        Ok((user, program))
    };
    let made: rustix::io::Result<_> = make();
    let (user, program) = made.attempt("a terminal for the program")?;
    job.hand_over(&user).attempt("a terminal for the program")?;
    Ok(program)
}

impl Init {
    /// Closes all that the caller has open, which only the program is to have: the sentry, should it be taken over, takes
    /// from a process below it what that has.
    fn let_go(&self, report: &Socket) -> Result<(), Failure> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Descriptors) == Some(Act::Drop) {
            return Ok(());
        }
        let job = self.job.iter().flat_map(jobs::InitEnd::descriptors);
        let terminal = self.terminal.iter().map(AsFd::as_fd);
        let kept = [self.signals.as_fd(), report.as_fd()];
        let kept = kept.into_iter().chain(job).chain(terminal);
        let kept = kept.map(|kept| kept.as_raw_fd()).collect();
        // SAFETY: this process never returns to who owns the rest, and uses nothing else.
        unsafe { descriptors::close_all_but(kept) }
    }

    /// Waits for every child until the program has ended; the status as a shell would give it. (By rustix, since nix's
    /// `waitpid` fails on a child that a real-time signal ended.)
    fn reap(&mut self) -> i32 {
        let awaited = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        loop {
            match rustix::process::wait(awaited) {
                Ok(Some((ended, status))) if ended.as_raw_nonzero().get() == self.task.as_raw() => {
                    let signal = status.terminating_signal();
                    let signalled = signal.map(|signal| 128 + signal);
                    if let Some(status) = status.exit_status().or(signalled) {
                        self.tell_that_it_runs();
                        self.end(signal);
                        return status;
                    }
                    self.is_stopped = status.stopped();
                    match (status.stopping_signal(), &self.job) {
                        (Some(signal), Some(job)) => job.stopped(signal),
                        _ => self.tell_that_it_runs(),
                    }
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => {
                    if self.wait_for_news().is_err() {
                        return i32::from(SETUP);
                    }
                }
                Err(_) => return i32::from(SETUP),
            }
        }
    }

    fn wait_for_news(&mut self) -> Result<(), Failure> {
        let job = self.job.as_ref().map_or(self.signals.as_fd(), AsFd::as_fd);
        let awaited = [self.signals.as_fd(), job];
        let mut polled = awaited.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno).attempt("poll"),
        }
        let [signalled, ordered] = polled.map(|polled| polled.any() == Some(true));
        if signalled && let Some(received) = self.signals.next()? {
            self.heed(received);
        }
        if ordered
            && let Some(job) = self.job.take()
            && let Some(order) = job.wait()
        {
            self.obey(order, &job);
            self.job = Some(job);
        }
        Ok(())
    }

    fn heed(&self, received: Received) {
        // From the program's terminal, which tells init of a hang-up, since it leads the session, and of all else while
        // its own group is in the foreground, and the program's is not.
        if received.by_kernel {
            self.signal(received.signal as i32);
        }
        received.pass_on(self.task);
    }

    fn obey(&mut self, order: Order, job: &jobs::InitEnd) {
        match order {
            Order::Signal(number) => {
                self.signal(number);
                if self.is_stopped && signals::is_stop(number) {
                    // Of which no wait tells.
                    job.stopped(number);
                }
            }
            Order::Continue => {
                self.is_stopped = false;
                self.signal(libc::SIGCONT);
            }
            Order::Foreground(is) => {
                let group = if is { self.task } else { Pid::this() };
                if let (Some(terminal), Some(group)) = (
                    &self.terminal,
                    rustix::process::Pid::from_raw(group.as_raw()),
                ) {
                    // It was hung up, perhaps.
                    let _ = tcsetpgrp(terminal, group);
                }
            }
            Order::Shown => return,
        }
        job.obeyed();
    }

    /// Sends a signal to the program's group.
    fn signal(&self, number: i32) {
        if let Ok(signal) = Signal::try_from(number) {
            // The program has ended, perhaps, or moved to another group.
            let _ = killpg(self.task, signal);
        }
    }

    fn tell_that_it_runs(&self) {
        if let Some(job) = &self.job {
            job.runs();
        }
    }

    /// Tells the launcher of the program's end, and waits until the user was shown what it has written to its terminal, before
    /// anybody else has something to say. What the program has left running is ended before: it could write for ever.
    fn end(&self, signal: Option<i32>) {
        let Some(job) = &self.job else {
            return;
        };
        // All processes of this namespace but the calling one (kill(2)); there may be none.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        job.ended(signal);
        if self.terminal.is_some() {
            while job.wait().is_some_and(|order| order != Order::Shown) {}
        }
    }
}
