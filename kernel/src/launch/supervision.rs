//! What the launcher does while a sandbox runs: it passes signals on, starts the servers that the sentry asks for,
//! answers commands, and waits.
//!
//! When the sentry ends, the kernel ends all of the sandbox with it but the servers. These are the launcher's children: it
//! ends them, also those that would not end by themselves. It waits for nobody in particular, and for nobody to take what it
//! says: `departure.rs` says what becomes of a sandbox whose sentry does not end.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use ringfence_faults::{Act, Point};
use ringfence_ipc::{Socket, SocketError};
use ringfence_sentry::failure::{Attempt, Failure, SETUP};
use ringfence_sentry::liaison::{LauncherEnd, Plea};
use ringfence_sentry::server::OnServerExit;
use ringfence_sentry::signals::{self, Received};

use super::children::Sentry;
use super::copying::Pace;
use super::departure::{Departure, Program, Reason};
use super::jobs::{self, Event};
use super::listeners::Listeners;
use super::servers::{Input, Server, Starter};
use super::terminal::Terminal;
use crate::endings::Ending;
use crate::memory;
use crate::sandboxes::{About, Door, Reply, Request, Visitor};

/// A sandbox gets at most this many servers within [`RESTART_PERIOD`] in the place of lost ones.
const MAXIMUM_RESTARTS: usize = 5;
const RESTART_PERIOD: Duration = Duration::from_secs(60);
/// How a container has ended whose sentry is gone and has not said why. The sentry is its first process.
const WITHOUT_A_WORD: &str = "the first process was killed, and the container with it: its engine does that, or the kernel if memory ran out";
/// So many events of init's are heard once it is gone.
const LAST_EVENTS: usize = 64;

/// The launcher of a sandbox whose sentry runs.
pub struct Launcher<'a> {
    pub(super) sentry: &'a Sentry,
    pub(super) starter: Starter<'a>,
    pub(super) liaison: LauncherEnd,
    /// See [`Plea::HoldListener`].
    listeners: Listeners,
    is_sentry_ending: bool,
    /// Whether a sentry that is no child has a program, and has not said that the sandbox is over.
    owes_its_end: bool,
    /// `None` as long as the sandbox is not over.
    pub(super) departure: Option<Departure>,
    pub(super) program: Program,
    /// What is copied for the sandbox.
    pub(super) pace: &'a Pace,
    /// Those that were not waited for yet; the last one serves.
    pub(super) servers: Vec<Rc<Server>>,
    /// Those that were replaced and not waited for yet. They may stay for their successors' sake.
    pub(super) replaced: Vec<Rc<Server>>,
    /// Whether the server is being replaced.
    pub(super) is_upgrading: bool,
    /// When servers were started in the place of lost ones, the last few times.
    restarts: Vec<Instant>,
    pub(super) signals: signals::Descriptor,
    pub(super) job: jobs::LauncherEnd,
    /// The signal of which the program has died, as init says.
    pub(super) fatal: Option<Signal>,
    /// Whether init cannot tell anything any more.
    is_init_gone: bool,
    pub(super) terminal: Option<Terminal>,
    /// Whether the program has ended, and what it has written to its terminal is still to be shown.
    pub(super) is_rest_owed: bool,
    /// Whether the launcher was asked to stop.
    pub(super) is_to_stop: bool,
    /// Where commands come in, and what they are told of the sandbox.
    door: Option<Door>,
    about: About,
}

/// What the launcher talks to others by.
pub struct Ends {
    pub liaison: LauncherEnd,
    pub job: jobs::LauncherEnd,
    pub terminal: Option<Terminal>,
    pub door: Option<Door>,
}

