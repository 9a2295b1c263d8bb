//! What a container asks of its sandbox, and what it is granted.
//!
//! The idea: whoever writes a pod, or runs a container, may have less than the administrator allows, and never more. An image
//! asks as well: by `NVIDIA_DRIVER_CAPABILITIES` in its environment, and by annotations of its own, which podman, for one,
//! hands on. So each is taken for what the untrusted program itself may have written: it holds within the bounds of the
//! settings, and what is beyond them is refused, not cut to size, so that nobody takes it for granted. The variable alone is
//! cut to what is allowed, and the log says so: images of NVIDIA's name `video` in it whether or not their programs need it.
//!
//! Annotations are keys of the specification, which has one value for each. Of a pod and its container containerd and CRI-O
//! let the container's win (containerd's `internal/cri/server/container_create.go`, CRI-O's
//! `internal/factory/container/container.go`).
//!
//! What the variable means is said in NVIDIA's toolkit, `internal/config/image/capabilities.go` and
//! `getDriverCapabilities` in its hook's `container_config.go`: there, too, `all` is all that is allowed. Two of its words stand for libraries alone, and for no requests to the driver. A capability brings the one
//! without which it would be of no use: images name `graphics` alone.

use nvproxy_abi::policy::{Capabilities, FirmwareCommands};
use nvproxy_protocol::options::Settings as Limits;
use nvproxy_protocol::size::Size;
use ringfence_sentry::failure::Failure;
use ringfence_sentry::server::OnServerExit;
use serde_json::Value;

use super::nearest::nearest;
use super::settings::{self, ANNOTATIONS, Bounds, Settings, listed};
use super::specification::Specification;
use crate::memory;

/// How the keys of annotations begin that are Ringfence's.
const PREFIX: &str = "dev.ringfence.";
/// Asks for capabilities.
const VARIABLE: &str = "NVIDIA_DRIVER_CAPABILITIES";
/// Words of that variable that name libraries alone: for programs for 32 bits, and for NGX.
const LIBRARIES: [&str; 2] = ["compat32", "ngx"];

/// What a container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub capabilities: Capabilities,
    pub firmware_commands: FirmwareCommands,
    pub limits: Limits,
    pub on_server_exit: OnServerExit,
    /// What the log is to say of what was left out.
    pub warning: Option<String>,
}

/// Reads an annotation's value, or says what is wrong with it.
type Take = fn(&mut Granted, &Settings, &str) -> Result<(), String>;

/// What reads each of [`ANNOTATIONS`], in their order.
const TAKES: [Take; ANNOTATIONS.len()] = [
    |granted, settings, text| {
        let maximum = settings.gpu_memory.maximum;
        granted.limits.gpu_memory = Some(within("gpu-memory", maximum, text, settings)?);
        Ok(())
    },
    |granted, settings, text| {
        let maximum = host_memory(settings).maximum;
        granted.limits.host_memory = Some(within("host-memory", maximum, text, settings)?);
        Ok(())
    },
    |granted, settings, text| {
        let asked = Capable::read(text, settings)?;
        if !asked.beyond.is_empty() {
            return Err(asked.too_much(settings));
        }
        granted.capabilities = asked.allowed;
        Ok(())
    },
    |granted, settings, text| {
        let asked = settings::firmware_commands(text)?;
        if (asked, settings.firmware_commands) == (FirmwareCommands::All, FirmwareCommands::Listed)
        {
            return Err(format!(
                "containers may ask the listed ones here: ask for these, or set firmware-commands to \"all\" in [containers] of {}",
                settings.file.display()
            ));
        }
        granted.firmware_commands = asked;
        Ok(())
    },
    |granted, _, text| {
        granted.on_server_exit = settings::on_server_exit(text)?;
        Ok(())
    },
];

/// What a container with this specification gets. Fails in one line if it asks for what it cannot have.
pub fn grant(
    container: &str,
    specification: &Specification,
    settings: &Settings,
) -> Result<Granted, Failure> {
    let refused = |what: &str, reason: String| {
        Failure::setup(format!("container {container}: {what}: {reason}"))
    };
    let mut granted = Granted {
        capabilities: unasked(settings),
        firmware_commands: settings.firmware_commands,
        limits: Limits {
            gpu_memory: settings.gpu_memory.for_who_asks_nothing(),
            host_memory: host_memory(settings).for_who_asks_nothing(),
        },
        on_server_exit: settings.on_server_exit,
        warning: None,
    };
    let annotations = specification
        .0
        .get("annotations")
        .and_then(Value::as_object);
    let annotations = annotations.into_iter().flatten();
    let mut named_capabilities = false;
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let what = format!("annotation {key}");
        let take = find(name, settings).map_err(|reason| refused(&what, reason))?;
        let text = value.as_str().unwrap_or_default();
        take(&mut granted, settings, text).map_err(|reason| refused(&what, reason))?;
        named_capabilities |= name == "driver-capabilities";
    }
    if !named_capabilities && let Some(text) = variable(specification) {
        let what = format!("{VARIABLE}={text:.100}");
        let asked = Capable::read(text, settings).map_err(|reason| refused(&what, reason))?;
        if asked.allowed == Capabilities::NONE {
            return Err(refused(&what, asked.too_much(settings)));
        }
        granted.capabilities = asked.allowed;
        granted.warning = (!asked.beyond.is_empty()).then(|| {
            let reason = asked.too_much(settings);
            format!("container {container}: {what}: it runs without a part: {reason}")
        });
    }
    Ok(granted)
}

