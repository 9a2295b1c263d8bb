//! containerd's configuration: versions of its format, and files that it merges.
//!
//! Sources: containerd-config.toml(5); containerd's docs/cri/config.md, and `resolveImports`, `mergeConfig` and `v1Migrate` in
//! its server's config.go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::document::{Document, Value, below};
use super::engines::Syntax;
use super::syntax::parse;

/// Each version of the format, with the plugin that starts containers for Kubernetes, by the name that it has there.
const PLUGINS: [(u8, &str); 4] = [
    (1, "cri"),
    (2, "io.containerd.grpc.v1.cri"),
    (3, "io.containerd.cri.v1.runtime"),
    (4, "io.containerd.cri.v1.runtime"),
];

/// What every containerd reads since 1.3.
const OLDEST: u8 = 2;

/// The plugin's name in a version, or in the last one that is known.
pub fn plugin(version: u8) -> &'static str {
    let found = PLUGINS.iter().find(|(number, _)| *number == version);
    found.map_or(PLUGINS[PLUGINS.len() - 1].1, |(_, plugin)| plugin)
}

/// The version of a file that is there. One that names none has the first.
pub fn version_of(document: &dyn Document) -> Result<u8, String> {
    let path = ["version".to_owned()];
    let known = |version: u8| PLUGINS.iter().any(|(number, _)| *number == version);
    match document.get(&path) {
        Some(Value::Number(version)) if known(version) => Ok(version),
        None if !document.has(&path) => Ok(1),
        _ => Err(format!(
            "its version is none of 1 to {}, the versions of the format that Ringfence knows",
            PLUGINS.len()
        )),
    }
}

/// The version for a new file: that in which the installed containerd writes its own. With a warning if there is none.
pub fn version_for_new_file() -> (u8, Option<String>) {
    match installed_version() {
        Some(version) => (version.clamp(OLDEST, PLUGINS.len() as u8), None),
        None => (
            OLDEST,
            Some(format!(
                "no containerd is found here that says what version its configuration has: version {OLDEST} is written, which \
                 each reads; --version chooses another"
            )),
        ),
    }
}

fn installed_version() -> Option<u8> {
    let mut command = Command::new("containerd");
    command.args(["config", "default"]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    line?.trim().parse().ok()
}

/// What may keep containerd from heeding the entry in this file, which has this version.
pub fn warnings(file: &Path, document: &dyn Document, version: u8) -> Vec<String> {
    let mut warnings = Vec::new();
    let disabled = list(document, "disabled_plugins");
    let found = disabled.iter().find(|disabled| {
        let mut plugins = PLUGINS.iter();
        plugins.any(|(_, plugin)| plugin == disabled)
    });
    if let Some(plugin) = found {
        warnings.push(format!(
            "{}: disabled_plugins has {plugin}, without which containerd heeds no runtimes: take it out there",
            file.display()
        ));
    }
    let section = below(&["plugins".to_owned()], &[plugin(version)]);
    for import in imports(file, &list(document, "imports")) {
        let text = std::fs::read_to_string(&import).unwrap_or_default();
        let has_section = parse(Syntax::Toml, &text).is_ok_and(|other| other.has(&section));
        if has_section && import != file {
            warnings.push(format!(
                "{}: its section of {} takes the place of that in {} before containerd 2.1: see containerd config dump, and if \
                 the runtime is not in it, name this file with --config",
                import.display(),
                plugin(version),
                file.display()
            ));
        }
    }
    warnings
}

fn list(document: &dyn Document, key: &str) -> Vec<String> {
    match document.get(&[key.to_owned()]) {
        Some(Value::List(list)) => list,
        _ => Vec::new(),
    }
}

/// The files that are merged into `file`. Those in one directory may be named by a pattern.
fn imports(file: &Path, patterns: &[String]) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for pattern in patterns {
        let path = directory.join(pattern);
        let (Some(place), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let name = name.to_string_lossy();
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let fitting = entries.filter(|entry| fits(&name, &entry.file_name().to_string_lossy()));
        found.extend(fitting.map(|entry| entry.path()));
    }
    found.sort();
    found
}

/// Whether a name is one of those that the pattern means, in which * is any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, further)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(start) else {
        return false;
    };
    let ends = rest.char_indices().map(|(index, _)| index);
    let mut rests = ends
        .chain([rest.len()])
        .filter_map(|index| rest.get(index..));
    rests.any(|rest| fits(further, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_what_begins_and_ends_so() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.toml.old", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a.toml", "a.toml", true),
            ("a.toml", "b.toml", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_version_is_that_of_the_file_or_the_first() {
        for (text, version) in [
            ("", Some(1)),
            ("version = 3", Some(3)),
            ("version = 5", None),
        ] {
            let document = parse(Syntax::Toml, text).expect("TOML");
            assert_eq!(version_of(document.as_ref()).ok(), version, "{text}");
        }
        let text = parse(Syntax::Toml, "version = \"2\"").expect("TOML");
        assert!(version_of(text.as_ref()).is_err());
    }
}
