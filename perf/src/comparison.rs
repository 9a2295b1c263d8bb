//! Measuring one program by each way, in turns.
//!
//! A program that does not run by others' ways has a reason in the place of their figures. One that does not run natively,
//! or with Ringfence, is a failure.

use std::path::Path;
use std::process::Command;

use crate::launch::Launch;
use crate::measure::{Rounds, Samples, duration};
use crate::session::Session;
use crate::value::{ByWay, NotMeasured, Value};
use crate::ways::{Way, Work};

/// Starts the program once more; a crowd does that many times for one sample.
pub type Start<'a> = dyn Fn() -> Result<Launch, NotMeasured> + 'a;
/// Runs the program and returns, for each part that is timed, its times in nanoseconds.
pub type Run<'a> = dyn Fn(&Start<'_>) -> Result<Vec<Vec<u64>>, NotMeasured> + 'a;
/// How the samples of one way stand to those of another.
pub type Relation = fn(&Samples, &Samples) -> Value;

/// Something that is measured in the same turns and is no way.
pub struct Further<'a> {
    pub name: &'static str,
    pub command: &'a dyn Fn() -> Command,
}

/// What is measured.
pub struct Comparison<'a> {
    pub ways: &'a [Way],
    pub work: Work,
    pub rounds: Rounds,
    /// What each of the parts that are timed is.
    pub parts: &'a [&'a str],
    pub further: &'a [Further<'a>],
}

/// What was measured by one way.
struct Column {
    name: &'static str,
    way: Option<Way>,
    /// One for each part.
    outcome: Result<Vec<Samples>, NotMeasured>,
}

/// What was measured by all of them.
pub struct Compared(Vec<Column>);

impl<'a> Comparison<'a> {
    /// Of a program that uses a GPU and was made in the session's directory: whole runs of it.
    pub fn of_program(session: &Session, ways: &'a [Way], program: &Path) -> Comparison<'a> {
        Comparison {
            ways,
            work: Work::new([program])
                .with_gpu()
                .seeing(session.directory.path()),
            rounds: Rounds::of_programs(session.effort.long),
            parts: &[""],
            further: &[],
        }
    }

    /// Measures by each way that there is.
    pub fn measure(&self, session: &Session, run: &Run<'_>) -> Result<Compared, NotMeasured> {
        let place = session.place();
        let ways = self.ways.iter().map(|way| Column {
            name: way.name(),
            way: Some(*way),
            outcome: place.has(*way).map(|()| self.empty(way.name())),
        });
        let further = self.further.iter().map(|further| Column {
            name: further.name,
            way: None,
            outcome: Ok(self.empty(further.name)),
        });
        let mut columns: Vec<Column> = ways.chain(further).collect();
        let once = |column: &Column| match column.way {
            Some(way) => run(&|| place.launch(way, &self.work)),
            None => {
                let mut further = self.further.iter();
                let found = further.find(|further| further.name == column.name);
                let found = found.ok_or_else(|| missing(column.name))?;
                run(&|| Ok((found.command)().into()))
            }
        };
        session
            .progress
            .set_length(((self.rounds.rounds + 1) * columns.len()) as u64);
        // The first of each is not counted: in it the kernel reads of the disk what it has to. It begins natively, since the
        // first program of CUDA's on a machine makes NVIDIA's nodes.
        for round in 0..=self.rounds.rounds {
            let mut turns: Vec<&mut Column> = columns.iter_mut().collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for column in turns {
                if column.outcome.is_ok() {
                    let times = once(column);
                    column.note(times, round > 0)?;
                }
                session.progress.inc(1);
            }
        }
        Ok(Compared(columns))
    }

    fn empty(&self, name: &str) -> Vec<Samples> {
        let parts = self.parts.iter();
        parts.map(|part| Samples::new(label(name, part))).collect()
    }
}

fn missing(name: &str) -> NotMeasured {
    NotMeasured::failed(name, "it was not measured")
}

fn label(name: &str, part: &str) -> String {
    match part {
        "" => name.to_owned(),
        part => format!("{part}, {name}"),
    }
}

impl Column {
    /// Takes the times of a round; an error if they are Ringfence's business and there are none.
    fn note(
        &mut self,
        times: Result<Vec<Vec<u64>>, NotMeasured>,
        counts: bool,
    ) -> Result<(), NotMeasured> {
        match (times, &mut self.outcome) {
            (Ok(times), Ok(samples)) if counts => {
                let parts = samples.iter_mut().zip(times);
                parts.for_each(|(samples, times)| samples.add_round(&times));
            }
            (Ok(_), _) => {}
            (Err(reason), outcome) => match self.way {
                Some(Way::Native | Way::Ringfence) | None => return Err(reason),
                Some(Way::Runtime) => *outcome = Err(reason),
                Some(_) => {
                    let remedy = "see whether it runs by hand";
                    *outcome = Err(NotMeasured::lacking(reason.reason, remedy));
                }
            },
        }
        Ok(())
    }
}

impl Compared {
    /// How Ringfence stands to running natively in one of the parts, and how each other way does.
    pub fn value(&self, part: usize, relation: Relation) -> Result<Value, NotMeasured> {
        let ringfence = self.part(Way::Ringfence.name(), part)?;
        let native = self.part(Way::Native.name(), part)?;
        Ok(Value {
            by_way: self.by_way(part, relation)?,
            ..relation(ringfence, native)
        })
    }

