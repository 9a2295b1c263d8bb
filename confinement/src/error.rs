//! Why a process could not be confined, or not be given what it needs for that.

use std::io;
use std::path::{PathBuf, StripPrefixError};

use caps::errors::CapsError;
use landlock::RulesetError;
use nix::errno::Errno;
use nix::sys::resource::Resource;

/// What failed, of the steps by which a process is confined, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It got no namespaces of its own.
    #[error("namespaces: {0}")]
    Namespaces(#[source] Errno),
    /// Its mounts are still seen by others.
    #[error("making mounts private: {0}")]
    PrivateMounts(#[source] Errno),
    /// There is nothing to put the new root together in.
    #[error("mounting an empty root on {site}: {source}")]
    EmptyRoot {
        /// Where.
        site: &'static str,
        /// Why not.
        source: Errno,
    },
    /// What is to be kept has no absolute path.
    #[error("keeping {}: {source}", .path.display())]
    NotAbsolute {
        /// What was to be kept.
        path: PathBuf,
        /// Why the path is not below the root.
        source: StripPrefixError,
    },
    /// There is nothing to bind on what is to be kept.
    #[error("keeping {}: {source}", .path.display())]
    Place {
        /// What was to be kept.
        path: PathBuf,
        /// Why a file or directory could not be made for it.
        source: io::Error,
    },
    /// What is to be kept could not be bound.
    #[error("keeping {}: {source}", .path.display())]
    Bind {
        /// What was to be kept.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// The new root can still be written to.
    #[error("making the root read-only: {0}")]
    ReadOnlyRoot(#[source] Errno),
    /// The new root did not take the old one's place.
    #[error(
        "changing the root: {0}: the root file system must be a mount that pivot_root(2) accepts"
    )]
    ChangeRoot(#[source] Errno),
    /// A limit was not set.
    #[error("{0:?}: {1}")]
    Limit(Resource, #[source] Errno),
    /// Memory can still become executable.
    #[error("PR_SET_MDWE: {0}")]
    ExecutableMemory(#[source] Errno),
    /// Capabilities were not given up.
    #[error("dropping capabilities: {0}")]
    DropCapabilities(#[source] CapsError),
    /// Capabilities would be lost when another program is executed.
    #[error("passing capabilities on: {0}")]
    PassCapabilitiesOn(#[source] CapsError),
    /// It can still gain privileges.
    #[error("no_new_privs: {0}")]
    NoNewPrivileges(#[source] Errno),
    /// It can still be traced.
    #[error("PR_SET_DUMPABLE: {0}")]
    Dumpable(#[source] Errno),
    /// It is in no Landlock domain.
    #[error("Landlock: {0}")]
    Landlock(#[source] RulesetError),
    /// It is under no filter.
    #[error("the seccomp filter: {0}")]
    Filter(#[source] Errno),
}
