//! Threads that are made to stand still, and those that are made to call the kernel.
//!
//! This is ptrace(2) of the modern kind: seized, so that nothing is signalled, and interrupted. What a thread traces,
//! no other may: all that is here belongs to the one thread that carries out pins (`pins.rs`). What is taken hold of is
//! let go when its value is dropped, whichever way the pin goes. What cannot be let go yet, because it has not stopped
//! or is about to end, is among the [`Tracer`]'s stragglers until it can.
//!
//! An interrupted thread executes nothing more of its program until it is let go, whether it has stopped or not: on its
//! way out of the kernel it stops. All that it may still do is what the kernel does in the call that it is in.

mod alarm;
mod held;
mod injection;
mod numbers;
mod patience;
mod vforks;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_faults::{Act, Point, at_task};
use rustix::process::{WaitOptions, WaitStatus, wait, waitpid};

pub use self::alarm::Alarm;
pub use self::held::{Held, tasks};
pub use self::injection::{Caller, Calls, Helper, Issued, Stopped, Table};
pub use self::numbers::Numbers;
pub use self::patience::{Looks, Patience};
use self::vforks::Vforks;
use super::procfs;
use crate::seccomp::listener::Listener;
use crate::system_calls::detach;

/// How long to sleep between looks at a thread that takes longer than most.
pub const PAUSE: Duration = Duration::from_millis(1);
/// How long a call that a thread is made to make usually takes at most. (The pins of a CUDA program took an H100's driver
/// 1.1 ms each, in the median.)
/// It is also how long the kernel is given to say what a thread waits for.
const USUAL: Duration = Duration::from_millis(5);

/// Why a thread stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At the entry to a system call, or at its exit.
    SystemCall,
    /// It has made a thread, and its call has not returned yet.
    Cloned,
    /// It has executed a program. It has the number of its process's first thread from then on, which is gone.
    Executed,
    /// A signal of this number is about to reach it.
    Signal(libc::c_int),
    /// It was interrupted, by its tracer or by job control.
    Other,
}

/// What a look at a traced thread shows.
enum Look {
    Running,
    Stopped(Stop),
    /// Its descriptor table is gone, too, unless another has it: the kernel lets go of that first (do_exit in
    /// kernel/exit.c).
    Ended(End),
}

/// How a thread ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// By a call of its own (exit(2)).
    Itself,
    /// It was killed: by a signal, or by a filter (SECCOMP_RET_KILL_THREAD). So it counts also if that was not seen.
    Killed,
}

/// Neither waits in the kernel nor takes notice of what another thread of the sentry is to wait for.
const LOOKING: WaitOptions = WaitOptions::NOHANG.union(WaitOptions::from_bits_retain(
    (libc::__WALL | libc::__WNOTHREAD) as u32,
));

/// Looks whether `thread` has stopped or ended since the last look. It never waits in the kernel: the end of a process's
/// first thread is not told before its others, which this process may hold, are gone. (By rustix, since nix's
/// `waitpid` fails on a thread that stopped for a real-time signal.)
fn look(thread: Pid) -> Result<Look, Errno> {
    match waitpid(rustix::process::Pid::from_raw(thread.as_raw()), LOOKING) {
        Ok(None) | Err(rustix::io::Errno::INTR) => Ok(Look::Running),
        Ok(Some((_, status))) => Ok(meaning(status)),
        Err(rustix::io::Errno::CHILD) => Ok(Look::Ended(End::Killed)),
        Err(errno) => Err(Errno::from_raw(errno.raw_os_error())),
    }
}

fn meaning(status: WaitStatus) -> Look {
    // ptrace(2): what a stop at a system call is told by, with PTRACE_O_TRACESYSGOOD.
    const SYSTEM_CALL: libc::c_int = libc::SIGTRAP | 0x80;
    let event = status.as_raw() >> 16;
    match status.stopping_signal() {
        None if status.exited() => Look::Ended(End::Itself),
        None => Look::Ended(End::Killed),
        Some(SYSTEM_CALL) => Look::Stopped(Stop::SystemCall),
        Some(_) if event == libc::PTRACE_EVENT_CLONE => Look::Stopped(Stop::Cloned),
        Some(_) if event == libc::PTRACE_EVENT_EXEC => Look::Stopped(Stop::Executed),
        Some(_) if event != 0 => Look::Stopped(Stop::Other),
        Some(signal) => Look::Stopped(Stop::Signal(signal)),
    }
}

