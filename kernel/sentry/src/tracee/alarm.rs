//! The alarm that ends a seizure which waits.
//!
//! To seize a thread, the kernel waits until no thread of its process executes a program (`cred_guard_mutex`: ptrace_attach
//! in kernel/ptrace.c, prepare_bprm_creds in fs/exec.c). Who executes one waits in turn for the other threads of the
//! process to be gone, and one that is traced is not gone before its tracer has waited for it (ptrace(2), "Bugs"). So a
//! tracer that holds some threads of a process and seizes another could wait for ever, and it could wait for long where
//! the program is read from a slow file. The kernel's wait can be interrupted, but a seizure that a signal interrupts
//! begins anew by itself. So the signal's handler takes the thread past the call: it looks as if the call had failed
//! with `EINTR`. A seizure that has come about is never taken back: the thread stands behind the call then.
//!
//! `unsafe` is here because a handler is installed, and changes where the thread goes on.

#![allow(unsafe_code)]

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, SigmaskHow, Signal,
    pthread_sigmask, sigaction,
};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

use super::PAUSE;
use crate::arch::{SYSTEM_CALL, call_of, next_of, pass_call};

const SIGNAL: Signal = Signal::SIGALRM;

/// A clock that ends a seizure by one thread when it rings.
pub struct Alarm(Timer);

// SAFETY: the kernel's name for a timer, which the C library keeps in a pointer, is the same in all threads of a process.
unsafe impl Send for Alarm {}

impl Alarm {
    /// To be made before this process has a second thread: none but the one that calls [`Alarm::take_up`] is to hear it.
    pub fn new() -> Result<Alarm, Errno> {
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SIGNAL.into()), None)?;
        let action = SigAction::new(
            SigHandler::SigAction(leave_seizure),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler touches nothing but the context that it gets.
        unsafe { sigaction(SIGNAL, &action) }?;
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal: SIGNAL,
            si_value: 0,
        });
        Timer::new(ClockId::CLOCK_MONOTONIC, event).map(Alarm)
    }

    /// From now on the calling thread is the one that hears it.
    pub fn take_up(&self) {
        // It fails for no valid signal.
        let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&SIGNAL.into()), None);
    }

    /// Has it ring each [`PAUSE`] until what this returns is dropped. It may ring before a call has begun, and then again.
    pub fn start(&mut self) -> Result<Ringing<'_>, Errno> {
        self.set(PAUSE)?;
        Ok(Ringing(self))
    }

    fn set(&mut self, interval: Duration) -> Result<(), Errno> {
        let interval = Expiration::Interval(interval.into());
        self.0.set(interval, TimerSetTimeFlags::empty())
    }
}

/// From now on the calling thread, which a thread that heard it has made, does not.
pub fn leave_to_others() {
    // It fails for no valid signal. What rings before has rung for nobody, and rings again.
    let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SIGNAL.into()), None);
}

/// An alarm that rings.
pub struct Ringing<'a>(&'a mut Alarm);

impl Drop for Ringing<'_> {
    fn drop(&mut self) {
        // It cannot fail, and would do no harm.
        let _ = self.0.set(Duration::ZERO);
    }
}

/// If the thread is about to make a seizure, anew or for the first time, takes it past the call, which returns `-EINTR` as
/// the kernel would.
extern "C" fn leave_seizure(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler the context that the thread goes on with (sigaction(2)), and nobody else has it.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let (number, request) = call_of(context);
    if number != libc::SYS_ptrace || request as libc::c_uint != libc::PTRACE_SEIZE {
        return;
    }
    // SAFETY: it is what the thread executes next. Of an instruction that is shorter, at the end of what can be read, not all
    // could be; but this thread stands in the C library's ptrace(2) then, which goes on behind it.
    if unsafe { next_of(context).read_unaligned() } != SYSTEM_CALL {
        return;
    }
    pass_call(context, -i64::from(libc::EINTR));
}