/// What reads the annotation of this name, if it may be set.
fn find(name: &str, settings: &Settings) -> Result<Take, String> {
    let mut known = ANNOTATIONS.into_iter().zip(TAKES);
    let Some((name, take)) = known.find(|(known, _)| *known == name) else {
        let reason = "there is no such annotation";
        return Err(match nearest(name, ANNOTATIONS.into_iter()) {
            Some(near) => format!("{reason}: write {PREFIX}{near}"),
            None => format!(
                "{reason}: behind {PREFIX} there are {}",
                listed(&ANNOTATIONS)
            ),
        });
    };
    match settings.annotations.contains(&name) {
        true => Ok(take),
        false => Err(format!(
            "containers may not set it here: leave it out, or add {name:?} to annotations in [containers] of {}",
            settings.file.display()
        )),
    }
}

impl Bounds {
    fn for_who_asks_nothing(self) -> Option<Size> {
        self.default.or(self.maximum)
    }
}

/// The bounds of the host's memory. No cgroup accounts for it, so that there are always some.
fn host_memory(settings: &Settings) -> Bounds {
    let Bounds { default, maximum } = settings.host_memory;
    let ordinary = memory::default_for_the_driver();
    let largest = |default: Size| match default.bytes() > ordinary.bytes() {
        true => default,
        false => ordinary,
    };
    match (default, maximum) {
        (default, Some(_)) => Bounds { default, maximum },
        (Some(default), None) => Bounds {
            default: Some(default),
            maximum: Some(largest(default)),
        },
        (None, None) => Bounds {
            default: None,
            maximum: Some(ordinary),
        },
    }
}

/// The size that the text says, if it is within the maximum.
fn within(
    table: &str,
    maximum: Option<Size>,
    text: &str,
    settings: &Settings,
) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    match maximum {
        Some(maximum) if size.bytes() > maximum.bytes() => Err(format!(
            "{text} is more than {}, the most that a container gets here: ask for less, or raise maximum in [{table}] of {}",
            in_units(maximum),
            settings.file.display()
        )),
        _ => Ok(size),
    }
}

/// A size as people write it, exactly.
fn in_units(size: Size) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let bytes = size.bytes();
    let fitting = units
        .iter()
        .find(|(power, _)| bytes.trailing_zeros() >= *power);
    match fitting {
        Some((power, unit)) => format!("{}{unit}", bytes >> power),
        None => format!("{bytes} bytes"),
    }
}

/// The variable's value. An empty one is none. Of several the last counts.
fn variable(specification: &Specification) -> Option<&str> {
    let values = specification
        .variables()
        .filter(|(name, _)| *name == VARIABLE);
    let value = values.last().map(|(_, value)| value);
    value.filter(|value| !value.is_empty())
}

/// What a container has that asks for nothing: of what is ordinary, that which is allowed.
fn unasked(settings: &Settings) -> Capabilities {
    let allowed = settings.driver_capabilities;
    let ordinary = Capabilities::default();
    let both = each(ordinary).filter(|one| one.intersects(allowed));
    both.fold(Capabilities::NONE, Capabilities::union)
}

/// The capabilities that a list asks for.
struct Capable {
    allowed: Capabilities,
    /// The names of those that are not.
    beyond: Vec<String>,
}

impl Capable {
    fn read(text: &str, settings: &Settings) -> Result<Capable, String> {
        let words = text.split(',').map(str::trim);
        let words = words.filter(|word| !word.is_empty() && !LIBRARIES.contains(word));
        let mut wanted = Capabilities::NONE;
        for word in words {
            wanted = wanted.union(match word {
                "all" => settings.driver_capabilities,
                word => word.parse().map_err(|error| {
                    let libraries = LIBRARIES.join(", ");
                    format!("{error}, and for libraries alone {libraries}: take that word out")
                })?,
            });
        }
        if wanted == Capabilities::NONE {
            let reason = "it names nothing that could be asked of the driver: add utility";
            return Err(reason.to_owned());
        }
        while let Some((_, adds_to)) = wanted.incomplete() {
            let first = each(adds_to).next().unwrap_or(adds_to);
            wanted = wanted.union(first);
        }
        let (allowed, beyond): (Vec<_>, Vec<_>) =
            each(wanted).partition(|one| one.intersects(settings.driver_capabilities));
        Ok(Capable {
            allowed: allowed
                .into_iter()
                .fold(Capabilities::NONE, Capabilities::union),
            beyond: beyond.iter().map(ToString::to_string).collect(),
        })
    }

    fn too_much(&self, settings: &Settings) -> String {
        format!(
            "containers may not have {} here: ask for {} at most, or add to driver-capabilities in [containers] of {}",
            listed(&self.beyond),
            settings.driver_capabilities,
            settings.file.display()
        )
    }
}

/// The sets of one capability each that make up the set.
fn each(capabilities: Capabilities) -> impl Iterator<Item = Capabilities> {
    capabilities.names().filter_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests;
