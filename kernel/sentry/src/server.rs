//! The server that serves the sandbox now, and what becomes of the sandbox when it is lost.
//!
//! A sandbox can have several servers, one after the other. Each has a link of its own and a number, and a handle says
//! whose it is: what was opened through a server that was lost fails with `EIO` from then on, whatever serves by then.
//! The launcher starts servers; it tells of each by its pidfd, by which the sentry learns of its end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::locks::IgnorePoison;
use ringfence_ipc::region::Region;
use ringfence_ipc::{HandshakeError, Socket, SocketError, handshake};

use super::descriptions::Handle;
use super::link::{self, Broken, Link};
use super::{Continuation, Sentry};
use crate::failure::{Failure, SETUP};
use crate::liaison::{News, SentryEnd};

/// `--on-server-exit`: what becomes of a sandbox whose server ends before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnServerExit {
    /// It ends, with status 125.
    Kill,
    /// It goes on; every further request to the driver fails with EIO.
    #[default]
    Fail,
    /// It goes on; what is open fails with EIO, and a new server serves what is opened from then on.
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
    /// Shakes hands with the server behind `control`, which is the sandbox's server of this `number`, by a region in `memory`.
    fn new(
        number: u32,
        process: OwnedFd,
        control: Socket,
        memory: OwnedFd,
    ) -> Result<Serving, Failure> {
        let channel = Region::attach(memory, link::geometry())
            .map_err(HandshakeError::from)
            .and_then(|region| handshake::offer_region(control, region))
            .map_err(|error| Failure::setup(error.to_string()))?;
        let link = Link::new(number, channel).map_err(|Broken(reason)| Failure::setup(reason))?;
        Ok(Serving {
            link: Arc::new(link),
            process: Arc::new(process),
        })
    }

    fn has_ended(&self) -> bool {
        // A test has it that a server only seems to be gone.
        if at(Point::Ended) == Some(Act::Garbage) {
            return true;
        }
        let mut polled = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
    }
}

/// The place of the server that serves now.
pub struct Server {
    current: RwLock<Option<Serving>>,
    /// How many servers the sandbox has had.
    count: AtomicU32,
    /// To the launcher, who starts and ends servers.
    liaison: SentryEnd,
}

impl Server {
    /// Takes up the sandbox's first server, of which the launcher is about to tell.
    pub fn new(liaison: SentryEnd) -> Result<Server, Failure> {
        let Ok(News::Started {
            process,
            control,
            memory,
        }) = liaison.wait()
        else {
            return Err(Failure::setup("the launcher started no server"));
        };
        Ok(Server {
            current: RwLock::new(Some(Serving::new(1, process, control, memory)?)),
            count: AtomicU32::new(1),
            liaison,
        })
    }

    /// The way to the launcher.
    pub fn liaison(&self) -> &SentryEnd {
        &self.liaison
    }

    /// The link with the server. Fails with `EIO` if there is none.
    pub fn link(&self) -> Result<ServerLink, Errno> {
        let current = self.current.read().ignore_poison();
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

    /// Has the server behind `link` ended, which does not keep to the protocol.
    pub fn condemn(&self, link: &ServerLink) {
        // Held, so that no other server is asked for before this is said: the launcher is to end this one.
        let current = self.current.read().ignore_poison();
        if let Some(serving) = current.as_ref()
            && Arc::ptr_eq(&serving.link, link)
            && let Err(error) = self.liaison.end_server()
        {
            // A launcher that is gone takes all with it.
            tracing::warn!("the launcher could not be asked to end the server: {error}");
        }
    }

    fn serving(&self) -> Option<Serving> {
        let current = self.current.read().ignore_poison();
        current.clone()
    }

    /// Returns the one that served until now.
    fn replace(&self, by: Option<Serving>) -> Option<Serving> {
        let mut current = self.current.write().ignore_poison();
        std::mem::replace(&mut current, by)
    }

    fn want_another(&self) {
        if let Err(error) = self.liaison.want_another() {
            tracing::warn!("another server could not be asked for: {error}");
        }
    }

    fn succeed(&self, by: OwnedFd) {
        let mut current = self.current.write().ignore_poison();
        if let Some(serving) = current.as_mut() {
            serving.process = Arc::new(by);
        }
    }
}

impl Sentry {
    /// Takes up what the launcher tells, and does what the policy says if the server has ended. Fails if that is to
    /// end the sandbox.
    pub fn look_after_the_server(&self) -> Result<(), Failure> {
        // First: a server that was succeeded ends only after its successor was made known.
        loop {
            match self.server.liaison.next() {
                Ok(news) => self.take_up(news),
                // Nobody is left to be told. The kernel ends this process with the launcher, but closes its sockets first.
                Err(SocketError::Closed) => {
                    let _ = kill(self.init, Signal::SIGKILL);
                    std::process::exit(i32::from(SETUP))
                }
                Err(_) => break,
            }
        }
        match self.server.serving() {
            Some(serving) if serving.has_ended() => self.lose(),
            _ => Ok(()),
        }
    }

    fn take_up(&self, news: News) {
        match news {
            News::Started {
                process,
                control,
                memory,
            } => {
                let number = self.server.count.fetch_add(1, Ordering::Relaxed) + 1;
                match Serving::new(number, process, control, memory) {
                    Ok(serving) => {
                        // Whoever has one in its place was ended, though that may not have been seen yet.
                        if let Some(ended) = self.server.replace(Some(serving)) {
                            ended.link.fail(self);
                        }
                    }
                    Err(failure) => {
                        tracing::warn!("another server did not start: {failure}");
                        self.server.want_another();
                    }
                }
            }
            News::Succeeded { process } => self.server.succeed(process),
            News::NoFurther(reason) => tracing::warn!(
                "no further server is started ({reason}): every request to the driver fails with EIO from now on"
            ),
        }
    }

    fn lose(&self) -> Result<(), Failure> {
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
                "the server ended unexpectedly: what is open fails with EIO from now on, and another server is asked for"
            ),
        }
        if let Some(lost) = self.server.replace(None) {
            lost.link.fail(self);
        }
        if self.on_server_exit == OnServerExit::Restart {
            self.server.want_another();
        }
        Ok(())
    }
}
