//! Where the server sleeps: one `io_uring_enter` that waits for everything.
//!
//! Two things wake it: the submission ring's doorbell (a futex in shared memory), and the end of the control socket,
//! which means that the sentry is gone. Each is an operation that stays armed in the ring until it fires, so a sleep
//! costs one system call.
//!
//! `unsafe` is here because the kernel is given addresses that it uses until an operation completes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use ringfence_ipc::{FUTEX_BITSET_ANY, FUTEX_SHARED_U32};

const DOORBELL: u64 = 1;
const SOCKET: u64 = 2;

/// A word in memory that a futex wait sleeps on while it holds `expected`.
#[derive(Clone, Copy)]
pub struct SleepWord {
    pub address: *const u32,
    pub expected: u32,
}

// SAFETY: the address is a number for the kernel; this process never reads through it.
unsafe impl Send for SleepWord {}

/// A ring that takes the two operations of a [`Reactor`] and no other, and can be changed no more.
///
/// No filter of system calls sees what is done through a ring, so it must not be able to do more.
pub struct Ring(IoUring);

impl Ring {
    /// Makes one, if this kernel lets this process have what a reactor needs; an error says what is missing.
    pub fn new() -> io::Result<Ring> {
        let ring: IoUring = IoUring::builder().setup_r_disabled().build(4)?;
        let submitter = ring.submitter();
        let mut probe = io_uring::Probe::new();
        submitter.register_probe(&mut probe)?;
        if !probe.is_supported(opcode::FutexWait::CODE) {
            let reason = "no futex operations";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let mut operations =
            [opcode::PollAdd::CODE, opcode::FutexWait::CODE].map(Restriction::sqe_op);
        submitter.register_restrictions(&mut operations)?;
        submitter.register_enable_rings()?;
        Ok(Ring(ring))
    }
}

/// A ring and what is armed in it.
pub struct Reactor {
    ring: IoUring,
    doorbell: SleepWord,
    doorbell_armed: bool,
}

impl Reactor {
    /// Arms the control socket's end. `doorbell` is the word to sleep on; it must stay mapped for as long as this
    /// reactor lives.
    pub fn new(ring: Ring, socket: BorrowedFd<'_>, doorbell: SleepWord) -> io::Result<Reactor> {
        let mut reactor = Reactor {
            ring: ring.0,
            doorbell,
            doorbell_armed: false,
        };
        let hangup = (libc::POLLHUP | libc::POLLRDHUP) as u32;
        let poll = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), hangup);
        reactor.arm(poll.build().user_data(SOCKET))?;
        Ok(reactor)
    }

    /// Sleeps until something happens; returns false when the sentry is gone. Wakes may be spurious; where the word does
    /// not say that somebody sleeps, this returns at once.
    pub fn sleep(&mut self) -> io::Result<bool> {
        if !self.doorbell_armed {
            let wait = opcode::FutexWait::new(
                self.doorbell.address,
                u64::from(self.doorbell.expected),
                FUTEX_BITSET_ANY,
                FUTEX_SHARED_U32,
            );
            self.arm(wait.build().user_data(DOORBELL))?;
            self.doorbell_armed = true;
        }
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            Err(error) => return Err(error),
        }
        let mut alive = true;
        for completion in self.ring.completion() {
            match completion.user_data() {
                DOORBELL => self.doorbell_armed = false,
                _ => alive = false,
            }
        }
        Ok(alive)
    }

    fn arm(&mut self, operation: squeue::Entry) -> io::Result<()> {
        // SAFETY: polls carry no address. A futex wait carries that of a word which, as `new` demands, stays mapped
        // for as long as this ring can use it.
        unsafe { self.ring.submission().push(&operation) }
            .map_err(|_| io::Error::other("the submission queue is full"))
    }
}
