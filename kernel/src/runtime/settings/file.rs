//! Which file has the settings, and who may have written it.
//!
//! An engine starts the runtime with its own environment, as root mostly. So whoever can set the variable is the engine's
//! administrator, and is trusted. Not every engine passes it on: containerd does, podman does not.
//!
//! What root's runtime obeys only root may write: who else can, could name a program for root to start. The runtime of an
//! ordinary user obeys that user's own file, and that of the machine only where there is none. It binds nobody: such a user
//! reaches the GPU without it, too.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use ringfence_sentry::failure::Failure;

use crate::runtime::caller;

/// Names another file.
pub const VARIABLE: &str = "RINGFENCE_CONFIG";
/// Where the settings of the machine are.
pub const FILE: &str = "/etc/ringfence/config.toml";
/// Where those of an ordinary user are, below the directory of configurations.
const OF_USER: &str = "ringfence/config.toml";

/// The bits of a mode by which others than the owner write.
const OTHERS_WRITE: u32 = 0o022;

/// A file of settings, or the place where one would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// Empty, if there is none.
    pub text: String,
}

/// Reads the file that the variable names, or the usual one.
pub fn read(named: Option<OsString>) -> Result<Written, Failure> {
    let is_root = caller::is_root();
    if let Some(path) = named.filter(|named| !named.is_empty()).map(PathBuf::from) {
        return match read_at(&path, is_root)? {
            Some(text) => Ok(Written { path, text }),
            None => Err(Failure::setup(format!(
                "settings {}, which {VARIABLE} names: {}: write it, or leave the variable out",
                path.display(),
                Errno::ENOENT.desc()
            ))),
        };
    }
    let of_user = match is_root {
        true => None,
        false => caller::configuration_directory().map(|directory| directory.join(OF_USER)),
    };
    let mut paths = of_user.into_iter().chain([FILE.into()]);
    for path in paths.clone() {
        if let Some(text) = read_at(&path, is_root)? {
            return Ok(Written { path, text });
        }
    }
    // Whoever is told to write something there is to write what is read first: an ordinary user his own.
    Ok(Written {
        path: paths.next().unwrap_or_default(),
        text: String::new(),
    })
}

/// The text of the file. `None` if there is none.
fn read_at(path: &Path, is_root: bool) -> Result<Option<String>, Failure> {
    let unreadable =
        |error: std::io::Error| failure(path, &format!("{error}: have the runtime's user read it"));
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(error.kind()) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let status = file.metadata().map_err(unreadable)?;
    if !status.is_file() {
        return Err(failure(path, "it is no ordinary file: write one"));
    }
    if is_root && let Some(reason) = others_who_write(&status) {
        let remedy = "chown root:root and chmod go-w it, when you have read what it says";
        return Err(failure(path, &format!("{reason}: {remedy}")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(Some(text))
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Who may write the file besides root.
fn others_who_write(status: &Metadata) -> Option<String> {
    let owner = status.uid();
    if owner != 0 {
        return Some(format!("it belongs to user {owner}, and root obeys it"));
    }
    let mode = status.mode() & 0o7777;
    let is_others = mode & OTHERS_WRITE != 0;
    is_others.then(|| format!("others than root may write it (mode {mode:04o}), and root obeys it"))
}

fn failure(path: &Path, reason: &str) -> Failure {
    Failure::setup(format!("settings {}: {reason}", path.display()))
}
