//! The sentry's side of the channel: submitting requests, and resuming each where its answer comes in.
//!
//! Threads of the sentry do not wait for their own request. A thread submits and then, if no other thread does it
//! already, takes on the *consumer's role*: it resumes whatever request is answered next, whoever submitted it, until
//! nothing is outstanding. So one busy task costs one thread and no hand-over, a request that the driver keeps for long
//! blocks no thread that others need, and both rings keep a single producer and a single consumer.
//!
//! A link is with one server. When that is lost, [`Link::fail`] ends every request with `EIO`, and no further one is
//! taken.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use nvproxy_protocol::requests::{ARGUMENT_DESCRIPTORS, decode_result};
use ringfence_faults::{Point, at, number};
use ringfence_ipc::locks::IgnorePoison;
use ringfence_ipc::{
    Arena, ArenaAllocator, ArenaRange, ClientChannel, Completion, Consumer, DEFAULT_ARENA,
    FLAG_DESCRIPTOR, Geometry, Producer, SlotClass, Socket, SocketError, Spin, Submission, Wake,
};
use slab::Slab;

use super::times::DriverTime;
use crate::warnings::warn_once;

/// How long the answers to most requests take.
const PROMPT: Spin = Spin {
    duration: Duration::from_micros(20),
};
/// How long the thread that waits for answers sleeps before it looks whether the server was lost, and rings the doorbell
/// again, should a wake have been lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// Entries of each ring, and so requests in flight.
const RING_ENTRIES: u32 = 256;

/// The geometry of the channel.
pub fn geometry() -> Geometry {
    let arena_bytes = slots().iter().map(|class| class.bytes * class.count).sum();
    Geometry {
        ring_entries: number(Point::Entries, RING_ENTRIES),
        arena_bytes,
    }
}

/// What the arena is divided into.
fn slots() -> [SlotClass; 2] {
    DEFAULT_ARENA.map(|class| SlotClass {
        count: number(Point::Slots, class.count),
        ..class
    })
}

/// What the server answered.
pub struct Answer<'a> {
    /// Which of the sandbox's servers.
    pub server: u32,
    pub outcome: Result<i32, Errno>,
    pub values: [u64; 4],
    pub descriptor: Option<OwnedFd>,
    /// The request's payload as the driver left it; empty if it was not issued.
    pub payload: &'a [u8],
    pub driver: DriverTime,
}

/// Resumes requests of the kind `T` when they are answered.
pub trait Resume<T> {
    fn resume(&self, continuation: T, answer: Answer<'_>);
}

/// The channel broke: the server is gone or does not keep to the protocol.
#[derive(Debug)]
pub struct Broken(pub String);

/// A request that the server has.
struct Outstanding<T> {
    serial: u32,
    range: Option<ArenaRange>,
    continuation: T,
}

/// What submitting needs, under one lock.
struct Submitter<T> {
    submissions: Producer<Submission>,
    allocator: ArenaAllocator,
    outstanding: Slab<Outstanding<T>>,
    serial: u32,
    /// Threads that wait for room: signalling when there is none is a system call for each request.
    waiting: usize,
    /// The server was lost.
    is_lost: bool,
}

/// What the consumer's role is.
struct Role {
    completions: Consumer<Completion>,
    payload: Vec<u8>,
}

/// The channel, shared by all threads of the sentry.
pub struct Link<T> {
    /// Which of the sandbox's servers it is with.
    pub server: u32,
    submitter: Mutex<Submitter<T>>,
    role: Mutex<Role>,
    /// Signalled when an answer made room.
    room: Condvar,
    outstanding: AtomicUsize,
    arena: Arena,
    socket: Socket,
    spin: Spin,
}

impl<T> Link<T> {
    /// Takes over a channel of [`geometry`], with the sandbox's server of this number.
    pub fn new(server: u32, channel: ClientChannel) -> Result<Link<T>, Broken> {
        let ClientChannel {
            submissions,
            completions,
            arena,
            socket,
        } = channel;
        let allocator = ArenaAllocator::new(geometry().arena_bytes, &slots())
            .ok_or_else(|| Broken("the arena is too small for its slots".to_owned()))?;
        let largest = allocator.largest() as usize;
        Ok(Link {
            server,
            submitter: Mutex::new(Submitter {
                submissions,
                allocator,
                outstanding: Slab::new(),
                serial: 0,
                waiting: 0,
                is_lost: false,
            }),
            role: Mutex::new(Role {
                completions,
                // As much as any answer needs, so that a shortage of memory cannot lose one.
                payload: Vec::with_capacity(largest),
            }),
            room: Condvar::new(),
            outstanding: AtomicUsize::new(0),
            arena,
            socket,
            spin: Spin::automatic(),
        })
    }

