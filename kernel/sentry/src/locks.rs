//! Locks that belong to an open file description (`F_OFD_SETLK`, `F_OFD_SETLKW`, fcntl(2)).
//!
//! The server marks descriptions of the driver's nodes by such locks, and whoever has a description could take its mark
//! away. The filter sees no descriptor, and to let the call run after having looked at one would let a second thread put
//! another in its place. So the sentry locks in the task's place, on a duplicate of the exact description that was looked
//! at: the lock is the description's, whoever asks for it. Character devices are refused, as all nodes are such, whichever
//! sandbox they are of; the simulated driver's are files in memory, so with it those are refused.
//!
//! A call that waits (`F_OFD_SETLKW`) must keep no thread of the sentry's, and a signal has to interrupt it, though the
//! kernel lets only a fatal one do that while a notification is being answered. So it stands in a queue, and one thread
//! tries again from time to time, and looks whether the task still waits and whether a signal does.
//!
//! A file system that another process or machine serves may take as long as it likes for an attempt. Such a call keeps
//! the thread that received it, and so there can be only some of them at a time.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;
use ringfence_faults::{Act, Point, at_task};
use ringfence_ipc::locks::IgnorePoison;

use super::receivers::Turn;
use super::{Sentry, foreign, memory, procfs};
use crate::seccomp::listener::Notification;

/// How long it is until the next attempt: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Calls that wait at a time. Each keeps a descriptor of the sentry's.
const MAXIMUM_WAITING: usize = 1024;
/// Calls at a time on file systems that may take long. Each keeps a thread.
const MAXIMUM_REMOTE: usize = 16;
/// How often a signal that any thread of a process may handle has to be found before it counts as this thread's.
const MAXIMUM_LOOKS: u32 = 3;
/// `struct flock` of asm-generic/fcntl.h for 64 bits.
const FLOCK_BYTES: usize = size_of::<libc::flock>();

/// The locks that tasks wait for.
pub struct Locks {
    /// The file system of the simulated driver's nodes; `None` with the real one.
    simulated: Option<libc::dev_t>,
    waiting: Mutex<Vec<Wanted>>,
    added: Condvar,
    remote: AtomicUsize,
}

/// A lock that a task wants.
struct Wanted {
    notification: Notification,
    description: OwnedFd,
    lock: libc::flock,
    pause: Duration,
    next: Instant,
    /// How often a signal was found that another thread may yet handle.
    looks: u32,
}

/// How a call ends that was interrupted.
enum Interrupted {
    /// The kernel returns `EINTR` or has the call begin anew, as the handler's SA_RESTART says.
    BySignal,
    Failed(Errno),
}

impl Locks {
    /// With the file system of the simulated driver's nodes, if the driver is that.
    pub fn new(simulated: Option<libc::dev_t>) -> Locks {
        Locks {
            simulated,
            waiting: Mutex::default(),
            added: Condvar::new(),
            remote: AtomicUsize::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.waiting.lock().ignore_poison()
    }

    /// Has `wanted` wait. Fails with `ENOLCK` if too many do.
    fn wait(&self, wanted: Wanted) -> Result<(), Errno> {
        let mut waiting = self.waiting();
        if waiting.len() >= MAXIMUM_WAITING {
            return Err(Errno::ENOLCK);
        }
        waiting.push(wanted);
        self.added.notify_one();
        Ok(())
    }

    /// Waits for a call whose next attempt is due, and takes it.
    fn next(&self) -> Wanted {
        let mut waiting = self.waiting();
        loop {
            let first = (0..waiting.len()).min_by_key(|index| waiting[*index].next);
            let Some(first) = first else {
                waiting = self.added.wait(waiting).ignore_poison();
                continue;
            };
            let pause = waiting[first]
                .next
                .saturating_duration_since(Instant::now());
            if pause.is_zero() {
                return waiting.swap_remove(first);
            }
            let woken = self.added.wait_timeout(waiting, pause);
            waiting = woken.ignore_poison().0;
        }
    }

    /// Whether locks on a description are the server's business.
    fn is_node(&self, description: &OwnedFd, task: Pid) -> Result<bool, Errno> {
        // For the test of what comes of it.
        if at_task(Point::Locked, task.as_raw()) == Some(Act::Drop) {
            return Ok(false);
        }
        let status = fstat(description)?;
        let is_device = status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
        Ok(is_device || self.simulated == Some(status.st_dev))
    }
}

impl Sentry {
    /// Handles a call by which a task locks or unlocks a part of a file.
    pub(super) fn lock(&self, notification: Notification, turn: &mut Turn<'_>) {
        let wanted = match self.wanted(notification, turn) {
            Ok(wanted) => wanted,
            Err(errno) => return self.listener.answer(&notification, Err(errno)),
        };
        match fstatfs(&wanted.description) {
            Ok(status) if is_prompt(status.filesystem_type()) => self.attempt(wanted),
            Ok(_) => self.attempt_remotely(wanted),
            Err(errno) => self.listener.answer(&notification, Err(errno)),
        }
    }

