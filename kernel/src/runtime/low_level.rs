//! The low-level runtime: which it is, and how it takes over.
//!
//! The idea: it takes this process's place by execve(2), with the words and the environment that this was given and the
//! descriptors that it found open. So an engine waits for the process that it started, and nothing of Ringfence is left
//! of it.
//!
//! The front must not find itself, which it would start for ever: it can be called `runc`, by a link, and so can
//! NVIDIA's runtime, which starts the front. So what is found is compared by device and inode, and by the name of what
//! a link leads to.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{AccessFlags, access, execv};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::signals;
use serde_json::Value;

use super::settings::{LowLevel, Settings};

/// In this order, where none is configured.
const NAMES: [&str; 2] = ["runc", "crun"];

/// Where low-level runtimes are on the systems that have them elsewhere than in the caller's `PATH`: an engine may be started with
/// hardly any.
const PLACES: [&str; 9] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/lib/cri-o-runc/sbin",
    "/run/current-system/sw/bin",
    "/var/lib/rancher/k3s/data/current/bin",
];

/// How the executables of NVIDIA's container runtime begin, `nvidia-container-runtime.cdi` among them.
const NVIDIAS: &[u8] = b"nvidia-container-runtime";

/// Why an executable cannot be the low-level runtime.
enum Problem {
    NotExecutable(String),
    Itself,
    Nvidias(PathBuf),
}

impl Problem {
    fn remedy(&self) -> String {
        match self {
            Problem::NotExecutable(reason) => format!("{reason}: name an executable"),
            Problem::Itself => "it is ringfence-runtime itself: name runc or crun".to_owned(),
            Problem::Nvidias(path) => format!(
                "it is {}, which starts ringfence-runtime in its turn: name runc or crun",
                path.display()
            ),
        }
    }
}

/// The low-level runtime's executable.
pub fn find(settings: &Settings) -> Result<PathBuf, Failure> {
    settings.expect_low_level()?;
    let names = match &settings.low_level {
        Some(LowLevel::At(path)) => {
            return match check(path) {
                Ok(()) => Ok(path.clone()),
                Err(problem) => Err(Failure::setup(format!(
                    "runtime.low-level: {}: {}",
                    path.display(),
                    problem.remedy()
                ))),
            };
        }
        Some(LowLevel::Named(name)) => std::slice::from_ref(name),
        None => &NAMES[..],
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = names.iter().find_map(|name| search(name, &path));
    found.ok_or_else(|| {
        Failure::setup(format!(
            "no low-level runtime: {} is neither in PATH nor in {}: install one, or name it by low-level in [runtime] of {}",
            names.join(" or "),
            PLACES.join(", "),
            settings.file.display()
        ))
    })
}

/// The first executable of this name in a directory of `path` or in one of the usual ones. A directory that is named from where
/// the caller happens to be is passed over.
fn search(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .chain(PLACES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| check(candidate).is_ok())
}

fn check(path: &Path) -> Result<(), Problem> {
    let unusable = |reason: &dyn std::fmt::Display| Problem::NotExecutable(reason.to_string());
    let status = fs::metadata(path).map_err(|error| unusable(&error))?;
    if !status.is_file() {
        return Err(unusable(&"it is no ordinary file"));
    }
    access(path, AccessFlags::X_OK).map_err(|errno| unusable(&errno))?;
    // Without /proc nothing can be compared, and no container made.
    let own = fs::metadata("/proc/self/exe").map_err(|error| unusable(&error))?;
    if (own.dev(), own.ino()) == (status.dev(), status.ino()) {
        return Err(Problem::Itself);
    }
    let real = fs::canonicalize(path).map_err(|error| unusable(&error))?;
    let name = real.file_name().map(OsStr::as_bytes).unwrap_or_default();
    match name.starts_with(NVIDIAS) {
        true => Err(Problem::Nvidias(real)),
        false => Ok(()),
    }
}

/// Has the low-level runtime take over this process. Returns only if it could not be executed.
pub fn hand_over(runtime: &Path, words: &[OsString]) -> Failure {
    let line = std::iter::once(runtime.as_os_str()).chain(words.iter().map(OsString::as_os_str));
    let line: Result<Vec<CString>, _> = line
        .map(|word| CString::new(word.to_owned().into_vec()))
        .collect();
    // What came by execve(2) has no zero byte in it, and what the settings say of a file was found.
    let Ok(line) = line else {
        return Failure::setup(format!("{}: a zero byte in a word", runtime.display()));
    };
    let Some(executable) = line.first() else {
        return Failure::setup("no low-level runtime");
    };
    if let Err(errno) = signals::restore_pipe() {
        return Failure::setup(format!("the action of a signal: {errno}"));
    }
    let Err(errno) = execv(executable, &line);
    Failure::setup(format!("executing {}: {errno}", runtime.display()))
}

/// What the low-level runtime says of a container (`state`, in the OCI specification's form). `None` if it knows none of that name.
pub fn state(
    runtime: &Path,
    globals: &[OsString],
    container: &OsStr,
) -> Result<Option<Value>, Failure> {
    // Its complaint is for the engine's log only when the engine's own command fails.
    let mut command = Command::new(runtime);
    command.args(globals).arg("state").arg(container);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command
        .output()
        .attempt(format!("executing {}", runtime.display()))?;
    let state = serde_json::from_slice(&output.stdout).ok();
    Ok(state.filter(|_| output.status.success()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn neither_this_executable_nor_nvidias_is_found() {
        let directory =
            std::env::temp_dir().join(format!("ringfence-low-level-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let places: Vec<PathBuf> = (0..4)
            .map(|number| directory.join(number.to_string()))
            .collect();
        for place in &places {
            fs::create_dir_all(place).expect("a directory");
        }
        symlink("/proc/self/exe", places[0].join("runc")).expect("a link");
        for file in ["1/nvidia-container-runtime.cdi", "2/runc", "3/runc"] {
            fs::write(directory.join(file), "#!/bin/sh\n").expect("a file");
        }
        for file in ["1/nvidia-container-runtime.cdi", "3/runc"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(directory.join(file), mode).expect("a mode");
        }
        symlink("nvidia-container-runtime.cdi", places[1].join("runc")).expect("a link");
        let path = std::env::join_paths(&places).expect("a path");
        assert_eq!(search("runc", &path), Some(places[3].join("runc")));
        fs::remove_dir_all(&directory).expect("removed");
    }
}
