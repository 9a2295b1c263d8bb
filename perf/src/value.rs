//! What a value is, what it has to be, and why there is none.

use serde::Serialize;

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// At most this, unless the measurement cannot tell the difference: a quarter of the rounds were within it.
    AtMostWithinNoise(f64),
    /// Shown, and held against nothing.
    None,
}

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// How many times what is measured beside it.
    #[serde(rename = "ratio")]
    Ratio,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "calls per request")]
    CallsPerRequest,
    #[serde(rename = "microseconds")]
    Microseconds,
    #[serde(rename = "ms of processors a second")]
    MillisecondsPerSecond,
}

/// One value of a claim and what it has to be.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// What the value is, as in "median".
    pub of: &'static str,
    pub unit: Unit,
    pub limit: Limit,
}

impl Bar {
    /// A ratio that may be at most `limit`.
    pub const fn ratio(of: &'static str, limit: f64) -> Bar {
        Bar {
            of,
            unit: Unit::Ratio,
            limit: Limit::AtMost(limit),
        }
    }

    /// A value that is shown only.
    pub const fn shown(of: &'static str, unit: Unit) -> Bar {
        let limit = Limit::None;
        Bar { of, unit, limit }
    }
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotMeasured {
    /// One line.
    pub reason: String,
    /// One line: what to do about it.
    pub remedy: String,
    /// It was tried and went wrong, rather than that this machine lacks what it takes.
    pub failed: bool,
}

impl NotMeasured {
    /// This machine lacks something.
    pub fn lacking(reason: impl Into<String>, remedy: impl Into<String>) -> NotMeasured {
        NotMeasured {
            reason: reason.into(),
            remedy: remedy.into(),
            failed: false,
        }
    }

    /// A measurement went wrong at `what`.
    pub fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> NotMeasured {
        NotMeasured {
            reason: format!("{what}: {error}"),
            remedy: "see whether `ringfence doctor` finds anything missing".to_owned(),
            failed: true,
        }
    }
}

/// Says at what a measurement went wrong.
pub trait Attempt<T> {
    fn attempt(self, what: impl std::fmt::Display) -> Result<T, NotMeasured>;
}

impl<T, E: std::fmt::Display> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl std::fmt::Display) -> Result<T, NotMeasured> {
        self.map_err(|error| NotMeasured::failed(what, error))
    }
}

/// A measured value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub value: f64,
    /// The value in the lower and in the upper quartile of the rounds, where there are rounds.
    pub quartiles: Option<(f64, f64)>,
    /// What was measured, as in "12.3 µs".
    pub measured: String,
    /// The same of what was measured beside it; empty if there is nothing.
    pub beside: String,
    /// Between these the median of all rounds that there could be lies, with a confidence of 95 %.
    pub interval: Option<(f64, f64)>,
    /// What was measured by each way to run the program, where the claim has ways.
    pub by_way: Vec<ByWay>,
}

/// What was measured by one way to run a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByWay {
    pub way: &'static str,
    /// As in "12.3 ms".
    pub measured: String,
    /// How that stands to running it natively.
    pub value: Option<f64>,
    pub quartiles: Option<(f64, f64)>,
    pub not_measured: Option<NotMeasured>,
}

impl ByWay {
    /// There is no such way here, or the program does not run by it.
    pub fn not_measured(way: &'static str, reason: NotMeasured) -> ByWay {
        ByWay {
            way,
            measured: String::new(),
            value: None,
            quartiles: None,
            not_measured: Some(reason),
        }
    }
}

impl Value {
    /// A value that is of nothing else.
    pub fn plain(value: f64, measured: impl Into<String>) -> Value {
        Value {
            value,
            quartiles: None,
            measured: measured.into(),
            beside: String::new(),
            interval: None,
            by_way: Vec::new(),
        }
    }
}

/// Points of a line in a plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub label: String,
    pub points: Vec<(f64, f64)>,
}

/// A plot of something over something, with lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    pub title: String,
    /// What is on the axes, with units.
    pub over: String,
    pub shown: String,
    pub lines: Vec<Line>,
}

/// How a value stands to its bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Met,
    Missed,
    /// There is no bar.
    Shown,
    NotMeasured,
}

impl Limit {
    /// How `value` stands to this limit, taken `slack` times as wide.
    pub fn judge(self, value: &Value, slack: f64) -> Verdict {
        let met = match self {
            Limit::AtMost(limit) => value.value <= limit * slack,
            Limit::AtLeast(limit) => value.value >= limit / slack,
            Limit::AtMostWithinNoise(limit) => {
                let least = value.quartiles.map_or(value.value, |(lower, _)| lower);
                least.min(value.value) <= limit * slack
            }
            Limit::None => return Verdict::Shown,
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: f64, quartiles: Option<(f64, f64)>) -> Value {
        Value {
            quartiles,
            ..Value::plain(value, "")
        }
    }

    #[test]
    fn a_limit_includes_itself_and_widens_with_the_slack() {
        let at_most = Limit::AtMost(2.0);
        assert_eq!(at_most.judge(&value(2.0, None), 1.0), Verdict::Met);
        assert_eq!(at_most.judge(&value(2.1, None), 1.0), Verdict::Missed);
        assert_eq!(at_most.judge(&value(4.0, None), 2.0), Verdict::Met);
        assert_eq!(at_most.judge(&value(4.1, None), 2.0), Verdict::Missed);

        let at_least = Limit::AtLeast(2.0);
        assert_eq!(at_least.judge(&value(2.0, None), 1.0), Verdict::Met);
        assert_eq!(at_least.judge(&value(1.9, None), 1.0), Verdict::Missed);
        assert_eq!(at_least.judge(&value(1.0, None), 2.0), Verdict::Met);
        assert_eq!(at_least.judge(&value(0.9, None), 2.0), Verdict::Missed);
    }

    #[test]
    fn noise_excuses_what_cannot_be_told_from_the_limit() {
        let limit = Limit::AtMostWithinNoise(1.0);
        let judged = |median, lower| limit.judge(&value(median, Some((lower, 1.2))), 1.0);
        assert_eq!(judged(1.1, 0.99), Verdict::Met);
        assert_eq!(judged(1.1, 1.01), Verdict::Missed);
        assert_eq!(limit.judge(&value(1.1, None), 1.0), Verdict::Missed);
    }

    #[test]
    fn what_has_no_limit_is_shown() {
        assert_eq!(Limit::None.judge(&value(9.0, None), 1.0), Verdict::Shown);
    }

    #[test]
    fn a_value_that_is_no_number_meets_no_bar() {
        let judged = |limit: Limit| limit.judge(&value(f64::NAN, None), 1.0);
        assert_eq!(judged(Limit::AtMost(1.0)), Verdict::Missed);
        assert_eq!(judged(Limit::AtLeast(1.0)), Verdict::Missed);
    }
}
