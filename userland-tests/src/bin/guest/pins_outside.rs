//! Pins, and what reaches the process from outside of them: another process that it has given its memory to, and signals.
//!
//! `unsafe` is here for timers.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nvproxy_abi::number::NV_ESC_RM_ALLOC_MEMORY;
use ringfence::guest::frontend;

use crate::Outcome;
use crate::children::child;
use crate::gpu::{Gpu, MEMORY, word};
use crate::pinning::{Pages, pin_at_once, request};

/// Hands its memory, and what says what lies where in it, to whoever listens on this socket, waits for a byte, and pins. Says
/// what came of that, and whether the limit is what it was.
pub fn handed_out(arguments: &[String]) -> Outcome {
    const LIMIT: u64 = 0xfff;
    let [path] = arguments else {
        return Err("a socket".into());
    };
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")?;
    let maps = File::open("/proc/self/maps")?;
    let mut socket = UnixStream::connect(path)?;
    let descriptors = [memory.as_raw_fd(), maps.as_raw_fd()];
    let (data, rights) = ([0], [ControlMessage::ScmRights(&descriptors)]);
    let (data, flags) = ([IoSlice::new(&data)], MsgFlags::empty());
    sendmsg::<()>(socket.as_raw_fd(), &data, &rights, flags, None)?;
    let mut request = request(&gpu, &pages, LIMIT);
    socket.read_exact(&mut [0])?;
    let outcome = frontend(&gpu.node, NV_ESC_RM_ALLOC_MEMORY, &mut request);
    println!("pinned: {}", word(outcome));
    println!("altered: {}", request.params.limit != LIMIT);
    Ok(())
}

/// A child pins that a timer stops so many milliseconds after it has begun, and another continues, if there is another
/// number. Says whether it stopped, and how it ended.
pub fn stopped(arguments: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let pinning = child(|| {
        for (signal, milliseconds) in [Signal::SIGSTOP, Signal::SIGCONT]
            .into_iter()
            .zip(arguments)
        {
            signal_after(signal, Duration::from_millis(milliseconds.parse()?))?;
        }
        println!("pinned: {}", word(pin_at_once(&gpu, MEMORY, &pages)));
        Ok(())
    })?;
    loop {
        match waitpid(pinning, Some(WaitPidFlag::WUNTRACED))? {
            WaitStatus::Stopped(_, signal) => {
                println!("stopped: {signal}");
                kill(pinning, Signal::SIGCONT)?;
            }
            ended => {
                println!("{}", matches!(ended, WaitStatus::Exited(_, 0)));
                return Ok(());
            }
        }
    }
}

/// Has a timer send this process a signal.
fn signal_after(signal: Signal, delay: Duration) -> nix::Result<()> {
    // SAFETY: all-zero structs are valid ones.
    let (mut event, mut when): (libc::sigevent, libc::itimerspec) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal as i32;
    when.it_value.tv_sec = delay.as_secs() as i64;
    when.it_value.tv_nsec = delay.subsec_nanos().into();
    let mut timer = std::ptr::null_mut();
    // SAFETY: the structs outlive the calls.
    let set = unsafe {
        let made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer);
        Errno::result(made)?;
        libc::timer_settime(timer, 0, &raw const when, std::ptr::null_mut())
    };
    Errno::result(set).map(drop)
}
