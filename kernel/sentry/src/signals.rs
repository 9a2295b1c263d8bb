//! Signals: which ones the processes of a sandbox pass on to the program, and how.
//!
//! Launcher, sentry and init block the signals that a user, a supervisor or a terminal sends to end, stop or notify a
//! program, and take them one by one. What was sent to one process is passed on to the program: by the launcher directly, by the others hand over hand. Of the
//! sandbox's processes only the launcher is in its caller's process group, so what is sent to that group, or by the
//! caller's terminal, comes in once; what the launcher makes of a terminal's signals is in `launch/terminal.rs`. The
//! program itself starts with the signal mask that the launcher was started with.
//!
//! Of what a caller can leave behind two actions are put right, and are the program's as the caller left them. If SIGCHLD were
//! ignored, the kernel would not say that a child has ended (wait(2)). At a file's limit (RLIMIT_FSIZE), which the caller's
//! trace or log may reach, SIGXFSZ would end whoever writes there; ignored, the write fails. A third, SIGPIPE's, Rust's runtime
//! has ignored before `main`. So what the caller left of it is looked at before that.
//!
//! Before `main` the signals of a fault get an action, too. Where they have none, Rust's runtime gives each new thread a second
//! stack, on which a handler says that the first has overflowed, and ends the process if there is no memory for it. A sentry
//! that has no memory for a thread is to refuse what the thread was for, and to go on.
//!
//! `unsafe` is here because no library in use wraps sigpending(2) and sigtimedwait(2), none can know what an action does, and
//! the C library is to call a function before `main`.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, raise, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use ringfence_faults::{Act, Point};

use crate::failure::{Attempt, Failure};

/// Signals that are passed on.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Further ones that are waited for: of children, and of job control.
const HEEDED: [Signal; 5] = [
    Signal::SIGCHLD,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCONT,
];

/// Signals that stop a process, and can be blocked.
const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// How a process that has a sandbox takes signals in place of what its caller left.
const OWN_ACTIONS: [(Signal, SigHandler); 2] = [
    (Signal::SIGCHLD, SigHandler::SigDfl),
    (Signal::SIGXFSZ, SigHandler::SigIgn),
];

/// Whether the caller left SIGPIPE ignored.
static IS_PIPE_IGNORED: AtomicBool = AtomicBool::new(false);

// The C library calls what is named in this section before Rust's runtime begins.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_THE_RUNTIME: extern "C" fn() = before_the_runtime;

extern "C" fn before_the_runtime() {
    let is_pipe_ignored = action_of(libc::SIGPIPE) == libc::SIG_IGN;
    IS_PIPE_IGNORED.store(is_pipe_ignored, Ordering::Relaxed);
    for fault in [libc::SIGSEGV, libc::SIGBUS] {
        if action_of(fault) == libc::SIG_DFL {
            end_by(fault);
        }
    }
}

/// What a signal does: SIG_DFL, SIG_IGN, or the address of a handler.
fn action_of(signal: c_int) -> libc::sighandler_t {
    // SAFETY: an all-zero sigaction is a valid one, which outlives the call, and no action is set.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut found);
        found.sa_sigaction
    }
}

/// Has a handler take the signal of a fault once. The instruction at fault is executed again after it, and the default action
/// ends the process. In a program that is executed the action is the default one (execve(2)).
fn end_by(fault: c_int) {
    extern "C" fn execute_again(_: c_int) {}

    // SAFETY: an all-zero sigaction is a valid one. The handler does nothing, so it can interrupt anything.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = execute_again as extern "C" fn(c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND;
        libc::sigaction(fault, &raw const action, std::ptr::null_mut());
    }
}

/// The signal mask that was found, and what stood in the place of `OWN_ACTIONS`.
pub struct Found {
    mask: SigSet,
    actions: [SigHandler; OWN_ACTIONS.len()],
}

/// What the caller left in the place of `OWN_ACTIONS`, once they are taken.
static LEFT: OnceLock<[SigHandler; OWN_ACTIONS.len()]> = OnceLock::new();

/// Takes the `OWN_ACTIONS`, and returns what stood in their place when that was done first. A process does so before it writes
/// anything.
pub fn take_actions() -> Result<[SigHandler; OWN_ACTIONS.len()], Failure> {
    if let Some(left) = LEFT.get() {
        return Ok(*left);
    }
    let mut actions = OWN_ACTIONS.map(|(_, action)| action);
    for (found, (of, action)) in actions.iter_mut().zip(OWN_ACTIONS) {
        // SAFETY: neither action installs a handler.
        *found = unsafe { signal(of, action) }.attempt("the action of a signal")?;
    }
    Ok(*LEFT.get_or_init(|| actions))
}

/// Blocks the signals that are waited for, takes the `OWN_ACTIONS`, and returns what was found.
pub fn block() -> Result<Found, Failure> {
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&awaited()), Some(&mut mask))
        .attempt("the signal mask")?;
    let actions = take_actions()?;
    Ok(Found { mask, actions })
}

