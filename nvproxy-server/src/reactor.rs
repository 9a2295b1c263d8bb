//! Where the server sleeps until the submission ring's doorbell rings (a futex in shared memory) or the control socket
//! ends, which means that the sentry is gone.
//!
//! With io_uring both are operations that stay armed in a ring until they fire, so that one `io_uring_enter` waits for
//! everything. Where the kernel has no futex operations (before Linux 6.7) or does not let this process have io_uring, as
//! in many containers, the sleeper waits for the futex alone, and the socket is left to a thread that does nothing but
//! wait for its end. Either way a sleep costs one system call.
//!
//! `unsafe` is here because the kernel is given addresses that it uses until an operation completes.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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

/// What the thread that sleeps sleeps in.
pub struct Reactor {
    ring: Option<IoUring>,
    doorbell: SleepWord,
    doorbell_armed: bool,
}

impl Reactor {
    /// Arms the control socket's end, if there is a ring to arm it in. `doorbell` is the word to sleep on; it must stay
    /// mapped for as long as this reactor lives.
    pub fn new(
        ring: Option<Ring>,
        socket: BorrowedFd<'_>,
        doorbell: SleepWord,
    ) -> io::Result<Reactor> {
        let mut reactor = Reactor {
            ring: ring.map(|ring| ring.0),
            doorbell,
            doorbell_armed: false,
        };
        if let Some(ring) = &mut reactor.ring {
            let hangup = (libc::POLLHUP | libc::POLLRDHUP) as u32;
            let poll = opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), hangup);
            arm(ring, poll.build().user_data(SOCKET))?;
        }
        Ok(reactor)
    }

    /// Whether somebody else has to wait for the end of the control socket ([`wait_for_end`]).
    pub fn misses_the_end(&self) -> bool {
        self.ring.is_none()
    }

    /// Sleeps until something happens; returns false when the sentry is gone. Wakes may be spurious; where the word does
    /// not say that somebody sleeps, this returns at once.
    pub fn sleep(&mut self) -> io::Result<bool> {
        let Some(ring) = &mut self.ring else {
            return wait_for_doorbell(self.doorbell).map(|()| true);
        };
        if !self.doorbell_armed {
            let wait = opcode::FutexWait::new(
                self.doorbell.address,
                u64::from(self.doorbell.expected),
                FUTEX_BITSET_ANY,
                FUTEX_SHARED_U32,
            );
            arm(ring, wait.build().user_data(DOORBELL))?;
            self.doorbell_armed = true;
        }
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            Err(error) => return Err(error),
        }
        let mut alive = true;
        for completion in ring.completion() {
            match completion.user_data() {
                DOORBELL => self.doorbell_armed = false,
                _ => alive = false,
            }
        }
        Ok(alive)
    }
}

fn arm(ring: &mut IoUring, operation: squeue::Entry) -> io::Result<()> {
    // SAFETY: polls carry no address. A futex wait carries that of a word which, as `Reactor::new` demands, stays
    // mapped for as long as this ring can use it.
    unsafe { ring.submission().push(&operation) }
        .map_err(|_| io::Error::other("the submission queue is full"))
}

/// Waits on the doorbell's futex without a ring.
fn wait_for_doorbell(doorbell: SleepWord) -> io::Result<()> {
    let no_timeout = std::ptr::null::<libc::timespec>();
    let SleepWord { address, expected } = doorbell;
    // SAFETY: the kernel reads a word which, as `Reactor::new` demands, is mapped, and nothing else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            address,
            libc::FUTEX_WAIT,
            expected,
            no_timeout,
        )
    };
    match Errno::result(result) {
        // Woken, never asleep because the word has changed, or a signal: the ring knows what there is to do.
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until the peer of `socket` is gone.
pub fn wait_for_end(socket: BorrowedFd<'_>) -> io::Result<()> {
    // For a socket of this type, SOCK_SEQPACKET, either end comes with POLLHUP, which is always reported (poll(2)).
    let hangup = PollFlags::empty();
    loop {
        match poll(&mut [PollFd::new(socket, hangup)], PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel answers to one operation in a [`Ring`].
    fn outcome(operation: squeue::Entry) -> i32 {
        let mut ring = Ring::new().unwrap().0;
        // SAFETY: the operations below carry no address but that of a string that lives as long as the program.
        unsafe { ring.submission().push(&operation) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        ring.completion().next().unwrap().result()
    }

    #[test]
    fn a_ring_takes_nothing_that_no_filter_would_let_through() {
        let refused = -(Errno::EACCES as i32);
        let path = c"/dev/null".as_ptr();
        let here = types::Fd(libc::AT_FDCWD);
        assert_eq!(outcome(opcode::OpenAt::new(here, path).build()), refused);
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert_eq!(outcome(socket.build()), refused);
        assert_eq!(outcome(opcode::Nop::new().build()), refused);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLHUP as u32);
        assert_eq!(outcome(poll.build()), i32::from(libc::POLLHUP));
        let ring = Ring::new().unwrap().0;
        let changed = ring.submitter().register_files(&[0]);
        assert_eq!(
            changed.unwrap_err().raw_os_error(),
            Some(Errno::EACCES as i32)
        );
    }
}