    /// Reads what is wanted.
    fn wanted(&self, notification: Notification, turn: &mut Turn<'_>) -> Result<Wanted, Errno> {
        let Notification {
            task, arguments, ..
        } = notification;
        let descriptor = arguments[0] as i32;
        let description = self.descriptions.duplicate(task, descriptor)?;
        // It may take as long as it takes the file system.
        turn.pass_on();
        if self.locks.is_node(&description, task)? {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; FLOCK_BYTES];
        memory::read(task, arguments[2], &mut bytes)?;
        // Both the description and the lock were the task's if it has waited all the time.
        self.listener.expect_waiting(&notification)?;
        Ok(Wanted {
            notification,
            description,
            lock: flock(&bytes),
            pause: FIRST_PAUSE,
            next: Instant::now(),
            looks: 0,
        })
    }

    /// Carries out what is wanted, or has it wait for the next attempt.
    fn attempt(&self, wanted: Wanted) {
        let notification = wanted.notification;
        if let Some(wanted) = self.tried(wanted)
            && let Err(errno) = self.locks.wait(wanted)
        {
            self.listener.answer(&notification, Err(errno));
        }
    }

    /// The same for file systems that may take long, on the calling thread.
    fn attempt_remotely(&self, wanted: Wanted) {
        let Locks { remote, .. } = &self.locks;
        if remote.fetch_add(1, Ordering::Relaxed) >= MAXIMUM_REMOTE {
            let errno = Errno::ENOLCK;
            self.listener.answer(&wanted.notification, Err(errno));
        } else {
            let mut left = self.tried(wanted);
            while let Some(wanted) = left {
                thread::sleep(wanted.pause);
                left = self.tried(wanted);
            }
        }
        remote.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tries to lock, and answers the call unless it is to wait; returns it then.
    fn tried(&self, mut wanted: Wanted) -> Option<Wanted> {
        let notification = wanted.notification;
        // One that was killed wants nothing any more.
        self.listener.expect_waiting(&notification).ok()?;
        let request = FcntlArg::F_OFD_SETLK(&wanted.lock);
        let outcome = fcntl(&wanted.description, request).map(i64::from);
        let waits = notification.arguments[1] as i32 == libc::F_OFD_SETLKW;
        if !(waits && matches!(outcome, Err(Errno::EAGAIN | Errno::EACCES))) {
            drop(wanted);
            self.listener.answer(&notification, outcome);
            return None;
        }
        match interrupted(notification.task, &mut wanted.looks) {
            None => {
                wanted.next = Instant::now() + wanted.pause;
                wanted.pause = LONGEST_PAUSE.min(2 * wanted.pause);
                Some(wanted)
            }
            Some(Interrupted::BySignal) => {
                self.listener.interrupt(&notification);
                None
            }
            Some(Interrupted::Failed(errno)) => {
                self.listener.answer(&notification, Err(errno));
                None
            }
        }
    }

    /// Tries again, for ever, for all who wait.
    pub(super) fn lock_for_ever(&self) {
        loop {
            self.attempt(self.locks.next());
        }
    }
}

/// Whether the kernel itself keeps the locks of a file system's files, and so is prompt.
fn is_prompt(kind: nix::sys::statfs::FsType) -> bool {
    foreign::LOCAL.contains(&kind) || kind == OVERLAYFS_SUPER_MAGIC
}

/// A lock, as a task has it in its memory.
fn flock(bytes: &[u8; FLOCK_BYTES]) -> libc::flock {
    libc::flock {
        l_type: i16::from_ne_bytes(part(bytes, offset_of!(libc::flock, l_type))),
        l_whence: i16::from_ne_bytes(part(bytes, offset_of!(libc::flock, l_whence))),
        l_start: i64::from_ne_bytes(part(bytes, offset_of!(libc::flock, l_start))),
        l_len: i64::from_ne_bytes(part(bytes, offset_of!(libc::flock, l_len))),
        l_pid: i32::from_ne_bytes(part(bytes, offset_of!(libc::flock, l_pid))),
    }
}

/// The bytes of a field of `struct flock`.
fn part<const N: usize>(bytes: &[u8; FLOCK_BYTES], offset: usize) -> [u8; N] {
    std::array::from_fn(|at| bytes[offset + at])
}

/// Whether a signal waits for `task`, which the kernel would have had it handle by now.
///
/// To say so to the kernel is right only if it knows of that itself: else the task would see its private error
/// ([`crate::seccomp::listener::Listener::interrupt`]). It knows where the signal is the thread's own, where the process has no
/// other thread, and where the process is being stopped. What another thread may handle counts when none has for some time.
fn interrupted(task: Pid, looks: &mut u32) -> Option<Interrupted> {
    let status = procfs::text(task, "status");
    let field = |name| {
        let mut lines = status.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let signals = |name| field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let blocked = signals("SigBlk:")?;
    let own = signals("SigPnd:")? & !blocked;
    let of_all = signals("ShdPnd:")? & !blocked;
    let is_alone = field("Threads:") == Some("1");
    if own != 0 || (of_all != 0 && is_alone) {
        return Some(Interrupted::BySignal);
    }
    if of_all == 0 {
        *looks = 0;
        return (!is_alone && another_has_stopped(task)).then_some(Interrupted::BySignal);
    }
    *looks += 1;
    (*looks >= MAXIMUM_LOOKS).then_some(Interrupted::Failed(Errno::EINTR))
}

/// Whether another thread of its process has stopped, as all do together.
fn another_has_stopped(task: Pid) -> bool {
    let Some(first) = procfs::process_of(task) else {
        return false;
    };
    let other = if first == task {
        let threads = std::fs::read_dir(format!("/proc/{task}/task"));
        let mut names = threads.into_iter().flatten().flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some(Pid::from_raw(number))
        });
        names.find(|thread| *thread != task)
    } else {
        Some(first)
    };
    other.is_some_and(|other| procfs::state(other) == Some('T'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_the_kernel_reads_it() {
        let mut bytes = [0xff; FLOCK_BYTES];
        bytes[..2].copy_from_slice(&1i16.to_ne_bytes());
        bytes[2..4].copy_from_slice(&2i16.to_ne_bytes());
        bytes[8..16].copy_from_slice(&3i64.to_ne_bytes());
        bytes[16..24].copy_from_slice(&(-4i64).to_ne_bytes());
        bytes[24..28].copy_from_slice(&5i32.to_ne_bytes());
        let lock = flock(&bytes);
        assert_eq!((lock.l_type, lock.l_whence, lock.l_pid), (1, 2, 5));
        assert_eq!((lock.l_start, lock.l_len), (3, -4));
    }
}
