//! The machine, in words: what a figure has to be read with.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ringfence::driver::{host_gpus, host_version};
use serde::Serialize;
use serde_json::Value;

use crate::processors;

/// What was measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    pub processor: String,
    /// How many this program may use, and which two most claims are measured on.
    pub processors: usize,
    pub two: Vec<usize>,
    /// How many of those share a core, as the kernel sees it.
    pub threads_per_core: usize,
    pub hypervisor: bool,
    pub memory_gib: u64,
    pub kernel: String,
    pub clock: String,
    /// The kernel's defences against the processor's leaks, those that are in force.
    pub mitigations: Vec<String>,
    /// The average number of runnable tasks in the minute before.
    pub load_before: String,
    /// And in the last minute.
    pub load_after: String,
    pub driver: Option<String>,
    pub gpus: Vec<String>,
    /// What `ringfence doctor` has against the machine.
    pub doctor: Vec<String>,
    /// What `ringfence --version` says.
    pub ringfence: String,
    /// What the programs say that were measured beside.
    pub others: Vec<String>,
}

impl Machine {
    /// Describes this one.
    pub fn examine(ringfence: &Path) -> Machine {
        let information = read("/proc/cpuinfo");
        let field = |name: &str| {
            let lines = information.lines();
            let mut of_name = lines.filter_map(|line| line.split_once(':'));
            of_name
                .find(|(field, _)| field.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let available = processors::available().unwrap_or_default();
        let siblings = read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list");
        Machine {
            processor: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            two: processors::two(&available),
            processors: available.len(),
            threads_per_core: count_in_list(&siblings),
            hypervisor: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_gib: memory_gib(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease"),
            clock: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            mitigations: mitigations(),
            load_before: load(),
            load_after: String::new(),
            driver: host_version(),
            gpus: host_gpus()
                .unwrap_or_default()
                .into_iter()
                .map(|gpu| gpu.model)
                .collect(),
            doctor: doctor(ringfence),
            ringfence: version(ringfence),
            others: Vec::new(),
        }
    }

    /// Notes what was measured beside, and how busy it was meanwhile.
    pub fn finish(&mut self, others: &[&Path]) {
        self.others = others.iter().map(|program| version(program)).collect();
        self.load_after = load();
    }

    /// Its description, a line for each thing.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let processors = format!(
            "{} × {}{}{}",
            self.processors,
            self.processor,
            if self.threads_per_core > 1 {
                ", several threads a core"
            } else {
                ""
            },
            if self.hypervisor {
                ", in a virtual machine"
            } else {
                ""
            },
        );
        let numbers: Vec<String> = self.two.iter().map(usize::to_string).collect();
        let list = |of: &[String], none: &str| {
            if of.is_empty() {
                none.to_owned()
            } else {
                of.join("; ")
            }
        };
        let mut lines = vec![
            ("processors", processors),
            (
                "measured on",
                format!("processors {}", numbers.join(" and ")),
            ),
            ("memory", format!("{} GiB", self.memory_gib)),
            (
                "kernel",
                format!("Linux {}, clock {}", self.kernel, self.clock),
            ),
            ("mitigations", list(&self.mitigations, "none in force")),
            (
                "load",
                format!("{} before, {} after", self.load_before, self.load_after),
            ),
            (
                "driver",
                self.driver.clone().unwrap_or_else(|| "none".to_owned()),
            ),
            ("GPUs", list(&self.gpus, "none")),
            ("doctor", list(&self.doctor, "nothing missing")),
            ("ringfence", self.ringfence.clone()),
        ];
        if !self.others.is_empty() {
            lines.push(("beside", self.others.join("; ")));
        }
        lines
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// How many numbers a list of the kernel's has, as in `0-1,4`.
fn count_in_list(text: &str) -> usize {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    text.split(',')
        .filter_map(|part| match part.split_once('-') {
            Some((first, last)) => Some(number(last)?.saturating_sub(number(first)?) + 1),
            None => number(part).map(|_| 1),
        })
        .sum()
}

fn memory_gib(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() >> 20
}

fn mitigations() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Vec::new();
    };
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let text = fs::read_to_string(entry.path()).ok()?;
            let how = text.trim().strip_prefix("Mitigation: ")?;
            Some(format!("{}: {how}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

fn load() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn doctor(ringfence: &Path) -> Vec<String> {
    let report: Value =
        serde_json::from_str(&output(ringfence, &["doctor", "--json"])).unwrap_or_default();
    let checks = report.get("checks").and_then(Value::as_array);
    let text = |check: &Value, field: &str| {
        let field = check.get(field).and_then(Value::as_str);
        field.unwrap_or_default().to_owned()
    };
    checks
        .into_iter()
        .flatten()
        .filter(|check| matches!(&*text(check, "outcome"), "weakness" | "missing"))
        .map(|check| format!("{}: {}", text(check, "name"), text(check, "detail")))
        .collect()
}

/// The first line of what `PROGRAM --version` says.
fn version(program: &Path) -> String {
    let said = output(program, &["--version"]);
    said.lines().next().unwrap_or_default().to_owned()
}

fn output(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(count_in_list("0"), 1);
        assert_eq!(count_in_list("0-3"), 4);
        assert_eq!(count_in_list("0,4-5"), 3);
        assert_eq!(count_in_list(""), 0);
    }

    #[test]
    fn memory_is_in_gibibytes() {
        assert_eq!(memory_gib("MemTotal:       24684164 kB\nMemFree: 1 kB"), 23);
        assert_eq!(memory_gib(""), 0);
    }
}
