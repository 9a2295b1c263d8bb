//! The driver and the GPUs that programs were run on, and when.

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use ringfence::driver::{Chosen, Kind, host_gpus};

/// Which architecture has which compute capability: from this one on, up to the next row's.
const ARCHITECTURES: &[((u32, u32), &str)] = &[
    ((5, 0), "Maxwell"),
    ((6, 0), "Pascal"),
    ((7, 0), "Volta"),
    ((7, 5), "Turing"),
    ((8, 0), "Ampere"),
    ((8, 9), "Ada"),
    ((9, 0), "Hopper"),
    ((10, 0), "Blackwell"),
];

/// What programs were run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The driver's release.
    pub driver: String,
    /// The models of its GPUs.
    pub gpu: String,
    pub architecture: String,
}

impl Machine {
    /// This one, with this driver.
    pub fn examine(chosen: &Chosen) -> Machine {
        let version = chosen.driver.version;
        match chosen.driver.kind {
            Kind::Host => Machine {
                driver: version.to_string(),
                gpu: counted(models()),
                architecture: architecture().unwrap_or("unknown").to_owned(),
            },
            Kind::Simulated | Kind::Recorded => Machine {
                driver: format!("{version} (simulated)"),
                gpu: "none".to_owned(),
                architecture: "none".to_owned(),
            },
        }
    }
}

/// The models of the GPUs that this user has, or else of those that the driver has.
fn models() -> Vec<String> {
    let queried = queried("name");
    match queried.is_empty() {
        false => queried,
        true => {
            let all = host_gpus().unwrap_or_default().into_iter();
            all.map(|gpu| gpu.model).collect()
        }
    }
}

/// A list of models, each once.
fn counted(mut models: Vec<String>) -> String {
    models.sort();
    let mut counts: Vec<(usize, String)> = Vec::new();
    for model in models {
        match counts.last_mut() {
            Some((count, last)) if *last == model => *count += 1,
            _ => counts.push((1, model)),
        }
    }
    let shown = counts.into_iter().map(|(count, model)| match count {
        1 => model,
        _ => format!("{count} × {model}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn architecture() -> Option<&'static str> {
    of_capability(queried("compute_cap").first()?)
}

/// A property of each GPU, as nvidia-smi tells it; nothing where that fails.
fn queried(property: &str) -> Vec<String> {
    let mut command = Command::new("nvidia-smi");
    command.args([&format!("--query-gpu={property}"), "--format=csv,noheader"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = match output {
        Ok(output) if output.status.success() => output.stdout,
        _ => return Vec::new(),
    };
    let text = String::from_utf8_lossy(&text);
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// The architecture of a compute capability, as `9.0`.
fn of_capability(text: &str) -> Option<&'static str> {
    let (major, minor) = text.trim().split_once('.')?;
    let capability = (major.parse().ok()?, minor.parse().ok()?);
    let older = ARCHITECTURES.iter().rev();
    let mut older = older.filter(|(from, _)| *from <= capability);
    older.next().map(|(_, name)| *name)
}

/// Today, as `2026-11-30`, in UTC.
pub fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    date(since.unwrap_or_default().as_secs() / 86_400)
}

/// The date so many days after 1970-01-01.
fn date(days: u64) -> String {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut left) = (1970, days);
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if left < length {
            break;
        }
        left -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_787, "2026-11-30"),
            (20_818, "2026-12-31"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn models_are_counted() {
        let of = |models: &[&str]| counted(models.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(of(&["B", "A", "B"]), "A, 2 × B");
        assert_eq!(of(&[]), "");
    }

    #[test]
    fn capabilities_are_of_architectures() {
        for (text, expected) in [
            ("7.5", Some("Turing")),
            ("8.6", Some("Ampere")),
            ("8.9", Some("Ada")),
            ("9.0\n", Some("Hopper")),
            ("12.0", Some("Blackwell")),
            ("3.5", None),
            ("[N/A]", None),
        ] {
            assert_eq!(of_capability(text), expected, "{text}");
        }
    }
}
