//! Threads that are made to call the kernel: the one whose call is being carried out, and one that it is made to make.
//!
//! The caller may be taken elsewhere by the kernel whenever it returns to its program, to code of the program's: by a
//! restartable sequence around its `syscall` instruction (rseq(2)), or by Syscall User Dispatch (prctl(2)). Both are the
//! thread's own, set up before, and kept in memory that others may change. A thread that it makes with its memory has
//! neither (rseq_fork in include/linux/rseq.h, copy_process in kernel/fork.c). So the caller makes that thread, when there
//! is nothing yet to be learned or altered, and cleans up when there is nothing left; all else the thread does. For these
//! two calls Syscall User Dispatch is turned off, so that a program which uses it can pin; where the kernel is too old to be
//! told so, such a program is killed, as whoever does not do as it is told.
//!
//! All signals that can be blocked are, so no handler of the program's runs. The one that stops a process (SIGSTOP) cannot be,
//! and may reach these threads, since the others stand still. It is delivered, and they go on all the same: so the kernel has the
//! process stop as soon as they are let go of, unless it was continued (SIGCONT) by then.
//!
//! What a task's own seccomp filters answer in place of the kernel is not believed where it matters: that a thread was
//! made is told by an event of ptrace, and that one has ended by wait(2). Both are the kernel's own.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nvproxy_protocol::requests::errno_of;
use ringfence_faults::{Act, Point, at_task};

use super::{End, Look, PAUSE, Patience, Seized, Stop, Tracer};
use crate::arch::Registers;
use crate::system_calls::{
    Dispatch, SignalMask, dispatch, set_dispatch, set_signal_mask, signal_mask,
};
use crate::warnings::warn_once;

/// What the processor raises against a thread that executes something other than a system call.
const FAULTS: [libc::c_int; 5] = [
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGTRAP,
    libc::SIGFPE,
];

/// What a call that is to begin anew returns to a tracer, and to nobody else: ERESTARTSYS, ERESTARTNOINTR,
/// ERESTARTNOHAND and ERESTART_RESTARTBLOCK (include/linux/errno.h in Linux).
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];

/// The thread whose call is being carried out, from its seizure on.
pub struct Caller<'a> {
    seized: Seized<'a>,
    patience: &'a Patience<'a>,
}

impl<'a> Caller<'a> {
    /// Takes hold of a thread that waits for its notification to be answered: it will stop on its way out. The threads
    /// that it makes from now on are traced from birth. All calls that it and they are made to make, but for what enters the
    /// driver, may together take as long as there is `patience`: a thread of the program's stands behind what was an
    /// instruction for a system call, and may have been something else since.
    pub fn seize(
        thread: Pid,
        tracer: &'a Tracer,
        patience: &'a Patience<'a>,
    ) -> Result<Caller<'a>, Errno> {
        let options = Seized::OPTIONS | Options::PTRACE_O_TRACECLONE;
        Ok(Caller {
            seized: Seized::new(thread, options, tracer)?,
            patience,
        })
    }

    /// Once the notification has been answered: waits until the thread has stopped.
    pub fn stopped(mut self) -> Result<Stopped<'a>, Errno> {
        let thread = self.seized.thread;
        match self.seized.next_stop()? {
            // Another program stands there, which did not make the call.
            None | Some(Stop::Executed) => return Err(Errno::ESRCH),
            Some(_) => {}
        }
        let registers = Registers::of(thread)?;
        let mask = signal_mask(thread)?;
        // Where the kernel does not say, it is too old to be told to leave it.
        let dispatch = dispatch(thread).unwrap_or(Dispatch::OFF);
        let stopped = Stopped {
            mask,
            dispatch,
            result: -i64::from(Errno::EIO as i32),
            calls: Calls::new(self.seized, registers, self.patience),
        };
        // Nothing of the program's runs in between: a signal handler would be something of the program's.
        set_signal_mask(thread, &SignalMask::ALL)?;
        // A test leaves this out, to show that it would notice.
        let is_to_be_left = at_task(Point::Dispatched, thread.as_raw()) == Some(Act::Drop);
        if dispatch != Dispatch::OFF && !is_to_be_left {
            set_dispatch(thread, Dispatch::OFF)?;
        }
        Ok(stopped)
    }
}

