//! How much memory sentry and server have.

use std::io::ErrorKind;

use super::{Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit, Value};
use crate::guest::requests::PROBED_IDS;
use crate::sandbox::{Processes, proportional_memory};

pub const MEMORY: Claim = Claim {
    name: "memory",
    title: "the memory of sentry and server together, after 1,000 requests",
    beside: "nothing",
    how: "A program has made 1,000 requests (RM_CONTROL 0x214, simulated driver) and waits. The memory is what the \
          kernel gives as the proportional set size of the two: what is shared with others counts in part.",
    bars: &[Bar {
        of: "proportional set size",
        unit: Unit::Mebibytes,
        limit: Limit::AtMost(16.0),
    }],
    ways: &[],
    needs_gpu: false,
    measure,
};

const REQUESTS: usize = 1000;

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let command = session.sandboxed_guest(&[], &["requests", PROBED_IDS]);
    let mut subject = session.subject("the program in the sandbox", command)?;
    subject.ask(&REQUESTS.to_string())?;
    let processes = Processes::of(subject.process())?;
    let (sentry, server) = (memory(processes.sentry)?, memory(processes.server)?);
    let measured = format!("{sentry:.1} MiB sentry, {server:.1} MiB server");
    let value = Value::plain(sentry + server, measured);
    Ok(Measurement {
        values: vec![Ok(value)],
        samples: Vec::new(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// In MiB.
pub(super) fn memory(process: u32) -> Result<f64, NotMeasured> {
    match proportional_memory(process) {
        Ok(kibibytes) => Ok(kibibytes as f64 / 1024.0),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(NotMeasured::lacking(
            "nobody but root may look at the memory of sentry and server",
            "run this as root",
        )),
        Err(error) => Err(NotMeasured::failed("the memory of a process", error)),
    }
}
