//! What `ringfence doctor` is told: what the settings are, and which low-level runtime is found by them.
//!
//! The idea: both are read by the functions that the front calls when a container is made, so that what is said holds.

use std::path::PathBuf;

use ringfence_sentry::failure::Failure;

use super::low_level;
use super::settings::Settings;
use crate::driver::Choice;
use crate::launch::container::host::open_log;

/// What was found.
#[derive(Debug)]
pub struct Examined {
    /// The file of the settings, or where it would be.
    pub file: PathBuf,
    pub is_written: bool,
    /// What is wrong with them first, and which containers that keeps from being made.
    pub wrong: Option<(Failure, Kept)>,
    /// Whether containers with GPUs are to have NVIDIA's driver, and no simulated one.
    pub wants_driver: bool,
    /// `None` if the settings do not say which.
    pub low_level: Option<LowLevelFound>,
}

/// Which containers something wrong keeps from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    All,
    WithGpus,
}

/// The low-level runtime.
#[derive(Debug)]
pub enum LowLevelFound {
    At(PathBuf),
    /// It is not what the settings say that it is.
    NotAsSet(Failure),
    /// The settings name none, and there is none in the usual places.
    Nowhere(Failure),
}

/// Reads the settings, and looks for what they name.
pub fn examine() -> Examined {
    let read = Settings::read().and_then(|settings| {
        settings.expect_low_level()?;
        Ok(settings)
    });
    match read {
        Ok(settings) => found(settings),
        Err(failure) => Examined {
            file: PathBuf::new(),
            is_written: false,
            wrong: Some((failure, Kept::All)),
            wants_driver: false,
            low_level: None,
        },
    }
}

fn found(settings: Settings) -> Examined {
    let low_level = match low_level::find(&settings) {
        Ok(path) => LowLevelFound::At(path),
        Err(failure) if settings.low_level.is_some() => LowLevelFound::NotAsSet(failure),
        Err(failure) => LowLevelFound::Nowhere(failure),
    };
    let wrong = settings
        .expect_right()
        .map_err(|failure| (failure, Kept::All));
    let wrong = wrong.and_then(|()| match &settings.log {
        // Only the launcher of a sandbox needs it.
        Some(log) => open_log(log)
            .map(drop)
            .map_err(|failure| (failure, Kept::WithGpus)),
        None => Ok(()),
    });
    Examined {
        is_written: settings.file.exists(),
        wants_driver: settings.driver == Choice::Host,
        wrong: wrong.err(),
        low_level: Some(low_level),
        file: settings.file,
    }
}