impl<'a> Launcher<'a> {
    /// Starts the sandbox's first server.
    pub fn new(
        sentry: &'a Sentry,
        starter: Starter<'a>,
        ends: Ends,
        about: About,
        pace: &'a Pace,
    ) -> Result<Launcher<'a>, Failure> {
        let Ends {
            liaison,
            job,
            terminal,
            door,
        } = ends;
        let mut launcher = Launcher {
            sentry,
            starter,
            liaison,
            listeners: Listeners::default(),
            is_sentry_ending: false,
            owes_its_end: false,
            departure: None,
            program: Program::default(),
            pace,
            servers: Vec::new(),
            replaced: Vec::new(),
            is_upgrading: false,
            restarts: Vec::new(),
            signals: signals::descriptor()?,
            job,
            fatal: None,
            is_init_gone: false,
            terminal,
            is_rest_owed: false,
            is_to_stop: false,
            door,
            about,
        };
        launcher.start_server()?;
        Ok(launcher)
    }

    /// Waits for the sentry, and returns how its program has ended.
    pub fn wait(mut self) -> Result<Ending, Failure> {
        loop {
            match self.sentry.ending()? {
                Some(WaitStatus::Exited(..)) if self.owes_its_end && !self.sentry.is_child() => {
                    let own = self.departure.as_ref().and_then(Departure::failure);
                    return Err(own.unwrap_or_else(|| Failure {
                        status: SETUP,
                        message: WITHOUT_A_WORD.to_owned(),
                    }));
                }
                Some(WaitStatus::Exited(_, status)) => {
                    self.hear_the_last();
                    self.show_rest(status)?;
                    return Ok(Ending::of_program(status as u8, self.fatal));
                }
                Some(WaitStatus::Signaled(_, signal, _)) => {
                    let unexpected = || Failure {
                        status: SETUP,
                        message: format!(
                            "the sentry was ended by {signal}, and the sandbox with it"
                        ),
                    };
                    let own = self.departure.as_ref().and_then(Departure::failure);
                    return Err(own.unwrap_or_else(unexpected));
                }
                _ => {}
            }
            self.attend(None, None)?;
        }
    }

    /// Takes what init has told and was not heard yet, now that it is gone. No more than one could have told by then: somebody
    /// who was given its end could go on.
    fn hear_the_last(&mut self) {
        for _ in 0..LAST_EVENTS {
            match self.job.hear() {
                Ok(Some(Event::Ended(signal))) => self.fatal = jobs::signal_of(signal),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Shows what the program has written to its terminal, now that its sandbox is gone. The servers are ended before, and who
    /// has something to ask finds nobody: this may take as long as the terminal is held.
    fn show_rest(&mut self, status: i32) -> Result<(), Failure> {
        self.end_all_servers();
        self.door = None;
        self.is_sentry_ending = true;
        self.is_init_gone = true;
        self.departure
            .get_or_insert_with(|| Departure::new(Reason::Program));
        self.owe_rest(jobs::signal_of(Some(status - 128)));
        while let Some(limit) = self.settle_rest() {
            self.wait_for_news(Some(limit), None)?;
        }
        Ok(())
    }

    /// Waits for every server that has ended.
    pub(super) fn reap_servers(&mut self) {
        for servers in [&mut self.servers, &mut self.replaced] {
            servers.retain(|server| !server.has_ended());
        }
    }

    /// Whether nothing is left of the sandbox but what the launcher still has to wait for.
    pub(super) fn has_ended(&self) -> bool {
        self.sentry.has_ended()
    }

    /// Waits for something to do and does it, at most for `limit`. It returns as well when there is something to read from
    /// `further`, which is left to the caller.
    pub(super) fn attend(
        &mut self,
        limit: Option<Duration>,
        further: Option<BorrowedFd<'_>>,
    ) -> Result<(), Failure> {
        self.reap_servers();
        let left = self.heed_the_end();
        let held = self.deliver();
        let rest = self.settle_rest();
        let look = self.terminal.as_ref().and_then(Terminal::next_look);
        let limit = [limit, left, held, rest, look].into_iter().flatten().min();
        self.wait_for_news(limit, further)
    }

    fn wait_for_news(
        &mut self,
        limit: Option<Duration>,
        further: Option<BorrowedFd<'_>>,
    ) -> Result<(), Failure> {
        let signals = self.signals.as_fd();
        // A sentry that is ending has closed its end, which would end every wait.
        let liaison = (!self.is_sentry_ending).then(|| self.liaison.as_fd());
        let door = self.door.as_ref().map(AsFd::as_fd);
        let job = (!self.is_init_gone).then(|| self.job.as_fd());
        // Its end is news only once.
        let program = self.program.process().filter(|_| self.departure.is_none());
        let program = program.map(AsFd::as_fd);
        let awaited = [Some(signals), liaison, door, job, program, further];
        let mut polled: Vec<PollFd<'_>> = awaited
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        let takes_keys = self.takes_keys();
        let terminal = self.terminal.iter();
        polled.extend(terminal.flat_map(|terminal| terminal.awaited(takes_keys)));
        // Rounded up, so that it is over then.
        let limit = limit.map(|limit| limit + Duration::from_millis(1));
        let limit = limit.map(|limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        match poll(&mut polled, limit.unwrap_or(PollTimeout::NONE)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).attempt("poll"),
        }
        let [signalled, asked, knocked, told, ..] = awaited.map(|descriptor| {
            let number = descriptor.map(|descriptor| descriptor.as_raw_fd());
            polled.iter().any(|polled| {
                polled.any() == Some(true) && Some(polled.as_fd().as_raw_fd()) == number
            })
        });
        drop(polled);
        self.carry();
        if signalled && let Some(received) = self.signals.next_in_order()? {
            self.heed(received);
        }
        if told {
            match self.job.hear() {
                Ok(Some(event)) => self.attend_to_program(event),
                Ok(None) => {}
                Err(SocketError::Closed) => self.is_init_gone = true,
                Err(_) => {}
            }
        }
        if asked {
            match self.liaison.next() {
                Ok(Plea::AnotherServer) => self.restart_server(),
                Ok(Plea::EndServer) => self.end_server(),
                Ok(Plea::HoldListener(listener)) => {
                    self.owes_its_end = true;
                    self.listeners.hold(listener);
                }
                Ok(Plea::Over) => self.owes_its_end = false,
                Err(SocketError::Closed) => {
                    self.is_sentry_ending = true;
                    self.sentry.has_let_go();
                }
                Err(_) => {}
            }
        }
        if knocked && let Some(visitor) = self.door.as_ref().and_then(Door::admit) {
            self.attend_to(visitor);
        }
        Ok(())
    }

    /// Does what a command asks for, and answers.
    fn attend_to(&mut self, visitor: Visitor) {
        let Visitor { socket, request } = visitor;
        let reply = match request {
            Request::Describe => Reply::Description(self.about.clone()),
            Request::Upgrade(_) if self.is_upgrading => {
                Reply::Failed("its server is being replaced already".to_owned())
            }
            Request::Upgrade(executable) => match self.upgrade(executable.as_fd()) {
                Ok(upgrade) => Reply::Upgraded(upgrade),
                Err(error) => Reply::Failed(error.to_string()),
            },
        };
        reply.send(&socket);
    }

    fn start_server(&mut self) -> Result<(), Failure> {
        let (control, server_control) = Socket::pair().attempt("socketpair")?;
        let memory = memory::make_shared()?;
        let server = self.starter.start(None, Input::Control(&server_control))?;
        let told = self
            .liaison
            .started(server.pidfd.as_fd(), &control, memory.as_fd());
        self.servers.push(Rc::new(server));
        match told {
            // It has ended, and is about to be waited for. Why, it has said itself.
            Err(SocketError::Closed) => Ok(()),
            told => told.attempt("telling the sentry of a server"),
        }
    }

    /// Ends the server that serves. The sentry will see that it has ended.
    fn end_server(&self) {
        if let Some(server) = self.servers.last() {
            server.end();
        }
    }

    /// Ends every server that there is.
    fn end_all_servers(&self) {
        let servers = self.servers.iter().chain(&self.replaced);
        servers.for_each(|server| server.end());
    }

    /// Starts a server in the place of one that was lost, if that is the policy and there were not too many.
    ///
    /// That it was lost is what the sentry says. So it is ended: two that serve at once would each have a ledger. And so are
    /// those that stayed for its sake, of which the next one knows nothing.
    fn restart_server(&mut self) {
        if self.starter.options.on_server_exit != OnServerExit::Restart {
            return;
        }
        // A test leaves this out, to show that it would notice.
        if ringfence_faults::at(Point::Predecessor) != Some(Act::Drop) {
            self.end_all_servers();
        }
        let now = Instant::now();
        self.restarts
            .retain(|restart| now.duration_since(*restart) < RESTART_PERIOD);
        let started = if self.restarts.len() < MAXIMUM_RESTARTS {
            self.restarts.push(now);
            self.start_server()
        } else {
            Err(Failure::setup(format!(
                "{MAXIMUM_RESTARTS} servers were started within {RESTART_PERIOD:?}"
            )))
        };
        if let Err(failure) = started {
            // A sentry that is gone needs none.
            let _ = self.liaison.no_further(&failure.message);
        }
    }
}

/// How it ends: see `departure.rs`.
impl Launcher<'_> {
    /// Has a signal sent to the program that was sent to the launcher to be passed on.
    pub(super) fn pass_on(&mut self, received: Received) {
        if let Some(signal) = received.to_pass_on() {
            self.program.hold(signal);
        }
    }

    /// Sends the program what it is to be sent, after what init was told to send it before. An init that does not answer is
    /// not waited for longer than a moment; then returns how long that still is.
    pub(super) fn deliver(&mut self) -> Option<Duration> {
        self.program.deliver(self.job.is_obeyed())
    }

    /// If the sandbox is over, somebody who ends the launcher wants it to end.
    pub(super) fn hurry(&mut self, signal: Signal) {
        if signals::is_to_end(signal)
            && let Some(departure) = self.find_over()
        {
            departure.hurry();
            self.pace.hurry();
        }
    }

    /// The sandbox's departure, if it is over.
    fn find_over(&mut self) -> Option<&mut Departure> {
        if self.departure.is_none() {
            let is_to_end_with_server = self.starter.options.on_server_exit == OnServerExit::Kill;
            let reason = if self.servers.is_empty() && is_to_end_with_server {
                Some(Reason::Server)
            } else {
                self.program.has_ended().then_some(Reason::Program)
            };
            self.departure = reason.map(Departure::new);
        }
        self.departure.as_mut()
    }

    /// Ends the sandbox if it is over and has had its time. Else returns how long to wait until the next look, if one is
    /// needed.
    pub(super) fn heed_the_end(&mut self) -> Option<Duration> {
        let (pace, is_held_up) = (self.pace, self.is_rest_owed);
        let left = self.find_over()?.look(pace, is_held_up);
        if left.is_none() {
            self.sentry.kill();
        }
        left
    }
}

impl Drop for Launcher<'_> {
    fn drop(&mut self) {
        // If something has failed the sentry is there still, and would complain of the end of its server, too.
        self.sentry.kill();
        // All of them first, so that they end at the same time.
        self.end_all_servers();
        let servers = self.servers.iter().chain(&self.replaced);
        servers.for_each(|server| server.wait());
    }
}
