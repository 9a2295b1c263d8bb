//! The event loop: one thread that drains every request that is ready, then sleeps until something happens.
//!
//! A wake handles all submissions that the ring holds and publishes their completions together. No request delays
//! another, and none changes threads: before the loop's thread takes on one that may wait, it gives up the `lead` of
//! the loop, and takes it back when it is done, unless another thread had to step in meanwhile.
//!
//! The threads that lead the loop live in the backend's confinement: what they open for tasks cannot be the target of an
//! ioctl. What has to be opened otherwise, the command descriptors and UVM, is left to [`Pool`]'s threads, and so is
//! closing, which nobody waits for.

mod away;
mod descriptions;
mod requests;
mod succession;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use ringfence_faults::{Point, at};
use ringfence_ipc::locks::IgnorePoison;
use ringfence_ipc::{
    Arena, Completion, Consumer, Corrupt, FLAG_DESCRIPTOR, Producer, Region, ServerChannel, Socket,
    SocketError, Spin, Submission,
};

use crate::backend::{self, Backend, OpenFlags};
use crate::handles::HandleTable;
use crate::ledger::Books;
use crate::load::Load;
use crate::reactor::{Reactor, Ring, SleepWord, wait_for_end};
use crate::request::{Action, Buffer, Descriptors, Prepared, Rejection};
use crate::roles::{Role, Roles, Sleepers};
use crate::workers::Pool;
use nvproxy_protocol::requests::{
    ARGUMENT_DESCRIPTORS, ARGUMENT_NODE, ARGUMENT_RESULT, Kind, MAXIMUM_DESCRIPTORS, VALUE_ASKED,
    decode_result, encode_result,
};

use self::descriptions::Entry;
#[cfg(test)]
pub use self::succession::MAXIMUM_STATE;
pub use self::succession::{Error as SuccessionError, Own, accept_succession, obey};

/// Threads for what a confined thread cannot do, and for closing.
const MAXIMUM_WORKERS: usize = 64;

/// What every thread uses, for a moment at a time.
struct Shared {
    handles: HandleTable<Entry>,
    completions: Producer<Completion>,
    spare: Vec<Buffer>,
}

/// The server of one sandbox.
pub struct Server {
    backend: Arc<dyn Backend>,
    abi: &'static Abi,
    arena: Arena,
    socket: Socket,
    /// Locked by the thread that leads.
    submissions: Mutex<Consumer<Submission>>,
    /// Locked by the thread that sleeps.
    reactor: Mutex<Reactor>,
    roles: Roles,
    shared: Mutex<Shared>,
    books: Arc<Books>,
    load: Load,
    workers: Pool,
    spin: Spin,
    /// The sentry's wrongs that were reported.
    reported: Mutex<HashSet<&'static str>>,
    region: Region,
    /// Set while the server is to take no request; then the leader waits for `gate`.
    pausing: AtomicBool,
    gate: Mutex<()>,
    /// Jobs under way elsewhere than in the hands of the leader.
    away: AtomicUsize,
}

/// What the leader lets go of the loop for.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are requests, and boxing those would cost each an allocation"
)]
enum Slow {
    Request(Prepared),
    Open {
        cookie: u64,
        node: Node,
        flags: OpenFlags,
    },
}

/// Why a server ends.
#[derive(Debug)]
pub enum End {
    /// The sentry is gone: the ordinary end.
    SentryGone,
    /// The launcher is gone, which would end it.
    LauncherGone,
    /// It cannot go on.
    Failed(Error),
}

