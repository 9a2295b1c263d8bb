//! The event loop: one thread that drains every request that is ready, then sleeps until something happens.
//!
//! A wake handles all submissions that the ring holds and publishes all their completions, and those of workers,
//! together. Requests that may wait run on workers, so that none delays the rest. The loop's thread lives in the
//! host's confinement: what it opens for tasks cannot be the target of an ioctl.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use ringfence_ipc::{Completion, FLAG_DESCRIPTOR, ServerChannel, Submission};

use crate::handles::HandleTable;
use crate::host::{DeviceFile, Host, OpenFlags, Opened, Opener};
use crate::protocol::{ARGUMENT_DESCRIPTORS, ARGUMENT_NODE, ARGUMENT_RESULT, Kind, MAXIMUM_DESCRIPTORS, OPEN_NONBLOCKING, decode_result, encode_result};
use crate::reactor::{Reactor, SleepWord};
use crate::request::{Action, Buffer, Context, Descriptors, Executed, Files, Prepared, Rejection};
use crate::workers::Pool;

/// Threads for requests that may wait. Past this many at once, further ones queue.
const MAXIMUM_WORKERS: usize = 64;
/// Threads for the first opens of GPUs.
const MAXIMUM_OPENERS: usize = 8;
/// How often the loop looks for work before it sleeps, on a machine with more than one processor.
const SPINS: u32 = 2_000;

/// What a worker hands back to the loop.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are requests, and boxing those would cost each an allocation"
)]
enum Finished {
    Executed(Executed),
    Opened { cookie: u64, node: Node, outcome: Result<Opened, Errno> },
}

/// Where workers leave what they finished.
struct Outbox {
    finished: Mutex<Vec<Finished>>,
    /// Whether `finished` holds something: looked at while spinning, without taking the lock.
    any: AtomicBool,
    wake: EventFd,
}

