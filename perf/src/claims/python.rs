//! Programs of PyTorch that are timed by themselves: the loading of data by several processes, and a first inference.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringfence_programs::finding::find;

use super::suite::same;
use super::{Attempt, Bar, Claim, Measurement, NotMeasured, Session, Unit};
use crate::comparison::Comparison;
use crate::measure::{Rounds, Samples};
use crate::ways::{self, Work};

pub const DATALOADER: Claim = Claim {
    name: "dataloader",
    title: "4,096 items by PyTorch's DataLoader with four worker processes and pinned memory",
    beside: "the same outside",
    how: "The script reads the clock before it makes the loader and after the GPU has the sum of the last batch; the second \
          value is of the whole run of python. The ways alternate, and all have to come to the same checksum. Beside the \
          ratio stands between which bounds its median lies with a confidence of 95 %.",
    bars: &BARS,
    ways: ways::ALL,
    needs_gpu: true,
    measure: |session| measure(session, &DATALOADER, LOADS),
};

pub const INFERENCE: Claim = Claim {
    name: "inference",
    title: "the first inference of a small transformer with PyTorch",
    beside: "the same outside",
    how: "The script reads the clock before it first uses the GPU and after it has the result, of a network with random \
          weights; the second value is of the whole run of python. The ways alternate, and all have to come to the same \
          checksum. Beside the ratio stands between which bounds its median lies with a confidence of 95 %.",
    bars: &BARS,
    ways: ways::ALL,
    needs_gpu: true,
    measure: |session| measure(session, &INFERENCE, INFERS),
};

const LOADS: &str = include_str!("../../workloads/dataloader.py");
const INFERS: &str = include_str!("../../workloads/inference.py");

const BARS: [Bar; 2] = [
    Bar::ratio("its work, median of the pairs", 1.01),
    Bar::shown("the whole run, median of the pairs", Unit::Ratio),
];

fn measure(session: &mut Session, claim: &Claim, source: &str) -> Result<Measurement, NotMeasured> {
    let (python, _) = with_torch()?;
    let script = session.fresh_file(&format!("{}.py", claim.name));
    std::fs::write(&script, source).attempt("a file")?;
    let comparison = Comparison {
        ways: claim.ways,
        work: Work::new([&python, &script])
            .with_gpu()
            .seeing(session.directory.path()),
        // An interval of 95 % takes six rounds.
        rounds: Rounds::of_programs(session.effort.long.max(6)),
        parts: &["its work", "whole run"],
        further: &[],
    };
    let expected = RefCell::new(None);
    let compared = comparison.measure(session, &|start| {
        let ran = start()?.run(claim.name)?;
        let work = work_and_checksum(&ran.printed);
        let (work, checksum) = work.ok_or_else(|| {
            NotMeasured::failed(claim.name, format!("it printed {:?}", ran.printed))
        })?;
        same(claim.name, &expected, checksum)?;
        Ok(vec![vec![work], vec![ran.nanoseconds]])
    })?;
    Ok(Measurement {
        values: vec![
            compared.value(0, Samples::paired_ratio_to),
            compared.value(1, Samples::paired_ratio_to),
        ],
        samples: compared.samples(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

/// What a script has printed: nanoseconds, and in the last line a checksum.
fn work_and_checksum(printed: &str) -> Option<(u64, &str)> {
    let (work, checksum) = printed.trim_end().split_once('\n')?;
    Some((work.parse().ok()?, checksum))
}

/// The python3 with PyTorch, as it is called, which may be by a wrapper, and what is executed in the end.
pub fn with_torch() -> Result<(PathBuf, PathBuf), NotMeasured> {
    let python = find("python3", &[]).ok_or_else(|| {
        NotMeasured::lacking("python3 is not installed", "install python3 with PyTorch")
    })?;
    let executed = executable_with_torch(&python)?;
    Ok((python, executed))
}

/// What is executed in the end where `python` is called, if that has PyTorch.
fn executable_with_torch(python: &Path) -> Result<PathBuf, NotMeasured> {
    let script = "import sys, torch; torch.zeros(1).cuda(); print(sys.executable)";
    let mut command = Command::new(python);
    command.args(["-c", script]);
    let output = command.stdin(Stdio::null()).output().attempt("python3")?;
    if output.status.success() {
        let printed = String::from_utf8_lossy(&output.stdout);
        return Ok(PathBuf::from(printed.trim_end()));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint
        .lines()
        .last()
        .unwrap_or("it says nothing")
        .to_owned();
    Err(NotMeasured::lacking(
        format!("python3 has no PyTorch that can use this GPU: {last}"),
        "install PyTorch with CUDA for the python3 in PATH",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_prints_its_time_and_a_checksum() {
        let printed = "1500\nchecksum 2.50\n";
        assert_eq!(work_and_checksum(printed), Some((1500, "checksum 2.50")));
        assert_eq!(work_and_checksum("checksum 2.50\n"), None);
        assert_eq!(work_and_checksum("x\nchecksum 2.50\n"), None);
    }
}
