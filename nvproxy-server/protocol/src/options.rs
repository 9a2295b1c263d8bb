//! What the launcher decides for a server: options that turn themselves into the server's command line, and back.
//!
//! Each option is one entry of a group below: its type, its name, and what it means. Those of [`Settings`] are the user's:
//! `ringfence run` takes each under the same name, and prints as its help what is said of it here. So a new one takes its
//! entry, what it is without limits, and the place in the server that acts on it.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::arguments::{Group, Words, options};
pub use crate::arguments::{Reason, UserOption, Wrong};
use crate::driver::{Driver, Kind};
use crate::size::Size;

options! {
    /// What the user may ask of the server. Each of these is an option of `ringfence run` too.
    #[derive(Default)]
    Settings {
        /// How much of each GPU's memory it gets, as in 4GiB; beyond that the GPU is full for it
        gpu_memory: Option<Size> = "gpu-memory" "SIZE",
        /// How much of the host's memory the driver may allocate for it, by default half; beyond that there is none for it
        ///
        /// It is half of the machine's memory, or of the caller's control group if that has less. Memory of the program's own,
        /// pinned or not, is not counted here but by its control group.
        host_memory: Option<Size> = "host-memory" "SIZE",
    }
}

impl Settings {
    /// With these the server grants all that it can. A replay has them: what was granted when it was recorded is granted
    /// again. An option that the server has a limit for if it is not there is here as large as it can be.
    pub const WITHOUT_LIMITS: Settings = Settings {
        gpu_memory: None,
        host_memory: None,
    };
}

options! {
    /// What the launcher leaves open for a server, besides its standard input.
    Left {
        /// Where the launcher says what to do ([`crate::supervision`]).
        supervision: RawFd = "supervision",
        /// Where it writes its log to.
        log: Option<RawFd> = "log",
        /// Whether it takes another server's place: then its standard input is the socket to that one, not to the sentry.
        takes_over: bool = "take-over",
    }
}

options! {
    /// How a server names itself.
    #[derive(Default)]
    Naming {
        /// The container whose sandbox it serves, if it is one's: many of them write to one log.
        container: Option<String> = "container",
    }
}

options! {
    /// What a server needs whose driver was recorded.
    Replay {
        /// The file whose answers it gives.
        recording: PathBuf = "recording",
        /// The file in which it shares with the program how far that is.
        progress: PathBuf = "progress",
        /// The file in which it says what differs.
        report: PathBuf = "report",
    }
}

/// All that a server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub driver: Driver,
    pub settings: Settings,
    pub left: Left,
    pub naming: Naming,
    /// If the driver is [`Kind::Recorded`], and only then.
    pub replay: Option<Replay>,
}

impl Options {
    /// The command line, from which [`Options::from_arguments`] makes the same options.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        self.driver.write(&mut words);
        self.settings.write(&mut words);
        self.left.write(&mut words);
        self.naming.write(&mut words);
        if let Some(replay) = &self.replay {
            replay.write(&mut words);
        }
        words
    }

    /// What a command line says. Every word of it has to be known, and of each option at most one value.
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, Wrong> {
        let mut words = Words::new(arguments)?;
        let driver = Driver::read(&mut words)?;
        let is_recorded = driver.kind == Kind::Recorded;
        let options = Options {
            driver,
            settings: Settings::read(&mut words)?,
            left: Left::read(&mut words)?,
            naming: Naming::read(&mut words)?,
            replay: is_recorded.then(|| Replay::read(&mut words)).transpose()?,
        };
        words.finish()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests;
