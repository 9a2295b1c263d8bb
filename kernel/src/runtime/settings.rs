//! What an administrator sets: `/etc/ringfence/config.toml`, or the file that `RINGFENCE_CONFIG` names.
//!
//! An engine starts the runtime with its own environment, as root mostly. So whoever can set the variable is the engine's
//! administrator, and is trusted. Not every engine passes it on: containerd does, podman does not.
//!
//! A file that is not there sets nothing, if nobody has named it. A setting that is unknown or wrong is refused rather than
//! passed over: it could be a limit that somebody relies on. Each setting is a row of a table, with what reads its value.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ringfence_sentry::failure::Failure;
use toml::{Table, Value};

use crate::driver::Choice;

/// Names another file.
pub const VARIABLE: &str = "RINGFENCE_CONFIG";
/// Where the settings are otherwise.
pub const FILE: &str = "/etc/ringfence/config.toml";

/// The low-level runtime that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LowLevel {
    /// It is looked for, by this name.
    Named(&'static str),
    /// It is this executable.
    At(PathBuf),
}

/// The settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `runtime.low-level`. None: the first that is found.
    pub low_level: Option<LowLevel>,
    /// `runtime.driver`: `host`, `auto`, or `sim`, for machines without a GPU. Whoever asks for a GPU wants no simulated one, so
    /// that is not taken by itself.
    pub driver: Choice,
    /// `runtime.log`: a file to which each refusal is added, besides the engine's own, and the messages of sandboxes.
    pub log: Option<PathBuf>,
}

/// Reads a value, or says what is wrong with it.
type Take = fn(&mut Settings, &Value) -> Result<(), String>;

/// A setting: table, key, and what reads the value.
const TABLE: &[(&str, &str, Take)] = &[
    ("runtime", "low-level", take_low_level),
    ("runtime", "log", take_log),
    ("runtime", "driver", take_driver),
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

fn text(value: &Value) -> Result<&str, String> {
    let wanted = |_| {
        format!(
            "a text in quotes is wanted, and this is of type {}",
            value.type_str()
        )
    };
    value.as_str().ok_or(()).map_err(wanted)
}

impl Settings {
    /// Reads the file that the environment names, or the usual one.
    pub fn read() -> Result<Settings, Failure> {
        Settings::read_file(std::env::var_os(VARIABLE))
    }

    fn read_file(named: Option<OsString>) -> Result<Settings, Failure> {
        let named = named.filter(|named| !named.is_empty()).map(PathBuf::from);
        let path = named.as_deref().unwrap_or(Path::new(FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Settings::parse(&text)
                .map_err(|reason| Failure::setup(format!("settings {}: {reason}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {
                Ok(Settings::default())
            }
            Err(error) => {
                let from = match named {
                    Some(_) => format!(", which {VARIABLE} names"),
                    None => String::new(),
                };
                Err(Failure::setup(format!(
                    "settings {}{from}: {error}: write it, or leave the variable out",
                    path.display()
                )))
            }
        }
    }

    /// Reads the text of a file. An error says the line or the key, the reason and the remedy.
    fn parse(text: &str) -> Result<Settings, String> {
        let file: Table = text.parse().map_err(|error| syntax(text, &error))?;
        let mut settings = Settings::default();
        for (table, value) in &file {
            let known = TABLE.iter().any(|(of, ..)| of == table);
            let Some(entries) = value.as_table().filter(|_| known) else {
                return Err(format!(
                    "{table}: there is no such table: settings are in [runtime]"
                ));
            };
            for (key, value) in entries {
                let row = TABLE
                    .iter()
                    .find(|(of, name, _)| of == table && name == key);
                let Some((.., take)) = row else {
                    return Err(format!(
                        "{table}.{key}: there is no such setting: {}",
                        known_keys(table)
                    ));
                };
                take(&mut settings, value).map_err(|reason| format!("{table}.{key}: {reason}"))?;
            }
        }
        Ok(settings)
    }
}

fn known_keys(table: &str) -> String {
    let keys = TABLE.iter().filter(|(of, ..)| *of == table);
    let keys: Vec<&str> = keys.map(|(_, key, _)| *key).collect();
    let (last, others) = keys.split_last().unwrap_or((&"nothing", &[]));
    format!("[{table}] has {} and {last}", others.join(", "))
}

fn syntax(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map(|span| span.start).unwrap_or_default();
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let reason = error.message().replace('\n', ", ");
    format!("line {line}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        let text = "# ours\n[runtime]\nlow-level = \"crun\"\nlog = \"/var/log/ringfence.log\"\ndriver = \"sim\"\n";
        let expected = Settings {
            low_level: Some(LowLevel::Named("crun")),
            log: Some("/var/log/ringfence.log".into()),
            driver: Choice::Sim,
        };
        assert_eq!(Settings::parse(text), Ok(expected));
        let read = Settings::parse("runtime.low-level = \"/opt/runc\"").expect("settings");
        assert_eq!(read.low_level, Some(LowLevel::At("/opt/runc".into())));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        for (text, expected) in [
            (
                "[runtime]\nlow_level = \"runc\"",
                "runtime.low_level: there is no such setting: [runtime] has low-level, log and driver",
            ),
            (
                "[runtime]\nlow-level = 3",
                "runtime.low-level: a text in quotes is wanted, and this is of type integer",
            ),
            (
                "[runtime]\nlow-level = \"kata\"",
                "runtime.low-level: \"kata\" is neither runc nor crun nor a path from the root: write one of these",
            ),
            (
                "[runtime]\nlog = \"here\"",
                "runtime.log: \"here\" is no path from the root: engines start a runtime in different directories",
            ),
            (
                "[limits]\n",
                "limits: there is no such table: settings are in [runtime]",
            ),
            (
                "runtime = 1",
                "runtime: there is no such table: settings are in [runtime]",
            ),
        ] {
            assert_eq!(Settings::parse(text), Err(expected.to_owned()), "{text}");
        }
        let broken = Settings::parse("[runtime]\nlog = \"/x\"\nlow-level = runc\n");
        let reason = broken.expect_err("no TOML");
        assert!(reason.starts_with("line 3: "), "{reason}");
        assert!(!reason.contains('\n'), "{reason}");
    }

    #[test]
    fn a_file_that_was_named_has_to_be_there() {
        let failure = Settings::read_file(Some("/nonexistent/x".into())).expect_err("no file");
        let start = "settings /nonexistent/x, which RINGFENCE_CONFIG names: ";
        assert!(failure.message.starts_with(start), "{failure}");
    }
}
