//! Sixteen short programs, each of which uses a GPU in another way.
//!
//! The idea: what users run differs more than any one program does. So there is a program for each thing that programs do
//! with a GPU, all are timed as a whole, and the value is the geometric mean over them. Each prints one line, which it has
//! checked, and which has to be the same by each way.

use std::cell::RefCell;

use super::compiled::{Source, compiled_with};
use super::{Bar, Claim, Measurement, NotMeasured, Session, Unit, Value};
use crate::comparison::{Compared, Comparison};
use crate::value::ByWay;
use crate::ways;

/// A program and its source, by one name.
macro_rules! program {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../workloads/suite/", $name, ".cu")),
        )
    };
}

/// The programs, each with its source.
pub const PROGRAMS: [Source; 16] = [
    program!("vector_add"),
    program!("streams"),
    program!("managed"),
    program!("pinned"),
    program!("between_processes"),
    program!("graphs"),
    program!("pools"),
    program!("virtual_memory"),
    program!("small_allocations"),
    program!("events"),
    program!("queries"),
    program!("textures"),
    program!("reduction"),
    program!("cooperative"),
    program!("occupancy"),
    program!("host_callback"),
];

/// What all of them include.
pub const INCLUDED: &[Source] = &[("checked.h", include_str!("../../workloads/suite/checked.h"))];

/// The mean's bar, and a row for each program.
const BARS: [Bar; PROGRAMS.len() + 1] = {
    let mut bars = [Bar::ratio("geometric mean", 1.05); PROGRAMS.len() + 1];
    let mut number = 0;
    while number < PROGRAMS.len() {
        bars[number + 1] = Bar::shown(PROGRAMS[number].0, Unit::Ratio);
        number += 1;
    }
    bars
};

pub const SUITE: Claim = Claim {
    name: "suite",
    title: "sixteen short programs of CUDA's, each of which uses a GPU in another way",
    beside: "the same outside",
    how: "Each program is timed as a whole, from its start until it has been waited for, in turns by each way; its row is \
          the ratio of the medians. The first value is the geometric mean of the rows. Of a way by which some of the \
          programs do not run it is the mean of the others, and says of how many. A program prints one line, which it has \
          checked, and which has to be the same each time.",
    bars: &BARS,
    ways: ways::ALL,
    needs_gpu: true,
    measure,
};

fn measure(session: &mut Session) -> Result<Measurement, NotMeasured> {
    let mut rows = Vec::new();
    for (name, source) in PROGRAMS {
        session.progress.set_message(format!("suite: {name}"));
        let row = one(session, name, source)
            .and_then(|compared| compared.value(0, |own, native| own.ratio_to(native, 0.5)));
        rows.push(row);
    }
    let mut values = vec![mean(&rows)];
    values.append(&mut rows);
    Ok(Measurement {
        values,
        samples: Vec::new(),
        curves: Vec::new(),
        notes: Vec::new(),
    })
}

fn one(session: &Session, name: &str, source: &str) -> Result<Compared, NotMeasured> {
    let program = compiled_with(session, name, source, INCLUDED)?;
    let comparison = Comparison::of_program(session, SUITE.ways, &program);
    let expected = RefCell::new(None);
    comparison.measure(session, &|start| {
        let ran = start()?.run(name)?;
        same(name, &expected, &ran.printed)?;
        Ok(vec![vec![ran.nanoseconds]])
    })
}

/// Holds what was printed against what was printed first.
pub fn same(name: &str, first: &RefCell<Option<String>>, printed: &str) -> Result<(), NotMeasured> {
    let mut first = first.borrow_mut();
    let first = first.get_or_insert_with(|| printed.to_owned());
    if first == printed {
        return Ok(());
    }
    let reason = format!("it printed {printed:?} and before {first:?}");
    Err(NotMeasured::failed(name, reason))
}

/// The geometric mean of the rows, by Ringfence and by each way.
fn mean(rows: &[Result<Value, NotMeasured>]) -> Result<Value, NotMeasured> {
    let mut measured = Vec::new();
    for row in rows {
        measured.push(row.as_ref().map_err(Clone::clone)?);
    }
    let ratios: Vec<f64> = measured.iter().map(|row| row.value).collect();
    let first = measured.first();
    let columns = first
        .into_iter()
        .flat_map(|row| row.by_way.iter().enumerate());
    let by_way = columns.map(|(column, cell)| {
        let cells = measured.iter().filter_map(|row| row.by_way.get(column));
        let ratios: Vec<f64> = cells.filter_map(|cell| cell.value).collect();
        match (&cell.not_measured, ratios.len()) {
            (Some(reason), 0) => ByWay::not_measured(cell.way, reason.clone()),
            // Running natively has no ratio to itself.
            (None, 0) => ByWay {
                quartiles: None,
                measured: String::new(),
                ..cell.clone()
            },
            (_, some) => ByWay {
                way: cell.way,
                measured: of_all(some, measured.len()),
                value: Some(geometric_mean(&ratios)),
                quartiles: None,
                not_measured: None,
            },
        }
    });
    Ok(Value {
        by_way: by_way.collect(),
        ..Value::plain(
            geometric_mean(&ratios),
            of_all(ratios.len(), measured.len()),
        )
    })
}

fn of_all(some: usize, all: usize) -> String {
    match some == all {
        true => format!("{all} programs"),
        false => format!("{some} of {all} programs"),
    }
}

fn geometric_mean(values: &[f64]) -> f64 {
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (logarithms / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Samples;

    fn samples(nanoseconds: u64) -> Samples {
        let mut samples = Samples::new("side");
        samples.add_round(&[nanoseconds]);
        samples
    }

    fn row(ratio: u64, runsc: Option<u64>) -> Result<Value, NotMeasured> {
        let native = samples(1000);
        let cell = |of: u64| ByWay {
            value: Some(samples(of * 1000).ratio_to(&native, 0.5).value),
            not_measured: None,
            ..ByWay::not_measured("runsc", NotMeasured::lacking("", ""))
        };
        let refused = NotMeasured::lacking("graphs: it ended", "");
        let runsc = runsc.map_or_else(|| ByWay::not_measured("runsc", refused), cell);
        Ok(Value {
            by_way: vec![runsc],
            ..samples(ratio * 1000).ratio_to(&native, 0.5)
        })
    }

    #[test]
    fn the_mean_is_geometric_and_of_what_each_way_runs() {
        let value = mean(&[row(2, Some(9)), row(8, None)]).expect("a mean");
        assert!((value.value - 4.0).abs() < 0.01, "{value:?}");
        assert_eq!(value.measured, "2 programs");
        let runsc = &value.by_way[0];
        assert!(runsc.value.is_some_and(|value| (value - 9.0).abs() < 0.01));
        assert_eq!(runsc.measured, "1 of 2 programs");
        assert_eq!(runsc.not_measured, None);
    }

    #[test]
    fn there_is_no_mean_without_each_program() {
        let failed = NotMeasured::failed("graphs", "it ended");
        assert_eq!(mean(&[row(2, None), Err(failed.clone())]), Err(failed));
    }

    #[test]
    fn what_was_printed_has_to_be_the_same_again() {
        let first = RefCell::new(None);
        assert_eq!(same("sums", &first, "1\n"), Ok(()));
        assert_eq!(same("sums", &first, "1\n"), Ok(()));
        let reason = same("sums", &first, "2\n").expect_err("a failure").reason;
        assert_eq!(reason, "sums: it printed \"2\\n\" and before \"1\\n\"");
    }
}
