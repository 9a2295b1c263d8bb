//! Threads that are made to stand still, and one that is made to call the kernel.
//!
//! This is ptrace(2) of the modern kind: seized, so that nothing is signalled, and interrupted. What is taken hold of is
//! let go when its value is dropped, whichever way the pin goes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use libc::user_regs_struct;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

use super::procfs;
use crate::seccomp::listener::Listener;
use crate::system_calls::{SignalMask, detach, set_signal_mask, signal_mask};

/// How long a stop usually takes at most.
const PROMPT: Duration = Duration::from_micros(200);
/// How long to sleep between looks at a thread that takes longer.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a call that a thread is made to make usually takes at most. (The pins of a CUDA program took an H100's driver
/// 1.1 ms each, in the median.)
const USUAL: Duration = Duration::from_millis(5);
/// The length of x86's `syscall` instruction.
const SYSCALL_INSTRUCTION: u64 = 2;

/// What a call that is to begin anew returns to a tracer, and to nobody else: ERESTARTSYS, ERESTARTNOINTR,
/// ERESTARTNOHAND and ERESTART_RESTARTBLOCK (include/linux/errno.h in Linux).
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];

/// How much longer threads may take to stand still: some two seconds, in looks that are a millisecond apart. The clock
/// goes on while the sandbox is frozen by the freezer of cgroups, and no look is taken then.
struct Patience {
    since: Instant,
    looks: u32,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            since: Instant::now(),
            looks: 2000,
        }
    }

    /// Whether most stops come yet without a pause.
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < PROMPT
    }

    /// Pauses until the next look; false if there have been enough of them.
    fn pause(&mut self) -> bool {
        let is_left = self.looks > 0;
        self.looks = self.looks.saturating_sub(1);
        std::thread::sleep(PAUSE);
        is_left
    }
}

/// Takes note of traced threads that end, and, when it is dropped, waits for them: the kernel keeps a traced thread, and
/// with it its whole process, until its tracer has waited for it. It has to outlive all that is traced.
#[derive(Default)]
pub struct Reaper(RefCell<Vec<Pid>>);

impl Drop for Reaper {
    fn drop(&mut self) {
        let ended = self.0.get_mut();
        let mut patience = Patience::new();
        // The first thread of a process can be waited for only after the others.
        loop {
            ended.retain(|thread| matches!(look(*thread), Ok(Look::Running)));
            if ended.is_empty() || !(patience.is_fresh() || patience.pause()) {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Why a thread stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At the entry to a system call, or at its exit.
    SystemCall,
    /// A signal of this number is about to reach it.
    Signal(libc::c_int),
    /// It was interrupted, by its tracer or by job control.
    Other,
}

/// What a look at a traced thread shows.
enum Look {
    Running,
    Stopped(Stop),
    Ended,
}

/// Looks whether `thread` has stopped or ended since the last look. It never waits in the kernel: the end of a process's
/// first thread is not told before its others, which this process may hold, are gone. (By rustix, since nix's
/// `waitpid` fails on a thread that stopped for a real-time signal.)
fn look(thread: Pid) -> Result<Look, Errno> {
    // ptrace(2): what a stop at a system call is told by, with PTRACE_O_TRACESYSGOOD.
    const SYSTEM_CALL: libc::c_int = libc::SIGTRAP | 0x80;
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL as u32);
    let status = match waitpid(rustix::process::Pid::from_raw(thread.as_raw()), options) {
        Ok(None) => return Ok(Look::Running),
        Ok(Some((_, status))) => status,
        Err(rustix::io::Errno::CHILD) => return Ok(Look::Ended),
        Err(rustix::io::Errno::INTR) => return Ok(Look::Running),
        Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
    };
    let is_event = status.as_raw() >> 16 != 0;
    Ok(match status.stopping_signal() {
        None => Look::Ended,
        Some(SYSTEM_CALL) => Look::Stopped(Stop::SystemCall),
        Some(_) if is_event => Look::Stopped(Stop::Other),
        Some(signal) => Look::Stopped(Stop::Signal(signal)),
    })
}

/// A thread that is traced, from its seizure until this is dropped.
struct Seized<'a> {
    thread: Pid,
    /// The number of the signal that it stopped for, and gets when it is let go of; 0 if it stopped for none.
    signal: libc::c_int,
    reaper: &'a Reaper,
}

impl<'a> Seized<'a> {
    fn new(thread: Pid, reaper: &'a Reaper) -> Result<Seized<'a>, Errno> {
        // Should the sentry die, the thread is not to run for the moment until the kernel ends the sandbox: it may
        // hold a command descriptor.
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
        ptrace::seize(thread, options)?;
        let seized = Seized {
            thread,
            signal: 0,
            reaper,
        };
        ptrace::interrupt(thread)?;
        Ok(seized)
    }

    fn look(&mut self) -> Result<Look, Errno> {
        let look = look(self.thread)?;
        if let Look::Stopped(Stop::Signal(signal)) = look {
            self.signal = signal;
        }
        Ok(look)
    }

    /// Waits until it has stopped, however long it takes; `None` if it ended instead. A stop is usually a matter of
    /// microseconds or a few milliseconds, so this looks for a while before it sleeps.
    fn next_stop(&mut self) -> Result<Option<Stop>, Errno> {
        let started = Instant::now();
        loop {
            match self.look()? {
                Look::Stopped(stop) => return Ok(Some(stop)),
                Look::Ended => return Ok(None),
                Look::Running if started.elapsed() < USUAL => std::thread::yield_now(),
                Look::Running if has_ended(self.thread) => return Ok(None),
                Look::Running => std::thread::sleep(PAUSE),
            }
        }
    }
}

impl Drop for Seized<'_> {
    fn drop(&mut self) {
        if detach(self.thread, self.signal).is_err() {
            self.reaper.0.borrow_mut().push(self.thread);
        }
    }
}

/// Every task of the sandbox but one. They go on when this is dropped.
///
/// Not only those that share the one's memory or descriptors could interfere with what it is made to do: any may write
/// to its memory or copy its descriptors, if the kernel lets them trace it.
pub struct Held<'a> {
    listener: &'a Listener,
    /// Threads that wait in the kernel for the sentry's own answer, and are kept waiting.
    frozen: Vec<Pid>,
    /// Threads that were interrupted and have not stopped yet.
    interrupted: Vec<Seized<'a>>,
    /// Threads that wait in the kernel for a child that uses their memory, and is held: they stop when it is not.
    behind_a_child: Vec<Seized<'a>>,
    stopped: Vec<Seized<'a>>,
}

