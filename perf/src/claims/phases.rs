//! A program of CUDA's driver interface, phase by phase.

use super::compiled::compiled;
use super::{Bar, Claim, Measurement, NotMeasured, Session, Unit};
use crate::comparison::Comparison;
use crate::measure::Samples;
use crate::ways;

pub const PHASES: Claim = Claim {
    name: "phases",
    title: "the phases of a program of CUDA's driver interface",
    beside: "the same outside",
    how: "The program reads the clock around cuInit with the primary context, around 20 times cuMemAlloc of 64 MiB with \
          cuMemFree, around 10 times cuMemAllocHost of 16 MiB with cuMemFreeHost, and around the release of the context. \
          Its start and end is what remains of the time from its start until it has been waited for, so the sandbox's own \
          are in it. The ways alternate.",
    bars: &[
        Bar::ratio("cuInit and context", 1.04),
        Bar::ratio("cuMemAlloc and cuMemFree", 1.25),
        Bar::shown("cuMemAllocHost and cuMemFreeHost", Unit::Ratio),
        Bar::shown("release of the context", Unit::Ratio),
        Bar::shown("start and end", Unit::Ratio),
    ],
    ways: ways::ALL,
    needs_gpu: true,
    measure,
};

/// As the bars have them.
const PARTS: [&str; 5] = [
    "cuInit and context",
    "allocating",
    "allocating pinned",
    "release",
    "start and end",
];

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    const NAME: &str = "phases.cu";
    let source = include_str!("../../workloads/phases.cu");
    let program = compiled(session, "phases", source)?;
    let comparison = Comparison {
        rounds: session.effort.programs,
        parts: &PARTS,
        ..Comparison::of_program(session, PHASES.ways, &program)
    };
    let compared = comparison.measure(session, &|start| {
        let ran = start()?.run(NAME)?;
        let phases = times(&ran.printed, ran.nanoseconds);
        phases.ok_or_else(|| NotMeasured::failed(NAME, format!("it printed {:?}", ran.printed)))
    })?;
    let values = (0..PARTS.len()).map(|part| compared.value(part, Samples::paired_ratio_to));
    Ok(Measurement {
        values: values.collect(),
        samples: compared.samples(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// The four phases that the program has printed, and what remains of its whole time.
fn times(printed: &str, whole: u64) -> Option<Vec<Vec<u64>>> {
    let phases: Result<Vec<u64>, _> = printed.split_whitespace().map(str::parse).collect();
    let mut phases = phases.ok()?;
    let rest = whole.checked_sub(phases.iter().sum())?;
    phases.push(rest);
    (phases.len() == PARTS.len()).then(|| phases.into_iter().map(|time| vec![time]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_phase_is_start_and_end() {
        let expected = [[5], [4], [3], [2], [6]].map(Vec::from).to_vec();
        assert_eq!(times("5 4 3 2\n", 20), Some(expected));
        assert_eq!(times("5 4 3\n", 20), None);
        assert_eq!(times("5 4 3 x\n", 20), None);
        assert_eq!(times("5 4 3 20\n", 20), None);
    }
}
