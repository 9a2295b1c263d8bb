//! A container with GPUs: where its sandbox begins.
//!
//! The idea: the front makes all that belongs to the sandbox and not to the container, and then becomes the low-level
//! runtime as for any other container, with another bundle: the shadow of the caller's (`shadow.rs`). What the container's
//! first process is to have it finds behind the descriptors that the engine hands over (`--preserve-fds`).

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::fd::RawFd;
use std::path::Path;

use ringfence_faults::Point;
use ringfence_sentry::failure::{Attempt, Failure};

use super::annotations;
use super::bundles;
use super::caller;
use super::command_line::CommandLine;
use super::entering;
use super::gpus::{Asked, Machine, This};
use super::handed;
use super::low_level;
use super::selection;
use super::settings::Settings;
use super::shadow::{self, Making};
use super::specification::{Specification, text};
use crate::driver::{self, Asker};
use crate::launch::container::host::{self, Container};
use crate::launch::container::told::HANDED;
use crate::launch::linux;

/// A container with GPUs that is to be made.
pub struct Demand<'a> {
    /// `create` or `run`, with its options.
    pub line: &'a CommandLine,
    pub settings: &'a Settings,
    /// The low-level runtime's executable.
    pub low_level: &'a Path,
    /// What is in the caller's bundle, which stays as it is.
    pub specification: &'a Specification,
    /// The GPUs, and in which way they were asked for.
    pub asked: &'a Asked,
}

/// Makes the container. Returns only if that failed: otherwise the low-level runtime has taken over.
pub fn begin(demand: &Demand<'_>) -> Result<Infallible, Failure> {
    linux::expect_new_enough()?;
    let preserved = handed::preserved(demand.line)?;
    let number = 3 + preserved + handed::listening();
    let name = demand.line.shown_container();
    if name.contains('/') {
        // It is a part of a path here. The low-level runtimes take no such name, either.
        return Err(Failure::setup(format!(
            "container {name}: a name has no '/'"
        )));
    }
    let bundle = fs::canonicalize(demand.line.bundle_directory()).attempt("the bundle")?;
    let executable = fs::read_link("/proc/self/exe").attempt("/proc/self/exe")?;
    let granted = annotations::grant(&name, demand.specification, demand.settings)?;
    let (gpus, parts) = selection::of(
        &name,
        demand.specification,
        demand.asked,
        demand.settings.driver,
    )?;
    let chosen = driver::choose(&driver::Demand {
        choice: demand.settings.driver,
        gpus,
        parts,
        abi: demand.settings.driver_abi,
        capabilities: granted.capabilities,
        firmware_commands: granted.firmware_commands,
        asker: Asker::Container(demand.settings.file.clone()),
    })?;
    let (shadow, told) = shadow::make(&Making {
        specification: demand.specification,
        asked: demand.asked,
        name: &name,
        bundle: &bundle,
        driver: &chosen.driver,
        on_server_exit: granted.on_server_exit,
        numbers: &This.numbers(),
        has_device_cgroup: has_device_cgroup(demand.specification),
        executable: &executable,
        number,
    })?;
    let about_driver = chosen.warnings();
    let left_out = selection::left_out(&name, demand.asked, &chosen.driver.nodes);
    let warnings = granted.warning.into_iter().chain(left_out);
    let warnings = warnings.chain(about_driver).collect();
    let (place, lock) = bundles::write(&name, &shadow.to_string())?;
    let container = Container {
        engines_name: name.clone(),
        name: name.parse().ok(),
        driver: chosen.driver,
        settings: granted.limits,
        on_server_exit: told.on_server_exit,
        command: command(demand.specification),
        log: demand.settings.log_file(),
        bundle: place.clone(),
        lock,
        warnings,
    };
    let entered = entering::keep(&place, &told, demand.specification)
        .and_then(|()| entering::open(&place))
        .inspect_err(|_| drop(fs::remove_dir_all(&place)))?;
    let descriptors =
        host::start(container, &told, entered).inspect_err(|_| drop(fs::remove_dir_all(&place)))?;
    handed::hand_over(descriptors.into(), number as RawFd)?;
    let words = words(demand.line, &place, preserved + HANDED);
    ringfence_faults::at(Point::Front);
    Err(low_level::hand_over(demand.low_level, &words))
}

/// Whether the container's cgroup decides which devices it opens. The kernel asks that of no one but real root: a container in a user
/// namespace, be it its own or its engine's, is kept from devices otherwise (user_namespaces(7)).
fn has_device_cgroup(specification: &Specification) -> bool {
    let mut namespaces = specification.namespaces().iter();
    let has_users = namespaces.any(|namespace| text(namespace, "type") == Some("user"));
    !has_users && caller::is_root()
}

/// The program and its arguments.
fn command(specification: &Specification) -> Vec<OsString> {
    let words = specification.0.pointer("/process/args");
    let words = words.and_then(serde_json::Value::as_array);
    let words = words.into_iter().flatten();
    words
        .filter_map(|word| word.as_str())
        .map(OsString::from)
        .collect()
}

/// The caller's line, with another bundle and more descriptors: of an option that is there twice the last holds.
fn words(line: &CommandLine, bundle: &Path, count: usize) -> Vec<OsString> {
    let mut words = line.given.clone();
    let last = words.len().saturating_sub(1);
    let before = match (&line.container, words.last()) {
        (Some(container), Some(word)) if container == word => last,
        _ => words.len(),
    };
    let mut further: Vec<OsString> = vec![
        line.form_of("bundle", 'b'),
        bundle.as_os_str().to_owned(),
        "--preserve-fds".into(),
        count.to_string().into(),
    ];
    if line.specification.is_some() {
        further.push("--config".into());
        further.push(bundle.join(bundles::SPECIFICATION).into());
    }
    words.splice(before..before, further);
    words
}

/// Whether a specification is a shadow's.
pub fn is_shadow(specification: &Specification) -> bool {
    let annotations = specification.0.get("annotations");
    annotations.is_some_and(|annotations| text(annotations, shadow::MARK).is_some())
}