impl<'a> Held<'a> {
    /// Holds every thread but `caller`, which itself waits in the kernel. Fails with `EAGAIN` if a thread cannot be
    /// stopped in good time.
    pub fn all_but(
        caller: Pid,
        init: Pid,
        listener: &'a Listener,
        reaper: &'a Reaper,
    ) -> Result<Held<'a>, Errno> {
        let mut patience = Patience::new();
        let mut held = Held {
            listener,
            frozen: Vec::new(),
            interrupted: Vec::new(),
            behind_a_child: Vec::new(),
            stopped: Vec::new(),
        };
        let mut known = BTreeSet::from([caller]);
        // A thread that starts another before it stops is why this looks again until nothing new is found; threads
        // that are held start none.
        loop {
            let new: Vec<Pid> = tasks(init)?
                .into_iter()
                .flat_map(threads)
                .filter(|thread| known.insert(*thread))
                .collect();
            if new.is_empty() {
                return Ok(held);
            }
            // All are interrupted before the first is waited for: they stop at the same time.
            for thread in new {
                match listener.hold(thread, || Seized::new(thread, reaper)) {
                    Ok(Some(seized)) => held.interrupted.push(seized),
                    Ok(None) => held.frozen.push(thread),
                    Err(Errno::ESRCH) => {}
                    Err(_) if has_ended(thread) => {}
                    Err(errno) => return Err(errno),
                }
            }
            held.wait_for_interrupted(&mut patience)?;
        }
    }

    /// Waits until each interrupted thread has stopped or ended, or waits for a child.
    fn wait_for_interrupted(&mut self, patience: &mut Patience) -> Result<(), Errno> {
        while let Some(seized) = self.interrupted.last_mut() {
            let thread = seized.thread;
            match seized.look()? {
                Look::Running if patience.is_fresh() => std::thread::yield_now(),
                Look::Running if waits_for_a_child(thread) => {
                    self.behind_a_child.extend(self.interrupted.pop());
                }
                Look::Running if !has_ended(thread) => {
                    if !patience.pause() {
                        return Err(Errno::EAGAIN);
                    }
                }
                Look::Running | Look::Ended => {
                    drop(self.interrupted.pop());
                    self.listener.has_stopped(thread);
                }
                Look::Stopped(_) => {
                    self.stopped.extend(self.interrupted.pop());
                    self.listener.has_stopped(thread);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.stopped.clear();
        for thread in self.frozen.drain(..) {
            self.listener.thaw(thread);
        }
        let late = self
            .interrupted
            .drain(..)
            .chain(self.behind_a_child.drain(..));
        for mut seized in late {
            // It stops yet. Only then can it be let go, and without that it would stop for good.
            let _ = seized.next_stop();
            self.listener.has_stopped(seized.thread);
        }
    }
}

/// The sandbox's tasks, by what `/proc` shows: the processes of another process namespace than the sentry's own, in
/// which servers come and go, but for `init`, which is process 1 of theirs.
pub fn tasks(init: Pid) -> Result<Vec<Pid>, Errno> {
    let namespace = |process: Pid| std::fs::read_link(format!("/proc/{process}/ns/pid"));
    let own = namespace(Pid::this()).map_err(|_| Errno::EIO)?;
    let is_task = |process: Pid| match namespace(process) {
        Ok(other) => other != own,
        // A server that is being started, or a task that hides.
        Err(_) => !has_one_number(process),
    };
    let entries = std::fs::read_dir("/proc").map_err(|_| Errno::EIO)?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers
        .map(Pid::from_raw)
        .filter(|process| *process != init)
        .filter(|process| is_task(*process))
        .collect())
}

/// Whether `process` has a number in the sentry's process namespace only, as `/proc/PID/status` says to everybody.
fn has_one_number(process: Pid) -> bool {
    let status = procfs::text(process, "status");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
}

fn threads(process: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).collect()
}

