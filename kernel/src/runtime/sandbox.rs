//! A container with GPUs: where its sandbox begins.
//!
//! Not built yet. [`begin`] is where it will be: a shadow bundle, the sentry as the container's first process, launcher
//! and server on the host. Until then such a container is refused, since the low-level runtime alone would give it the
//! driver.

use std::convert::Infallible;
use std::path::Path;

use ringfence_sentry::failure::Failure;

use super::command_line::CommandLine;
use super::gpus::Asked;
use super::settings::Settings;
use super::specification::Specification;

/// A container with GPUs that is to be made.
#[expect(dead_code, reason = "what will build the sandbox reads all of it")]
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
    Err(Failure::setup(format!(
        "container {} has GPUs ({}), and this release of Ringfence makes no containers with GPUs: run it without them, or with \
         the engine's own runtime, where nothing guards the driver",
        demand.line.shown_container(),
        demand.asked
    )))
}
