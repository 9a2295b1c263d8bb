//! What the front tells the container's first process, and that of a further program, and by which descriptors.
//!
//! The front writes it into a sealed file in memory, and hands that over with the other ends by `--preserve-fds`, behind
//! those of the engine's. Nobody in the container could have changed any of it: nothing of the image's has run before.
//!
//! `unsafe` is here because descriptors are handed over as bare numbers.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::str::FromStr;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nvproxy_abi::node::Node;
use nvproxy_protocol::driver::{Driver, Kind};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::server::OnServerExit;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::profile::Closed;
use super::rights::Rights;

/// The word that asks for the first process: `ringfence container-first NUMBER PROGRAM...`
pub const WORD: &str = "container-first";

/// The word that asks for the process that starts a further program: `ringfence container-further NUMBER`
pub const WORD_FURTHER: &str = "container-further";

/// Where the executable is in the container: a file system in memory, on a directory that every kernel's `/proc` has (proc(5)).
pub const PLACE: &str = "/proc/fs";

/// The descriptors that the front hands over, in this order.
#[derive(Clone, Copy, Debug)]
pub enum Handed {
    Told,
    Liaison,
    Job,
    Flag,
    Messages,
    Door,
}

/// How many there are.
pub const HANDED: usize = 6;

/// How many are handed over for a further program: what is told, and the connection to the sentry.
pub const HANDED_FURTHER: usize = 2;

/// What the first process is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What the container is called.
    pub name: String,
    pub driver: DriverText,
    pub on_server_exit: OnServerExit,
    /// What the program has of the capabilities that the first process has.
    pub rights: Rights,
    /// How many descriptors the program may have open (getrlimit(2)): the soft and the hard limit. The sentry has more.
    pub descriptors: (u64, u64),
    /// What of `/proc` the program does not see, and what it may not write.
    pub hidden: Vec<PathBuf>,
    pub read_only: Vec<PathBuf>,
    /// Devices of the container on which ioctls are no matter of the driver's; `None` if all devices are in the hands of the
    /// container's cgroup alone, since a domain of Landlock's about them would keep the program from mounting.
    pub harmless: Option<Vec<String>>,
    /// The major number of a driver's nodes, of which none can be opened in the container; `None` where a domain of Landlock's
    /// keeps ioctls from what is opened, or nobody can make a node.
    pub forbidden_major: Option<u32>,
    /// What the engine's profile says of the calls that were opened for the sentry.
    pub closed: Vec<Closed>,
    /// The major numbers of the driver's nodes. No rule of the domain is about them, wherever a path leads.
    pub majors: Vec<u32>,
    /// What AppArmor or SELinux is told of the program, which is to be written to /proc/self/attr/exec.
    pub label: Option<String>,
    /// Whether a hook puts nodes into the container's `/dev`, so that the inert ones lie in [`PLACE`].
    pub has_hook: bool,
    /// Whether the engine has given the container a terminal.
    pub has_terminal: bool,
    /// Where the executable is for the process that starts a further program. The image could not have anything there: see
    /// `first.rs`.
    pub entrance: PathBuf,
}

/// What the process that starts a further program is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Further {
    /// What the container is called.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    pub working_directory: PathBuf,
    /// See [`Told`].
    pub rights: Rights,
    /// See [`Told`].
    pub closed: Vec<Closed>,
    /// See [`Told`].
    pub label: Option<String>,
    /// Whether the engine has given the program a terminal.
    pub has_terminal: bool,
}

/// A [`Driver`], as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverText {
    kind: String,
    version: String,
    tables: String,
    capabilities: String,
    firmware_commands: String,
    nodes: Vec<String>,
    directory: PathBuf,
}

impl From<&Driver> for DriverText {
    fn from(driver: &Driver) -> DriverText {
        DriverText {
            kind: driver.kind.to_string(),
            version: driver.version.to_string(),
            tables: driver.tables.to_string(),
            capabilities: driver.capabilities.to_string(),
            firmware_commands: driver.firmware_commands.to_string(),
            nodes: driver.nodes.iter().map(|node| node.file_name()).collect(),
            directory: driver.directory.clone(),
        }
    }
}

impl DriverText {
    /// The names of the driver's nodes in `/dev`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(String::as_str)
    }

    /// The names of those that nobody in the container can open.
    pub fn inert(&self) -> impl Iterator<Item = &str> {
        let kind: Option<Kind> = self.kind.parse().ok();
        let is_opened = move |name: &str| {
            let node = Node::from_file_name(name);
            kind.zip(node)
                .is_some_and(|(kind, node)| kind.lets_be_opened(node))
        };
        self.names().filter(move |name| !is_opened(name))
    }

    pub fn driver(&self) -> Result<Driver, Failure> {
        let wrong = |what: &str| Failure::setup(format!("the container's {what} was not told"));
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|name| Node::from_file_name(name).ok_or_else(|| wrong("nodes")));
        Ok(Driver {
            kind: self.kind.parse().map_err(|_| wrong("driver"))?,
            version: self.version.parse().map_err(|_| wrong("driver"))?,
            tables: self.tables.parse().map_err(|_| wrong("tables"))?,
            capabilities: FromStr::from_str(&self.capabilities)
                .map_err(|_| wrong("capabilities"))?,
            firmware_commands: FromStr::from_str(&self.firmware_commands)
                .map_err(|_| wrong("firmware commands"))?,
            nodes: nodes.collect::<Result<_, _>>()?,
            directory: self.directory.clone(),
        })
    }
}

/// A file in memory that says this, and that nobody can change any more.
pub fn write(what: &impl Serialize) -> Result<OwnedFd, Failure> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"ringfence-told", flags).attempt("a file in memory")?;
    let mut file = File::from(file);
    let text = serde_json::to_vec(what).attempt("what a container is told")?;
    file.write_all(&text).attempt("a file in memory")?;
    file.rewind().attempt("a file in memory")?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all())).attempt("sealing a file in memory")?;
    Ok(file.into())
}

/// What the file says.
pub fn read<T: DeserializeOwned>(file: OwnedFd) -> Result<T, Failure> {
    let mut text = Vec::new();
    let read = File::from(file).read_to_end(&mut text);
    read.attempt("what the container was told")?;
    serde_json::from_slice(&text).attempt("what the container was told")
}

/// Takes over what was handed over under `first` and the numbers that follow.
///
/// # Safety
///
/// Nobody else owns these descriptors.
pub unsafe fn take<const COUNT: usize>(first: RawFd) -> Result<[OwnedFd; COUNT], Failure> {
    let mut number = first;
    let handed = [(); COUNT].map(|()| {
        // SAFETY: as the caller promises.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        number += 1;
        descriptor
    });
    for descriptor in &handed {
        let flags = FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        fcntl(descriptor, flags).attempt("what the container was handed")?;
    }
    Ok(handed)
}
