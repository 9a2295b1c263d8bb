//! What launcher and sentry tell one another while a sandbox runs: which process serves it.
//!
//! The launcher starts every server, because the sentry, which talks to hostile programs, may execute nothing. The
//! sentry learns of a server by its pidfd and by its own end of the control socket, and asks for another when it has
//! lost one. Both sides are trusted; each message is one byte, with a descriptor where it names one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::MsgFlags;
use ringfence_ipc::{Socket, SocketError};

const PROCESS: u8 = 1;
const CONTROL: u8 = 2;
const NO_FURTHER: u8 = 3;
const SUCCEEDED: u8 = 4;
const WANTED: u8 = 5;

/// What the launcher tells the sentry.
pub enum News {
    /// A server was started: its pidfd, and the sentry's end of its control socket.
    Started { process: OwnedFd, control: Socket },
    /// The server has handed all that it had to another process, this one, which serves on.
    Succeeded { process: OwnedFd },
    /// The server that was asked for cannot be had.
    NoFurther,
}

/// The launcher's end.
pub struct LauncherEnd(Socket);

/// The sentry's end.
pub struct SentryEnd(Socket);

/// The two ends.
pub fn pair() -> Result<(LauncherEnd, SentryEnd), SocketError> {
    let (launcher, sentry) = Socket::pair()?;
    Ok((LauncherEnd(launcher), SentryEnd(sentry)))
}

impl LauncherEnd {
    /// A server was started.
    pub fn started(&self, process: BorrowedFd<'_>, control: &Socket) -> Result<(), SocketError> {
        self.0.send_message(&[PROCESS], Some(process))?;
        self.0.send_message(&[CONTROL], Some(control.as_fd()))
    }

    /// The server has handed all that it had to this process.
    pub fn succeeded(&self, process: BorrowedFd<'_>) -> Result<(), SocketError> {
        self.0.send_message(&[SUCCEEDED], Some(process))
    }

    /// The server that was asked for cannot be had.
    pub fn no_further(&self) -> Result<(), SocketError> {
        self.0.send_message(&[NO_FURTHER], None)
    }

    /// Takes a request for another server, if there is one.
    pub fn is_another_wanted(&self) -> bool {
        let mut kind = [0];
        let received = self.0.receive_message(&mut kind, MsgFlags::MSG_DONTWAIT);
        received.is_ok() && kind == [WANTED]
    }
}

impl SentryEnd {
    /// Asks for another server.
    pub fn want_another(&self) -> Result<(), SocketError> {
        self.0.send_message(&[WANTED], None)
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
        let mut kind = [0];
        let (_, process) = self.0.receive_message(&mut kind, flags)?;
        if kind == [NO_FURTHER] {
            return Ok(News::NoFurther);
        }
        let process = process.ok_or(SocketError::NoDescriptor)?;
        if kind == [SUCCEEDED] {
            return Ok(News::Succeeded { process });
        }
        // The launcher sends it right after.
        let (_, control) = self.0.receive_message(&mut kind, MsgFlags::empty())?;
        Ok(News::Started {
            process,
            control: control.ok_or(SocketError::NoDescriptor)?.into(),
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
