//! What an administrator sets: how containers are made, and within which bounds they may ask for more or less.
//!
//! The idea: each setting is a row of a table, with what reads its value. A setting that is unknown or wrong is refused rather
//! than passed over: it could be a limit that somebody relies on. A file that is not there sets nothing.
//!
//! Settings are asked for when a container is made. So what is wrong with them keeps no engine from ending containers that run,
//! but for `runtime.low-level`: it names who knows them. That one is looked for even in a text that is no TOML, and so is
//! `runtime.log`, where the refusal is to be found.
//!
//! What containers ask for comes from whoever writes a pod, or from an image (`annotations.rs`). So what they may have is
//! bounded here, and an annotation that is within the bounds harms nobody but its container.

pub mod file;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands};
use nvproxy_abi::version::DriverVersion;
use nvproxy_protocol::size::Size;
use ringfence_sentry::failure::Failure;
use ringfence_sentry::server::OnServerExit;
use toml::{Table, Value};

use super::nearest::nearest;
use super::{bundles, caller};
use crate::driver::Choice;
use crate::server_exit::WhenServerEnds;

/// What a container can set by annotations, each a name behind `dev.ringfence.`.
pub const ANNOTATIONS: [&str; 5] = [
    "gpu-memory",
    "host-memory",
    "driver-capabilities",
    "firmware-commands",
    "on-server-exit",
];

/// The low-level runtime that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LowLevel {
    /// It is looked for, by this name.
    Named(&'static str),
    /// It is this executable.
    At(PathBuf),
}

/// How much of something a container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What one gets that asks for nothing. None: the maximum.
    pub default: Option<Size>,
    /// What one gets at most.
    pub maximum: Option<Size>,
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file that they are from, or would be.
    pub file: PathBuf,
    /// `runtime.low-level`. None: the first that is found.
    pub low_level: Option<LowLevel>,
    /// `runtime.driver`: `host`, `auto`, or `sim`, for machines without a GPU. Whoever asks for a GPU wants no simulated one, so
    /// that is not taken by itself.
    pub driver: Choice,
    /// `runtime.driver-abi`: the release to take the driver for.
    pub driver_abi: Option<DriverVersion>,
    /// `runtime.log`: a file to which each refusal is added, besides the engine's own, and the messages of sandboxes.
    pub log: Option<PathBuf>,
    /// `containers.driver-capabilities`: what containers may have.
    pub driver_capabilities: Capabilities,
    /// `containers.firmware-commands`: which of the firmware's own commands they may ask.
    pub firmware_commands: FirmwareCommands,
    /// `containers.annotations`: which of [`ANNOTATIONS`] containers may set.
    pub annotations: Vec<&'static str>,
    /// `containers.on-server-exit`, where a container says nothing else.
    pub on_server_exit: OnServerExit,
    /// `gpu-memory`: on each GPU.
    pub gpu_memory: Bounds,
    /// `host-memory`: what the driver allocates.
    pub host_memory: Bounds,
    /// What is wrong, first. No container is made then, and those that there are can be ended.
    pub wrong: Option<String>,
    /// What is wrong with `low_level`. Nothing can be done then: it is open who has made the containers that there are.
    pub wrong_low_level: Option<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            file: file::FILE.into(),
            low_level: None,
            driver: Choice::default(),
            driver_abi: None,
            log: None,
            driver_capabilities: Capabilities::default(),
            firmware_commands: FirmwareCommands::default(),
            annotations: ANNOTATIONS.into(),
            on_server_exit: OnServerExit::default(),
            gpu_memory: Bounds::default(),
            host_memory: Bounds::default(),
            wrong: None,
            wrong_low_level: None,
        }
    }
}

const RUNTIME: &str = "runtime";
/// The setting that has to be right, whatever is asked for: who made a container ends it.
const LOW_LEVEL: &str = "low-level";
const LOG: &str = "log";
/// Where messages go if no file is named.
const LOG_FILE: &str = "ringfence.log";

/// Reads a value, or says what is wrong with it.
type Take = fn(&mut Settings, &Value) -> Result<(), String>;

/// A setting: table, key, and what reads the value.
const TABLE: &[(&str, &str, Take)] = &[
    (RUNTIME, LOW_LEVEL, take_low_level),
    (RUNTIME, LOG, take_log),
    (RUNTIME, "driver", take_driver),
    (RUNTIME, "driver-abi", take_driver_abi),
    ("containers", "driver-capabilities", take_capabilities),
    ("containers", "firmware-commands", take_firmware_commands),
    ("containers", "annotations", take_annotations),
    ("containers", "on-server-exit", take_on_server_exit),
    ("gpu-memory", "default", |settings, value| {
        take_size(&mut settings.gpu_memory.default, value)
    }),
    ("gpu-memory", "maximum", |settings, value| {
        take_size(&mut settings.gpu_memory.maximum, value)
    }),
    ("host-memory", "default", |settings, value| {
        take_size(&mut settings.host_memory.default, value)
    }),
    ("host-memory", "maximum", |settings, value| {
        take_size(&mut settings.host_memory.maximum, value)
    }),
];

