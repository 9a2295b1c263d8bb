//! What a sandbox costs a program that asks nothing of the driver, but much of the file system.

use std::fs::File;
use std::path::Path;

use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session, Unit};
use crate::comparison::{Comparison, Further};
use crate::guest::files::{FILES, path};
use crate::measure::Samples;
use crate::processors::Confined;
use crate::ways::{self, Way};

pub const FILE_SYSTEM: Claim = Claim {
    name: "files",
    title: "a program that opens 20,000 files to read them and looks up 100,000",
    beside: "the same program outside",
    how: "The program reads the clock before its first open and after its last stat; it has 1,000 empty files, which it \
          opens and looks up again and again. The second value is of whole runs, so it has in it what it takes to start \
          a sandbox and to end it. The third is no sandbox: the program has put itself under a seccomp filter that allows \
          everything, which is what the kernel takes for having a filter at all.",
    bars: &[
        Bar::ratio("the program's work, median of the pairs", 1.05),
        Bar::shown("the whole run, median of the pairs", Unit::Ratio),
        Bar::shown("no sandbox, a filter that allows all", Unit::Ratio),
    ],
    ways: ways::ALL,
    needs_gpu: false,
    measure,
};

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let _confined = Confined::to_two().attempt("the processors")?;
    let directory = session.fresh_file("files");
    fill(&directory).attempt("the files")?;
    let place = directory.to_string_lossy().into_owned();
    let comparison = Comparison {
        ways: FILE_SYSTEM.ways,
        work: session.work(&["files", &*place]).seeing(&directory),
        rounds: session.effort.programs,
        parts: &["its work", "whole run"],
        further: &[Further {
            name: FILTERED,
            command: &|| session.guest(&["filtered-files", &*place]),
        }],
    };
    let compared = comparison.measure(session, &|start| {
        const NAME: &str = "the program that opens files";
        let ran = start()?.run(NAME)?;
        let work: u64 = ran.printed.trim().parse().attempt(NAME)?;
        Ok(vec![vec![work], vec![ran.nanoseconds]])
    })?;
    let native = compared.part(Way::Native.name(), 0)?;
    let filtered = compared.part(FILTERED, 0)?.paired_ratio_to(native);
    Ok(Measurement {
        values: vec![
            compared.value(0, Samples::paired_ratio_to),
            compared.value(1, Samples::paired_ratio_to),
            Ok(filtered),
        ],
        samples: compared.samples(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// What is measured beside the ways.
const FILTERED: &str = "no sandbox, a filter";

fn fill(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir(directory)?;
    (0..FILES).try_for_each(|number| File::create(path(directory, number)).map(drop))
}
