//! What containers need besides: the settings, and a low-level runtime. Both are found as the container runtime's front finds them.
//!
//! Neither is needed by `ringfence run`. So nothing of this is missing on a machine without containers: what keeps them from starting
//! where somebody has set something is a weakness, and the rest a note.

use std::path::Path;
use std::process::{Command, Stdio};

use ringfence_sentry::visible;

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
        LowLevelFound::At(path) => match version(path) {
            Some(version) => {
                let detail = format!("{}, {version}", path.display());
                Finding::plain(LOW_LEVEL, Outcome::Ok, detail)
            }
            None => {
                let detail = format!(
                    "{}: it does not say its version, as runc and crun do",
                    path.display()
                );
                Finding::plain(LOW_LEVEL, Outcome::Weakness, detail)
                    .with_remedy("name runc or crun by low-level in [runtime] of the settings: containers do not start with another program")
            }
        },
        LowLevelFound::NotAsSet(failure) => {
            Finding::plain(LOW_LEVEL, Outcome::Weakness, &failure.message)
                .with_remedy("correct the settings, or install it: no container starts until then")
        }
        LowLevelFound::Nowhere(failure) => {
            Finding::plain(LOW_LEVEL, Outcome::Note, &failure.message)
        }
    }
}

/// What a low-level runtime says of itself, as in `runc version 1.1.5`. `None` for a program that is none.
fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null());
    let said = String::from_utf8(command.output().ok()?.stdout).ok()?;
    version_in(&said, path.file_name()?.to_str()?)
}

/// The version in what a program `said` whose file is called `name`, which can be that of a link to runc or crun.
fn version_in(said: &str, name: &str) -> Option<String> {
    let first = said.lines().next()?;
    let said_by = |name: &str| first.starts_with(&format!("{name} version "));
    let is_one = [name, "runc", "crun"].into_iter().any(said_by);
    is_one.then(|| visible::escaped(first).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_level_runtimes_say_their_version() {
        for (said, name, expected) in [
            (
                "runc version 1.1.5\nspec: 1.0.2\n",
                "runc",
                Some("runc version 1.1.5"),
            ),
            ("crun version 1.8.1\n", "oci", Some("crun version 1.8.1")),
            (
                "youki version 0.5.0\n",
                "youki",
                Some("youki version 0.5.0"),
            ),
            ("true (GNU coreutils) 9.1\n", "true", None),
            ("", "runc", None),
        ] {
            assert_eq!(version_in(said, name).as_deref(), expected);
        }
    }

    #[test]
    fn another_program_is_no_low_level_runtime() {
        let found = low_level(&LowLevelFound::At("/bin/true".into()));
        assert_eq!(found.outcome, Outcome::Weakness);
    }
}
