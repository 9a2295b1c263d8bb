//! What launcher and sentry tell one another while a sandbox runs: which process serves it.
//!
//! The launcher starts every server, because the sentry, which talks to hostile programs, may execute nothing. The
//! sentry learns of a server by its pidfd and by its own end of the control socket, and asks for another when it has
//! lost one. Both sides are trusted, but the sentry may have been taken over: what it asks is a [`Plea`] or nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ringfence_faults::{Act, Point};
use ringfence_ipc::typed::shortened;
use ringfence_ipc::{Message, Socket, SocketError};
use serde::{Deserialize, Serialize};

/// The longest reason, in bytes.
const MAXIMUM_REASON: usize = 255;

/// What the launcher says. A server that was started takes three messages, because each has one descriptor at most.
#[derive(Serialize, Deserialize)]
enum Told {
    /// A server was started: its pidfd.
    Process,
    /// The sentry's end of its control socket.
    Control,
    /// The memory for a region to share with it.
    Memory,
    /// The server has handed all that it had to the process of this pidfd.
    Succeeded,
    /// The server that was asked for cannot be had, for this reason.
    NoFurther(String),
}

/// What the sentry says: see [`Plea`].
#[derive(Serialize, Deserialize)]
enum Asked {
    AnotherServer,
    EndServer,
    /// With the listener.
    HoldListener,
    Over,
}

impl Message for Told {
    const MAXIMUM_BYTES: usize = 8 + MAXIMUM_REASON;

    fn has_descriptor(&self) -> bool {
        !matches!(self, Told::NoFurther(_))
    }
}

impl Message for Asked {
    const MAXIMUM_BYTES: usize = 1;

    fn has_descriptor(&self) -> bool {
        matches!(self, Asked::HoldListener)
    }
}

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
    /// To hold a listener too: the program's, or that of one that was started later. While it is open a task whose call the sentry has received waits; so if the sentry
    /// dies, none runs on with `ENOSYS` until the kernel has ended it.
    HoldListener(OwnedFd),
    /// Nothing any more: the program has ended, or the sentry has said why it ends before it. A launcher that is not the sentry's parent
    /// has no other way to tell that from a sentry that was killed.
    Over,
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
        self.0.say(&Told::Process, Some(process))?;
        self.0.say(&Told::Control, Some(control.as_fd()))?;
        self.0.say(&Told::Memory, Some(memory))
    }

    /// The server has handed all that it had to this process.
    pub fn succeeded(&self, process: BorrowedFd<'_>) -> Result<(), SocketError> {
        self.0.say(&Told::Succeeded, Some(process))
    }

    /// The server that was asked for cannot be had; a long reason is cut.
    pub fn no_further(&self, reason: &str) -> Result<(), SocketError> {
        let reason = shortened(reason, MAXIMUM_REASON).to_owned();
        self.0.say(&Told::NoFurther(reason), None)
    }

    /// Takes what the sentry asks. Fails if it asks nothing, with [`SocketError::Closed`] if nothing can come.
    pub fn next(&self) -> Result<Plea, SocketError> {
        match self.0.hear_at_once()? {
            (Asked::AnotherServer, _) => Ok(Plea::AnotherServer),
            (Asked::EndServer, _) => Ok(Plea::EndServer),
            (Asked::Over, _) => Ok(Plea::Over),
            (Asked::HoldListener, listener) => listener
                .map(Plea::HoldListener)
                .ok_or(SocketError::NoDescriptor),
        }
    }
}

impl SentryEnd {
    /// Asks for another server.
    pub fn want_another(&self) -> Result<(), SocketError> {
        self.0.say(&Asked::AnotherServer, None)
    }

    /// Asks to end the server that serves.
    pub fn end_server(&self) -> Result<(), SocketError> {
        self.0.say(&Asked::EndServer, None)
    }

    /// Asks to hold a listener of the tasks' filter.
    pub fn hold(&self, listener: BorrowedFd<'_>) -> Result<(), SocketError> {
        self.0.say(&Asked::HoldListener, Some(listener))
    }

    /// Says that the sandbox is over.
    pub fn over(&self) -> Result<(), SocketError> {
        self.0.say(&Asked::Over, None)
    }

    /// Waits for news.
    pub fn wait(&self) -> Result<News, SocketError> {
        self.take_up(self.0.hear()?)
    }

    /// The news that have come; [`SocketError::WouldBlock`] if there are none.
    pub fn next(&self) -> Result<News, SocketError> {
        self.take_up(self.0.hear_at_once()?)
    }

    fn take_up(&self, (told, process): (Told, Option<OwnedFd>)) -> Result<News, SocketError> {
        match (told, process) {
            (Told::NoFurther(reason), _) => Ok(News::NoFurther(reason)),
            (Told::Succeeded, Some(process)) => Ok(News::Succeeded { process }),
            // The launcher sends both right after.
            (Told::Process, Some(process)) => match (self.0.hear()?, self.0.hear()?) {
                ((Told::Control, Some(control)), (Told::Memory, Some(memory))) => {
                    Ok(News::Started {
                        process,
                        control: control.into(),
                        memory,
                    })
                }
                _ => Err(SocketError::Malformed("parts of a server".to_owned())),
            },
            _ => Err(SocketError::Malformed("a part of no server".to_owned())),
        }
    }
}

impl From<SentryEnd> for OwnedFd {
    /// To be handed to another process.
    fn from(end: SentryEnd) -> OwnedFd {
        end.0.into()
    }
}

impl From<OwnedFd> for SentryEnd {
    /// One that came from another process.
    fn from(end: OwnedFd) -> SentryEnd {
        SentryEnd(end.into())
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