/// Lets the signals in that are passed on otherwise: they end the process from now on, in which nothing is left to be told.
pub fn let_in() {
    let passed_on: SigSet = FORWARDED.into_iter().collect();
    // If that fails SIGKILL is still heeded.
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&passed_on), None);
}

/// Has the signals of a fault end this process when somebody sends them. The handler that `before_the_runtime` has given them
/// lets the first one pass that is of no fault.
pub fn heed_faults() -> Result<(), Failure> {
    for fault in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the default action installs no handler.
        unsafe { signal(fault, SigHandler::SigDfl) }.attempt("the action of a signal")?;
    }
    Ok(())
}

/// Restores what was found, in a process that is about to execute the program.
pub fn restore(found: &Found) -> Result<(), Errno> {
    for ((of, _), action) in OWN_ACTIONS.iter().zip(found.actions) {
        // SAFETY: no process has a handler of its own for them, so both are one of the two actions of the kernel.
        unsafe { signal(*of, action) }?;
    }
    restore_pipe()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&found.mask), None)
}

/// Restores what the caller left of SIGPIPE, in a process that has taken no other actions and is about to execute a program.
pub fn restore_pipe() -> Result<(), Errno> {
    let of_pipe = match IS_PIPE_IGNORED.load(Ordering::Relaxed) {
        true => SigHandler::SigIgn,
        false => SigHandler::SigDfl,
    };
    // SAFETY: neither action installs a handler.
    unsafe { signal(Signal::SIGPIPE, of_pipe) }.map(drop)
}

/// Has the kernel stop the calling process, which is about to execute the program, when it wants a terminal in whose
/// background it is, whatever its caller left behind. Where it ignored SIGTTIN its reads would fail instead, and nobody would
/// know that it wants keys: so does a shell that substitutes a command.
pub fn stop_for_terminal() -> Result<(), Errno> {
    let of_terminal = [Signal::SIGTTIN, Signal::SIGTTOU];
    for of in of_terminal {
        // SAFETY: the default action installs no handler.
        unsafe { signal(of, SigHandler::SigDfl) }?;
    }
    let of_terminal = of_terminal.into_iter().collect();
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&of_terminal), None)
}

/// A signal that came in.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub signal: Signal,
    /// Whether the kernel sent it, for a terminal for instance (`SI_KERNEL`, sigaction(2)), and no process.
    pub by_kernel: bool,
}

impl Received {
    /// The signal, if it was sent to this process to be passed on.
    pub fn to_pass_on(self) -> Option<Signal> {
        (FORWARDED.contains(&self.signal) && !self.by_kernel).then_some(self.signal)
    }

    /// Passes it on to `next` if it was sent to this process to be passed on.
    pub fn pass_on(self, next: Pid) {
        if let Some(signal) = self.to_pass_on() {
            // ESRCH: it has just ended, which the caller is about to see.
            let _ = kill(next, signal);
        }
    }
}

/// Where blocked signals are read from.
pub struct Descriptor {
    signals: SignalFd,
    /// See [`Descriptor::put_guard`].
    guard: Option<Signal>,
}

/// A descriptor for the signals that [`block`] blocked.
pub fn descriptor() -> Result<Descriptor, Failure> {
    let signals = SignalFd::with_flags(&awaited(), SfdFlags::SFD_CLOEXEC).attempt("signalfd")?;
    let guard = None;
    Ok(Descriptor { signals, guard })
}

impl Descriptor {
    /// Waits for one signal. `None` for one that says nothing but that a child may have ended, and for what this process
    /// sent to its own group.
    pub fn next(&self) -> Result<Option<Received>, Failure> {
        let received = match self.signals.read_signal() {
            Ok(received) => received,
            Err(Errno::EINTR) => None,
            Err(errno) => return Err(errno).attempt("waiting for a signal"),
        };
        Ok(received.and_then(|received| {
            let signal = Signal::try_from(received.ssi_signo as i32).ok()?;
            let is_own =
                received.ssi_code == libc::SI_USER && received.ssi_pid == std::process::id();
            (signal != Signal::SIGCHLD && !is_own).then_some(Received {
                signal,
                by_kernel: received.ssi_code == libc::SI_KERNEL,
            })
        }))
    }

    /// The same for a process that is to stop later when it is asked to, by [`Descriptor::stop_by`], unless it is continued by
    /// then.
    pub fn next_in_order(&mut self) -> Result<Option<Received>, Failure> {
        let asked = STOPS
            .into_iter()
            .find(|stop| Some(*stop) != self.guard && is_pending(*stop));
        if let Some(asked) = asked {
            self.put_guard(asked);
            if !is_pending(asked) {
                // SIGCONT has cleared it away, and putting the guard, perhaps, the SIGCONT.
                self.lift_guard();
                return Ok(Some(Received {
                    signal: Signal::SIGCONT,
                    by_kernel: false,
                }));
            }
        }
        let received = self.next()?;
        if received.is_some_and(|received| received.signal == Signal::SIGCONT) {
            self.lift_guard();
        }
        Ok(received)
    }

