//! The ways to run a program: by itself, with Ringfence, and with what one would use instead.
//!
//! The idea: users do not choose between Ringfence and nothing, but between Ringfence and others. So what is measured of a
//! whole program is measured by each of them, in the same turns, with the same files in sight. The ways are one table; a
//! claim names those that it has. A way that this machine lacks has a reason in the place of a figure.
//!
//! | module | subject |
//! |---|---|
//! | [`place`] | what the ways work with: programs that were found, and which ways there are |
//! | [`containers`] | how containers are started |
//! | [`bundle`] | their specifications |

pub mod bundle;
pub mod containers;
pub mod place;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use ringfence::driver::Kind;

/// How a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Native,
    Ringfence,
    Bubblewrap,
    Runc,
    Runtime,
    Runsc,
}

/// What a way is, for readers.
#[derive(Debug)]
pub struct Description {
    pub way: Way,
    /// The head of its column.
    pub name: &'static str,
    /// How a program is run by it.
    pub how: &'static str,
}

/// Every way, in the order of the columns.
pub static TABLE: [Description; 6] = [
    Description {
        way: Way::Native,
        name: "native",
        how: "by itself",
    },
    Description {
        way: Way::Ringfence,
        name: "ringfence run",
        how: "`ringfence run`",
    },
    Description {
        way: Way::Bubblewrap,
        name: "bwrap",
        how: "`bwrap --unshare-all --ro-bind / /`, and for a GPU with the host's /dev: no wall before the driver",
    },
    Description {
        way: Way::Runc,
        name: "runc",
        how: "`runc run`, a container with the host's files and, for a GPU, NVIDIA's nodes: no wall before the driver",
    },
    Description {
        way: Way::Runtime,
        name: "ringfence-runtime",
        how: "the same with `ringfence-runtime` in runc's place; where no GPU is needed, with a simulated one",
    },
    Description {
        way: Way::Runsc,
        name: "runsc",
        how: "`runsc run`, the same container, for a GPU with --nvproxy",
    },
];

/// All of them.
pub const ALL: &[Way] = &[
    Way::Native,
    Way::Ringfence,
    Way::Bubblewrap,
    Way::Runc,
    Way::Runtime,
    Way::Runsc,
];

impl Way {
    pub fn description(self) -> &'static Description {
        // The table has its ways in the order of their numbers, which a test sees to.
        &TABLE[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.description().name
    }
}

/// What is measured, and where.
#[derive(Clone, Debug)]
pub struct Setting {
    pub ringfence: PathBuf,
    /// The runsc that was named.
    pub runsc: Option<PathBuf>,
    /// The driver that there is for programs.
    pub driver: Kind,
    /// For what containers need; it is not there yet.
    pub directory: PathBuf,
}

/// What `--driver` and settings call it.
fn driver_name(driver: Kind) -> &'static str {
    match driver {
        Kind::Host => "host",
        _ => "sim",
    }
}

/// A program that is to be run by ways.
#[derive(Clone, Debug)]
pub struct Work {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// The real driver, or none that the program uses.
    pub driver: Kind,
    /// What it has to see besides what every sandbox has.
    pub sees: Vec<PathBuf>,
}

impl Work {
    /// A program that needs no GPU.
    pub fn new(words: impl IntoIterator<Item: AsRef<OsStr>>) -> Work {
        let words = words.into_iter();
        Work {
            words: words.map(|word| word.as_ref().to_owned()).collect(),
            driver: Kind::Simulated,
            sees: Vec::new(),
        }
    }

    /// It uses a GPU.
    pub fn with_gpu(self) -> Work {
        Work {
            driver: Kind::Host,
            ..self
        }
    }

    /// It reads this file or directory.
    pub fn seeing(mut self, path: impl Into<PathBuf>) -> Work {
        self.sees.push(path.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_own_line_of_the_table() {
        let of_table: Vec<Way> = TABLE.iter().map(|line| line.way).collect();
        assert_eq!(of_table, ALL);
        for way in ALL {
            assert_eq!(way.description().way, *way);
        }
    }
}
