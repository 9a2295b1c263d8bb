//! What launcher and init tell one another of the program as a job of the caller's shell.
//!
//! The program leads a process group in a session that has nobody else but init, so that no call which names a group
//! reaches a process outside. A shell therefore sees the launcher where it would see the program, and the launcher stands
//! in for it: init says when the program was stopped, and the launcher says what the caller's terminal or shell wants
//! of it. Init is trusted, but the sentry, should it be taken over, can have it do what it likes, or nothing: so the launcher
//! never waits for it, and takes an [`Event`] or nothing.
//!
//! Both act at the same time, and signals of neither wait for the other. So init confirms every order, and the launcher
//! knows by that what it is told of: what init tells before it confirms that it has continued the program was before.
//!
//! A launcher that has stopped with its program cannot hear that somebody in the sandbox has continued or ended that. So init
//! also keeps a flag, an eventfd, which is up unless the program is stopped. A process that the launcher starts beside
//! itself before it stops ([`LauncherEnd::watch`]) waits for the flag and continues the launcher.
//!
//! Once init is confined its end is used by plain reads and writes into buffers that it has: its filter permits no call that
//! gets memory, and none that takes a descriptor. So an order has none, nor does an event that init tells then.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, getppid, setpgid, setsid};
use ringfence_faults::{Act, Point};
use ringfence_ipc::{Message, Socket, SocketError, typed};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::liaison::never_wait;
use ringfence_sentry::system_calls::{exit_at_once, pidfd_open_process};
use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};

use super::namespaces::fork_with;
use super::title;

/// How long a launcher that was continued has until it is continued again, in milliseconds.
const AGAIN: u8 = 20;

/// The longest message, in bytes.
const MAXIMUM: usize = 8;

/// What init tells the launcher. As it travels, a descriptor stands beside it.
#[derive(Serialize, Deserialize)]
pub enum Event<D = OwnedFd> {
    /// The program's terminal was made: the end that is the user's.
    Terminal(D),
    /// The program's process was started: a descriptor for it (pidfd_open(2)).
    Started(D),
    /// A signal of this number has stopped the program.
    Stopped(i32),
    /// The program has ended, by the signal of this number if by any; if it had a terminal init waits for
    /// [`Order::Shown`].
    Ended(Option<i32>),
    /// The first of the orders that were not confirmed yet was obeyed.
    Obeyed,
}

/// What the launcher tells init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Send the signal of this number to the program's group. If it is to stop a program that is stopped, init tells so
    /// again.
    Signal(i32),
    /// Continue the program's group.
    Continue,
    /// The program's group is in the foreground of its terminal from now on, or is not.
    Foreground(bool),
    /// What the program had written to its terminal was shown to the user. It is not confirmed.
    Shown,
}

impl Message for Event<()> {
    const MAXIMUM_BYTES: usize = MAXIMUM;

    fn has_descriptor(&self) -> bool {
        matches!(self, Event::Terminal(()) | Event::Started(()))
    }
}

impl Message for Order {
    const MAXIMUM_BYTES: usize = MAXIMUM;
}

/// The signal of this number, if it has a name: real-time signals have none.
pub fn signal_of(number: Option<i32>) -> Option<Signal> {
    number.and_then(|number| Signal::try_from(number).ok())
}

/// Leaves the session and the process group that the calling process was started in, which a new one has by itself.
pub fn leave_session() -> Result<(), Failure> {
    match ringfence_faults::at(Point::Session) {
        Some(Act::Drop) => Ok(()),
        _ => setsid().map(drop).attempt("setsid"),
    }
}

/// Lets the program `task`, which is this process or a child of it, lead a process group.
pub fn lead_group(task: Pid) -> Result<(), Failure> {
    match ringfence_faults::at(Point::Session) {
        Some(Act::Drop) => Ok(()),
        _ => setpgid(task, task).attempt("setpgid"),
    }
}

/// Puts the calling process's group into the foreground of its terminal. SIGTTOU is to be blocked.
pub fn take_terminal(terminal: &OwnedFd) {
    // It was hung up, perhaps, and tells the program so.
    let _ = rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp());
}

/// The launcher's end.
pub struct LauncherEnd {
    socket: Socket,
    /// See [`InitEnd`].
    runs: OwnedFd,
    /// The orders that init has not confirmed, the oldest first.
    unconfirmed: VecDeque<Order>,
}

/// Init's end.
pub struct InitEnd {
    socket: Socket,
    /// An eventfd that can be read unless the program is stopped.
    runs: OwnedFd,
}

/// The two ends.
pub fn pair() -> io::Result<(LauncherEnd, InitEnd)> {
    let (launcher, init) = Socket::pair().map_err(io::Error::other)?;
    never_wait(&launcher).map_err(io::Error::other)?;
    let runs = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let launcher = LauncherEnd {
        socket: launcher,
        runs: runs.try_clone()?,
        unconfirmed: VecDeque::new(),
    };
    let init = InitEnd { socket: init, runs };
    Ok((launcher, init))
}

impl LauncherEnd {
    /// Gives an order. If init is gone, so is the program; one that takes no orders any more gets none.
    pub fn order(&mut self, order: Order) {
        if self.socket.say(&order, None).is_ok() && order != Order::Shown {
            self.unconfirmed.push_back(order);
        }
    }

