//! What NVIDIA's legacy hook is asked for, and by whom it lets itself be asked.
//!
//! The idea: which GPUs a container would have had without a sandbox decides the hook, by variables, of which the image may
//! set all, by mounts, and by the administrator's configuration. So its answer is found here by the same rules: those of
//! NVIDIA's toolkit, `internal/config/image/cuda_image.go` and `cmd/nvidia-container-runtime-hook`, v1.20.2. An administrator who
//! lets no image ask by a variable has that hold for a sandbox, too.
//!
//! The hook itself reads the shadow, where the first process has CAP_SYS_ADMIN lent, and takes the container for privileged. What it
//! puts there too much for that reason opens nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ringfence_sentry::failure::Failure;
use serde_json::Value;
use toml::Table;

use super::specification::{Specification, text};
use crate::text::plain_path;

/// The variable that names GPUs.
pub const VISIBLE: &str = "NVIDIA_VISIBLE_DEVICES";
/// The value by which CDI keeps the hook from doing its work again.
pub const VOID: &str = "void";
/// The value with which the hook does its work without a GPU.
const NONE: &str = "none";
/// The name of every GPU.
const ALL: &str = "all";
/// Below it a mount of `/dev/null` asks for the GPU that its name says.
pub const MOUNTS: &str = "/var/run/nvidia-container-devices";
/// What a name of such a mount begins with if it is no GPU's.
const CHANNELS: &str = "imex/";
/// What there is to be mounted.
const NOTHING: &str = "/dev/null";

/// Names the file of the configuration: the toolkit's `api/config/v1/config.go`.
const FILE_VARIABLE: &str = "NVIDIA_CTK_CONFIG_FILE_PATH";
/// Names the directory that it is below.
const DIRECTORY_VARIABLE: &str = "XDG_CONFIG_HOME";
const FILE: &str = "nvidia-container-runtime/config.toml";
/// Where NVIDIA's operator has it, beside the hook (`cmd/nvidia-ctk-installer/toolkit/installer/executables.go`).
const OF_OPERATOR: &str = ".config";

/// What an administrator has told the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// `accept-nvidia-visible-devices-envvar-when-unprivileged`
    accepts_variables: bool,
    /// `accept-nvidia-visible-devices-as-volume-mounts`
    accepts_mounts: bool,
    /// `swarm-resource`: variables that count in place of the usual one, if one of them is set.
    preferred: Vec<String>,
}

impl Default for Configuration {
    fn default() -> Configuration {
        Configuration {
            accepts_variables: true,
            accepts_mounts: false,
            preferred: Vec::new(),
        }
    }
}

