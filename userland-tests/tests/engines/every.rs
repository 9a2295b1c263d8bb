//! The engines with Docker's command line that there are here.

use crate::engine::{Engine, LowLevel};
use crate::{docker, podman};

/// Every one.
pub fn engine() -> impl Iterator<Item = &'static Engine> {
    let all = [
        docker::debians(),
        docker::current(),
        podman::of_root(),
        podman::of_user(),
    ];
    all.into_iter().flatten()
}

/// Every one with each of its low-level runtimes.
pub fn engine_with_runtime() -> impl Iterator<Item = (&'static Engine, LowLevel)> {
    engine().flat_map(Engine::with_runtimes)
}