    /// Submits a request with its payload, and the descriptors that go with it. Waits while the channel is full.
    /// `submission` needs neither cookie nor payload range. Fails with `EIO` if the server is lost.
    pub fn submit(
        &self,
        resumer: &impl Resume<T>,
        mut submission: Submission,
        payload: &[u8],
        descriptors: &[OwnedFd],
        continuation: T,
    ) -> Result<(), Errno> {
        let mut submitter = self.submitter.lock().ignore_poison();
        let range = loop {
            if submitter.is_lost {
                return Err(Errno::EIO);
            }
            if submitter.outstanding.len() < submitter.submissions.capacity() as usize {
                if payload.is_empty() {
                    break None;
                }
                if payload.len() as u64 > u64::from(submitter.allocator.largest()) {
                    return Err(Errno::ENOMEM);
                }
                if let Some(range) = submitter.allocator.alloc(payload.len() as u32) {
                    break Some(range);
                }
            }
            // Whoever has the consumer's role makes room, and that may have to be this thread.
            drop(submitter);
            self.consume_ready(resumer);
            submitter = self.submitter.lock().ignore_poison();
            submitter.waiting += 1;
            let waited = self.room.wait_timeout(submitter, Duration::from_millis(1));
            submitter = waited.ignore_poison().0;
            submitter.waiting -= 1;
        };
        if let Some(range) = &range {
            submission.payload_offset = range.offset();
            submission.payload_length = payload.len() as u32;
            self.arena
                .write(range.offset(), payload)
                .map_err(|_| Errno::EFAULT)?;
        }
        submitter.serial = submitter.serial.wrapping_add(1);
        let serial = submitter.serial;
        let key = submitter.outstanding.insert(Outstanding {
            serial,
            range,
            continuation,
        });
        submission.cookie = u64::from(serial) << 32 | key as u64;
        submission.arguments[ARGUMENT_DESCRIPTORS] = descriptors.len() as u64;
        for descriptor in descriptors {
            if let Err(error) = self.socket.send(submission.cookie, descriptor.as_fd()) {
                // A server that is gone is somebody else's news.
                if error != SocketError::Closed {
                    warn_once("a descriptor could not be passed to the server", error);
                }
                self.withdraw(&mut submitter, key);
                return Err(Errno::EIO);
            }
        }
        at(Point::Submit);
        self.outstanding.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = submitter.submissions.push(&submission) {
            warn_once("the submission ring", error);
            self.outstanding.fetch_sub(1, Ordering::SeqCst);
            self.withdraw(&mut submitter, key);
            return Err(Errno::EIO);
        }
        submitter.submissions.ring();
        Ok(())
    }

    fn withdraw(&self, submitter: &mut Submitter<T>, key: usize) {
        if let Some(range) = submitter.outstanding.remove(key).range {
            submitter.allocator.release(range);
        }
    }

