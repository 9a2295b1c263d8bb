//! The results: as data, and from that as a table, as JSON and as a page.
//!
//! The idea: everything that is shown is in one value, [`Report`], which knows nothing of how it was measured. So the
//! three forms cannot say different things, and each can be tested with values that were never measured.
//!
//! | module | form |
//! |---|---|
//! | [`terminal`] | the table on the terminal |
//! | [`page`] | the page |
//! | [`plots`] | its plots |
//! | [`columns`] | what was measured by each way, for both |

pub mod columns;
pub mod page;
pub mod plots;
pub mod terminal;

use serde::Serialize;

use crate::claim::{Claim, Measurement};
use crate::machine::Machine;
use crate::measure::Samples;
use crate::value::{Bar, ByWay, Curve, Limit, Line, NotMeasured, Unit, Value, Verdict};

/// All results of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// Little was measured, as the user wanted.
    pub quick: bool,
    /// How many times as wide the bars were taken for `passes`.
    pub slack: f64,
    pub claims: Vec<Entry>,
}

/// A claim and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub name: &'static str,
    pub title: &'static str,
    pub beside: &'static str,
    pub how: &'static str,
    pub values: Vec<Row>,
    pub distributions: Vec<Distribution>,
    pub curves: Vec<Curve>,
    pub notes: Vec<String>,
}

/// One value and its bar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub of: &'static str,
    pub unit: Unit,
    pub limit: Limit,
    pub value: Option<f64>,
    pub quartiles: Option<(f64, f64)>,
    /// Of the median, with a confidence of 95 %.
    pub interval: Option<(f64, f64)>,
    pub measured: String,
    pub beside: String,
    /// What was measured by each way, natively and with Ringfence among them.
    pub by_way: Vec<ByWay>,
    pub verdict: Verdict,
    /// It meets the bar with the slack, has none, or could not be measured here. Not so if measuring went wrong, by one of
    /// Ringfence's own ways included.
    pub passes: bool,
    pub not_measured: Option<NotMeasured>,
}

/// The times of one kind, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distribution {
    pub count: u64,
    pub mean: f64,
    pub least: f64,
    pub most: f64,
    /// Parts of the samples and what these took at most.
    pub quantiles: Line,
}

impl Report {
    /// Whether `--check` is content.
    pub fn passes(&self) -> bool {
        self.rows().all(|row| row.passes)
    }

    /// Whether anything was measured at all.
    pub fn has_values(&self) -> bool {
        self.rows().any(|row| row.value.is_some())
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.claims.iter().flat_map(|entry| &entry.values)
    }
}

impl Entry {
    /// What came of measuring `claim`.
    pub fn new(claim: &Claim, outcome: Result<Measurement, NotMeasured>, slack: f64) -> Entry {
        let measurement = outcome.unwrap_or_else(|reason| Measurement {
            values: claim.bars.iter().map(|_| Err(reason.clone())).collect(),
            samples: Vec::new(),
            curves: Vec::new(),
            notes: Vec::new(),
        });
        let rows = claim.bars.iter().zip(measurement.values);
        Entry {
            name: claim.name,
            title: claim.title,
            beside: claim.beside,
            how: claim.how,
            values: rows
                .map(|(bar, value)| Row::new(bar, value, slack))
                .collect(),
            distributions: measurement.samples.iter().map(Distribution::new).collect(),
            curves: measurement.curves,
            notes: measurement.notes,
        }
    }
}

impl Row {
    fn new(bar: &Bar, outcome: Result<Value, NotMeasured>, slack: f64) -> Row {
        let verdict = |slack: f64| match &outcome {
            Ok(value) => bar.limit.judge(value, slack),
            Err(_) => Verdict::NotMeasured,
        };
        let failed = match &outcome {
            Err(reason) => reason.failed,
            Ok(value) => {
                let mut reasons = value.by_way.iter().flat_map(|cell| &cell.not_measured);
                reasons.any(|reason| reason.failed)
            }
        };
        let row = Row {
            of: bar.of,
            unit: bar.unit,
            limit: bar.limit,
            value: None,
            quartiles: None,
            interval: None,
            measured: String::new(),
            beside: String::new(),
            by_way: Vec::new(),
            verdict: verdict(1.0),
            passes: verdict(slack) != Verdict::Missed && !failed,
            not_measured: None,
        };
        match outcome {
            Ok(value) => Row {
                value: Some(value.value),
                quartiles: value.quartiles,
                interval: value.interval,
                by_way: value.by_way,
                measured: value.measured,
                beside: value.beside,
                ..row
            },
            Err(reason) => Row {
                not_measured: Some(reason),
                ..row
            },
        }
    }

    /// The value for people.
    pub fn value_text(&self) -> String {
        self.value
            .map_or_else(String::new, |value| self.number(value))
    }

    /// The quartiles for people, and the interval of the median, where there is one.
    pub fn quartiles_text(&self) -> String {
        let range = |(lower, upper)| format!("{} to {}", significant(lower), significant(upper));
        match (self.quartiles.map(range), self.interval.map(range)) {
            (Some(quartiles), Some(interval)) => format!("{quartiles} (median {interval})"),
            (quartiles, _) => quartiles.unwrap_or_default(),
        }
    }

    /// The bar for people.
    pub fn bar_text(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("at most {}", self.number(limit)),
            Limit::AtLeast(limit) => format!("at least {}", self.number(limit)),
            Limit::AtMostWithinNoise(limit) => {
                format!("at most {}, within noise", self.number(limit))
            }
            Limit::None => "none".to_owned(),
        }
    }

    /// The verdict for people.
    pub fn verdict_text(&self) -> &'static str {
        match self.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Shown => "shown",
            Verdict::NotMeasured => "not measured",
        }
    }

    fn number(&self, value: f64) -> String {
        let number = significant(value);
        match self.unit {
            Unit::Ratio => format!("{number} ×"),
            Unit::Mebibytes => format!("{number} MiB"),
            Unit::CallsPerRequest => format!("{number} a request"),
            Unit::Microseconds => format!("{number} µs"),
            Unit::MillisecondsPerSecond => format!("{number} ms/s"),
        }
    }
}

/// A number with three figures, or with three after the point where it is near one.
fn significant(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        some if some >= 2.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Distribution {
    fn new(samples: &Samples) -> Distribution {
        let (least, most) = samples.range();
        Distribution {
            count: samples.count(),
            mean: samples.mean() / 1e3,
            least: least / 1e3,
            most: most / 1e3,
            quantiles: samples.distribution(),
        }
    }
}
