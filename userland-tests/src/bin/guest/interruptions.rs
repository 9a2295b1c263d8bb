//! Calls that no signal disturbs outside of a sandbox, under a rain of signals whose handler has them not begun anew.
//!
//! `unsafe` is here for signals, a timer, and what a fork is for.

#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::Outcome;

extern "C" fn nothing(_: c_int) {}

/// Handles a signal in the way that has interrupted calls fail with `EINTR` (sigaction(2), without `SA_RESTART`).
fn handle(signal: Signal) -> nix::Result<()> {
    let handler = SigHandler::Handler(nothing);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(signal, &action) }.map(drop)
}

fn number(arguments: &[String]) -> Result<u32, std::num::ParseIntError> {
    arguments.first().map_or(Ok(0), |argument| argument.parse())
}

/// Processes of two threads end themselves while signals come in for the first, until one does not. Says how many have
/// ended.
pub fn ends(arguments: &[String]) -> Outcome {
    const TOO_LONG: Duration = Duration::from_secs(20);
    let number = number(arguments)?;
    handle(Signal::SIGUSR1)?;
    let mut ended = 0;
    for _ in 0..number {
        // SAFETY: there is one thread, and the child leaves by exit_group(2) alone.
        let ForkResult::Parent { child } = (unsafe { fork() })? else {
            end_beside_a_thread()
        };
        let deadline = Instant::now() + TOO_LONG;
        loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::Exited(_, 0) => break ended += 1,
                WaitStatus::StillAlive if Instant::now() < deadline => rain_on(child)?,
                status => {
                    println!("{ended} of {number} have ended: {status:?}");
                    return Ok(kill(child, Signal::SIGKILL)?);
                }
            }
        }
    }
    println!("{ended} of {number} have ended");
    Ok(())
}

fn rain_on(process: Pid) -> nix::Result<()> {
    for _ in 0..20 {
        kill(process, Signal::SIGUSR1)?;
    }
    // Let it end on a machine with one processor.
    sleep(Duration::from_micros(20));
    Ok(())
}

/// Ends this process as glibc's _exit does: should exit_group return, the calling thread ends alone.
fn end_beside_a_thread() -> ! {
    std::thread::spawn(|| {
        let _ = SigSet::all().thread_block();
        loop {
            sleep(Duration::from_secs(1000));
        }
    });
    // So that the first signals find it at work, and later ones on its way out.
    let until = Instant::now() + Duration::from_micros(100);
    while Instant::now() < until {}
    // SAFETY: it takes a number.
    unsafe { libc::_exit(0) }
}

/// Opens files in ways in which nobody opens one of NVIDIA's nodes, while a timer interrupts. Says how many of the opens were
/// interrupted.
pub fn opens(arguments: &[String]) -> Outcome {
    let number = number(arguments)?;
    handle(Signal::SIGALRM)?;
    let (file, directory) = (CString::new("/tmp/opened")?, CString::new("/tmp")?);
    let every = |microseconds| libc::timeval {
        tv_sec: 0,
        tv_usec: microseconds,
    };
    for (flags, path, what) in [
        (libc::O_CREAT, &file, "O_CREAT"),
        (libc::O_TRUNC, &file, "O_TRUNC"),
        (libc::O_APPEND, &file, "O_APPEND"),
        (libc::O_PATH, &file, "O_PATH"),
        (libc::O_DIRECTORY, &directory, "O_DIRECTORY"),
        (libc::O_TMPFILE, &directory, "O_TMPFILE"),
    ] {
        let mut interrupted = 0;
        set_timer(every(100))?;
        for _ in 0..number {
            // SAFETY: the path outlives the call.
            let opened = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | flags, 0o600) };
            match Errno::result(opened) {
                Ok(opened) => nix::unistd::close(opened)?,
                Err(Errno::EINTR) => interrupted += 1,
                // A directory is not opened for writing.
                Err(Errno::EISDIR) if flags == libc::O_DIRECTORY => {}
                Err(errno) => return Err(format!("{what}: {errno}").into()),
            }
        }
        set_timer(every(0))?;
        println!("{what}: {interrupted} of {number} interrupted");
    }
    Ok(())
}

/// Has SIGALRM sent to this process again and again, or no more.
fn set_timer(every: libc::timeval) -> nix::Result<()> {
    let value = libc::itimerval {
        it_interval: every,
        it_value: every,
    };
    // SAFETY: the kernel reads the value, which outlives the call.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const value, std::ptr::null_mut()) };
    Errno::result(set).map(drop)
}