/// Why a server does not begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A thread did not start.
    #[error("starting a thread: {0}")]
    Thread(#[source] io::Error),
    /// The control socket failed.
    #[error("the control socket: {0}")]
    ControlSocket(#[source] SocketError),
    /// It cannot be waited for the end of the control socket.
    #[error("the control socket: {0}")]
    Watch(#[source] io::Error),
    /// There is nothing to sleep in.
    #[error("io_uring: {0}")]
    Reactor(#[source] io::Error),
    /// The driver is not confined.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// It cannot be waited for the doorbell.
    #[error("the doorbell: {0}")]
    Doorbell(#[source] io::Error),
    /// The sentry does not keep to the protocol of rings.
    #[error("submission ring: {0}")]
    Ring(#[source] Corrupt),
    /// The sentry has submitted more than it may.
    #[error("more submissions under way than a ring has entries")]
    TooMany,
    /// A submission says that more descriptors come with it than may.
    #[error("a submission with more descriptors than any has")]
    TooManyDescriptors,
    /// A descriptor came that is not of the submission's.
    #[error("a descriptor belongs to another submission")]
    OthersDescriptor,
}

impl Server {
    /// Takes the `ring` to sleep in, which was made before the process was confined, if there is one. Starts the workers,
    /// then confines the calling thread, which must be the one that calls [`Server::run`].
    pub fn new(
        backend: Arc<dyn Backend>,
        abi: &'static Abi,
        books: Arc<Books>,
        channel: ServerChannel,
        ring: Option<Ring>,
    ) -> Result<Arc<Server>, Error> {
        let handles = HandleTable::default();
        Self::with_handles(backend, abi, books, channel, ring, handles)
    }

    fn with_handles(
        backend: Arc<dyn Backend>,
        abi: &'static Abi,
        books: Arc<Books>,
        channel: ServerChannel,
        ring: Option<Ring>,
        handles: HandleTable<Entry>,
    ) -> Result<Arc<Server>, Error> {
        let ServerChannel {
            submissions,
            completions,
            arena,
            socket,
            region,
        } = channel;
        let workers = Pool::start("worker", MAXIMUM_WORKERS).map_err(Error::Thread)?;
        socket.set_nonblocking(true).map_err(Error::ControlSocket)?;
        let (address, expected) = submissions.sleep_word();
        let word = SleepWord { address, expected };
        let reactor = Reactor::new(ring, socket.as_fd(), word).map_err(Error::Reactor)?;
        backend.confine()?;
        Ok(Arc::new(Server {
            backend,
            abi,
            arena,
            socket,
            submissions: Mutex::new(submissions),
            reactor: Mutex::new(reactor),
            roles: Roles::default(),
            shared: Mutex::new(Shared {
                handles,
                completions,
                spare: Vec::new(),
            }),
            books,
            load: Load::default(),
            workers,
            spin: Spin::automatic(),
            reported: Mutex::default(),
            region,
            pausing: AtomicBool::new(false),
            gate: Mutex::default(),
            away: AtomicUsize::new(0),
        }))
    }

    /// Has a thread wait for the end of the control socket, if the one that sleeps cannot; then it calls `end`.
    pub fn watch(&self, end: fn(End) -> !) -> io::Result<()> {
        let reactor = self.reactor.lock().ignore_poison();
        if !reactor.misses_the_end() {
            return Ok(());
        }
        drop(reactor);
        let socket = self.socket.as_fd().try_clone_to_owned()?;
        let watch = move || {
            let ended = wait_for_end(socket.as_fd());
            end(ended.map_or_else(
                |error| End::Failed(Error::Watch(error)),
                |()| End::SentryGone,
            ));
        };
        let watcher = thread::Builder::new().name("watch".to_owned());
        watcher.spawn(watch).map(drop)
    }

    /// Serves until the sentry is gone, and then calls `end` to end the process, on whichever thread notices.
    pub fn run(self: Arc<Self>, end: fn(End) -> !) -> ! {
        let mut role = self.roles.begin();
        loop {
            role = match role {
                Role::Lead => self.lead(end).unwrap_or_else(|reason| end(reason)),
                Role::Sleep => match self.sleep() {
                    Ok(true) => self.roles.woken(),
                    Ok(false) => end(End::SentryGone),
                    Err(error) => end(End::Failed(Error::Doorbell(error))),
                },
            };
        }
    }

    /// Leads the loop until there is nothing to do, or something slow; does that, too, and returns the role to take on
    /// next.
    fn lead(self: &Arc<Self>, end: fn(End) -> !) -> Result<Role, End> {
        let mut submissions = self.submissions();
        submissions.cancel_sleep();
        loop {
            if self.pausing.load(Ordering::Relaxed) {
                drop(submissions);
                drop(self.gate.lock().ignore_poison());
                submissions = self.submissions();
            }
            let (any, slow) = self.drain(&mut submissions).map_err(End::Failed)?;
            if any {
                self.publish();
            }
            if let Some(slow) = slow {
                // From here on the doorbell rings for the thread that sleeps.
                let more = !submissions.announce_sleep();
                let away = self.away();
                drop(submissions);
                if self.roles.leave(more) == Sleepers::Wanted {
                    self.add_thread(end);
                }
                self.perform(slow);
                drop(away);
                return Ok(self.roles.take_back());
            }
            if any || submissions.look(self.spin) || !submissions.announce_sleep() {
                continue;
            }
            drop(submissions);
            return Ok(self.roles.idle());
        }
    }

    /// Waits for the doorbell; false if the sentry is gone.
    fn sleep(&self) -> io::Result<bool> {
        self.reactor.lock().ignore_poison().sleep()
    }

    fn perform(self: &Arc<Self>, slow: Slow) {
        match slow {
            Slow::Request(prepared) => {
                at(Point::Slow);
                self.issue(prepared);
            }
            Slow::Open {
                cookie,
                node,
                flags,
            } => self.open_node(cookie, node, flags),
        }
        self.publish();
    }

    /// Starts another thread that can lead. Without one, the loop waits for the request that this thread is about to
    /// take on.
    fn add_thread(self: &Arc<Self>, end: fn(End) -> !) {
        let server = Arc::clone(self);
        let started = thread::Builder::new()
            .name("leader".to_owned())
            .spawn(move || server.run(end));
        if let Err(error) = started {
            self.roles.not_started();
            tracing::warn!(
                "no further thread can be started, so requests wait for each other: {error}"
            );
        }
    }

    /// Handles what is ready, up to the first that is slow; the flag says whether there was anything.
    fn drain(
        self: &Arc<Self>,
        submissions: &mut Consumer<Submission>,
    ) -> Result<(bool, Option<Slow>), Error> {
        let mut any = false;
        while !self.pausing.load(Ordering::Relaxed)
            && let Some(submission) = submissions.pop().map_err(Error::Ring)?
        {
            at(Point::Take);
            if any {
                at(Point::Next);
            }
            any = true;
            if !self.load.begin() {
                return Err(Error::TooMany);
            }
            let dispatched = self
                .carried(&submission)?
                .and_then(|carried| self.dispatch(&submission, carried));
            match dispatched {
                Ok(None) => {}
                Ok(slow) => return Ok((true, slow)),
                Err(rejection) => self.reject(submission.cookie, rejection),
            }
        }
        Ok((any, None))
    }

    /// Takes the descriptors that travel beside a submission. They pair up by order, so they are taken even for a
    /// request that is then refused. The outer error is a sentry that does not keep to the protocol.
    fn carried(&self, submission: &Submission) -> Result<Result<Descriptors, Rejection>, Error> {
        let count = submission.arguments[ARGUMENT_DESCRIPTORS];
        if count > MAXIMUM_DESCRIPTORS as u64 {
            return Err(Error::TooManyDescriptors);
        }
        let mut carried = Descriptors::new();
        let mut lost = false;
        for _ in 0..count {
            match self.socket.receive_announced() {
                Ok((tag, descriptor)) if tag == submission.cookie => carried.push(descriptor),
                Ok(_) => return Err(Error::OthersDescriptor),
                // This process has as many as it may have. The request fails, and no other.
                Err(SocketError::DescriptorLost) => lost = true,
                Err(error) => return Err(Error::ControlSocket(error)),
            }
        }
        Ok(if lost {
            Err(Errno::EMFILE.into())
        } else {
            Ok(carried)
        })
    }

    fn dispatch(
        self: &Arc<Self>,
        submission: &Submission,
        carried: Descriptors,
    ) -> Result<Option<Slow>, Rejection> {
        match Kind::from_wire(submission.kind) {
            Some(Kind::Open) => self.open(submission),
            Some(Kind::Close) => self.close(submission).map(|()| None),
            Some(Kind::Ioctl) => self.request(submission, Action::Issue, carried),
            Some(Kind::PinBegin) => self.request(submission, Action::Lend, carried),
            Some(Kind::PinFinish) => {
                let issued = decode_result(submission.arguments[ARGUMENT_RESULT] as i64);
                self.request(submission, Action::Pinned(issued), carried)
            }
            None => Err(Rejection::Malformed("an unknown kind")),
        }
    }

    fn reject(&self, cookie: u64, rejection: Rejection) {
        let errno = match rejection {
            Rejection::Errno(errno) => errno,
            Rejection::Refused(refusal) => {
                if self.is_new("refused") {
                    tracing::warn!("refused after the sentry let it pass: {}", refusal.what);
                }
                Errno::EPROTO
            }
            Rejection::Malformed(reason) => {
                if self.is_new(reason) {
                    tracing::warn!("malformed message: {reason}");
                }
                Errno::EPROTO
            }
        };
        self.complete(completion(cookie, Err(errno)), None);
    }

    /// Whether this wrong of the sentry's happens for the first time. Each is reported once, so that a sentry that was
    /// taken over cannot fill the log.
    fn is_new(&self, wrong: &'static str) -> bool {
        let mut reported = self.reported.lock().ignore_poison();
        reported.insert(wrong)
    }

    /// Stages a completion, with the descriptor that travels beside it.
    fn complete(&self, mut done: Completion, descriptor: Option<OwnedFd>) {
        self.load.end();
        // Under the lock, since descriptors pair up with completions by order.
        let mut shared = self.shared();
        if let Some(descriptor) = descriptor {
            match self.socket.send(done.cookie, descriptor.as_fd()) {
                Ok(()) => done.flags |= u32::from(FLAG_DESCRIPTOR),
                Err(error) => {
                    if self.is_new("a descriptor") {
                        tracing::warn!("a descriptor could not be passed: {error}");
                    }
                    done.result = encode_result(Err(Errno::EMFILE));
                }
            }
        }
        // The ring has room for every request in flight: the sentry has no more of them than it has entries. A sentry
        // that breaks this loses completions of its own.
        if let Err(error) = shared.completions.stage(&done)
            && self.is_new("a completion")
        {
            tracing::warn!("a completion is lost: {error}");
        }
    }

    /// Shows the sentry what was completed, and wakes it if it sleeps.
    fn publish(&self) {
        at(Point::Publish);
        let mut shared = self.shared();
        shared.completions.publish();
        shared.completions.ring();
    }

    fn submissions(&self) -> MutexGuard<'_, Consumer<Submission>> {
        self.submissions.lock().ignore_poison()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().ignore_poison()
    }
}

fn completion(cookie: u64, outcome: Result<i32, Errno>) -> Completion {
    Completion {
        cookie,
        result: encode_result(outcome),
        ..Completion::default()
    }
}

/// Says in `done` when the driver was asked and how long it took.
fn timed(mut done: Completion, asked: u64, nanoseconds: u64) -> Completion {
    done.values[VALUE_ASKED] = asked;
    done.driver_nanoseconds = nanoseconds;
    done
}

fn node_of(submission: &Submission) -> Result<Node, Rejection> {
    Node::from_wire(submission.arguments[ARGUMENT_NODE])
        .ok_or(Rejection::Malformed("an unknown node"))
}
