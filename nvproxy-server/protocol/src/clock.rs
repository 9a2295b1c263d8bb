//! The clock that the sentry and its server both read, so that a moment that one of them names means the same to the
//! other: CLOCK_MONOTONIC, of which there is one for all processes of a time namespace (time_namespaces(7)). Ringfence
//! makes none.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment before the machine's processes started; never 0.
pub fn now() -> u64 {
    // Linux has this clock everywhere; without it times would be wrong, and nothing else.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    (now.as_nanos() as u64).max(1)
}
