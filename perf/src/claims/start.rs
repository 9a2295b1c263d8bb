//! What it takes to start a sandbox and to be rid of it again.

use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session, Unit};
use crate::comparison::Comparison;
use crate::measure::Samples;
use crate::processors::Confined;
use crate::ways::{self, Way, Work};

pub const START: Claim = Claim {
    name: "start",
    title: "`ringfence run -- true`, from its start until it has been waited for",
    beside: "`bwrap --unshare-all --ro-bind / / true`, with the host's /dev where there is a GPU",
    how: "`true` is run by each way in turns, on the same two processors; what runsc and its like start besides is on the \
          same two. The ways are shown beside running it without a sandbox, and so is the second value. On a machine with \
          a GPU each is given it, as for a program that uses it.",
    bars: &[
        Bar::ratio("median of the pairs", 1.5),
        Bar::shown("beside no sandbox", Unit::Ratio),
    ],
    ways: ways::ALL,
    needs_gpu: false,
    measure,
};

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let _confined = Confined::to_two().attempt("the processors")?;
    let mut work = Work::new(["true"]);
    work.driver = session.driver;
    let comparison = Comparison {
        ways: START.ways,
        work,
        rounds: session.effort.brief,
        parts: &[""],
        further: &[],
    };
    let compared = comparison.measure(session, &|start| {
        let ran = start()?.run("true")?;
        Ok(vec![vec![ran.nanoseconds]])
    })?;
    let ringfence = compared.part(Way::Ringfence.name(), 0)?;
    let beside = compared.part(Way::Bubblewrap.name(), 0);
    let native = compared.value(0, Samples::paired_ratio_to)?;
    let values = vec![
        beside.map(|bubblewrap| ringfence.paired_ratio_to(bubblewrap)),
        Ok(native),
    ];
    Ok(Measurement {
        values,
        samples: compared.samples(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}
