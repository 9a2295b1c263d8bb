//! What a survey has found, as text for the user and as JSON for a report.
//!
//! A report goes to others. So it has the models of GPUs and no identifier of one, and of the program its command line alone.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};

use nvproxy_abi::policy::{Capabilities, FirmwareCommands};
use nvproxy_abi::refusal::What;
use nvproxy_abi::version::DriverVersion;
use ringfence_sentry::observer::heading;
use ringfence_sentry::visible;
use serde::Serialize;

use super::notes::{Notes, Refused, family_of};
use crate::driver::host_gpus;

/// Where a program was surveyed.
pub struct Surroundings {
    pub driver: DriverVersion,
    /// The release whose tables have judged it.
    pub tables: DriverVersion,
    pub capabilities: Capabilities,
    pub firmware_commands: FirmwareCommands,
    /// Models of GPUs.
    pub gpus: Vec<String>,
    pub command: Vec<OsString>,
}

/// The models of this machine's GPUs, as far as the driver tells.
pub fn gpus() -> Vec<String> {
    let gpus = host_gpus().unwrap_or_default();
    gpus.into_iter().map(|gpu| gpu.model).collect()
}

/// A survey as it is written. Fields are added, and keep their meaning.
#[derive(Serialize)]
struct Survey<'a> {
    /// The version of Ringfence.
    ringfence: &'static str,
    driver: String,
    /// The release whose tables have judged the program.
    tables: String,
    /// What the sandbox would have been given.
    capabilities: String,
    firmware_commands: String,
    gpus: &'a [String],
    /// Architectures whose classes the program has asked for.
    architectures: Vec<&'a str>,
    command: Vec<String>,
    /// How many requests there were, and how many of them could not be read.
    requests: u64,
    unreadable: u64,
    refused: Vec<Finding>,
}

/// Requests that would have been refused for one reason.
#[derive(Serialize)]
struct Finding {
    /// As in the statistics of `ringfence run`.
    family: Option<&'static str>,
    /// As the driver's headers number it.
    id: Option<String>,
    name: Option<&'static str>,
    reason: String,
    count: u64,
    /// Bytes of parameters.
    sizes: Vec<u32>,
}

/// The findings for the user: a heading, and a line for each.
pub fn text(surroundings: &Surroundings, notes: &Notes) -> String {
    let (requests, capabilities) = (notes.requests, surroundings.capabilities);
    let heading = |refused: &str| {
        format!(
            "ringfence: survey: {requests} requests; a sandbox with {capabilities} would refuse {refused}\n"
        )
    };
    let mut text = match notes.refused.is_empty() {
        true => heading("none"),
        false => heading("these:"),
    };
    for (sentence, refused) in &notes.refused {
        let times = match refused.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let sizes: Vec<String> = refused.sizes.iter().map(u32::to_string).collect();
        let _ = match sizes.is_empty() {
            true => writeln!(text, "  {sentence}: {times}"),
            false => writeln!(text, "  {sentence}: {times}, {} bytes", sizes.join(" or ")),
        };
    }
    if notes.unreadable > 0 {
        let _ = writeln!(text, "  could not be read: {}", notes.unreadable);
    }
    text
}

/// Writes the findings as JSON.
pub fn write(mut file: File, surroundings: &Surroundings, notes: &Notes) -> io::Result<()> {
    let Surroundings {
        driver,
        tables,
        capabilities,
        firmware_commands,
        gpus,
        command,
    } = surroundings;
    let survey = Survey {
        ringfence: env!("CARGO_PKG_VERSION"),
        driver: driver.to_string(),
        tables: tables.to_string(),
        capabilities: capabilities.to_string(),
        firmware_commands: firmware_commands.to_string(),
        gpus,
        architectures: notes.architectures.iter().map(String::as_str).collect(),
        command: command
            .iter()
            .map(|word| visible::escaped(&word.to_string_lossy()).to_string())
            .collect(),
        requests: notes.requests,
        unreadable: notes.unreadable,
        refused: notes.refused.iter().map(finding).collect(),
    };
    let mut text = serde_json::to_string_pretty(&survey)?;
    text.push('\n');
    file.write_all(text.as_bytes())
}

fn finding((sentence, refused): (&String, &Refused)) -> Finding {
    let (id, name) = identity(refused.what);
    Finding {
        family: family_of(refused.what).map(heading),
        id: id.map(|id| format!("{id:#x}")),
        name,
        reason: sentence.clone(),
        count: refused.count,
        sizes: refused.sizes.iter().copied().collect(),
    }
}

/// The number and the name of a refused request.
fn identity(what: What) -> (Option<u32>, Option<&'static str>) {
    match what {
        What::Unknown { id, name, .. } => (Some(id), name),
        What::NotGranted { id, name, .. }
        | What::Reserved { id, name, .. }
        | What::BadSize { id, name, .. }
        | What::TooLarge { id, name, .. }
        | What::Flags { id, name, .. }
        | What::Value { id, name, .. } => (Some(id), Some(name)),
        What::Malformed => (None, None),
    }
}