    /// How each way stands to running natively in one of the parts.
    pub fn by_way(&self, part: usize, relation: Relation) -> Result<Vec<ByWay>, NotMeasured> {
        let native = self.part(Way::Native.name(), part)?;
        let ways = self.0.iter().filter(|column| column.way.is_some());
        let cells = ways.map(|column| match self.part(column.name, part) {
            Err(reason) => ByWay::not_measured(column.name, reason),
            Ok(own) => {
                let related = (column.way != Some(Way::Native)).then(|| relation(own, native));
                ByWay {
                    way: column.name,
                    measured: duration(own.quantile(0.5)),
                    value: related.as_ref().map(|related| related.value),
                    quartiles: related.and_then(|related| related.quartiles),
                    not_measured: None,
                }
            }
        });
        Ok(cells.collect())
    }

    /// What was measured of a part by the way, or the further thing, of this name.
    pub fn part(&self, name: &str, part: usize) -> Result<&Samples, NotMeasured> {
        let column = self.0.iter().find(|column| column.name == name);
        let samples = column.ok_or_else(|| missing(name))?.outcome.as_ref();
        let sample = samples.map_err(Clone::clone)?.get(part);
        sample.ok_or_else(|| missing(name))
    }

    /// All that was measured.
    pub fn samples(self) -> Vec<Samples> {
        let outcomes = self.0.into_iter().map(|column| column.outcome);
        outcomes.flatten().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(way: Way, samples: usize) -> Column {
        Column {
            name: way.name(),
            way: Some(way),
            outcome: Ok((0..samples).map(|_| Samples::new(way.name())).collect()),
        }
    }

    fn refused() -> Result<Vec<Vec<u64>>, NotMeasured> {
        Err(NotMeasured::failed("a program", "it ended"))
    }

    #[test]
    fn what_others_do_not_run_is_a_reason_and_what_ringfence_does_not_is_a_failure() {
        for way in [Way::Native, Way::Ringfence] {
            assert!(column(way, 1).note(refused(), true).is_err(), "{way:?}");
        }
        for (way, failed) in [
            (Way::Runc, false),
            (Way::Runsc, false),
            (Way::Runtime, true),
        ] {
            let mut column = column(way, 1);
            assert_eq!(column.note(refused(), true), Ok(()));
            let reason = column.outcome.err().expect("a reason");
            assert_eq!(reason.reason, "a program: it ended", "{way:?}");
            assert_eq!(reason.failed, failed, "{way:?}");
        }
    }

    #[test]
    fn each_part_is_held_against_its_own_and_the_first_round_does_not_count() {
        let mut columns = [column(Way::Native, 2), column(Way::Ringfence, 2)];
        for (column, factor) in columns.iter_mut().zip([1, 3]) {
            let times = |of: u64| Ok(vec![vec![of * factor], vec![10 * of]]);
            assert_eq!(column.note(times(100_000), false), Ok(()));
            assert_eq!(column.note(times(100), true), Ok(()));
        }
        let compared = Compared(columns.into());
        let value = |part| compared.value(part, Samples::paired_ratio_to);
        let (first, second) = (value(0).expect("a value"), value(1).expect("a value"));
        assert_eq!((first.value, second.value), (3.0, 1.0));
        let cells: Vec<_> = first
            .by_way
            .iter()
            .map(|cell| (cell.way, cell.value))
            .collect();
        assert_eq!(cells, [("native", None), ("ringfence run", Some(3.0))]);
    }
}