    /// What this consists of.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.socket.as_fd(), self.runs.as_fd()]
    }

    /// Whether init has obeyed every order.
    pub fn is_obeyed(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Whether the program goes on, or has ended, by what init has seen last.
    pub fn is_running(&self) -> bool {
        is_ready(
            &mut [PollFd::new(self.runs.as_fd(), PollFlags::POLLIN)],
            PollTimeout::ZERO,
        )
    }

    /// Starts a process beside the launcher that continues it if init sees the program continued or ended, or ends itself, before
    /// what is returned is dropped. `None` if there can be none: then the launcher stays stopped for as long as nobody else
    /// continues it.
    pub fn watch(&self) -> Option<Watch> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Watch) == Some(Act::Drop) {
            return None;
        }
        let launcher = Pid::this();
        match fork_with(CloneFlags::empty()) {
            Ok(ForkResult::Parent { child }) => Some(Watch(child)),
            Ok(ForkResult::Child) => {
                title::take(title::WATCH);
                let is_bound = set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == launcher;
                // In a group of its own, so that nobody takes it for the job.
                if is_bound && setsid().is_ok() {
                    self.wait_until_it_runs();
                    // Until the launcher ends this process: what comes before it has stopped does not continue it.
                    while kill(launcher, Signal::SIGCONT).is_ok() {
                        is_ready(&mut [], PollTimeout::from(AGAIN));
                    }
                }
                exit_at_once(0)
            }
            Err(_) => None,
        }
    }

    fn wait_until_it_runs(&self) {
        let mut polled = [
            PollFd::new(self.runs.as_fd(), PollFlags::POLLIN),
            // It is hung up when init has ended.
            PollFd::new(self.socket.as_fd(), PollFlags::empty()),
        ];
        while !is_ready(&mut polled, PollTimeout::NONE) {}
    }

    /// Takes what init tells, but that the program was stopped if it is about to be continued since. Fails if it tells
    /// nothing, with [`SocketError::Closed`] if nothing can come.
    pub fn hear(&mut self) -> Result<Option<Event>, SocketError> {
        let event = self.receive()?;
        if let Event::Obeyed = event {
            self.unconfirmed.pop_front();
        }
        let is_past =
            matches!(event, Event::Stopped(_)) && self.unconfirmed.contains(&Order::Continue);
        Ok((!is_past).then_some(event))
    }

    fn receive(&self) -> Result<Event, SocketError> {
        Ok(match self.socket.hear_at_once()? {
            (Event::Terminal(()), Some(terminal)) => Event::Terminal(terminal),
            (Event::Started(()), Some(process)) => Event::Started(process),
            (Event::Terminal(()) | Event::Started(()), None) => {
                return Err(SocketError::NoDescriptor);
            }
            (Event::Stopped(signal), _) => Event::Stopped(signal),
            (Event::Ended(signal), _) => Event::Ended(signal),
            (Event::Obeyed, _) => Event::Obeyed,
        })
    }
}

/// A process that continues the launcher.
pub struct Watch(Pid);

impl Drop for Watch {
    fn drop(&mut self) {
        // It was not waited for, so that the number is its own.
        let _ = kill(self.0, Signal::SIGKILL);
        while waitpid(self.0, None) == Err(Errno::EINTR) {}
    }
}

/// Waits for one of these; false if a signal came first.
fn is_ready(polled: &mut [PollFd<'_>], timeout: PollTimeout) -> bool {
    match poll(polled, timeout) {
        Ok(ready) => ready > 0,
        Err(errno) => errno != Errno::EINTR,
    }
}

impl InitEnd {
    /// Its parts, to be handed to another process.
    pub fn into_descriptors(self) -> [OwnedFd; 2] {
        [self.socket.into(), self.runs]
    }

    /// One whose parts came from another process: the socket, and the flag.
    pub fn from_descriptors(socket: OwnedFd, runs: OwnedFd) -> InitEnd {
        InitEnd {
            socket: socket.into(),
            runs,
        }
    }

    /// Hands over the user's end of the program's terminal.
    pub fn hand_over(&self, terminal: &OwnedFd) -> Result<(), SocketError> {
        self.socket
            .say(&Event::Terminal(()), Some(terminal.as_fd()))
    }

    /// Hands over a descriptor for the calling process, which is about to become the program.
    pub fn hand_over_this_process(&self) -> Result<(), Failure> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Program) == Some(Act::Drop) {
            return Ok(());
        }
        let process = pidfd_open_process(Pid::this()).attempt("the program's pidfd")?;
        let sent = self.socket.say(&Event::Started(()), Some(process.as_fd()));
        sent.attempt("the program's pidfd")
    }

    /// What this consists of.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.socket.as_fd(), self.runs.as_fd()]
    }

    /// Tells that the program was stopped.
    pub fn stopped(&self, signal: i32) {
        let _ = nix::unistd::read(&self.runs, &mut [0; size_of::<u64>()]);
        self.tell(&Event::Stopped(signal));
    }

    /// Has a launcher that is stopped go on, since the program does, or has ended.
    pub fn runs(&self) {
        // If it is full it is up.
        let _ = nix::unistd::write(&self.runs, &1u64.to_ne_bytes());
    }

    /// Tells that the program has ended, and by which signal, if by any.
    pub fn ended(&self, signal: Option<i32>) {
        self.tell(&Event::Ended(signal));
    }

    /// Confirms the oldest order that was not confirmed.
    pub fn obeyed(&self) {
        self.tell(&Event::Obeyed);
    }

    /// Waits for an order; `None` if none can come any more.
    pub fn wait(&self) -> Option<Order> {
        let mut message = [0; MAXIMUM];
        loop {
            return match nix::unistd::read(&self.socket, &mut message) {
                Err(Errno::EINTR) => continue,
                Ok(length) => typed::read(message.get(..length)?).ok(),
                Err(_) => None,
            };
        }
    }

    fn tell(&self, event: &Event<()>) {
        let mut message = [0; MAXIMUM];
        if let Ok(message) = typed::write(event, &mut message) {
            // A launcher that is gone need not know; the kernel is about to end this process, too.
            let _ = nix::unistd::write(&self.socket, message);
        }
    }
}

impl AsFd for LauncherEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