impl Configuration {
    /// That of a hook, by its entry in the specification.
    pub fn of(hook: &Value) -> Result<Configuration, Failure> {
        let path = file_of(hook, &|name| std::env::var(name).ok(), &|path| {
            path.exists()
        });
        let failure = |reason: String| {
            Failure::setup(format!(
                "the configuration of NVIDIA's hook, {}: {reason}: mend it, since it says who may ask for GPUs",
                path.display()
            ))
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Configuration::parse(&text).map_err(failure),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Configuration::default()),
            Err(error) => Err(failure(error.to_string())),
        }
    }

    fn parse(text: &str) -> Result<Configuration, String> {
        let file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| error.message().replace('\n', ", "))?;
        let default = Configuration::default();
        let flag = |name: &str, usual: bool| match file.get(name) {
            Some(value) => value
                .as_bool()
                .ok_or(format!("{name} is neither true nor false")),
            None => Ok(usual),
        };
        let preferred = file.get("swarm-resource").and_then(toml::Value::as_str);
        let preferred = preferred.unwrap_or_default().split(',').map(str::trim);
        Ok(Configuration {
            accepts_variables: flag(
                "accept-nvidia-visible-devices-envvar-when-unprivileged",
                default.accepts_variables,
            )?,
            accepts_mounts: flag(
                "accept-nvidia-visible-devices-as-volume-mounts",
                default.accepts_mounts,
            )?,
            preferred: preferred
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// The file with the configuration of a hook: its argument says it, its variables (without any it has those of whoever starts it),
/// or where its executable is.
fn file_of(
    hook: &Value,
    own: &dyn Fn(&str) -> Option<String>,
    exists: &dyn Fn(&Path) -> bool,
) -> PathBuf {
    let words = |name: &str| {
        let list = hook.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    };
    let arguments: Vec<&str> = words("args").collect();
    for (place, argument) in arguments.iter().enumerate() {
        match argument.trim_start_matches('-').split_once('=') {
            Some(("config", path)) if argument.starts_with('-') => return path.into(),
            _ if matches!(*argument, "-config" | "--config") => {
                if let Some(path) = arguments.get(place + 1) {
                    return path.into();
                }
            }
            _ => {}
        }
    }
    let variables: BTreeMap<&str, &str> = words("env")
        .filter_map(|variable| variable.split_once('='))
        .collect();
    let variable = |name: &str| {
        let value = match variables.is_empty() {
            true => own(name),
            false => variables.get(name).map(ToString::to_string),
        };
        value.filter(|value| !value.is_empty())
    };
    if let Some(path) = variable(FILE_VARIABLE) {
        return path.into();
    }
    let beside = Path::new(text(hook, "path").unwrap_or_default()).parent();
    let beside = beside.map(|directory| directory.join(OF_OPERATOR).join(FILE));
    if let Some(path) = beside.filter(|path| exists(path)) {
        return path;
    }
    let directory = variable(DIRECTORY_VARIABLE).map_or("/etc".into(), PathBuf::from);
    directory.join(FILE)
}

/// What the hook is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing: it does nothing.
    Nothing,
    /// Every GPU.
    All,
    /// GPUs by their names, or none but the driver's libraries.
    Named(Vec<String>),
}

/// What the hook is asked for in this container, if it has this configuration.
pub fn request(specification: &Specification, configuration: &Configuration) -> Request {
    if configuration.accepts_mounts {
        let names: Vec<String> = mounts_that_ask(specification)
            .filter(|name| !name.starts_with(CHANNELS))
            .collect();
        if !names.is_empty() && !names.iter().any(|name| name == VOID) {
            return of_names(names);
        }
    }
    let mut names = specification.bounding_capabilities();
    let is_privileged = names.any(|name| name == "CAP_SYS_ADMIN");
    match configuration.accepts_variables || is_privileged {
        true => by_variables(specification, configuration),
        false => Request::Nothing,
    }
}

/// Of several values of a variable the last holds.
fn by_variables(specification: &Specification, configuration: &Configuration) -> Request {
    let variables: BTreeMap<&str, &str> = specification.variables().collect();
    let preferred = configuration.preferred.iter();
    let preferred: Vec<&str> = preferred
        .filter_map(|name| variables.get(name.as_str()).copied())
        .collect();
    let values = match preferred.is_empty() {
        true => variables.get(VISIBLE).copied().into_iter().collect(),
        false => preferred,
    };
    if values.is_empty() && is_of_old_image(specification) {
        return Request::All;
    }
    let names = values.iter().flat_map(|value| value.split(','));
    let names = names.map(|name| name.trim().to_owned());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    match names.is_empty() || names.iter().any(|name| name == VOID) {
        true => Request::Nothing,
        false => of_names(names),
    }
}

fn of_names(names: Vec<String>) -> Request {
    let special = |name: &&String| name.eq_ignore_ascii_case(ALL) || *name == NONE;
    match names.iter().find(special) {
        Some(name) if name == NONE => Request::Named(Vec::new()),
        Some(_) => Request::All,
        None => Request::Named(names),
    }
}

/// The hook takes an image of CUDA from before there were such variables to ask for all.
pub fn is_of_old_image(specification: &Specification) -> bool {
    let variables: BTreeMap<&str, &str> = specification.variables().collect();
    let has = |name: &str| variables.get(name).is_some_and(|value| !value.is_empty());
    !variables.contains_key(VISIBLE) && has("CUDA_VERSION") && !has("NVIDIA_REQUIRE_CUDA")
}

/// What the mounts say that ask the hook.
pub fn mounts_that_ask(specification: &Specification) -> impl Iterator<Item = String> {
    let mounts = specification.mounts().iter();
    mounts.filter_map(|mount| {
        let part = |name| plain_path(text(mount, name).unwrap_or_default());
        let path = part("destination");
        let name = path.strip_prefix(MOUNTS)?.trim_matches('/');
        (part("source") == NOTHING && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests;
