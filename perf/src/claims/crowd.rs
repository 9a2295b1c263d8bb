//! Many programs that use a GPU at once, each in a sandbox of its own.

use super::compiled::compiled_with;
use super::suite::{INCLUDED, PROGRAMS};
use super::{Bar, Claim, Measurement, NotMeasured, Session};
use crate::comparison::Comparison;
use crate::launch::Begun;
use crate::measure::Samples;
use crate::ways;

pub const CROWD: Claim = Claim {
    name: "crowd",
    title: "64 programs at once that add vectors on a GPU",
    beside: "as many outside",
    how: "The programs are started one after the other without waiting, each by the way that is measured and so in a \
          sandbox of its own, and the time is from before the first start until the last has been waited for. The ways \
          alternate. The program is the suite's vector_add.",
    bars: &[Bar::ratio("median of the pairs", 1.02)],
    ways: ways::ALL,
    needs_gpu: true,
    measure,
};

const PROGRAMS_AT_ONCE: usize = 64;

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let (name, source) = PROGRAMS[0];
    let program = compiled_with(session, name, source, INCLUDED)?;
    let comparison = Comparison::of_program(session, CROWD.ways, &program);
    let compared = comparison.measure(session, &|start| {
        // What has to be written for containers is written before the time begins.
        let launches: Result<Vec<_>, _> = (0..PROGRAMS_AT_ONCE).map(|_| start()).collect();
        let launches = launches?;
        let started = std::time::Instant::now();
        let begun: Vec<Result<Begun, _>> = launches
            .into_iter()
            .map(|launch| launch.begin(name))
            .collect();
        // All are waited for, even if one went wrong.
        let ends: Vec<Result<String, _>> = begun
            .into_iter()
            .map(|begun| begun.and_then(|begun| begun.end(name)))
            .collect();
        let elapsed = started.elapsed().as_nanos() as u64;
        ends.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(vec![vec![elapsed]])
    })?;
    Ok(Measurement {
        values: vec![compared.value(0, Samples::paired_ratio_to)],
        samples: compared.samples(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}
