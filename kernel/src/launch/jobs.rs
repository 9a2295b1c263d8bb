//! What launcher and init tell one another of the program as a job of the caller's shell.
//!
//! The program leads a process group in a session that has nobody else but init, so that no call which names a group
//! reaches a process outside. A shell therefore sees the launcher where it would see the program, and the launcher stands
//! in for it: init says when the program was stopped, and the launcher says what the caller's terminal or shell wants
//! of it. Init is trusted, but the sentry, should it be taken over, can have it do what it likes, or nothing: so the launcher
//! never waits for it. A message is two bytes, with a descriptor where it hands one over.
//!
//! Both act at the same time, and signals of neither wait for the other. So init confirms every order, and the launcher
//! knows by that what it is told of: what init tells before it confirms that it has continued the program was before.
//!
//! Init's end is used by plain reads and writes, which take no memory: its filter permits no call that gets some.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use nix::unistd::{Pid, setpgid, setsid};
use ringfence_faults::{Act, Point};
use ringfence_ipc::{Socket, SocketError};

use super::liaison::never_wait;
use crate::failure::{Attempt, Failure};
use crate::system_calls::pidfd_open_process;

const TERMINAL: u8 = 1;
const STOPPED: u8 = 2;
const ENDED: u8 = 3;
const SIGNAL: u8 = 4;
const FOREGROUND: u8 = 5;
const SHOWN: u8 = 6;
const CONTINUE: u8 = 7;
const OBEYED: u8 = 8;
const STARTED: u8 = 9;

/// What init tells the launcher.
pub enum Event {
    /// The program's terminal was made: the end that is the user's.
    Terminal(OwnedFd),
    /// The program's process was started: a descriptor for it (pidfd_open(2)).
    Started(OwnedFd),
    /// A signal of this number has stopped the program.
    Stopped(i32),
    /// The program has ended; init waits for [`Order::Shown`].
    Ended,
    /// The first of the orders that were not confirmed yet was obeyed.
    Obeyed,
}

/// What the launcher tells init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The launcher's end.
pub struct LauncherEnd {
    socket: Socket,
    /// The orders that init has not confirmed, the oldest first.
    unconfirmed: VecDeque<Order>,
}

/// Init's end.
pub struct InitEnd(Socket);

/// The two ends.
pub fn pair() -> Result<(LauncherEnd, InitEnd), SocketError> {
    let (launcher, init) = Socket::pair()?;
    never_wait(&launcher)?;
    let launcher = LauncherEnd {
        socket: launcher,
        unconfirmed: VecDeque::new(),
    };
    Ok((launcher, InitEnd(init)))
}

impl LauncherEnd {
    /// Gives an order. If init is gone, so is the program; one that takes no orders any more gets none.
    pub fn order(&mut self, order: Order) {
        let message = match order {
            Order::Signal(number) => [SIGNAL, number as u8],
            Order::Continue => [CONTINUE, 0],
            Order::Foreground(is) => [FOREGROUND, u8::from(is)],
            Order::Shown => [SHOWN, 0],
        };
        if self.socket.send_message(&message, None).is_ok() && order != Order::Shown {
            self.unconfirmed.push_back(order);
        }
    }

    /// Whether init has obeyed every order.
    pub fn is_obeyed(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Takes what init tells, but that the program was stopped if it is about to be continued since. Fails if it tells
    /// nothing, with [`SocketError::Closed`] if nothing can come.
    pub fn next(&mut self) -> Result<Option<Event>, SocketError> {
        let event = self.receive()?;
        if let Event::Obeyed = event {
            self.unconfirmed.pop_front();
        }
        let is_past =
            matches!(event, Event::Stopped(_)) && self.unconfirmed.contains(&Order::Continue);
        Ok((!is_past).then_some(event))
    }

    fn receive(&self) -> Result<Event, SocketError> {
        let mut message = [0; 2];
        let received = self
            .socket
            .receive_message(&mut message, MsgFlags::MSG_DONTWAIT)?;
        match (message, received) {
            ([TERMINAL, _], (2, Some(terminal))) => Ok(Event::Terminal(terminal)),
            ([STARTED, _], (2, Some(process))) => Ok(Event::Started(process)),
            ([STOPPED, signal], (2, None)) => Ok(Event::Stopped(i32::from(signal))),
            ([ENDED, _], (2, None)) => Ok(Event::Ended),
            ([OBEYED, _], (2, None)) => Ok(Event::Obeyed),
            _ => Err(SocketError::WrongSize),
        }
    }
}

impl InitEnd {
    /// Hands over the user's end of the program's terminal.
    pub fn hand_over(&self, terminal: &OwnedFd) -> Result<(), SocketError> {
        self.0.send_message(&[TERMINAL, 0], Some(terminal.as_fd()))
    }

    /// Hands over a descriptor for the calling process, which is about to become the program.
    pub fn hand_over_this_process(&self) -> Result<(), Failure> {
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Program) == Some(Act::Drop) {
            return Ok(());
        }
        let process = pidfd_open_process(Pid::this()).attempt("the program's pidfd")?;
        let sent = self.0.send_message(&[STARTED, 0], Some(process.as_fd()));
        sent.attempt("the program's pidfd")
    }

    /// Tells that the program was stopped.
    pub fn stopped(&self, signal: i32) {
        self.tell([STOPPED, signal as u8]);
    }

    /// Tells that the program has ended.
    pub fn ended(&self) {
        self.tell([ENDED, 0]);
    }

    /// Confirms the oldest order that was not confirmed.
    pub fn obeyed(&self) {
        self.tell([OBEYED, 0]);
    }

    /// Waits for an order; `None` if none can come any more.
    pub fn wait(&self) -> Option<Order> {
        let mut message = [0; 2];
        loop {
            return match (nix::unistd::read(&self.0, &mut message), message) {
                (Err(Errno::EINTR), _) => continue,
                (Ok(2), [SIGNAL, number]) => Some(Order::Signal(i32::from(number))),
                (Ok(2), [CONTINUE, _]) => Some(Order::Continue),
                (Ok(2), [FOREGROUND, is]) => Some(Order::Foreground(is != 0)),
                (Ok(2), [SHOWN, _]) => Some(Order::Shown),
                _ => None,
            };
        }
    }

    fn tell(&self, message: [u8; 2]) {
        // A launcher that is gone need not know; the kernel is about to end this process, too.
        let _ = nix::unistd::write(&self.0, &message);
    }
}

impl AsFd for LauncherEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
