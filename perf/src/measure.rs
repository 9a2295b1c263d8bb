//! Measuring in turns, and what the samples come to.
//!
//! A machine does not keep its speed. So what is compared is measured in rounds, in each of which every side has its
//! turn, in one order and in the next round in the other, each after a warm-up that is not counted. Whatever slows down the machine for longer
//! than a round slows down all sides.
//!
//! The value of a comparison is the ratio of the same quantile of all samples of the one and of the other, so that a rare
//! slow round is in the tail. Of whole programs, each of which is one sample, it is the median of the rounds' ratios.
//! Beside it stand the quartiles of the ratio over the rounds, which say how far it is to be believed.

use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use crate::value::{Line, NotMeasured, Value};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounds {
    pub rounds: usize,
    /// In each round and of each side.
    pub samples: usize,
    /// Before them, and not counted.
    pub warm_up: usize,
}

impl Rounds {
    /// Of whole programs, each of which is one sample.
    pub const fn of_programs(rounds: usize) -> Rounds {
        Rounds {
            rounds,
            samples: 1,
            warm_up: 0,
        }
    }
}

/// One of the things that are compared.
pub struct Side<'a> {
    pub label: String,
    /// Takes so many samples, in nanoseconds.
    pub sample: Box<dyn FnMut(usize) -> Result<Vec<u64>, NotMeasured> + 'a>,
}

impl<'a> Side<'a> {
    pub fn new(
        label: impl Into<String>,
        sample: impl FnMut(usize) -> Result<Vec<u64>, NotMeasured> + 'a,
    ) -> Side<'a> {
        Side {
            label: label.into(),
            sample: Box::new(sample),
        }
    }
}

/// The times that one side took, in nanoseconds.
pub struct Samples {
    pub label: String,
    all: Histogram<u64>,
    rounds: Vec<Histogram<u64>>,
}

/// Significant figures of a histogram.
const FIGURES: u8 = 3;

impl Samples {
    pub fn new(label: impl Into<String>) -> Samples {
        Samples {
            label: label.into(),
            all: empty(),
            rounds: Vec::new(),
        }
    }

    /// Adds the samples of one round.
    pub fn add_round(&mut self, nanoseconds: &[u64]) {
        let mut round = empty();
        for sample in nanoseconds {
            // A histogram that resizes itself takes any value.
            round += *sample;
            self.all += *sample;
        }
        self.rounds.push(round);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.all.len()
    }

    /// In nanoseconds: what this part of the samples took at most.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.all.value_at_quantile(quantile) as f64
    }

    /// The mean in nanoseconds.
    pub fn mean(&self) -> f64 {
        self.all.mean()
    }

    /// The least and the most, in nanoseconds.
    pub fn range(&self) -> (f64, f64) {
        (self.all.min() as f64, self.all.max() as f64)
    }

    /// The distribution: parts of the samples, and what each took at most, in microseconds. No part is so large that
    /// what is left of the samples would be less than one.
    pub fn distribution(&self) -> Line {
        // A part such as 0.9 is not exactly that.
        let tells = |quantile: f64| (1.0 - quantile) * self.count() as f64 > 1.0 - 1e-6;
        let points = QUANTILES
            .iter()
            .filter(|quantile| **quantile <= 0.5 || tells(**quantile))
            .map(|quantile| (*quantile, self.quantile(*quantile) / 1e3))
            .collect();
        Line {
            label: self.label.clone(),
            points,
        }
    }

    /// The same quantile as a ratio to that of `beside`, which was measured in the same rounds.
    pub fn ratio_to(&self, beside: &Samples, quantile: f64) -> Value {
        self.compared_with(beside, quantile, |own, other| own / other)
    }

    /// The median ratio to `beside` of rounds that have one sample of each.
    pub fn paired_ratio_to(&self, beside: &Samples) -> Value {
        let rounds = self.rounds.iter().zip(&beside.rounds);
        let ratios: Vec<f64> = rounds
            .map(|(own, other)| own.mean() / other.mean())
            .collect();
        Value {
            interval: interval_of_median(ratios.clone()),
            value: median(ratios).unwrap_or(f64::NAN),
            ..self.ratio_to(beside, 0.5)
        }
    }

    /// How many times its median a quantile is.
    pub fn quantile_over_median(&self, quantile: f64) -> Value {
        let over = |of: &Histogram<u64>| {
            of.value_at_quantile(quantile) as f64 / of.value_at_quantile(0.5) as f64
        };
        Value {
            quartiles: quartiles(self.rounds.iter().map(over).collect()),
            beside: duration(self.quantile(0.5)),
            ..Value::plain(over(&self.all), duration(self.quantile(quantile)))
        }
    }

    /// By how many microseconds the quantile is above that of `beside`.
    pub fn microseconds_above(&self, beside: &Samples, quantile: f64) -> Value {
        self.compared_with(beside, quantile, |own, other| (own - other) / 1e3)
    }

    fn compared_with(
        &self,
        beside: &Samples,
        quantile: f64,
        compare: fn(f64, f64) -> f64,
    ) -> Value {
        let (own, other) = (self.quantile(quantile), beside.quantile(quantile));
        let of_rounds = self.rounds.iter().zip(&beside.rounds).map(|(own, other)| {
            compare(
                own.value_at_quantile(quantile) as f64,
                other.value_at_quantile(quantile) as f64,
            )
        });
        Value {
            quartiles: quartiles(of_rounds.collect()),
            beside: duration(other),
            ..Value::plain(compare(own, other), duration(own))
        }
    }

    /// The quantile itself as a value, in microseconds.
    pub fn microseconds(&self, quantile: f64) -> Value {
        let of_rounds = self.rounds.iter();
        let of_rounds = of_rounds.map(|round| round.value_at_quantile(quantile) as f64 / 1e3);
        let value = self.quantile(quantile);
        Value {
            quartiles: quartiles(of_rounds.collect()),
            ..Value::plain(value / 1e3, duration(value))
        }
    }
}