fn take_low_level(settings: &mut Settings, value: &Value) -> Result<(), String> {
    settings.low_level = Some(match text(value)? {
        "runc" => LowLevel::Named("runc"),
        "crun" => LowLevel::Named("crun"),
        path if path.starts_with('/') => LowLevel::At(path.into()),
        other => {
            return Err(format!(
                "{other:?} is neither runc nor crun nor a path from the root: write one of these"
            ));
        }
    });
    Ok(())
}

fn take_driver(settings: &mut Settings, value: &Value) -> Result<(), String> {
    let name = text(value)?;
    settings.driver = Choice::from_str(name, false)
        .map_err(|_| format!("{name:?} is no driver: write auto, host or sim"))?;
    Ok(())
}

fn take_driver_abi(settings: &mut Settings, value: &Value) -> Result<(), String> {
    let version = text(value)?.parse();
    settings.driver_abi = Some(version.map_err(|error| format!("{error}"))?);
    Ok(())
}

fn take_log(settings: &mut Settings, value: &Value) -> Result<(), String> {
    let path = text(value)?;
    if !path.starts_with('/') {
        return Err(format!(
            "{path:?} is no path from the root: engines start a runtime in different directories"
        ));
    }
    settings.log = Some(path.into());
    Ok(())
}

fn take_capabilities(settings: &mut Settings, value: &Value) -> Result<(), String> {
    let capabilities = texts(value)?.join(",").parse::<Capabilities>();
    let capabilities = capabilities.map_err(|error| error.to_string())?;
    if let Some((name, adds_to)) = capabilities.incomplete() {
        let adds_to: Vec<&str> = adds_to.names().collect();
        let adds_to = adds_to.join(" or ");
        return Err(format!(
            "{name} adds to {adds_to} and is of no use without: add that"
        ));
    }
    settings.driver_capabilities = capabilities;
    Ok(())
}

fn take_firmware_commands(settings: &mut Settings, value: &Value) -> Result<(), String> {
    settings.firmware_commands = firmware_commands(text(value)?)?;
    Ok(())
}

/// What a text says of the firmware's commands.
pub fn firmware_commands(text: &str) -> Result<FirmwareCommands, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is neither all nor listed: write one of these"))
}

fn take_annotations(settings: &mut Settings, value: &Value) -> Result<(), String> {
    let known = |name: &&str| {
        let known = ANNOTATIONS.into_iter().find(|known| known == name);
        known.ok_or_else(|| {
            format!(
                "there is no annotation {name:?}: there are {}",
                listed(&ANNOTATIONS)
            )
        })
    };
    settings.annotations = texts(value)?.iter().map(known).collect::<Result<_, _>>()?;
    Ok(())
}

fn take_on_server_exit(settings: &mut Settings, value: &Value) -> Result<(), String> {
    settings.on_server_exit = on_server_exit(text(value)?)?;
    Ok(())
}

/// What a text says of the loss of a server.
pub fn on_server_exit(name: &str) -> Result<OnServerExit, String> {
    let chosen = WhenServerEnds::from_str(name, false);
    chosen
        .map(OnServerExit::from)
        .map_err(|_| format!("{name:?} is none of fail, kill and restart: write one of these"))
}

fn take_size(size: &mut Option<Size>, value: &Value) -> Result<(), String> {
    *size = Some(text(value)?.parse().map_err(|error| format!("{error}"))?);
    Ok(())
}

fn text(value: &Value) -> Result<&str, String> {
    let wanted = |_| {
        format!(
            "a text in quotes is wanted, and this is of type {}",
            value.type_str()
        )
    };
    value.as_str().ok_or(()).map_err(wanted)
}

fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let wanted = || "a list of texts is wanted, as [\"one\", \"another\"]".to_owned();
    let list = value.as_array().ok_or_else(wanted)?;
    let texts = list.iter().map(|entry| entry.as_str().ok_or_else(wanted));
    texts.collect()
}

impl Settings {
    /// Reads the file that the environment names, or the usual one.
    pub fn read() -> Result<Settings, Failure> {
        let written = file::read(std::env::var_os(file::VARIABLE))?;
        Ok(Settings {
            file: written.path,
            ..Settings::parse(&written.text)
        })
    }

    /// Fails if it is open which low-level runtime has made the containers that there are: to be asked before anything else is done.
    pub fn expect_low_level(&self) -> Result<(), Failure> {
        match &self.wrong_low_level {
            Some(reason) => Err(wrong(&self.file, reason)),
            None => Ok(()),
        }
    }