/// A traced thread that could not be let go when it was to be.
struct Straggler {
    thread: Pid,
    /// The number of the signal that it stopped for, and gets when it is let go of; 0 if it stopped for none.
    signal: libc::c_int,
}

/// What the one thread of this process has that traces others.
pub struct Tracer {
    /// Traced threads that have not stopped yet, or are ending: the kernel lets a tracer let go of a stopped thread only,
    /// and keeps one that has ended, and with it its whole process, until its tracer has waited for it.
    stragglers: RefCell<Vec<Straggler>>,
    alarm: RefCell<Alarm>,
    vforks: Vforks,
}

impl Tracer {
    /// Makes the calling thread the tracer.
    pub fn new(alarm: Alarm) -> Tracer {
        alarm.take_up();
        Tracer {
            stragglers: RefCell::default(),
            alarm: RefCell::new(alarm),
            vforks: Vforks::default(),
        }
    }

    /// Takes all stragglers.
    fn take_stragglers(&self) -> Vec<Seized<'_>> {
        let mut stragglers = self.stragglers.take();
        stragglers.sort_by_key(|straggler| straggler.thread);
        stragglers.dedup_by_key(|straggler| straggler.thread);
        let seized = stragglers.into_iter().map(|straggler| Seized {
            signal: straggler.signal,
            ..Seized::born(straggler.thread, self)
        });
        seized.collect()
    }

    /// To be called when a thread of `process` was gone after it had been seized, and before it was interrupted. It may have
    /// executed a program while the kernel seized it. Then it does not stop for that any more, has the number of its
    /// process's first thread, and is interrupted here.
    fn follow(&self, process: Pid) {
        if ptrace::interrupt(process).is_ok() {
            Seized::born(process, self).lag();
        }
    }

    /// Lets go those that have stopped meanwhile, and waits for those that have ended. Whether any is left, so that this
    /// has to be called again soon.
    ///
    /// Whoever is traced is waited for here, also who is no straggler: a thread whose maker was killed before it could
    /// tell of it. The kernel keeps the maker's process until somebody has waited for that thread, too, so neither may be
    /// left for when the other is gone.
    pub fn tend(&self, listener: &Listener) -> bool {
        let mut stragglers = self.stragglers.borrow_mut();
        stragglers.retain_mut(|straggler| match look(straggler.thread) {
            Ok(look) => straggler.is_left(look, listener),
            Err(_) => true,
        });
        loop {
            // Not `waitpid(None, …)`, which to rustix means those of the sentry's own process group.
            match wait(LOOKING) {
                Ok(Some((thread, status))) => {
                    let thread = Pid::from_raw(thread.as_raw_nonzero().get());
                    let mut all = stragglers.iter();
                    match all.position(|straggler| straggler.thread == thread) {
                        Some(index) => {
                            if !stragglers[index].is_left(meaning(status), listener) {
                                stragglers.swap_remove(index);
                            }
                        }
                        None => see_off(thread, meaning(status)),
                    }
                }
                Ok(None) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return !stragglers.is_empty(),
            }
        }
    }
}

impl Straggler {
    /// Whether it is still stopped. The kernel tells of a stop once, and it may be that it could not be let go of then.
    fn is_stopped(&self) -> bool {
        // A test leaves this out, to show that it would notice.
        at_task(Point::Lagging, self.thread.as_raw()) != Some(Act::Drop)
            && procfs::state(self.thread) == Some('t')
    }

    /// Lets it go if it has stopped by this `look`; whether it is still to be waited for.
    fn is_left(&mut self, look: Look, listener: &Listener) -> bool {
        match look {
            Look::Running if !self.is_stopped() => return true,
            Look::Running => {}
            Look::Ended(_) => {
                listener.has_stopped(self.thread);
                return false;
            }
            Look::Stopped(Stop::Signal(signal)) => self.signal = signal,
            Look::Stopped(_) => {}
        }
        listener.has_stopped(self.thread);
        // It fails if the thread was killed, and its end is waited for then.
        detach(self.thread, self.signal).is_err()
    }
}

