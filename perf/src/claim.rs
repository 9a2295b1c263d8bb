//! What a claim and its measurement are.
//!
//! A claim is data: a name, what is measured beside what, and bars. Its measurement gives one value for each bar, in the
//! same order, so that a value cannot be shown without what it is held against.

use crate::measure::Samples;
use crate::session::Session;
use crate::value::{Bar, Curve, NotMeasured, Value};
use crate::ways::Way;

/// Something that the project claims.
pub struct Claim {
    /// What its command is called.
    pub name: &'static str,
    /// One line: what is measured.
    pub title: &'static str,
    /// What is measured beside it.
    pub beside: &'static str,
    /// How it is measured, for whoever doubts the figure.
    pub how: &'static str,
    pub bars: &'static [Bar],
    /// The ways by which its program is run.
    pub ways: &'static [Way],
    /// It takes a GPU and NVIDIA's driver.
    pub needs_gpu: bool,
    pub measure: fn(&mut Session) -> Result<Measurement, NotMeasured>,
}

/// What came of measuring a claim.
pub struct Measurement {
    /// One for each bar.
    pub values: Vec<Result<Value, NotMeasured>>,
    /// Distributions of times.
    pub samples: Vec<Samples>,
    pub curves: Vec<Curve>,
    /// What has to be known to read the values.
    pub notes: Vec<String>,
}
