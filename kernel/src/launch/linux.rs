//! Whether this kernel is new enough, and which walls it lacks: by the table of what versions of Linux brought
//! (`confinement/src/linux.rs`).

use std::fs;

use ringfence_confinement::linux::{self, Feature};
use ringfence_sentry::failure::Failure;

/// Fails on a kernel on which no sandbox can work, before anything is made of one.
pub fn expect_new_enough() -> Result<(), Failure> {
    let needed = Feature::KillableWaits;
    if needed.is_there() {
        return Ok(());
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Err(Failure::setup(format!(
        "this kernel, Linux {}, is too old: use Linux {} or later",
        release.trim(),
        needed.row().since
    )))
}

/// What to warn of, if this kernel lacks walls that others have.
pub fn missing_walls() -> Option<String> {
    let missing = linux::missing_walls().map(|row| format!("{} (Linux {})", row.name, row.since));
    let missing: Vec<String> = missing.collect();
    (!missing.is_empty()).then(|| {
        format!(
            "walls are missing that this kernel lacks or does not permit: {}; `ringfence doctor` says what each keeps out",
            missing.join(", ")
        )
    })
}
