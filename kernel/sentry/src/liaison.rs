//! What launcher and sentry tell one another while a sandbox runs: which process serves it.
//!
//! The launcher starts every server, because the sentry, which talks to hostile programs, may execute nothing. The
//! sentry learns of a server by its pidfd and by its own end of the control socket, and asks for another when it has
//! lost one. Both sides are trusted; a message is one byte, with a descriptor where it names one, and text where it gives
//! a reason.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::MsgFlags;
use ringfence_faults::{Act, Point};
use ringfence_ipc::{Socket, SocketError};

const PROCESS: u8 = 1;
const CONTROL: u8 = 2;
const NO_FURTHER: u8 = 3;
const SUCCEEDED: u8 = 4;
const WANTED: u8 = 5;
const HOLD: u8 = 6;
const END: u8 = 7;
const MEMORY: u8 = 8;

/// The longest reason, in bytes.
const MAXIMUM_REASON: usize = 255;

/// What the launcher tells the sentry.
pub enum News {
    /// A server was started: its pidfd, the sentry's end of its control socket, and the memory for a region to share with it.
    Started {
        process: OwnedFd,
        control: Socket,
        memory: OwnedFd,
    },
    /// The server has handed all that it had to another process, this one, which serves on.
    Succeeded { process: OwnedFd },
    /// The server that was asked for cannot be had, for this reason.
    NoFurther(String),
}

/// What the sentry asks of the launcher.
pub enum Plea {
    /// Another server, in the place of one that was lost.
    AnotherServer,
    /// To end the server that serves, which does not keep to the protocol. The sentry has no power over it.
    EndServer,
    /// To hold the listener too. While it is open a task whose call the sentry has received waits; so if the sentry
    /// dies, none runs on with `ENOSYS` until the kernel has ended it.
    HoldListener(OwnedFd),
}

/// The launcher's end.
pub struct LauncherEnd(Socket);

/// The sentry's end.
pub struct SentryEnd(Socket);

/// The two ends.
pub fn pair() -> Result<(LauncherEnd, SentryEnd), SocketError> {
    let (launcher, sentry) = Socket::pair()?;
    never_wait(&launcher)?;
    Ok((LauncherEnd(launcher), SentryEnd(sentry)))
}

/// Has the launcher not wait, by its end of a socket, for a peer that takes nothing: sending fails instead, with
/// [`SocketError::WouldBlock`], when there is no room. Whoever was taken over could keep it from all else.
pub fn never_wait(launcher: &Socket) -> Result<(), SocketError> {
    // A test leaves this out, to show that it would notice.
    match ringfence_faults::at(Point::Unwaiting) {
        Some(Act::Drop) => Ok(()),
        _ => launcher.set_nonblocking(true),
    }
}

impl LauncherEnd {
    /// A server was started. The sentry gets the memory for the region as well, since it may make none.
    pub fn started(
        &self,
        process: BorrowedFd<'_>,
        control: &Socket,
        memory: BorrowedFd<'_>,
    ) -> Result<(), SocketError> {
        self.0.send_message(&[PROCESS], Some(process))?;
        self.0.send_message(&[CONTROL], Some(control.as_fd()))?;
        self.0.send_message(&[MEMORY], Some(memory))
    }

    /// The server has handed all that it had to this process.
    pub fn succeeded(&self, process: BorrowedFd<'_>) -> Result<(), SocketError> {
        self.0.send_message(&[SUCCEEDED], Some(process))
    }

    /// The server that was asked for cannot be had; a long reason is cut.
    pub fn no_further(&self, reason: &str) -> Result<(), SocketError> {
        let mut message = vec![NO_FURTHER];
        message.extend(reason.bytes().take(MAXIMUM_REASON));
        self.0.send_message(&message, None)
    }

    /// Takes what the sentry asks. Fails if it asks nothing, with [`SocketError::Closed`] if nothing can come.
    pub fn next(&self) -> Result<Plea, SocketError> {
        let mut kind = [0];
        match self.0.receive_message(&mut kind, MsgFlags::MSG_DONTWAIT)? {
            (1, None) if kind == [WANTED] => Ok(Plea::AnotherServer),
            (1, None) if kind == [END] => Ok(Plea::EndServer),
            (1, Some(listener)) if kind == [HOLD] => Ok(Plea::HoldListener(listener)),
            _ => Err(SocketError::WrongSize),
        }
    }
}

impl SentryEnd {
    /// Asks for another server.
    pub fn want_another(&self) -> Result<(), SocketError> {
        self.0.send_message(&[WANTED], None)
    }

    /// Asks to end the server that serves.
    pub fn end_server(&self) -> Result<(), SocketError> {
        self.0.send_message(&[END], None)
    }

    /// Asks to hold the listener of the tasks' filter.
    pub fn hold(&self, listener: BorrowedFd<'_>) -> Result<(), SocketError> {
        self.0.send_message(&[HOLD], Some(listener))
    }

    /// Waits for news.
    pub fn wait(&self) -> Result<News, SocketError> {
        self.receive(MsgFlags::empty())
    }

    /// The news that have come; [`SocketError::WouldBlock`] if there are none.
    pub fn next(&self) -> Result<News, SocketError> {
        self.receive(MsgFlags::MSG_DONTWAIT)
    }

    fn receive(&self, flags: MsgFlags) -> Result<News, SocketError> {
        let mut message = [0; 1 + MAXIMUM_REASON];
        let (length, process) = self.0.receive_message(&mut message, flags)?;
        let [kind, reason @ ..] = message.get(..length).unwrap_or_default() else {
            return Err(SocketError::WrongSize);
        };
        if *kind == NO_FURTHER {
            let reason = String::from_utf8_lossy(reason);
            return Ok(News::NoFurther(reason.into_owned()));
        }
        let process = process.ok_or(SocketError::NoDescriptor)?;
        if *kind == SUCCEEDED {
            return Ok(News::Succeeded { process });
        }
        // The launcher sends both right after.
        let receive = || {
            let (_, descriptor) = self.0.receive_message(&mut [0], MsgFlags::empty())?;
            descriptor.ok_or(SocketError::NoDescriptor)
        };
        Ok(News::Started {
            process,
            control: receive()?.into(),
            memory: receive()?,
        })
    }
}

impl AsFd for LauncherEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for SentryEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
