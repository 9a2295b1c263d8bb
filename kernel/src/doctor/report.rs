//! What was found, for people and for programs.

use std::fmt;

use ringfence_sentry::failure::Failure;
use serde::Serialize;

use crate::driver::{Driver, Kind};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Worth knowing, neither good nor bad.
    Note,
    /// `ringfence run` works, but something is lost.
    Weakness,
    /// `ringfence run` cannot work.
    Missing,
    /// Nobody knows: something that it builds on is missing.
    Untried,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Weakness => "weakness",
            Outcome::Missing => "MISSING",
            Outcome::Untried => "untried",
        }
    }
}

/// One check and what it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: String,
    pub outcome: Outcome,
    /// One line: what was found, and for a weakness what is lost.
    pub detail: String,
    /// One line: what to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding with nothing to do about it.
    pub fn plain(name: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Finding {
        Finding {
            name: name.into(),
            outcome,
            detail: detail.into(),
            remedy: None,
        }
    }

    /// The finding with what to do about it.
    pub fn with_remedy(self, remedy: impl Into<String>) -> Finding {
        Finding {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// All findings, and the driver that `ringfence run` would choose. Its `Display` is the report for people, whose last
/// line is the verdict.
#[derive(Debug)]
pub struct Report {
    findings: Vec<Finding>,
    driver: Option<Driver>,
}

impl Report {
    /// A driver that could not be chosen is a finding of its own, unless the others already say why.
    pub fn new(mut findings: Vec<Finding>, driver: Result<Driver, Failure>) -> Report {
        let driver = match driver {
            Ok(driver) => Some(driver),
            Err(failure) => {
                if !findings.iter().any(is_missing) {
                    let finding = Finding::plain("driver", Outcome::Missing, failure.message);
                    findings.push(finding.with_remedy("use --driver sim"));
                }
                None
            }
        };
        Report { findings, driver }
    }

    /// Whether `ringfence run` can work.
    pub fn usable(&self) -> bool {
        self.driver.is_some() && !self.findings.iter().any(is_missing)
    }

    /// `{"usable", "driver": {"kind", "version", "gpus"}, "checks": [{"name", "outcome", "detail", "remedy"}]}`. The
    /// driver is null if none could be chosen, and a remedy if there is nothing to do.
    pub fn to_json(&self) -> String {
        let driver = self.driver.as_ref().map(|driver| {
            let kind = match driver.kind {
                Kind::Host => "host",
                Kind::Simulated => "simulated",
                Kind::Recorded => "recorded",
            };
            serde_json::json!({
                "kind": kind,
                "version": driver.version.to_string(),
                "gpus": driver.minors().len(),
            })
        });
        let report = serde_json::json!({
            "usable": self.usable(),
            "driver": driver,
            "checks": self.findings,
        });
        format!("{report:#}")
    }

    fn count(&self, outcome: Outcome) -> usize {
        let same = |finding: &&Finding| finding.outcome == outcome;
        self.findings.iter().filter(same).count()
    }

    fn verdict(&self) -> String {
        match &self.driver {
            Some(driver) if self.usable() => {
                let weaknesses = match self.count(Outcome::Weakness) {
                    0 => String::new(),
                    1 => " (1 weakness)".to_owned(),
                    count => format!(" ({count} weaknesses)"),
                };
                format!(
                    "ringfence run works here{weaknesses}: {}",
                    driver.describe()
                )
            }
            _ => {
                let untried = match self.count(Outcome::Untried) {
                    0 => String::new(),
                    count => format!(", {count} not tried"),
                };
                let missing = self.count(Outcome::Missing);
                format!("ringfence run cannot work here: {missing} missing{untried}")
            }
        }
    }
}

fn is_missing(finding: &Finding) -> bool {
    finding.outcome == Outcome::Missing
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.findings.iter().map(|finding| finding.name.len());
        let width = names.max().unwrap_or(0);
        for finding in &self.findings {
            let label = finding.outcome.label();
            writeln!(
                formatter,
                "{label:8}  {:width$}  {}",
                finding.name, finding.detail
            )?;
            if let Some(remedy) = &finding.remedy {
                writeln!(formatter, "{:8}  {:width$}  remedy: {remedy}", "", "")?;
            }
        }
        write!(formatter, "\n{}", self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulated() -> Result<Driver, Failure> {
        use crate::driver::{self, Choice, Demand};
        driver::choose(&Demand {
            choice: Choice::Sim,
            ..Demand::default()
        })
        .map(|chosen| chosen.driver)
    }

    fn weak_and_missing() -> Vec<Finding> {
        vec![
            Finding::plain("kernel", Outcome::Ok, "Linux 6.12"),
            Finding::plain("Landlock", Outcome::Weakness, "ABI 4: a wall less")
                .with_remedy("Linux 6.10"),
            Finding::plain("a longer name", Outcome::Missing, "EPERM").with_remedy("allow it"),
        ]
    }

    #[test]
    fn text_is_aligned_and_ends_with_the_verdict() {
        let report = Report::new(weak_and_missing(), simulated());
        assert_eq!(
            report.to_string(),
            "ok        kernel         Linux 6.12\n\
             weakness  Landlock       ABI 4: a wall less\n\
             \u{20}                        remedy: Linux 6.10\n\
             MISSING   a longer name  EPERM\n\
             \u{20}                        remedy: allow it\n\
             \n\
             ringfence run cannot work here: 1 missing"
        );
    }

    #[test]
    fn a_weakness_does_not_make_it_unusable() {
        let mut findings = weak_and_missing();
        findings.pop();
        let report = Report::new(findings, simulated());
        assert!(report.usable());
        assert_eq!(
            report.to_string().lines().last(),
            Some(
                "ringfence run works here (1 weakness): no NVIDIA driver here: simulating 580.142, 2 GPUs"
            )
        );
    }

    #[test]
    fn json_has_the_promised_shape() {
        let report = Report::new(weak_and_missing(), simulated());
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        let expected = serde_json::json!({
            "usable": false,
            "driver": {"kind": "simulated", "version": "580.142", "gpus": 2},
            "checks": [
                {"name": "kernel", "outcome": "ok", "detail": "Linux 6.12", "remedy": null},
                {
                    "name": "Landlock",
                    "outcome": "weakness",
                    "detail": "ABI 4: a wall less",
                    "remedy": "Linux 6.10",
                },
                {
                    "name": "a longer name",
                    "outcome": "missing",
                    "detail": "EPERM",
                    "remedy": "allow it",
                },
            ],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_driver_that_cannot_be_chosen_is_explained_once() {
        let refused = || Err(Failure::setup("no tables"));
        let report = Report::new(Vec::new(), refused());
        assert!(!report.usable());
        let expected = Finding::plain("driver", Outcome::Missing, "no tables");
        assert_eq!(report.findings, [expected.with_remedy("use --driver sim")]);
        let report = Report::new(weak_and_missing(), refused());
        assert_eq!(report.findings, weak_and_missing());
        assert!(report.to_json().contains("\"driver\": null"));
    }
}
