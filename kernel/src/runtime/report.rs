//! How the front tells an engine what went wrong.
//!
//! The idea: an engine shows its user what the low-level runtime has written to the file that `--log` names, in the
//! form that `--log-format` asks for. containerd's shim takes the last line of level `error` there and podman's monitor
//! reads stderr, so both get the line.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ringfence_sentry::failure::Failure;
use ringfence_sentry::log;
use serde_json::json;

use super::command_line::CommandLine;
use super::settings::Settings;
use crate::launch::container::host::append_to;

/// What each line begins with: several programs write to an engine's log, and an engine shows none of their names.
const SPEAKER: &str = "ringfence-runtime";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// Tells a failure: on stderr, in the engine's log and in the administrator's, where there are such.
pub fn tell(failure: &Failure, line: &CommandLine, settings: Option<&Settings>) {
    let message = format!("{SPEAKER}: {failure}");
    let form = match line.log_format.as_deref() {
        Some(name) if name == "json" => Form::Json,
        _ => Form::Text,
    };
    let engines = line.log.as_deref().and_then(file_of);
    let own = settings.map(Settings::log_file);
    // Nobody has named the usual file, which need not be there.
    let is_named = settings.is_some_and(|settings| settings.log.is_some());
    for (path, form, is_named) in [(engines, form, true), (own, Form::Text, is_named)] {
        let Some(path) = path else { continue };
        // That it cannot be written there must not keep it from stderr.
        if let Err(error) = append(&path, &logged(form, &message, SystemTime::now()))
            && is_named
        {
            let lost = Failure::setup(format!("log {}: {error}", path.display()));
            log::print_last(&format!("{SPEAKER}: {lost}\n"), log::UNTAKEN);
        }
    }
    log::print_last(&format!("{message}\n"), log::UNTAKEN);
}

/// The file that `--log` names. crun also takes the names of services, which the front does not write to.
fn file_of(given: &OsStr) -> Option<PathBuf> {
    let Some(text) = given.to_str() else {
        return Some(given.into());
    };
    match text.split_once(':') {
        Some(("file", path)) => Some(path.into()),
        Some(("journald" | "syslog", _)) => None,
        _ if text.is_empty() => None,
        _ => Some(text.into()),
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    append_to(path)?.write_all(line.as_bytes())
}

/// A line in the form that runc gives it.
fn logged(form: Form, message: &str, now: SystemTime) -> String {
    let time = timestamp(now);
    match form {
        Form::Json => format!(
            "{}\n",
            json!({"level": "error", "msg": message, "time": time})
        ),
        Form::Text => format!(
            "time=\"{time}\" level=error msg={}\n",
            serde_json::Value::from(message)
        ),
    }
}

/// As RFC 3339 writes a time, in UTC and whole seconds.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (mut days, seconds) = (since / 86400, since % 86400);
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    let mut text = format!("{year:04}-{month:02}-{:02}T", days + 1);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Text grows as it has to.
    let _ = write!(text, "{hour:02}:{minute:02}:{second:02}Z");
    text
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time), expected);
        }
    }

    #[test]
    fn lines_have_the_forms_of_runcs() {
        let now = UNIX_EPOCH + Duration::from_secs(951_782_400);
        assert_eq!(
            logged(Form::Json, "a \"b\"", now),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"2000-02-29T00:00:00Z\"}\n"
        );
        assert_eq!(
            logged(Form::Text, "a \"b\"", now),
            "time=\"2000-02-29T00:00:00Z\" level=error msg=\"a \\\"b\\\"\"\n"
        );
    }

    #[test]
    fn crun_and_runc_name_the_file_differently() {
        for (given, expected) in [
            ("/run/log.json", Some("/run/log.json")),
            ("file:/run/log.json", Some("/run/log.json")),
            ("journald:ringfence", None),
            ("syslog:x", None),
            ("", None),
        ] {
            assert_eq!(file_of(OsStr::new(given)), expected.map(PathBuf::from));
        }
    }
}