/// How often a thread may stop, or begin anew, in a call that it is set to: more often than what stops whole sandboxes has it
/// do so, and seldom enough that nobody waits for long. Who is sent signals without end never gets to the call.
const INTERRUPTIONS: u32 = 100;

/// How a thread ended the sequence that it was to execute.
pub enum Issued {
    /// It has been through all of it, and has ended.
    Through,
    /// It was killed in it. What it was to unmap may be mapped.
    Killed,
    /// It stands where the sequence ends otherwise; its last call returned this.
    Otherwise(i64),
}

/// A stopped thread that can be made to call the kernel.
pub struct Calls<'a> {
    seized: Seized<'a>,
    /// Those that it came with.
    registers: Registers,
    /// Where the instruction lies by which it makes its calls.
    instruction: u64,
    patience: &'a Patience<'a>,
}

impl<'a> Calls<'a> {
    /// Of a thread that stands behind an instruction for a system call, or begins there.
    fn new(seized: Seized<'a>, registers: Registers, patience: &'a Patience<'a>) -> Calls<'a> {
        Calls {
            seized,
            registers,
            instruction: registers.instruction(),
            patience,
        }
    }

    pub fn thread(&self) -> Pid {
        self.seized.thread
    }

    /// Has the thread make its calls by the instruction at `address` from now on.
    pub fn call_from(&mut self, address: u64) {
        self.instruction = address;
    }

    /// Has the thread execute the sequence of the code that it calls from (`Registers::issuing`), and returns how that ended.
    /// Fails as [`Calls::call`] does. It takes patience, but while it `is_exempt`.
    pub fn issue(
        &mut self,
        mapping: [u64; 6],
        descriptor: u64,
        command: u64,
        is_exempt: impl Fn() -> bool,
    ) -> Result<Issued, Errno> {
        let registers = self.registers;
        let issuing = registers.issuing(self.instruction, mapping, descriptor, command);
        let seized = &mut self.seized;
        issuing.give(seized.thread)?;
        let mut delivered = None;
        for _ in 0..INTERRUPTIONS {
            ptrace::cont(seized.thread, delivered.take())?;
            let patience = || (!is_exempt()).then_some(self.patience);
            match seized.next_stop_within(patience) {
                Err(Errno::EAGAIN) => return Err(killed(seized.thread, Why::TooSlow)),
                Err(errno) => return Err(errno),
                Ok(None) if seized.end == End::Itself => return Ok(Issued::Through),
                Ok(None) => return Ok(Issued::Killed),
                Ok(Some(Stop::Executed)) => return Err(Errno::ESRCH),
                Ok(Some(Stop::Signal(libc::SIGILL))) => {
                    return Ok(Issued::Otherwise(Registers::of(seized.thread)?.result()));
                }
                Ok(Some(Stop::Signal(signal))) if FAULTS.contains(&signal) => {
                    return Err(killed(seized.thread, Why::Disobeyed));
                }
                Ok(Some(Stop::Signal(libc::SIGSTOP))) => delivered = stopping(seized),
                Ok(Some(_)) => {}
            }
        }
        Err(killed(seized.thread, Why::TooSlow))
    }

    /// Has the thread execute the system call `number` and returns what came back: from the kernel, or from a seccomp
    /// filter of the program's. Fails with `ESRCH` if it does anything else, which is the end of its process, or is killed.
    pub fn call(&mut self, number: libc::c_long, arguments: [u64; 6]) -> Result<i64, Errno> {
        self.make(number, arguments).map(|(result, _)| result)
    }
}

/// A thread that stands right behind an instruction for a system call. When this is dropped it goes on from there, with
/// [`Stopped::result`] for what the call returned.
pub struct Stopped<'a> {
    calls: Calls<'a>,
    mask: SignalMask,
    dispatch: Dispatch,
    /// What the program sees; `EIO` until it is set.
    pub result: i64,
}

impl<'a> Stopped<'a> {
    /// Fails with `ESRCH` if it has been killed, or another thread of its process has executed a program and got its number.
    pub fn expect_present(&mut self) -> Result<(), Errno> {
        let seized = &mut self.calls.seized;
        match seized.look()? {
            Look::Running | Look::Stopped(_) if !seized.has_executed => Ok(()),
            _ => Err(Errno::ESRCH),
        }
    }