    /// Has `signal`, one of those that stop a process, do to this process what it does to one that leaves it alone. Returns
    /// when the process was continued, and then whether anybody did that: the kernel does not stop whom nobody could
    /// continue, an orphaned process group (setpgid(2)). The SIGCONT is taken.
    ///
    /// If the process was continued since it was asked to stop, it does not stop. If nobody has asked it, a SIGCONT that comes
    /// before it has stopped does what it does to whoever is not stopped yet.
    pub fn stop_by(&mut self, signal: Signal) -> bool {
        let is_asked = self.guard.is_some();
        if !is_asked {
            if take(Signal::SIGCONT) {
                return true;
            }
            self.put_guard(signal);
        }
        let signal = match signal {
            // It would not wait to be let in.
            Signal::SIGSTOP if is_asked => Signal::SIGTSTP,
            signal if Some(signal) == self.guard => Signal::SIGTSTP,
            signal => signal,
        };
        ringfence_faults::at(Point::Stop);
        // It waits until it is let in, unless it cannot be blocked. A SIGCONT that waits it clears away, but not that the guard
        // is gone.
        let _ = raise(signal);
        if self.is_guarded() {
            let set: SigSet = [signal].into_iter().collect();
            let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None);
            let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None);
        } else {
            take(signal);
        }
        let is_continued = !self.is_guarded() | take(Signal::SIGCONT);
        self.lift_guard();
        is_continued
    }

    /// Puts up a guard: a stop signal that waits at this thread, blocked and unread, until a SIGCONT comes for the process.
    ///
    /// That a SIGCONT has come cannot be seen of itself once a stop signal follows it: the kernel has either clear away the
    /// other (signal(7)). So a process that is asked to stop, waits for something and then raises a signal that stops it
    /// would miss being continued in between. But what cleared the SIGCONT away has not brought the guard back. While
    /// `asked`, the signal that asks, waits as well, no SIGCONT can have come between it and the guard.
    fn put_guard(&mut self, asked: Signal) {
        if ringfence_faults::at(Point::Guard) == Some(Act::Drop) {
            return;
        }
        let guard = *self.guard.get_or_insert(match asked {
            Signal::SIGTTOU => Signal::SIGTTIN,
            _ => Signal::SIGTTOU,
        });
        let mut read = awaited();
        read.remove(guard);
        // If that failed it would be read, and mean that the process is to stop.
        if self.signals.set_mask(&read).is_ok() {
            let _ = raise(guard);
        } else {
            self.guard = None;
        }
    }

    /// Whether no SIGCONT has come since the guard was put up, if it was.
    fn is_guarded(&self) -> bool {
        self.guard.is_none_or(waits_at_this_thread)
    }

    fn lift_guard(&mut self) {
        let Some(guard) = self.guard else {
            return;
        };
        // Another of the same kind may have come for the process, which is read after this.
        if waits_at_this_thread(guard) {
            take(guard);
        }
        self.guard = None;
        // It has worked with another mask.
        let _ = self.signals.set_mask(&awaited());
    }

    /// Waits for one signal and passes it on to `next` if it was sent to this process. Returns after any signal, so that
    /// the caller can look whether a child ended.
    pub fn forward(&self, next: Pid) -> Result<(), Failure> {
        if let Some(received) = self.next()? {
            received.pass_on(next);
        }
        Ok(())
    }
}

/// Whether a signal of this number stops a process that leaves it alone.
pub fn is_stop(number: i32) -> bool {
    number == libc::SIGSTOP || STOPS.into_iter().any(|stop| stop as i32 == number)
}

/// Whether somebody sends this signal to end a process.
pub fn is_to_end(signal: Signal) -> bool {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM].contains(&signal)
}

/// Takes a blocked signal if it has come in.
fn take(signal: Signal) -> bool {
    let set: SigSet = [signal].into_iter().collect();
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the set and the time outlive the call; it writes nothing where there is no place for it.
    let taken =
        unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const at_once) };
    taken == signal as libc::c_int
}

/// Whether a blocked signal waits for the calling thread alone, as [`raise`] sends it, and not for the whole process
/// (proc_pid_status(5)).
fn waits_at_this_thread(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let waiting = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
    match waiting.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) {
        Some(bits) => bits >> (signal as u32 - 1) & 1 == 1,
        // Without /proc it can still be told whether one waits anywhere.
        None => is_pending(signal),
    }
}

/// Whether a blocked signal has come in that nobody has taken yet.
fn is_pending(signal: Signal) -> bool {
    // Neither nix nor rustix has sigpending(2).
    let mut pending = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the kernel writes the set, which outlives the call; it is read only if it was written.
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), signal as libc::c_int) == 1
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

/// The signals that are read from a [`Descriptor`].
fn awaited() -> SigSet {
    FORWARDED.into_iter().chain(HEEDED).collect()
}