impl Outbox {
    fn put(&self, finished: Finished) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        self.any.store(true, Ordering::Release);
        // The counter cannot overflow: the loop resets it far more often than 2^64 times.
        let _ = self.wake.write(1);
    }

    fn take(&self) -> Vec<Finished> {
        self.any.store(false, Ordering::Relaxed);
        // EAGAIN means that nobody wrote since the last reset.
        let _ = self.wake.read();
        std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One description that a task holds.
struct Entry {
    file: Arc<dyn DeviceFile>,
    event_granted: bool,
}

impl Files for HandleTable<Entry> {
    fn file(&self, handle: u64) -> Result<Arc<dyn DeviceFile>, Errno> {
        self.get(handle).map(|entry| Arc::clone(&entry.file))
    }
}

/// The server of one sandbox.
pub struct Server {
    host: Arc<dyn Host>,
    abi: &'static Abi,
    channel: ServerChannel,
    handles: HandleTable<Entry>,
    workers: Pool,
    openers: Pool,
    outbox: Arc<Outbox>,
    spare: Vec<Buffer>,
    spins: u32,
}

/// Why a server ends.
#[derive(Debug)]
pub enum End {
    /// The sentry is gone: the ordinary end.
    SentryGone,
    /// It cannot go on.
    Failed(String),
}

impl Server {
    /// Starts the workers, then confines the calling thread, which must be the one that calls [`Server::run`].
    pub fn new(host: Arc<dyn Host>, abi: &'static Abi, channel: ServerChannel) -> Result<Server, String> {
        let outbox = Outbox {
            finished: Mutex::default(),
            any: AtomicBool::new(false),
            wake: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(|errno| format!("eventfd: {errno}"))?,
        };
        let no_thread = |error: std::io::Error| format!("starting a thread: {error}");
        let workers = Pool::start("worker", MAXIMUM_WORKERS, || ()).map_err(no_thread)?;
        let confined = Arc::clone(&host);
        let openers = Pool::start("opener", MAXIMUM_OPENERS, move || {
            if let Err(reason) = confined.confine() {
                tracing::error!("an opener could not be confined: {reason}");
                std::process::abort();
            }
        })
        .map_err(no_thread)?;
        let no_socket = |error| format!("the control socket: {error}");
        channel.socket.set_nonblocking(true).map_err(no_socket)?;
        host.confine()?;
        let spins = if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) { SPINS } else { 0 };
        Ok(Server {
            host,
            abi,
            channel,
            handles: HandleTable::default(),
            workers,
            openers,
            outbox: Arc::new(outbox),
            spare: Vec::new(),
            spins,
        })
    }

    /// Serves until the sentry is gone.
    pub fn run(mut self) -> End {
        match self.serve() {
            Ok(()) => End::SentryGone,
            Err(reason) => End::Failed(reason),
        }
    }

    fn serve(&mut self) -> Result<(), String> {
        let outbox = Arc::clone(&self.outbox);
        let mut reactor = Reactor::new(outbox.wake.as_fd(), self.channel.socket.as_fd())
            .map_err(|error| format!("io_uring: {error}"))?;
        loop {
            if self.drain()? || self.spin()? {
                continue;
            }
            if !self.channel.submissions.announce_sleep() {
                continue;
            }
            if self.outbox.any.load(Ordering::Acquire) {
                self.channel.submissions.cancel_sleep();
                continue;
            }
            let (address, expected) = self.channel.submissions.sleep_word();
            let alive = reactor.sleep(SleepWord { address, expected }).map_err(|error| format!("io_uring: {error}"))?;
            self.channel.submissions.cancel_sleep();
            if !alive {
                return Ok(());
            }
        }
    }

    /// Looks for work for a short while before a sleep; true if there is some.
    fn spin(&mut self) -> Result<bool, String> {
        for _ in 0..self.spins {
            if self.channel.submissions.is_ready() || self.outbox.any.load(Ordering::Acquire) {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Handles everything that is ready; true if there was anything.
    fn drain(&mut self) -> Result<bool, String> {
        let mut any = false;
        if self.outbox.any.load(Ordering::Acquire) {
            for finished in self.outbox.take() {
                any = true;
                self.finish(finished);
            }
        }
        while let Some(submission) = self.channel.submissions.pop().map_err(|error| format!("submission ring: {error}"))? {
            any = true;
            self.dispatch(&submission)?;
        }
        self.channel.completions.publish();
        self.channel.completions.ring();
        Ok(any)
    }

    fn dispatch(&mut self, submission: &Submission) -> Result<(), String> {
        // Descriptors on the socket pair up with submissions by order, so one must be taken even for a request that
        // is then refused.
        let count = submission.arguments[ARGUMENT_DESCRIPTORS];
        if count > MAXIMUM_DESCRIPTORS as u64 {
            return Err("a submission with more descriptors than any has".to_owned());
        }
        let mut carried = Descriptors::new();
        for _ in 0..count {
            let received = self.channel.socket.receive();
            carried.push(received.map_err(|error| format!("the control socket: {error}"))?.1);
        }
        let rejection = match Kind::from_wire(submission.kind) {
            Some(Kind::Open) => self.open(submission),
            Some(Kind::Close) => self.close(submission),
            Some(Kind::Ioctl) => self.request(submission, Action::Issue, carried),
            Some(Kind::PinBegin) => self.request(submission, Action::Lend, carried),
            Some(Kind::PinFinish) => {
                let issued = decode_result(submission.arguments[ARGUMENT_RESULT] as i64);
                self.request(submission, Action::Pinned(issued), carried)
            }
            None => Err(Rejection::Malformed("an unknown kind")),
        };
        if let Err(rejection) = rejection {
            let errno = match rejection {
                Rejection::Errno(errno) => errno,
                Rejection::Refused(refusal) => {
                    tracing::warn!("refused after the sentry let it pass: {}", refusal.what);
                    Errno::EPROTO
                }
                Rejection::Malformed(reason) => {
                    tracing::warn!("malformed message: {reason}");
                    Errno::EPROTO
                }
            };
            self.complete(completion(submission.cookie, Err(errno)), None);
        }
        Ok(())
    }

    fn open(&mut self, submission: &Submission) -> Result<(), Rejection> {
        let node = node_of(submission)?;
        let flags = OpenFlags { nonblocking: submission.code & OPEN_NONBLOCKING != 0 };
        let cookie = submission.cookie;
        let pool = match self.host.opener(node) {
            Opener::Prompt => {
                let outcome = self.host.open(node, flags);
                self.opened(cookie, node, outcome);
                return Ok(());
            }
            Opener::Patient => &self.openers,
            Opener::Unconfined => &self.workers,
        };
        let (host, outbox) = (Arc::clone(&self.host), Arc::clone(&self.outbox));
        pool.submit(move || outbox.put(Finished::Opened { cookie, node, outcome: host.open(node, flags) }));
        Ok(())
    }

    fn opened(&mut self, cookie: u64, node: Node, outcome: Result<Opened, Errno>) {
        let stored = outcome.and_then(|Opened { file, granted }| {
            let handle = match file {
                Some(file) => self.handles.insert(Entry { file, event_granted: false })?,
                None => 0,
            };
            Ok((handle, granted))
        });
        match stored {
            Ok((handle, granted)) => {
                let mut done = completion(cookie, Ok(0));
                done.values[0] = handle;
                self.complete(done, Some(granted));
            }
            Err(errno) => {
                tracing::debug!("open {}: {errno}", node.file_name());
                self.complete(completion(cookie, Err(errno)), None);
            }
        }
    }

    /// Closing can take long (the driver frees every object of a client), so a worker does it; nobody waits for it.
    fn close(&mut self, submission: &Submission) -> Result<(), Rejection> {
        let entry = self.handles.remove(submission.target)?;
        self.workers.submit(move || drop(entry));
        self.complete(completion(submission.cookie, Ok(0)), None);
        Ok(())
    }

    fn request(&mut self, submission: &Submission, action: Action, carried: Descriptors) -> Result<(), Rejection> {
        let node = node_of(submission)?;
        let buffer = self.spare.pop().unwrap_or_default();
        let context = Context { abi: self.abi, host: &*self.host, files: &self.handles, arena: &self.channel.arena };
        let prepared: Prepared = context.prepare(submission, node, action, carried, buffer)?;
        if prepared.is_prompt() {
            let executed = prepared.execute(&*self.host);
            self.executed(executed);
        } else {
            let (host, outbox) = (Arc::clone(&self.host), Arc::clone(&self.outbox));
            self.workers.submit(move || outbox.put(Finished::Executed(prepared.execute(&*host))));
        }
        Ok(())
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Executed(executed) => self.executed(executed),
            Finished::Opened { cookie, node, outcome } => self.opened(cookie, node, outcome),
        }
    }

    /// Writes back what the driver left and completes the request.
    fn executed(&mut self, executed: Executed) {
        let Executed { prepared, outcome, lent, nanoseconds } = executed;
        let mut done = completion(prepared.cookie, outcome);
        done.driver_nanoseconds = nanoseconds;
        let mut descriptor = lent;
        if outcome.is_ok() && prepared.action != Action::Lend {
            let bytes = prepared.buffer.bytes();
            // The range was checked when the request was read from it.
            if self.channel.arena.write(prepared.payload_offset, bytes).is_ok() {
                done.payload_length = bytes.len() as u32;
            }
            if prepared.plan.makes_event() && prepared.status() == Some(nvproxy_abi::status::NV_OK) {
                descriptor = self.grant_event(prepared.handle);
            }
        }
        self.complete(done, descriptor);
        if self.spare.len() < 64 {
            self.spare.push(prepared.buffer);
        }
    }

    /// The event descriptor of the description that `handle` names, unless its tasks have it already.
    fn grant_event(&mut self, handle: u64) -> Option<OwnedFd> {
        let entry = self.handles.get_mut(handle).ok()?;
        if entry.event_granted {
            return None;
        }
        match entry.file.event_descriptor() {
            Ok(descriptor) => {
                entry.event_granted = true;
                Some(descriptor)
            }
            Err(errno) => {
                tracing::warn!("no event descriptor: {errno}");
                None
            }
        }
    }

    /// Stages a completion, with the descriptor that travels beside it.
    fn complete(&mut self, mut done: Completion, descriptor: Option<OwnedFd>) {
        if let Some(descriptor) = descriptor {
            match self.channel.socket.send(done.cookie, descriptor.as_fd()) {
                Ok(()) => done.flags |= u32::from(FLAG_DESCRIPTOR),
                Err(error) => {
                    tracing::warn!("a descriptor could not be passed: {error}");
                    done.result = encode_result(Err(Errno::EMFILE));
                }
            }
        }
        // The ring has room for every request in flight: the sentry has no more of them than it has entries. A sentry
        // that breaks this loses completions of its own.
        if let Err(error) = self.channel.completions.stage(&done) {
            tracing::warn!("a completion is lost: {error}");
        }
    }
}

fn completion(cookie: u64, outcome: Result<i32, Errno>) -> Completion {
    Completion { cookie, result: encode_result(outcome), ..Completion::default() }
}

fn node_of(submission: &Submission) -> Result<Node, Rejection> {
    Node::from_wire(submission.arguments[ARGUMENT_NODE]).ok_or(Rejection::Malformed("an unknown node"))
}