    /// To have it call the kernel.
    pub fn calls(&mut self) -> &mut Calls<'a> {
        &mut self.calls
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if self.expect_present().is_err() {
            return;
        }
        let thread = self.calls.thread();
        let registers = self.calls.registers.returning(self.result);
        // These fail if the thread was killed, and then nobody is left to notice.
        let _ = registers.give(thread);
        let _ = set_signal_mask(thread, &self.mask);
        if self.dispatch != Dispatch::OFF {
            let _ = set_dispatch(thread, self.dispatch);
        }
    }
}

/// What descriptor table a [`Helper`] begins with.
#[derive(Clone, Copy)]
pub enum Table {
    /// Its process's.
    Shared,
    /// A copy of its process's. At its end the kernel closes all that is in it.
    Copied,
}

/// A thread that the sentry has the caller make, in its process and with its memory, to make a call in its place.
///
/// Once it has a descriptor table of its own, nobody else has what it is given. It executes nothing but the calls that it
/// is told to, and so needs no stack. When this is dropped the thread has ended, and its table is gone: until then this
/// waits, and if the thread cannot be ended otherwise its process is killed.
pub struct Helper<'a> {
    calls: Calls<'a>,
    /// Nothing need be done any more for its end to come.
    is_ending: bool,
}

impl<'a> Helper<'a> {
    /// What it shares with the caller.
    const SHARED: libc::c_int =
        libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_SIGHAND | libc::CLONE_THREAD;

    /// Has `caller` make one, with this descriptor table.
    pub fn new(caller: &mut Stopped<'a>, table: Table) -> Result<Helper<'a>, Errno> {
        let shared = match table {
            Table::Shared => libc::CLONE_FILES,
            Table::Copied => 0,
        };
        let flags = (Helper::SHARED | shared) as u64;
        let calls = &mut caller.calls;
        let (result, made) = calls.make(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])?;
        // Without an event there is no thread, whatever the result looks like.
        let thread = made.ok_or(match result {
            ..0 => errno_of(-result as i32),
            _ => Errno::EIO,
        })?;
        let mut seized = Seized::born(thread, calls.seized.tracer);
        seized.next_stop()?.ok_or(Errno::ESRCH)?;
        run_here(thread);
        Ok(Helper {
            // It stands where its maker does, at first.
            calls: Calls::new(seized, calls.registers, calls.patience),
            is_ending: false,
        })
    }

    /// To have it call the kernel.
    pub fn calls(&mut self) -> &mut Calls<'a> {
        &mut self.calls
    }

    /// Has it leave a descriptor table that it shares, for an empty one (close_range(2)). A seccomp filter of the program's
    /// may not let it, whatever it answers; the kernel knows (kcmp(2)). Fails as [`Calls::call`] does.
    pub fn leave_table(&mut self) -> Result<(), Errno> {
        let all = u64::from(libc::c_uint::MAX);
        let flags = u64::from(libc::CLOSE_RANGE_UNSHARE);
        let arguments = [0, all, flags, 0, 0, 0];
        self.calls.call(libc::SYS_close_range, arguments).map(drop)
    }

    /// Ends it. Fails with `EPERM` if a seccomp filter of the program's does not let threads end: then its process has
    /// been killed.
    pub fn end(mut self) -> Result<(), Errno> {
        match self.calls.call(libc::SYS_exit, [0; 6]) {
            Err(Errno::ESRCH) => {
                self.is_ending = true;
                Ok(())
            }
            _ => Err(Errno::EPERM),
        }
    }
}

