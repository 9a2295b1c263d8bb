//! Programs that use a GPU: what they take in a sandbox, beside the same programs outside.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::compiled::compiled;
use super::python::with_torch;
use super::{Attempt, Bar, Claim, Limit, Measurement, NotMeasured, Session, Unit};
use crate::measure::{Samples, Side, in_turns};
use crate::turns;

pub const LAUNCH: Claim = Claim {
    name: "launch",
    title: "the launch of a kernel",
    beside: "the same outside",
    how: "A program launches an empty kernel when it is asked to: a hundred at a time, of which each launch gets its part, \
          or one, and waits for it. It is started anew for each round, in the sandbox and outside.",
    bars: &[
        Bar {
            of: "median, back to back",
            unit: Unit::Ratio,
            limit: Limit::AtMostWithinNoise(1.0),
        },
        Bar {
            of: "median, awaited",
            unit: Unit::Ratio,
            limit: Limit::AtMostWithinNoise(1.0),
        },
    ],
    ways: &[],
    needs_gpu: true,
    measure: launch,
};

pub const TORCH: Claim = Claim {
    name: "torch",
    title: "a training run with PyTorch, from the start of python to its end",
    beside: "the same outside",
    how: "Both runs take turns of 40 ms, by control groups of which one is frozen while the other runs; in each pair of \
          turns both Python processes have the same four processors, and others in the next; sentry and server have \
          all. Where no control group can be made, whole \
          runs alternate, which tells less. Both have to print the same checksum.",
    bars: &[Bar::ratio("median of the pairs", 1.01)],
    ways: &[],
    needs_gpu: true,
    measure: torch,
};

fn launch(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let program = compiled(session, "launch", include_str!("../../workloads/launch.cu"))?;
    let time = |mut command: Command, how: &str, samples: usize| {
        command.arg(how);
        session.ask_anew("launch.cu", command, samples)
    };
    let mut values = Vec::new();
    let mut samples = Vec::new();
    for how in ["back-to-back", "awaited"] {
        let mut sides = [
            Side::new(format!("{how}, in the sandbox"), |samples| {
                time(on_host(session, &[&program]), how, samples)
            }),
            Side::new(format!("{how}, outside"), |samples| {
                time(Command::new(&program), how, samples)
            }),
        ];
        let both = in_turns(session.effort.anew(), &session.progress, &mut sides)?;
        if let [inside, outside] = &both[..] {
            values.push(Ok(inside.ratio_to(outside, 0.5)));
        }
        samples.extend(both);
    }
    Ok(Measurement {
        values,
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

fn torch(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let (python, executed) = with_torch()?;
    let script = session.fresh_file("torch_train.py");
    std::fs::write(&script, include_str!("../../workloads/torch_train.py")).attempt("a file")?;
    let place = turns::place();
    let rotation = turns::Rotation::of(&executed)?;
    let outside = || {
        let mut command = Command::new(&python);
        command.arg(&script);
        command
    };
    let mut inside = Samples::new("in the sandbox");
    let mut native = Samples::new("outside");
    session.progress.set_length(session.effort.long as u64);
    for pair in 0..session.effort.long {
        let mut commands = [on_host(session, &[&python, &script]), outside()];
        let outside_begins = pair % 2 == 1;
        if outside_begins {
            commands.reverse();
        }
        let mut both = match &place {
            Some(place) => turns::run(place, commands, &rotation)?,
            None => one_after_the_other(commands)?,
        };
        if outside_begins {
            both.reverse();
        }
        let [first, second] = both;
        if first.printed != second.printed || first.printed.is_empty() {
            return Err(NotMeasured::failed(
                "the training run",
                format!(
                    "it printed {:?} inside and {:?} outside",
                    first.printed, second.printed
                ),
            ));
        }
        inside.add_round(&[first.time.as_nanos() as u64]);
        native.add_round(&[second.time.as_nanos() as u64]);
        session.progress.inc(1);
    }
    let mut measurement = pair(vec![inside, native])?;
    if place.is_none() {
        let note = "whole runs alternated, since no control group can be made here: mount cgroup2 to have turns";
        measurement.notes.push(note.to_owned());
    }
    Ok(measurement)
}

fn one_after_the_other(commands: [Command; 2]) -> Result<[turns::Ran; 2], NotMeasured> {
    let run = |mut command: Command| {
        let started = Instant::now();
        let output = command.stdin(Stdio::null()).output().attempt("python3")?;
        Ok(turns::Ran {
            time: started.elapsed(),
            printed: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    };
    let [first, second] = commands;
    Ok([run(first)?, run(second)?])
}

/// A program and its arguments in a sandbox on NVIDIA's driver, in which the session's directory is to be seen.
fn on_host(session: &Session, words: &[&PathBuf]) -> Command {
    let directory = session.directory.path().to_string_lossy().into_owned();
    let bind = format!("{directory}::ro");
    let mut command = session.sandbox(&["--driver", "host", "--bind", &bind]);
    command.args(words);
    command
}

/// The measurement of a program that was run inside and outside, in this order.
fn pair(samples: Vec<Samples>) -> Result<Measurement, NotMeasured> {
    let [inside, outside] = &samples[..] else {
        return Err(NotMeasured::failed("the program", "not two sides"));
    };
    Ok(Measurement {
        values: vec![Ok(inside.paired_ratio_to(outside))],
        samples,
        curves: Vec::new(),
        notes: Vec::new(),
    })
}
