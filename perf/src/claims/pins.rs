//! What it takes to pin memory, in programs of several threads, all of which stand still for it.

use super::{Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit};
use crate::measure::{Rounds, Side, in_turns};

pub const PINS: Claim = Claim {
    name: "pins",
    title: "pinning memory of a program of 4 threads, and of 60 (NV_ESC_RM_ALLOC_MEMORY, simulated driver)",
    beside: "nothing: the simulated driver pins in no time, so all of it is Ringfence's",
    how: "A program with that many threads, of which all but one sleep, reads the clock around each request that pins 16 \
          MiB, and frees them again. A request that fails with EAGAIN, because not all threads could be stopped in time, is \
          made again, and counts as a part of the same pin. What NVIDIA's driver takes itself is not in it: \
          docs/PERFORMANCE.md has both from a GPU.",
    bars: &[
        Bar {
            of: "median, 4 threads",
            unit: Unit::Microseconds,
            limit: Limit::AtMost(300.0),
        },
        Bar {
            of: "median, 60 threads",
            unit: Unit::Microseconds,
            limit: Limit::AtMost(1000.0),
        },
    ],
    ways: &[],
    needs_gpu: false,
    measure,
};

/// A pin takes as long as some fifty other requests.
const REQUESTS_PER_PIN: usize = 50;

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let program = |threads: &str| {
        let command = session.sandboxed_guest(&[], &["pins", threads]);
        session.subject("the program in the sandbox", command)
    };
    let (mut few, mut many) = (program("4")?, program("60")?);
    let mut sides = [
        Side::new("a pin, 4 threads", |count| few.ask(&count.to_string())),
        Side::new("a pin, 60 threads", |count| many.ask(&count.to_string())),
    ];
    let prompt = session.effort.prompt;
    let rounds = Rounds {
        samples: (prompt.samples / REQUESTS_PER_PIN).max(1),
        warm_up: (prompt.warm_up / REQUESTS_PER_PIN).max(1),
        ..prompt
    };
    let samples = in_turns(rounds, &session.progress, &mut sides)?;
    let values = samples.iter().map(|samples| Ok(samples.microseconds(0.5)));
    Ok(Measurement {
        values: values.collect(),
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}
