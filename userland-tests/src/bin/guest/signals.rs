//! Programs for tests that send signals, or end in some way.
//!
//! `unsafe` is here for signal handlers.

#![allow(unsafe_code)]

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::pause;
use nvproxy_abi::node::Node;
use ringfence::guest::Result;

use crate::Outcome;
use crate::gpu::{DEVICE, Gpu, MEMORY};

static RECEIVED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    RECEIVED.fetch_add(1, Ordering::SeqCst);
}

/// Counts a signal from now on.
fn count_signal(signal: Signal) -> nix::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(count),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler only adds to an atomic number.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Does `work` again and again while signals come in for this thread, and says how many were handled.
pub fn under_a_rain_of_signals(work: impl FnMut() -> Outcome) -> Outcome {
    // SAFETY: it has no precondition.
    let this = unsafe { libc::pthread_self() };
    beside_a_rain_of_signals(this, work)?;
    say_how_many();
    Ok(())
}

/// Says how many of the signals were handled.
pub fn say_how_many() {
    println!("{} signals", RECEIVED.load(Ordering::SeqCst));
}

/// Does `work` again and again while signals come in for the thread `target`, which must not end before. It may have yet
/// to handle the last one.
///
/// The handler lets interrupted calls be restarted, as handlers of programs do that do not wait for their signals.
pub fn beside_a_rain_of_signals(
    target: libc::pthread_t,
    mut work: impl FnMut() -> Outcome,
) -> Outcome {
    const SENT: u32 = 500;
    // Real-time signals queue, so that none is lost (signal(7)).
    let signal = libc::SIGRTMIN();
    // SAFETY: an all-zero action is a valid one, and the handler only adds to an atomic number.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        Errno::result(libc::sigaction(
            signal,
            &raw const action,
            std::ptr::null_mut(),
        ))?;
    }
    std::thread::scope(|scope| -> Outcome {
        let sender = scope.spawn(move || {
            for _ in 0..SENT {
                // SAFETY: the thread outlives this one, which it waits for.
                let sent = unsafe { libc::pthread_kill(target, signal) };
                assert_eq!(sent, 0);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let mut times = 0;
        while !sender.is_finished() {
            work()?;
            times += 1;
        }
        assert!(times > 0);
        Ok(())
    })
}

/// Ordinary requests, one after the other, while signals come in.
pub fn interrupted(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    under_a_rain_of_signals(|| Ok(request(&gpu)?))
}

/// Says that the test may go on.
fn ready() -> std::io::Result<()> {
    println!("ready");
    std::io::stdout().flush()
}

/// Holds a GPU and does nothing.
pub fn idle(_: &[String]) -> Outcome {
    let _gpu = Gpu::open()?;
    ready()?;
    loop {
        pause();
    }
}

/// Makes requests until one fails, which it does when the sentry is killed, a moment before this program is.
pub fn busy(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    ready()?;
    while request(&gpu).is_ok() {}
    loop {
        pause();
    }
}

fn request(gpu: &Gpu) -> Result<()> {
    gpu.allocate_system(MEMORY, 4096)?;
    gpu.client.map(DEVICE, MEMORY, 4096, Node::Control)?;
    gpu.free(MEMORY)
}

/// Ends with status 7 when it is asked to terminate.
pub fn handler(_: &[String]) -> Outcome {
    let _gpu = Gpu::open()?;
    count_signal(Signal::SIGTERM)?;
    ready()?;
    while RECEIVED.load(Ordering::SeqCst) == 0 {
        // Whatever comes between the look and the pause would be missed, so it looks again after a while.
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("terminated");
    std::process::exit(7)
}

/// Says how often it was interrupted before it was asked to terminate.
pub fn counting(_: &[String]) -> Outcome {
    count_signal(Signal::SIGINT)?;
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    terminate.thread_block()?;
    ready()?;
    terminate.wait()?;
    println!("interrupted {} times", RECEIVED.load(Ordering::SeqCst));
    Ok(())
}

/// Is ended by a signal.
pub fn raise(arguments: &[String]) -> Outcome {
    let signal: i32 = arguments.first().map_or(Ok(0), |signal| signal.parse())?;
    // SAFETY: it takes a number. nix's knows no real-time signals.
    Errno::result(unsafe { libc::raise(signal) })?;
    Ok(())
}