/// Has a thread run on the processor that this one is on, where the two take turns. On another one each of its stops would wait until a
/// processor has woken that sleeps. Where the kernel does not permit it, that is how it goes.
fn run_here(thread: Pid) {
    let mut only = CpuSet::new();
    let chosen = sched_getcpu().and_then(|here| only.set(here));
    let _ = chosen.and_then(|()| sched_setaffinity(thread, &only));
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        let seized = &mut self.calls.seized;
        if !seized.has_ended && !self.is_ending {
            // The kernel knows no way to kill one thread of a process.
            let _ = kill(seized.thread, Signal::SIGKILL);
        }
        while !seized.has_ended {
            if !matches!(seized.look(), Ok(Look::Ended(_))) {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

impl Calls<'_> {
    /// As [`Calls::call`]; besides, the thread that the call made, if it made one.
    fn make(
        &mut self,
        number: libc::c_long,
        arguments: [u64; 6],
    ) -> Result<(i64, Option<Pid>), Errno> {
        let seized = &mut self.seized;
        let calling = self.registers.calling(self.instruction, number, arguments);
        calling.give(seized.thread)?;
        let mut made = None;
        let to_return = (number != libc::SYS_ioctl).then_some(self.patience);
        for _ in 0..INTERRUPTIONS {
            go_on_to_system_call(seized, &mut made, Some(self.patience))?;
            let before = Registers::of(seized.thread)?;
            if !before.makes(self.instruction, number, arguments) {
                // Something other than the instruction that the thread was set to was executed. It executes no more:
                // not even this call, since it has been killed.
                return Err(killed(seized.thread, Why::Disobeyed));
            }
            go_on_to_system_call(seized, &mut made, to_return)?;
            let result = Registers::of(seized.thread)?.result();
            if !RESTARTS.contains(&result) {
                return Ok((result, made));
            }
            // What interrupts a call without being a signal to the program, the freezer of cgroups for instance, has it begin
            // anew. The kernel would see to that; but a filter of the program's can answer so, too, and then the
            // kernel would let the thread go on to the program's code.
            calling.give(seized.thread)?;
        }
        Err(killed(seized.thread, Why::TooSlow))
    }
}

/// Lets a thread run to the entry or the exit of a system call, whichever is next. If it gets to neither as long as there is
/// patience, if that is given, its process is killed: nobody can say what it would do if it was let go.
fn go_on_to_system_call(
    seized: &mut Seized<'_>,
    made: &mut Option<Pid>,
    patience: Option<&Patience<'_>>,
) -> Result<(), Errno> {
    // A test has it go on, to show that it would notice.
    let is_spared = at_task(Point::PinObeyed, seized.thread.as_raw()) == Some(Act::Drop);
    let patience = patience.filter(|_| !is_spared);
    let interruptions = if is_spared { u32::MAX } else { INTERRUPTIONS };
    let mut delivered = None;
    for _ in 0..interruptions {
        ptrace::syscall(seized.thread, delivered.take())?;
        let stop = match seized.next_stop_within(|| patience) {
            Err(Errno::EAGAIN) => {
                return Err(killed(seized.thread, Why::TooSlow));
            }
            stop => stop?,
        };
        match stop {
            Some(Stop::SystemCall) => return Ok(()),
            Some(Stop::Cloned) => {
                let thread = ptrace::getevent(seized.thread)?;
                *made = Some(Pid::from_raw(thread as libc::pid_t));
            }
            Some(Stop::Signal(signal)) if FAULTS.contains(&signal) && !is_spared => {
                return Err(killed(seized.thread, Why::Disobeyed));
            }
            Some(Stop::Signal(libc::SIGSTOP)) => delivered = stopping(seized),
            Some(Stop::Signal(_) | Stop::Other) => {}
            None | Some(Stop::Executed) => return Err(Errno::ESRCH),
        }
    }
    Err(killed(seized.thread, Why::TooSlow))
}

/// What is delivered to a thread that has stopped for the only signal that cannot be blocked. It goes on although its process is
/// stopping, and the others do not.
fn stopping(seized: &mut Seized<'_>) -> Option<Signal> {
    seized.signal = 0;
    // A test has it lost, to show that it would notice.
    let is_lost = at_task(Point::PinStop, seized.thread.as_raw()) == Some(Act::Drop);
    (!is_lost).then_some(Signal::SIGSTOP)
}

/// Why a process is killed whose thread was to make calls.
enum Why {
    Disobeyed,
    TooSlow,
}

/// Kills the process of a thread that does not do as it is told.
fn killed(thread: Pid, why: Why) -> Errno {
    let _ = kill(thread, Signal::SIGKILL);
    match why {
        Why::Disobeyed => warn_once(
            "a process that pinned memory was killed, because it did not make the calls that it was set to",
            "its code, a breakpoint, a seccomp filter of its own or Syscall User Dispatch was in the way",
        ),
        Why::TooSlow => warn_once(
            "a process that pinned memory was killed, because the calls that it was set to took too long",
            "its code or signals were in the way, or others kept the processors from it",
        ),
    }
    Errno::ESRCH
}
