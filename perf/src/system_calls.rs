//! How many system calls another process makes.
//!
//! The kernel counts them: each thread of the process gets a counter of the tracepoint `raw_syscalls:sys_enter`
//! (perf_event_open(2)), which threads started later inherit. That slows the process down by far less than tracing it
//! would, and changes nothing about what it does.

use std::fs;
use std::io;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

use crate::value::NotMeasured;

/// Where the tracing file system may be.
const TRACING: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Counts the system calls of one process.
pub struct SystemCalls(Vec<Counter>);

impl SystemCalls {
    /// Of the process with this number, from now on.
    pub fn of(process: u32) -> Result<SystemCalls, NotMeasured> {
        let counters = tracepoint().and_then(|tracepoint| counters(process, tracepoint));
        counters.map(SystemCalls).map_err(|error| {
            NotMeasured::lacking(
                format!("the system calls of another process cannot be counted here: {error}"),
                "run as root on a kernel with CONFIG_PERF_EVENTS and CONFIG_FTRACE_SYSCALLS, with \
                 tracefs mounted at /sys/kernel/tracing",
            )
        })
    }

    /// How many there were so far.
    pub fn count(&mut self) -> io::Result<u64> {
        self.0.iter_mut().map(Counter::read).sum()
    }
}

/// The number of the tracepoint on this kernel.
fn tracepoint() -> io::Result<Tracepoint> {
    let read = TRACING
        .iter()
        .map(|place| fs::read_to_string(format!("{place}/events/raw_syscalls/sys_enter/id")));
    let text = read
        .reduce(Result::or)
        .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?;
    let number = text.trim().parse();
    Ok(Tracepoint::with_id(number.map_err(io::Error::other)?))
}

fn counters(process: u32, tracepoint: Tracepoint) -> io::Result<Vec<Counter>> {
    let mut counters = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = entry?.file_name();
        let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let mut builder = Builder::new(tracepoint);
        builder
            .observe_pid(thread)
            .any_cpu()
            .inherit(true)
            .include_kernel()
            .enabled(true);
        counters.push(builder.build()?);
    }
    Ok(counters)
}
