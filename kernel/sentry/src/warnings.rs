//! Warnings that a task can cause as often as it likes: each kind is given once, so that no task fills the log.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Mutex;

use ringfence_ipc::locks::IgnorePoison;

/// What this process has warned of.
static GIVEN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Warns that `what` happened, and for which reason, unless this process has warned of that before.
pub fn warn_once(what: &'static str, reason: impl Display) {
    // The lock is not held while the log is written, which can take as long as who reads it likes.
    let is_new = GIVEN.lock().ignore_poison().insert(what);
    if is_new {
        tracing::warn!("{what}: {reason}");
    }
}