    /// Resumes answered requests until none is outstanding or `enough` says so, unless another thread does already.
    /// Calls `slow` if an answer takes longer than most do. Returns whether requests may be outstanding that nobody
    /// resumes: then the caller has to find another thread to do it.
    pub fn consume(
        &self,
        resumer: &impl Resume<T>,
        mut slow: impl FnMut(),
        mut enough: impl FnMut() -> bool,
    ) -> Result<bool, Broken> {
        // A request that is submitted after the role's holder last looked, and whose thread found the role taken, is
        // seen by looking again after letting go.
        while self.outstanding.load(Ordering::SeqCst) > 0 {
            let Some(mut role) = self.role.try_lock().ignore_poison() else {
                return Ok(false);
            };
            while self.outstanding.load(Ordering::SeqCst) > 0 {
                if enough() {
                    return Ok(true);
                }
                let broken =
                    |error: &dyn std::fmt::Display| Broken(format!("the completion ring: {error}"));
                let answered = role.completions.pop().map_err(|error| broken(&error))?;
                if let Some(completion) = answered {
                    self.resume(&completion, &mut role.payload, resumer)?;
                } else if !role.completions.look(PROMPT) {
                    slow();
                    let waited = role.completions.wait(self.spin, Some(PATIENCE));
                    if waited.map_err(|error| broken(&error))? == Wake::TimedOut {
                        self.submitter
                            .lock()
                            .ignore_poison()
                            .submissions
                            .ring_again();
                    }
                }
            }
        }
        Ok(false)
    }

    /// Resumes what is answered already, unless another thread does. A channel that broke is noticed by the next
    /// [`Link::consume`].
    fn consume_ready(&self, resumer: &impl Resume<T>) {
        let Ok(mut role) = self.role.try_lock() else {
            return;
        };
        while let Ok(Some(completion)) = role.completions.pop() {
            if self
                .resume(&completion, &mut role.payload, resumer)
                .is_err()
            {
                return;
            }
        }
    }

    /// Ends every request with `EIO`, and takes no further one: the server is lost.
    pub fn fail(&self, resumer: &impl Resume<T>) {
        let mut submitter = self.submitter.lock().ignore_poison();
        submitter.is_lost = true;
        let abandoned = std::mem::take(&mut submitter.outstanding);
        drop(submitter);
        self.room.notify_all();
        for (_, request) in abandoned {
            let answer = Answer {
                server: self.server,
                outcome: Err(Errno::EIO),
                values: [0; 4],
                descriptor: None,
                payload: &[],
                driver: DriverTime::default(),
            };
            resumer.resume(request.continuation, answer);
            self.outstanding.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn resume(
        &self,
        completion: &Completion,
        payload: &mut Vec<u8>,
        resumer: &impl Resume<T>,
    ) -> Result<(), Broken> {
        let mut outcome = decode_result(completion.result);
        let mut descriptor = None;
        if completion.flags & u32::from(FLAG_DESCRIPTOR) != 0 {
            match self.socket.receive_announced() {
                Ok((tag, received)) if tag == completion.cookie => descriptor = Some(received),
                Ok(_) => {
                    return Err(Broken("a descriptor belongs to another request".to_owned()));
                }
                // This process has as many as it may have. The request fails, and no other.
                Err(SocketError::DescriptorLost) => outcome = Err(Errno::EMFILE),
                Err(error) => return Err(Broken(format!("the control socket: {error}"))),
            }
        }
        let mut submitter = self.submitter.lock().ignore_poison();
        let key = (completion.cookie & u64::from(u32::MAX)) as usize;
        let known = submitter
            .outstanding
            .get(key)
            .is_some_and(|request| u64::from(request.serial) == completion.cookie >> 32);
        if submitter.is_lost {
            // It was ended already.
            return Ok(());
        }
        if !known {
            return Err(Broken(
                "an answer to a request that was not made".to_owned(),
            ));
        }
        let Outstanding {
            range,
            continuation,
            ..
        } = submitter.outstanding.remove(key);
        payload.clear();
        if let Some(range) = range {
            let length = completion.payload_length.min(range.length());
            payload.resize(length as usize, 0);
            let copied = self.arena.read(range.offset(), payload);
            submitter.allocator.release(range);
            copied.map_err(|error| Broken(error.to_string()))?;
        }
        let is_waited_for = submitter.waiting > 0;
        drop(submitter);
        if is_waited_for {
            self.room.notify_all();
        }
        let answer = Answer {
            server: self.server,
            outcome,
            values: completion.values,
            descriptor,
            payload,
            driver: DriverTime::of(completion),
        };
        resumer.resume(continuation, answer);
        // Only now, so that nobody takes the role for free while a request is being resumed.
        self.outstanding.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}
