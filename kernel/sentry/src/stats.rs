//! `--stats`: how often each kind of request was made, how long it took where, and what was refused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

use hdrhistogram::Histogram;
use nvproxy_abi::refusal::{Refusal, What};
use ringfence_ipc::locks::IgnorePoison;

use super::times::{Phase, Readings};

/// Where one kind of request spent its time, in nanoseconds.
struct Durations {
    sentry: Histogram<u64>,
    transit: Histogram<u64>,
    driver: Histogram<u64>,
}

impl Durations {
    fn new() -> Option<Durations> {
        // Two significant figures are more than a table shows.
        let histogram = || Histogram::new(2).ok();
        Some(Durations {
            sentry: histogram()?,
            transit: histogram()?,
            driver: histogram()?,
        })
    }

    fn record(&mut self, readings: &Readings) {
        let (mut sentry, mut transit, mut driver) = (0, 0, 0);
        for (phase, begin, end) in readings.spans() {
            match phase {
                Phase::Sentry | Phase::WritingBack => sentry += end - begin,
                Phase::Driver => driver += end - begin,
                _ => transit += end - begin,
            }
        }
        // A histogram that resizes itself takes any value.
        self.sentry.record(sentry).ok();
        self.transit.record(transit).ok();
        self.driver.record(driver).ok();
    }
}

#[derive(Default)]
struct Recorded {
    requests: BTreeMap<(&'static str, &'static str), Durations>,
    /// By name: how often the driver itself refused.
    refused_by_driver: BTreeMap<&'static str, u64>,
    /// By description: how often the tables did.
    refused_by_tables: BTreeMap<String, u64>,
}

/// What is recorded of a run.
pub struct Stats {
    enabled: bool,
    recorded: Mutex<Recorded>,
}

impl Stats {
    /// Records if `enabled`.
    pub fn new(enabled: bool) -> Stats {
        Stats {
            enabled,
            recorded: Mutex::default(),
        }
    }

    /// Whether anything is to be recorded.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Takes in a request that was answered. `kind` groups requests of the same kind.
    pub fn record(
        &self,
        kind: &'static str,
        name: &'static str,
        readings: &Readings,
        refused: bool,
    ) {
        if !self.enabled {
            return;
        }
        let mut recorded = self.recorded.lock().ignore_poison();
        let key = (kind, name);
        if !recorded.requests.contains_key(&key)
            && let Some(durations) = Durations::new()
        {
            recorded.requests.insert(key, durations);
        }
        if let Some(durations) = recorded.requests.get_mut(&key) {
            durations.record(readings);
        }
        if refused {
            *recorded.refused_by_driver.entry(name).or_default() += 1;
        }
    }

    /// Takes in a request that the tables refuse, and says so in the log, once for each.
    pub fn refused(&self, refusal: &Refusal) {
        let description = refusal.what.to_string();
        let mut recorded = self.recorded.lock().ignore_poison();
        // A program can make up requests for ever; what it gets to fill is bounded, here and in the log.
        let is_new = if recorded.refused_by_tables.len() >= MAXIMUM_REFUSALS
            && !recorded.refused_by_tables.contains_key(&description)
        {
            true
        } else {
            let times = recorded.refused_by_tables.entry(description).or_default();
            *times += 1;
            *times == 1
        };
        drop(recorded);
        if is_new && refusal.what != What::Malformed {
            tracing::warn!("nvproxy: {}", refusal.what);
        }
    }

    /// The table for the user; `None` if nothing was to be recorded.
    pub fn table(&self) -> Option<String> {
        let recorded = self.recorded.lock().ignore_poison();
        self.enabled.then(|| recorded.table())
    }
}

/// Different refusals that are remembered.
const MAXIMUM_REFUSALS: usize = 1024;

impl Recorded {
    fn table(&self) -> String {
        let width = self
            .requests
            .keys()
            .map(|(_, name)| name.len())
            .max()
            .unwrap_or(0)
            .max("request".len());
        let mut table = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "{:<8} {:<width$} {:>7} {:>19} {:>19} {:>19}\n{:<8} {:<width$} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "",
            "",
            "",
            "sentry, µs",
            "transit, µs",
            "driver, µs",
            "kind",
            "request",
            "calls",
            "p50",
            "p99",
            "p50",
            "p99",
            "p50",
            "p99",
        );
        for ((kind, name), durations) in &self.requests {
            let _ = write!(
                table,
                "{kind:<8} {name:<width$} {:>7}",
                durations.driver.len()
            );
            for histogram in [&durations.sentry, &durations.transit, &durations.driver] {
                for quantile in [0.5, 0.99] {
                    let microseconds = histogram.value_at_quantile(quantile) as f64 / 1000.0;
                    let _ = write!(table, " {microseconds:>9.1}");
                }
            }
            table.push('\n');
        }
        let total: u64 = self
            .requests
            .values()
            .map(|durations| durations.driver.len())
            .sum();
        let _ = writeln!(table, "{total} requests");
        list(
            &mut table,
            "refused by the driver",
            self.refused_by_driver.iter(),
        );
        list(
            &mut table,
            "refused by Ringfence",
            self.refused_by_tables.iter(),
        );
        table
    }
}

fn list<N: std::fmt::Display>(
    table: &mut String,
    title: &str,
    rows: impl ExactSizeIterator<Item = (N, impl std::fmt::Display)>,
) {
    let _ = write!(table, "{title}: ");
    if rows.len() == 0 {
        table.push_str("none\n");
        return;
    }
    table.push('\n');
    for (name, times) in rows {
        let _ = writeln!(table, "  {name}: {times}");
    }
}
