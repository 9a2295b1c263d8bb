//! What a sandbox costs a program that asks nothing of the driver, but much of the file system.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session, Unit};
use crate::guest::files::{FILES, path};
use crate::measure::{Samples, Side, in_turns};
use crate::processors::Confined;

pub const FILE_SYSTEM: Claim = Claim {
    name: "files",
    title: "a program that opens 20,000 files to read them and looks up 100,000",
    beside: "the same program outside",
    how: "The program reads the clock before its first open and after its last stat; it has 1,000 empty files, which it \
          opens and looks up again and again. The second value is of whole runs, so it has in it what it takes to start \
          a sandbox and to end it. The third is no sandbox: the program has put itself under a seccomp filter that allows \
          everything, which is what the kernel takes for having a filter at all.",
    bars: &[
        Bar::ratio("the program's work, median of the pairs", 1.03),
        Bar::shown("the whole run, median of the pairs", Unit::Ratio),
        Bar::shown("no sandbox, a filter that allows all", Unit::Ratio),
    ],
    needs_gpu: false,
    measure,
};

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let _confined = Confined::to_two().attempt("the processors")?;
    let directory = session.fresh_file("files");
    fill(&directory).attempt("the files")?;
    let place = directory.to_string_lossy().into_owned();
    let arguments = ["files", &*place];
    let bind = format!("{place}::ro");
    let inside = || session.sandboxed_guest(&["--bind", &bind], &arguments);
    let outside = || session.guest(&arguments);
    let filtered = || session.guest(&["filtered-files", &*place]);
    // What the kernel has to read of the files it has read.
    run(outside())?;
    run(inside())?;
    let whole = [
        Samples::new("whole run, sandbox"),
        Samples::new("whole run, outside"),
    ];
    let whole = RefCell::new(whole);
    let sample = |side: usize, command: Command| {
        let (work, run) = run(command)?;
        if let Some(samples) = whole.borrow_mut().get_mut(side) {
            samples.add_round(&[run]);
        }
        Ok(vec![work])
    };
    let mut sides = [
        Side::new("in the sandbox", |_| sample(0, inside())),
        Side::new("outside", |_| sample(1, outside())),
        Side::new("outside, under a filter", |_| Ok(vec![run(filtered())?.0])),
    ];
    let mut samples = in_turns(session.effort.programs, &session.progress, &mut sides)?;
    drop(sides);
    samples.extend(whole.into_inner());
    let [inside, outside, filtered, whole_inside, whole_outside] = &samples[..] else {
        return Err(NotMeasured::failed("the files", "not three sides"));
    };
    Ok(Measurement {
        values: vec![
            Ok(inside.paired_ratio_to(outside)),
            Ok(whole_inside.paired_ratio_to(whole_outside)),
            Ok(filtered.paired_ratio_to(outside)),
        ],
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

fn fill(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir(directory)?;
    (0..FILES).try_for_each(|number| File::create(path(directory, number)).map(drop))
}

/// What the program says that its work took, and what the whole run took, in nanoseconds.
fn run(mut command: Command) -> Result<(u64, u64), NotMeasured> {
    const NAME: &str = "the program that opens files";
    command.stdin(Stdio::null());
    let started = Instant::now();
    let output = command.output().attempt(NAME)?;
    let whole = started.elapsed().as_nanos() as u64;
    let work = String::from_utf8_lossy(&output.stdout).trim().parse();
    match work {
        Ok(work) if output.status.success() => Ok((work, whole)),
        _ => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let last = complaint.lines().last().unwrap_or("it printed no time");
            Err(NotMeasured::failed(NAME, last))
        }
    }
}