/// The parts of the samples that a distribution shows.
const QUANTILES: [f64; 15] = [
    0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999,
];

fn empty() -> Histogram<u64> {
    Histogram::new(FIGURES).expect("a histogram has up to five significant figures")
}

/// The value in the lower and in the upper quartile; `None` of fewer than four.
pub fn quartiles(mut values: Vec<f64>) -> Option<(f64, f64)> {
    if values.len() < 4 {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some((at(&values, 0.25)?, at(&values, 0.75)?))
}

/// The median; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    at(&values, 0.5)
}

/// Between which of the values the median of what they were drawn from lies, with a confidence of 95 % at least; `None` of
/// too few for that. How many values are below that median is as a fair coin falls, whatever they are drawn from.
pub fn interval_of_median(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    let fair = 0.5f64.powi(i32::try_from(count).ok()?);
    // How likely it is that no more than so many values are below: the sum of the binomial distribution.
    let (mut term, mut below) = (fair, fair);
    let mut outside = 0;
    while below <= 0.025 && outside < count {
        outside += 1;
        term *= (count - outside + 1) as f64 / outside as f64;
        below += term;
    }
    let first = outside.checked_sub(1)?;
    Some((*values.get(first)?, *values.get(count - 1 - first)?))
}

/// Between the two nearest of sorted values, as near to each as the part is.
fn at(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * (sorted.len().checked_sub(1)?) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (sorted.get(below)?, sorted.get(above)?);
    Some(low + (high - low) * (place - place.floor()))
}

/// A time for people, in the unit that suits it.
pub fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        few if few < 1e3 => format!("{few:.0} ns"),
        some if some < 1e6 => format!("{:.2} µs", some / 1e3),
        many if many < 1e9 => format!("{:.2} ms", many / 1e6),
        long => format!("{:.2} s", long / 1e9),
    }
}

