//! The server that serves the sandbox now, and what becomes of the sandbox when it is lost.
//!
//! A sandbox can have several servers, one after the other. Each has a link of its own and a number, and a handle says
//! whose it is: what was opened through a server that was lost fails with `EIO` from then on, whatever serves by then.
//! The launcher starts servers; it tells of each by its pidfd, by which the sentry learns of its end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_ipc::{Socket, handshake};

use super::descriptions::Handle;
use super::link::{self, Broken, Link};
use super::{Continuation, Sentry};
use crate::failure::{Failure, SETUP};
use crate::launch::liaison::{News, SentryEnd};
use crate::system_calls::pidfd_kill;

/// `--on-server-exit`: what becomes of a sandbox whose server ends before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnServerExit {
    /// It ends, with status 125
    Kill,
    /// It goes on; every further request to the driver fails with EIO
    #[default]
    Fail,
    /// It goes on; what is open fails with EIO, and a new server serves what is opened from then on
    Restart,
}

/// A link with a server, which a request holds for as long as it is under way.
pub type ServerLink = Arc<Link<Continuation>>;

/// A server, and the link with it.
#[derive(Clone)]
struct Serving {
    link: ServerLink,
    process: Arc<OwnedFd>,
}

impl Serving {
    /// Shakes hands with the server behind `control`, which is the sandbox's server of this `number`.
    fn new(number: u32, process: OwnedFd, control: Socket) -> Result<Serving, Failure> {
        let channel = handshake::offer(control, link::geometry())
            .map_err(|error| Failure::setup(error.to_string()))?;
        let link = Link::new(number, channel).map_err(|Broken(reason)| Failure::setup(reason))?;
        Ok(Serving {
            link: Arc::new(link),
            process: Arc::new(process),
        })
    }

    fn has_ended(&self) -> bool {
        let mut polled = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
    }
}

/// The place of the server that serves now.
pub struct Server {
    current: RwLock<Option<Serving>>,
    /// How many servers the sandbox has had.
    count: AtomicU32,
}

impl Server {
    /// Takes up the sandbox's first server.
    pub fn new(process: OwnedFd, control: Socket) -> Result<Server, Failure> {
        Ok(Server {
            current: RwLock::new(Some(Serving::new(1, process, control)?)),
            count: AtomicU32::new(1),
        })
    }

    /// The link with the server. Fails with `EIO` if there is none.
    pub fn link(&self) -> Result<ServerLink, Errno> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let serving = current.as_ref().ok_or(Errno::EIO)?;
        Ok(Arc::clone(&serving.link))
    }

    /// The link with the server that gave `handle`. Fails with `EIO` if that was lost.
    pub fn link_of(&self, handle: Handle) -> Result<ServerLink, Errno> {
        let link = self.link()?;
        if link.server == handle.server {
            Ok(link)
        } else {
            Err(Errno::EIO)
        }
    }

    /// Its pidfd, if there is a server.
    pub fn process(&self) -> Option<Arc<OwnedFd>> {
        self.serving().map(|serving| serving.process)
    }

    /// Ends the server behind `link`, which does not keep to the protocol.
    pub fn condemn(&self, link: &ServerLink) {
        if let Some(serving) = self.serving()
            && Arc::ptr_eq(&serving.link, link)
        {
            // It may have ended already.
            let _ = pidfd_kill(serving.process.as_fd());
        }
    }

    fn serving(&self) -> Option<Serving> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn replace(&self, by: Option<Serving>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = by;
    }

    fn succeed(&self, by: OwnedFd) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(serving) = current.as_mut() {
            serving.process = Arc::new(by);
        }
    }
}

impl Sentry {
    /// Takes up what the launcher tells, and does what the policy says if the server has ended. Fails if that is to
    /// end the sandbox.
    pub fn look_after_the_server(&self, liaison: &SentryEnd) -> Result<(), Failure> {
        // First: a server that was succeeded ends only after its successor was made known.
        while let Ok(news) = liaison.next() {
            self.take_up(news, liaison);
        }
        match self.server.serving() {
            Some(serving) if serving.has_ended() => self.lose(&serving, liaison),
            _ => Ok(()),
        }
    }

    fn take_up(&self, news: News, liaison: &SentryEnd) {
        match news {
            News::Started { process, control } => {
                let number = self.server.count.fetch_add(1, Ordering::Relaxed) + 1;
                match Serving::new(number, process, control) {
                    Ok(serving) => self.server.replace(Some(serving)),
                    Err(failure) => {
                        tracing::warn!("another server did not start: {failure}");
                        want_another(liaison);
                    }
                }
            }
            News::Succeeded { process } => self.server.succeed(process),
            News::NoFurther => tracing::warn!(
                "no further server is started: every request to the driver fails with EIO from now on"
            ),
        }
    }

    fn lose(&self, lost: &Serving, liaison: &SentryEnd) -> Result<(), Failure> {
        match self.on_server_exit {
            OnServerExit::Kill => {
                return Err(Failure {
                    status: SETUP,
                    message: "the server ended unexpectedly, and the sandbox with it".into(),
                });
            }
            OnServerExit::Fail => tracing::warn!(
                "the server ended unexpectedly: every request to the driver fails with EIO from now on"
            ),
            OnServerExit::Restart => tracing::warn!(
                "the server ended unexpectedly: what is open fails with EIO from now on, and another server is started"
            ),
        }
        self.server.replace(None);
        lost.link.fail(self);
        if self.on_server_exit == OnServerExit::Restart {
            want_another(liaison);
        }
        Ok(())
    }
}

fn want_another(liaison: &SentryEnd) {
    if let Err(error) = liaison.want_another() {
        tracing::warn!("another server could not be asked for: {error}");
    }
}