    /// Fails if anything is set wrongly: to be asked before a container is made.
    pub fn expect_right(&self) -> Result<(), Failure> {
        match &self.wrong {
            Some(reason) => Err(wrong(&self.file, reason)),
            None => Ok(()),
        }
    }

    /// Reads the text of a file. What is wrong is kept: it says the line or the key, the reason and the remedy.
    fn parse(text: &str) -> Settings {
        let mut settings = Settings::default();
        let file: Table = match text.parse() {
            Ok(file) => file,
            Err(error) => {
                settings.wrong = Some(syntax(text, &error));
                settings.take_what_is_always_needed(text);
                return settings;
            }
        };
        for (table, value) in &file {
            settings.take(table, value);
        }
        for (table, bounds) in [
            ("gpu-memory", settings.gpu_memory),
            ("host-memory", settings.host_memory),
        ] {
            if let (Some(default), Some(maximum)) = (bounds.default, bounds.maximum)
                && default.bytes() > maximum.bytes()
            {
                settings.wrong.get_or_insert_with(|| {
                    format!("{table}.default is more than {table}.maximum: lower the one or raise the other")
                });
            }
        }
        settings
    }

    /// Takes what a table of the file says.
    fn take(&mut self, table: &str, value: &Value) {
        let known = TABLE.iter().any(|(of, ..)| *of == table);
        let Some(entries) = value.as_table().filter(|_| known) else {
            self.wrong.get_or_insert_with(|| no_table(table));
            return;
        };
        for (key, value) in entries {
            let mut rows = TABLE.iter();
            let row = rows.find(|(of, name, _)| *of == table && name == key);
            let outcome = match row {
                Some((.., take)) => {
                    take(self, value).map_err(|reason| format!("{table}.{key}: {reason}"))
                }
                None => Err(no_setting(table, key)),
            };
            if let Err(reason) = outcome {
                let is_low_level = (table, key.as_str()) == (RUNTIME, LOW_LEVEL);
                let place = match is_low_level {
                    true => &mut self.wrong_low_level,
                    false => &mut self.wrong,
                };
                place.get_or_insert(reason);
            }
        }
    }

    /// Takes the low-level runtime, and where refusals go, from a text that is not all TOML.
    fn take_what_is_always_needed(&mut self, text: &str) {
        for line in text.lines() {
            let Ok(entry) = line.parse::<Table>() else {
                continue;
            };
            let value = |key: &str| entry.get(key).or_else(|| entry.get(RUNTIME)?.get(key));
            if let Some(Err(reason)) = value(LOW_LEVEL).map(|value| take_low_level(self, value)) {
                self.wrong_low_level
                    .get_or_insert_with(|| format!("{RUNTIME}.{LOW_LEVEL}: {reason}"));
            }
            // What is wrong with it is said when the file is TOML.
            let _ = value(LOG).map(|value| take_log(self, value));
        }
    }

    /// Where messages of sandboxes go, and refusals.
    pub fn log_file(&self) -> PathBuf {
        let usual = || match caller::is_root() {
            true => Path::new("/var/log").join(LOG_FILE),
            false => bundles::runtime_directory().join(LOG_FILE),
        };
        self.log.clone().unwrap_or_else(usual)
    }
}

fn wrong(file: &Path, reason: &str) -> Failure {
    Failure::setup(format!("settings {}: {reason}", file.display()))
}

fn no_table(table: &str) -> String {
    let mut tables: Vec<&str> = TABLE.iter().map(|(of, ..)| *of).collect();
    tables.dedup();
    let in_brackets: Vec<String> = tables.iter().map(|table| format!("[{table}]")).collect();
    let reason = format!("{table}: there is no such table");
    match nearest(table, tables.into_iter()) {
        Some(near) if near != table => format!("{reason}: write [{near}]"),
        _ => format!("{reason}: settings are in {}", listed(&in_brackets)),
    }
}

fn no_setting(table: &str, key: &str) -> String {
    let keys = TABLE.iter().filter(|(of, ..)| *of == table);
    let keys: Vec<&str> = keys.map(|(_, key, _)| *key).collect();
    let reason = format!("{table}.{key}: there is no such setting");
    match nearest(key, keys.iter().copied()) {
        Some(near) => format!("{reason}: write {near}"),
        None => format!("{reason}: [{table}] has {}", listed(&keys)),
    }
}

/// `one, another and the last`
pub fn listed<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<&str> = words.iter().map(T::as_ref).collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

fn syntax(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map(|span| span.start).unwrap_or_default();
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let reason = error.message().replace('\n', ", ");
    format!("line {line}: {reason}")
}

#[cfg(test)]
mod tests;