/// Measures all sides in turns; the samples are in the order of the sides.
pub fn in_turns(
    rounds: Rounds,
    progress: &ProgressBar,
    sides: &mut [Side<'_>],
) -> Result<Vec<Samples>, NotMeasured> {
    progress.set_length((rounds.rounds * sides.len()) as u64);
    let mut all: Vec<Samples> = sides
        .iter()
        .map(|side| Samples::new(side.label.clone()))
        .collect();
    for round in 0..rounds.rounds {
        let mut turns: Vec<_> = sides.iter_mut().zip(&mut all).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (side, samples) in turns {
            if rounds.warm_up > 0 {
                (side.sample)(rounds.warm_up)?;
            }
            samples.add_round(&(side.sample)(rounds.samples)?);
            progress.inc(1);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rounds: &[&[u64]]) -> Samples {
        let mut samples = Samples::new("side");
        rounds.iter().for_each(|round| samples.add_round(round));
        samples
    }

    #[test]
    fn quantiles_are_of_all_rounds_and_their_spread_is_of_the_single_ones() {
        let own = samples(&[&[100, 100, 100], &[200, 200, 200], &[300], &[400]]);
        let beside = samples(&[&[100], &[100], &[100], &[100]]);
        let ratio = own.ratio_to(&beside, 0.5);
        assert_eq!(ratio.value, 2.0);
        assert_eq!(ratio.quartiles, Some((1.75, 3.25)));
        assert_eq!((&*ratio.measured, &*ratio.beside), ("200 ns", "100 ns"));
        assert_eq!((own.count(), own.range()), (8, (100.0, 400.0)));
    }

    #[test]
    fn pairs_are_compared_before_their_median_is_taken() {
        let own = samples(&[&[100], &[400], &[900]]);
        let beside = samples(&[&[100], &[200], &[300]]);
        let ratio = own.paired_ratio_to(&beside);
        assert_eq!((ratio.value, ratio.quartiles), (2.0, None));
    }

    #[test]
    fn a_difference_is_in_microseconds() {
        let (own, beside) = (samples(&[&[1500]]), samples(&[&[1000]]));
        let difference = own.microseconds_above(&beside, 0.5);
        assert_eq!((difference.value, difference.quartiles), (0.5, None));
        assert_eq!(own.microseconds(0.5).value, 1.5);
    }

    #[test]
    fn a_distribution_has_no_tail_of_less_than_a_sample() {
        let parts = |count| {
            let line = samples(&[&vec![1000; count]]).distribution();
            line.points.last().copied()
        };
        assert_eq!(parts(1), Some((0.5, 1.0)));
        assert_eq!(parts(10), Some((0.9, 1.0)));
        assert_eq!(parts(2000), Some((0.999, 1.0)));
    }

    #[test]
    fn a_tail_is_the_tail() {
        let mut times = vec![10; 99];
        times.push(1000);
        let own = samples(&[&times]);
        assert_eq!(own.quantile(0.5), 10.0);
        assert_eq!(own.quantile(0.99), 10.0);
        assert_eq!(own.quantile(1.0), 1000.0);
    }

    #[test]
    fn quartiles_and_medians_lie_between_values() {
        assert_eq!(quartiles(vec![4.0, 1.0, 3.0, 2.0]), Some((1.75, 3.25)));
        assert_eq!(quartiles(vec![1.0, 2.0, 3.0]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn an_interval_of_the_median_leaves_out_as_many_as_chance_does() {
        let numbers = |count: usize| (1..=count).map(|number| number as f64).collect();
        // Of five all are on one side with a chance of 1 in 16.
        assert_eq!(interval_of_median(numbers(5)), None);
        assert_eq!(interval_of_median(numbers(6)), Some((1.0, 6.0)));
        assert_eq!(interval_of_median(numbers(9)), Some((2.0, 8.0)));
        assert_eq!(interval_of_median(numbers(31)), Some((10.0, 22.0)));
        assert_eq!(interval_of_median(Vec::new()), None);
    }

    #[test]
    fn a_tail_is_held_against_its_own_median() {
        let mut times = vec![10; 98];
        times.extend([30, 30]);
        let value = samples(&[&times]).quantile_over_median(0.99);
        assert_eq!(value.value, 3.0);
        assert_eq!((&*value.measured, &*value.beside), ("30 ns", "10 ns"));
    }

    #[test]
    fn durations_are_in_the_unit_that_suits_them() {
        assert_eq!(duration(12.0), "12 ns");
        assert_eq!(duration(1234.0), "1.23 µs");
        assert_eq!(duration(1.5e6), "1.50 ms");
        assert_eq!(duration(2.5e9), "2.50 s");
    }

    #[test]
    fn sides_take_turns_in_changing_order_and_warm_up_is_not_counted() {
        let order = std::cell::RefCell::new(String::new());
        let side = |name: char| {
            let order = &order;
            Side::new(name, move |count| {
                order.borrow_mut().push(name);
                Ok(vec![count as u64; count])
            })
        };
        let rounds = Rounds {
            rounds: 2,
            samples: 3,
            warm_up: 1,
        };
        let measured = in_turns(rounds, &ProgressBar::hidden(), &mut [side('a'), side('b')]);
        let measured = measured.expect("both sides answer");
        assert_eq!(*order.borrow(), "aabbbbaa");
        let counts: Vec<_> = measured
            .iter()
            .map(|samples| (&*samples.label, samples.count(), samples.range()))
            .collect();
        assert_eq!(counts, [("a", 6, (3.0, 3.0)), ("b", 6, (3.0, 3.0))]);
    }
}