/// Whether `thread` waits for a child to execute a program or end, as after vfork(2): it runs again when the child no
/// longer uses its memory. By what proc_pid_syscall(5) says of a thread that an interruption does not stop.
fn waits_for_a_child(thread: Pid) -> bool {
    let call = procfs::text(thread, "syscall");
    let number = call
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    number.is_some_and(|number: libc::c_long| {
        [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3].contains(&number)
    })
}

/// Whether `thread` is only still there to be waited for (proc_pid_stat(5)), and so cannot be seized.
fn has_ended(thread: Pid) -> bool {
    let stat = procfs::text(thread, "stat");
    // The name, in parentheses, may contain anything.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// The thread whose call is being carried out, from its seizure on.
pub struct Caller<'a> {
    seized: Seized<'a>,
}

impl<'a> Caller<'a> {
    /// Takes hold of a thread that waits for its notification to be answered: it will stop on its way out.
    pub fn seize(thread: Pid, reaper: &'a Reaper) -> Result<Caller<'a>, Errno> {
        Ok(Caller {
            seized: Seized::new(thread, reaper)?,
        })
    }

    /// Once the notification has been answered: waits until the thread has stopped.
    pub fn stopped(mut self) -> Result<Stopped<'a>, Errno> {
        let thread = self.seized.thread;
        self.seized.next_stop()?.ok_or(Errno::ESRCH)?;
        let registers = ptrace::getregs(thread)?;
        let mask = signal_mask(thread)?;
        let stopped = Stopped {
            registers,
            mask,
            result: -i64::from(Errno::EIO as i32),
            caller: self,
        };
        // Nothing of the program's runs in between: a signal handler would be something of the program's.
        set_signal_mask(thread, &SignalMask::ALL)?;
        Ok(stopped)
    }
}

/// A thread that stands right behind a `syscall` instruction. When this is dropped it goes on from there, with
/// [`Stopped::result`] for what the call returned.
pub struct Stopped<'a> {
    registers: user_regs_struct,
    mask: SignalMask,
    /// What the program sees; `EIO` until it is set.
    pub result: i64,
    caller: Caller<'a>,
}

impl Stopped<'_> {
    /// Has the thread execute the system call `number` and returns what the kernel returned.
    pub fn call(&mut self, number: libc::c_long, arguments: [u64; 6]) -> Result<i64, Errno> {
        let thread = self.caller.seized.thread;
        let mut registers = self.registers;
        registers.rip = self.registers.rip.wrapping_sub(SYSCALL_INSTRUCTION);
        registers.rax = number as u64;
        // Not in a system call: else the kernel might take it for one to be restarted.
        registers.orig_rax = u64::MAX;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = arguments;
        ptrace::setregs(thread, registers)?;
        loop {
            self.go_on_to_system_call()?;
            self.go_on_to_system_call()?;
            let after = ptrace::getregs(thread)?;
            if after.rip != self.registers.rip {
                // Something other than the instruction that the thread came from was executed.
                return Err(Errno::EPERM);
            }
            // What interrupts a call without being a signal to the program, the freezer of cgroups for instance, makes
            // the kernel begin it anew.
            if !RESTARTS.contains(&(after.rax as i64)) {
                return Ok(after.rax as i64);
            }
        }
    }

    /// Lets the thread run to the entry or the exit of a system call, whichever is next.
    fn go_on_to_system_call(&mut self) -> Result<(), Errno> {
        let seized = &mut self.caller.seized;
        loop {
            ptrace::syscall(seized.thread, None::<Signal>)?;
            match seized.next_stop()? {
                Some(Stop::SystemCall) => return Ok(()),
                Some(Stop::Signal(_) | Stop::Other) => {}
                None => return Err(Errno::ESRCH),
            }
        }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let thread = self.caller.seized.thread;
        let mut registers = self.registers;
        registers.rax = self.result as u64;
        registers.orig_rax = u64::MAX;
        // Both fail if the thread was killed, and then nobody is left to notice.
        let _ = ptrace::setregs(thread, registers);
        let _ = set_signal_mask(thread, &self.mask);
    }
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