/// Sees to the end of a thread whose maker was killed before it could tell of it. One that has executed a program is let
/// go: it was seized under another number.
fn see_off(thread: Pid, look: Look) {
    match look {
        // Fails if it was killed.
        Look::Stopped(Stop::Executed) => {
            let _ = detach(thread, 0);
        }
        Look::Stopped(_) => {
            let _ = kill(thread, Signal::SIGKILL);
        }
        Look::Running | Look::Ended(_) => {}
    }
}

/// A thread that is traced, from its seizure until this is dropped.
struct Seized<'a> {
    thread: Pid,
    /// The number of the signal that it stopped for, and gets when it is let go of; 0 if it stopped for none.
    signal: libc::c_int,
    has_ended: bool,
    /// If it has ended, how.
    end: End,
    /// The number is that of another thread now, which has executed a program.
    has_executed: bool,
    tracer: &'a Tracer,
}

impl<'a> Seized<'a> {
    /// Should the sentry die, no thread that it traces is to run for the moment until the kernel ends the sandbox: one
    /// of them may hold a command descriptor.
    ///
    /// Who executes a program is to be told from who had its number before.
    const OPTIONS: Options = Options::PTRACE_O_TRACESYSGOOD
        .union(Options::PTRACE_O_EXITKILL)
        .union(Options::PTRACE_O_TRACEEXEC);

    /// Seizes and interrupts `thread`.
    fn new(thread: Pid, options: Options, tracer: &'a Tracer) -> Result<Seized<'a>, Errno> {
        ptrace::seize(thread, options)?;
        let seized = Seized::born(thread, tracer);
        at_task(Point::Seized, thread.as_raw());
        ptrace::interrupt(thread)?;
        Ok(seized)
    }

    /// One that is traced already.
    fn born(thread: Pid, tracer: &'a Tracer) -> Seized<'a> {
        Seized {
            thread,
            signal: 0,
            has_ended: false,
            end: End::Killed,
            has_executed: false,
            tracer,
        }
    }

    /// Leaves it among the stragglers, which stop yet and go on then.
    fn lag(mut self) {
        if !self.has_ended {
            self.push();
        }
        // Nothing is left to be done when this is dropped.
        self.has_ended = true;
    }

    fn push(&self) {
        self.tracer.stragglers.borrow_mut().push(Straggler {
            thread: self.thread,
            signal: self.signal,
        });
    }

    fn look(&mut self) -> Result<Look, Errno> {
        let look = look(self.thread)?;
        match look {
            Look::Stopped(Stop::Signal(signal)) => self.signal = signal,
            Look::Stopped(Stop::Executed) => self.has_executed = true,
            Look::Ended(end) => {
                self.has_ended = true;
                self.end = end;
            }
            _ => {}
        }
        Ok(look)
    }

    /// Waits until it has stopped, however long it takes; `None` if it ended instead. A stop is usually a matter of
    /// microseconds or a few milliseconds, so this looks for a while before it sleeps.
    fn next_stop(&mut self) -> Result<Option<Stop>, Errno> {
        self.next_stop_within(|| None)
    }

    /// The same, as long as any patience is left, if that is given. Fails with `EAGAIN` then.
    fn next_stop_within<'p>(
        &mut self,
        patience: impl Fn() -> Option<&'p Patience<'p>>,
    ) -> Result<Option<Stop>, Errno> {
        let started = Instant::now();
        loop {
            match self.look()? {
                Look::Stopped(stop) => return Ok(Some(stop)),
                Look::Ended(_) => return Ok(None),
                Look::Running if started.elapsed() < USUAL => std::thread::yield_now(),
                Look::Running if has_ended(self.thread) => return Ok(None),
                Look::Running => match patience() {
                    Some(patience) if !patience.pause() => return Err(Errno::EAGAIN),
                    Some(_) => {}
                    None => std::thread::sleep(PAUSE),
                },
            }
        }
    }
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        if !self.has_ended && detach(self.thread, self.signal).is_err() {
            self.push();
        }
    }
}

/// Whether `thread` is only still there to be waited for, and so cannot be seized.
fn has_ended(thread: Pid) -> bool {
    matches!(procfs::state(thread), None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or else it would not be held while another thread pins.
    #[test]
    fn a_thread_whose_name_is_no_text_has_not_ended() {
        let named = || {
            nix::sys::prctl::set_name(c"\xff) Z").expect("a name");
            has_ended(nix::unistd::gettid())
        };
        let ended = std::thread::spawn(named).join().expect("a thread");
        assert!(!ended);
    }
}
