//! A program that does what the test tells it, line by line, and says what came of it: for tests that do something to
//! the sandbox in between.

use std::io::{BufRead, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use ringfence::guest::{Result, open};

use crate::Outcome;
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{Gpu, LIMIT, MEMORY, MIB, word};
use crate::pinning::{Pages, pin};
use crate::walk::ready;

const EVENT: u32 = MEMORY + 1;

fn say(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{line}")?;
    output.flush()
}

/// Has a thread make a request, says when it waits in the kernel for the answer, and what came of it when it has come.
fn in_the_background(request: impl FnOnce() -> Result<()> + Send + 'static) -> Outcome {
    let (sender, thread) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // The test waits for what is said here.
        let _ = sender.send(nix::unistd::gettid());
        let _ = say(&format!("answered: {}", word(request())));
    });
    let thread: Pid = thread.recv()?;
    // Its line starts with the number of the system call that it waits in (proc_pid_syscall(5)).
    let waiting = format!("{} ", libc::SYS_ioctl);
    let path = format!("/proc/self/task/{thread}/syscall");
    let deadline = Instant::now() + LIMIT;
    while !std::fs::read_to_string(&path)?.starts_with(&waiting) {
        assert!(
            Instant::now() < deadline,
            "the request was not seen to wait"
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(say("asked")?)
}

/// Has a thread wait in poll for an event, and says when it has come.
fn wait_for_an_event(gpu: &'static Gpu) -> Outcome {
    let events = gpu.hear_software(EVENT)?;
    gpu.enable_software()?;
    assert_eq!(ready(&events, 0)?, 0);
    thread::spawn(move || {
        let come = ready(&events, LIMIT.as_millis() as u16);
        // The test waits for what is said here.
        let _ = say(&format!("events: {come:?}"));
    });
    Ok(say("waiting")?)
}

/// A new client does what clients do, which may take until there is a server again.
fn start_over() -> Result<Gpu> {
    let deadline = Instant::now() + LIMIT;
    let gpu = loop {
        match Gpu::open() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            opened => break opened?,
        }
    };
    gpu.allocate(MEMORY, MIB)?;
    gpu.free(MEMORY)?;
    Ok(gpu)
}

/// Has a client, and follows the lines of stdin until they end.
pub fn converse(_: &[String]) -> Outcome {
    let gpu: &'static Gpu = Box::leak(Box::new(Gpu::open()?));
    let pages: &'static Pages = Box::leak(Box::new(Pages::new(libc::MAP_PRIVATE)?));
    let mut second = None;
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "use" => say(&word(gpu.client.probed_gpus()))?,
            "open" => say(&word(open(Node::Control)))?,
            "start over" => {
                let new = start_over().map(|new| second = Some(new));
                say(&word(new))?;
            }
            "use second" => say(&word(second.as_ref().map_or(Ok(0), Gpu::free_memory)))?,
            // A request on what one server opened, that names what another opened.
            "mix" => {
                let second = second.as_ref().ok_or("there is no second client")?;
                say(&word(second.client.register(&gpu.node)))?;
            }
            // The simulated driver takes long for it; again and again, it is nearly always at it.
            "keep registering" => in_the_background(|| {
                loop {
                    register_gpu(&address_space()?)?;
                }
            })?,
            "request" => in_the_background(|| gpu.client.probed_gpus().map(drop))?,
            "wait for an event" => wait_for_an_event(gpu)?,
            "trigger it" => gpu.trigger_software()?,
            "pin" => in_the_background(|| pin(gpu, MEMORY, pages))?,
            other => return Err(format!("no such line: {other}").into()),
        }
    }
    Ok(())
}

/// Pins again and again until that fails, and says how.
pub fn pin_until_lost(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    say("ready")?;
    let failed = loop {
        if let Err(error) = pin(&gpu, MEMORY, &pages).and_then(|()| gpu.free(MEMORY)) {
            break error;
        }
    };
    Ok(say(&failed.to_string())?)
}
