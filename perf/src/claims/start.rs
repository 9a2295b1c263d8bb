//! What it takes to start a sandbox and to be rid of it again.

use std::process::{Command, Stdio};
use std::time::Instant;

use ringfence_programs::finding::find;

use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session};
use crate::measure::{Side, in_turns};
use crate::processors::Confined;

pub const START: Claim = Claim {
    name: "start",
    title: "`ringfence run -- true`, from its start until it has been waited for",
    beside: "`bwrap --unshare-all --ro-bind / / true`",
    how: "The two, and `true` without a sandbox for the plot, are run in turns, on the same two processors.",
    bars: &[Bar::ratio("median of the pairs", 2.0)],
    needs_gpu: false,
    measure,
};

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let _confined = Confined::to_two().attempt("the processors")?;
    let bubblewrap = find("bwrap", &[]).ok_or_else(|| {
        NotMeasured::lacking("bwrap is not installed", "install the package bubblewrap")
    })?;
    let ringfence = || {
        let mut command = Command::new(&session.ringfence);
        command.args(["run", "--driver", session.driver_name(), "--", "true"]);
        command
    };
    let bubblewrap = || {
        let mut command = Command::new(&bubblewrap);
        command.args(["--unshare-all", "--ro-bind", "/", "/", "true"]);
        command
    };
    // What is read from the disk is read now.
    run(ringfence())?;
    run(bubblewrap())?;
    let mut sides = [
        Side::new("ringfence run", |_| Ok(vec![run(ringfence())?])),
        Side::new("bwrap", |_| Ok(vec![run(bubblewrap())?])),
        Side::new("no sandbox", |_| Ok(vec![run(Command::new("true"))?])),
    ];
    let samples = in_turns(session.effort.brief, &session.progress, &mut sides)?;
    let [ringfence, bubblewrap, _] = &samples[..] else {
        return Err(NotMeasured::failed("starting", "not three sides"));
    };
    Ok(Measurement {
        values: vec![Ok(ringfence.paired_ratio_to(bubblewrap))],
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// How many nanoseconds the command takes, which has to succeed and to say nothing.
fn run(mut command: Command) -> Result<u64, NotMeasured> {
    let name = command.get_program().to_string_lossy().into_owned();
    // In a directory that every sandbox has: one that it lacks is warned of.
    command.current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().attempt(&name)?;
    let elapsed = started.elapsed().as_nanos() as u64;
    if status.success() {
        Ok(elapsed)
    } else {
        Err(NotMeasured::failed(name, status))
    }
}
