//! What a sandbox may ask of the driver, as sets of capabilities with the names of `NVIDIA_DRIVER_CAPABILITIES`.
//!
//! Each has a file in `policy/`, which lists the requests that it allows. The names are those of the files.
//! The tables are made from the lists when this crate is built.

use std::fmt;
use std::str::FromStr;

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Capabilities(u8);

// NAMES, and what each ADDS_TO, by the number of their bit, and a constant for each.
include!(concat!(env!("OUT_DIR"), "/capabilities.rs"));

impl Capabilities {
    /// None of them.
    pub const NONE: Capabilities = Capabilities(0);
    /// All of them.
    pub const ALL: Capabilities = Capabilities(u8::MAX >> (8 - NAMES.len()));

    /// The set of the capabilities whose bits are set.
    pub(crate) const fn from_bits(bits: u8) -> Capabilities {
        Capabilities(bits)
    }

    /// Those of both.
    pub const fn union(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// Whether the two have one in common.
    pub const fn intersects(self, other: Capabilities) -> bool {
        self.0 & other.0 != 0
    }

    /// The first in the set that is of no use in it, since it adds to others of which none is in the set, and those others.
    pub fn incomplete(self) -> Option<(&'static str, Capabilities)> {
        let bits = self.0;
        let mut added = NAMES.iter().zip(ADDS_TO).enumerate();
        added.find_map(|(bit, (name, adds_to))| {
            let lacks = bits & 1 << bit != 0 && adds_to != 0 && adds_to & bits == 0;
            lacks.then_some((*name, Capabilities(adds_to)))
        })
    }

    /// The names of those in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let bits = self.0;
        let named = NAMES.iter().enumerate();
        named.filter_map(move |(bit, name)| (bits & 1 << bit != 0).then_some(*name))
    }
}

/// What programs that compute need: [`Capabilities::COMPUTE`] and [`Capabilities::UTILITY`].
impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities::COMPUTE.union(Capabilities::UTILITY)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        formatter.write_str(&names.join(","))
    }
}

/// Which of the firmware's own commands ([`crate::firmware`]) a sandbox may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FirmwareCommands {
    /// Every one that the driver does not leave to administrators.
    #[default]
    All,
    /// Those that the lists of its capabilities have, by their numbers.
    Listed,
}

/// A word that says of neither which of the firmware's commands there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeitherAllNorListed;

impl fmt::Display for NeitherAllNorListed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("it is neither all nor listed: write one of these")
    }
}

impl std::error::Error for NeitherAllNorListed {}

impl fmt::Display for FirmwareCommands {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            FirmwareCommands::All => "all",
            FirmwareCommands::Listed => "listed",
        })
    }
}

impl FromStr for FirmwareCommands {
    type Err = NeitherAllNorListed;

    fn from_str(text: &str) -> Result<FirmwareCommands, NeitherAllNorListed> {
        match text {
            "all" => Ok(FirmwareCommands::All),
            "listed" => Ok(FirmwareCommands::Listed),
            _ => Err(NeitherAllNorListed),
        }
    }
}

/// All that decides what a sandbox may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub capabilities: Capabilities,
    pub firmware_commands: FirmwareCommands,
}

/// What the lists have, and nothing else.
impl From<Capabilities> for Granted {
    fn from(capabilities: Capabilities) -> Granted {
        Granted {
            capabilities,
            firmware_commands: FirmwareCommands::Listed,
        }
    }
}

/// A name in a list of capabilities that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCapability(String);

impl fmt::Display for UnknownCapability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, names) = (&self.0, NAMES.join(", "));
        write!(
            formatter,
            "there is no capability '{name:.40}': there are {names}, and all"
        )
    }
}

impl std::error::Error for UnknownCapability {}

impl FromStr for Capabilities {
    type Err = UnknownCapability;

    /// Reads a list of names with commas between them, or `all`.
    fn from_str(text: &str) -> Result<Capabilities, UnknownCapability> {
        let mut capabilities = Capabilities::NONE;
        for name in text.split(',') {
            let found = NAMES.iter().position(|known| *known == name);
            capabilities = capabilities.union(match found {
                Some(bit) => Capabilities(1 << bit),
                None if name == "all" => Capabilities::ALL,
                None => return Err(UnknownCapability(name.to_owned())),
            });
        }
        Ok(capabilities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_printed() {
        assert_eq!("compute,utility".parse(), Ok(Capabilities::default()));
        assert_eq!(
            "utility,compute,utility".parse(),
            Ok(Capabilities::default())
        );
        assert_eq!("all".parse(), Ok(Capabilities::ALL));
        assert!(!Capabilities::default().intersects(Capabilities::RDMA));
        assert_eq!(Capabilities::ALL.to_string(), NAMES.join(","));
        let profiling: Capabilities = "profiling".parse().expect("a list");
        assert_eq!(profiling.to_string(), "profiling");
        assert_eq!(Capabilities::NONE.to_string(), "");
    }

    #[test]
    fn some_are_of_use_with_others_only() {
        let incomplete = |text: &str| text.parse::<Capabilities>().expect("a list").incomplete();
        for enough in [
            "compute",
            "utility",
            "all",
            "compute,graphics",
            "utility,display",
            "compute,display",
            "compute,fabric-imex-mgmt",
            "utility,fabric-imex-mgmt",
            "compute,rdma",
        ] {
            assert_eq!(incomplete(enough), None, "{enough}");
        }
        assert_eq!(Capabilities::NONE.incomplete(), None);
        let compute = Capabilities::COMPUTE;
        for lacking in ["graphics", "video", "profiling", "rdma"] {
            assert_eq!(incomplete(lacking), Some((lacking, compute)));
            let with_utility = format!("utility,{lacking}");
            assert_eq!(incomplete(&with_utility), Some((lacking, compute)));
        }
        let either = compute.union(Capabilities::UTILITY);
        assert_eq!(incomplete("display"), Some(("display", either)));
        assert_eq!(incomplete("video,display"), Some(("video", compute)));
        let fabric = "fabric-imex-mgmt";
        assert_eq!(incomplete(fabric), Some((fabric, either)));
    }

    #[test]
    fn which_of_the_firmwares_commands_is_read_and_printed() {
        for choice in [FirmwareCommands::All, FirmwareCommands::Listed] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in ["", "All", "none", "all,listed"] {
            assert_eq!(text.parse::<FirmwareCommands>(), Err(NeitherAllNorListed));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in [
            "",
            "Compute",
            "compute,",
            "compute utility",
            "compat32",
            "ngx",
        ] {
            let error = text.parse::<Capabilities>().expect_err("no capability");
            assert!(
                error.to_string().contains("there are compute, utility"),
                "{error}"
            );
        }
    }
}
