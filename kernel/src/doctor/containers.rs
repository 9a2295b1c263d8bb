//! What containers need besides: the settings, and a low-level runtime. Both are found as the container runtime's front finds them.
//!
//! Neither is needed by `ringfence run`. So nothing of this is missing on a machine without containers: what keeps them from starting
//! where somebody has set something is a weakness, and the rest a note.

use super::report::{Finding, Outcome};
use crate::driver::host_version;
use crate::runtime::{Examined, Kept, LowLevelFound, examine};

const SETTINGS: &str = "container settings";
const LOW_LEVEL: &str = "low-level runtime";

/// What is set for containers, if anything, and who makes them.
pub fn findings() -> Vec<Finding> {
    let examined = examine();
    let low_level = examined.low_level.as_ref().map(low_level);
    settings(&examined).into_iter().chain(low_level).collect()
}

fn settings(examined: &Examined) -> Option<Finding> {
    if let Some((failure, kept)) = &examined.wrong {
        let remedy = match kept {
            Kept::All => "correct the file: no container starts until then",
            Kept::WithGpus => "correct the file: no container with GPUs starts until then",
        };
        let wrong = Finding::plain(SETTINGS, Outcome::Weakness, &failure.message);
        return Some(wrong.with_remedy(remedy));
    }
    let file = examined.is_written.then(|| examined.file.display());
    if examined.wants_driver && host_version().is_none() {
        let file = file.map_or("none".to_owned(), |file| file.to_string());
        let detail = format!(
            "{file}; containers with GPUs are refused, since this machine has no NVIDIA driver"
        );
        let remedy = format!(
            "to try them without a GPU, write driver = \"sim\" in [runtime] of {}",
            examined.file.display()
        );
        return Some(Finding::plain(SETTINGS, Outcome::Note, detail).with_remedy(remedy));
    }
    file.map(|file| Finding::plain(SETTINGS, Outcome::Ok, file.to_string()))
}

fn low_level(found: &LowLevelFound) -> Finding {
    match found {
        LowLevelFound::At(path) => {
            Finding::plain(LOW_LEVEL, Outcome::Ok, path.display().to_string())
        }
        LowLevelFound::NotAsSet(failure) => {
            Finding::plain(LOW_LEVEL, Outcome::Weakness, &failure.message)
                .with_remedy("correct the settings, or install it: no container starts until then")
        }
        LowLevelFound::Nowhere(failure) => {
            Finding::plain(LOW_LEVEL, Outcome::Note, &failure.message)
        }
    }
}
