//! The monitor that CRI-O starts beside each container.
//!
//! CRI-O looks for `conmon` on its path if a runtime names none. The packages of CRI-O bring one in a directory of their own,
//! and name it for each runtime in a drop-in. So Ringfence's entry names the monitor that the default runtime has.
//!
//! Sources: `RuntimeHandler`, `TranslateMonitorFieldsForHandler` and `UpdateFromPath` in CRI-O's pkg/config/config.go.

use std::path::{Path, PathBuf};

use super::document::{Document, Value, below};
use super::engines::Syntax;
use super::layout::Layout;
use super::syntax::parse;

/// What an entry says of its monitor.
const SETTINGS: [&str; 3] = ["monitor_path", "monitor_cgroup", "monitor_env"];

/// CRI-O's runtimes where none is called the default, the first first.
const ORDINARY: [&str; 2] = ["crun", "runc"];

/// Where the packages have a monitor.
const PACKAGED: &str = "/usr/libexec/crio/conmon";

/// The settings of the monitor for an entry in `file`, as the other files beside it have them for CRI-O's ordinary runtime.
pub fn monitor(file: &Path, layout: &Layout, name: &str) -> Vec<(&'static str, Value)> {
    let others = files_beside(file).into_iter().filter_map(|other| {
        let text = std::fs::read_to_string(other).ok()?;
        parse(Syntax::Toml, &text).ok()
    });
    let others: Vec<Box<dyn Document>> = others.collect();
    // What a later file says holds.
    let last = |path: &[String]| others.iter().rev().find_map(|other| other.get(path));
    let mut runtimes: Vec<String> = ORDINARY.map(str::to_owned).into();
    if let Some(Value::Text(default)) = last(&layout.default)
        && default != name
    {
        runtimes.insert(0, default);
    }
    let settings = runtimes.iter().map(|runtime| {
        let entry = layout.entry(runtime);
        let found = SETTINGS.map(|key| Some((key, last(&below(&entry, &[key]))?)));
        found.into_iter().flatten().collect::<Vec<_>>()
    });
    let found = settings.into_iter().find(|settings| !settings.is_empty());
    found.unwrap_or_else(|| {
        let packaged = Path::new(PACKAGED).exists();
        let packaged = packaged.then(|| ("monitor_path", Value::Text(PACKAGED.to_owned())));
        packaged.into_iter().collect()
    })
}

/// The files that CRI-O reads with this one, in its order.
fn files_beside(file: &Path) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let is_drop_in = directory.extension().is_some_and(|end| end == "d");
    let above = match is_drop_in {
        true => directory.parent().unwrap_or(directory),
        false => directory,
    };
    let drop_ins = match is_drop_in {
        true => directory.to_owned(),
        false => above.join("crio.conf.d"),
    };
    let entries = std::fs::read_dir(drop_ins).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.insert(0, above.join("crio.conf"));
    files
}
