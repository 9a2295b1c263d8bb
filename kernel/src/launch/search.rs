//! Finds the program and executes it. It does what execvp(3) does, but for two things in which it does what shells do:
//!
//! - What the kernel does not execute is given to a shell only if it is a text. An executable for another machine would
//!   have the shell complain of its syntax.
//! - In a directory of `PATH` only an ordinary file is found. A user may have a directory there that only others can search,
//!   and that is no reason to say of a program that it may not be executed.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::execv;

use super::{format, interpreter};

/// Where glibc's execvp looks without `PATH` in the environment (execvp(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// What executes a text.
const SHELL: &CStr = c"/bin/sh";

/// Why a program was not executed.
pub struct Refused {
    pub errno: Errno,
    /// The file that was found.
    pub file: Option<PathBuf>,
}

/// Executes the program `name`. Returns only if that failed.
pub fn execute(name: &CStr, command: &[CString]) -> Result<Infallible, Refused> {
    let bytes = name.to_bytes();
    if bytes.contains(&b'/') {
        return attempt(PathBuf::from(OsStr::from_bytes(bytes)), command);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut first = None;
    for place in std::env::split_paths(&path) {
        let refused = match attempt(place.join(OsStr::from_bytes(bytes)), command) {
            Err(refused) => refused,
            Ok(never) => match never {},
        };
        match refused.errno {
            // As if it were not there; but it, or the interpreter that it lacks, is what to tell of if there is no other.
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EACCES
            | Errno::ENODEV
            | Errno::ETIMEDOUT
            | Errno::ESTALE => first = first.or(Some(refused).filter(|it| it.file.is_some())),
            _ => return Err(refused),
        }
    }
    Err(first.unwrap_or(Refused {
        errno: Errno::ENOENT,
        file: None,
    }))
}

/// Executes the program at this place, or has the shell do it.
fn attempt(place: PathBuf, command: &[CString]) -> Result<Infallible, Refused> {
    let errno = match CString::new(place.clone().into_os_string().into_vec()) {
        Ok(path) => {
            let Err(errno) = execv(&path, command);
            if errno == Errno::ENOEXEC && is_for_shell(&place) {
                let arguments = command.iter().skip(1).cloned();
                let line: Vec<CString> =
                    [SHELL.into(), path].into_iter().chain(arguments).collect();
                // If there is no shell, it is still the program that was not executed.
                let _ = execv(SHELL, &line);
            }
            errno
        }
        // No variable has a zero byte in it.
        Err(_) => Errno::EINVAL,
    };
    let file = Some(place).filter(|place| place.is_file());
    Err(Refused { errno, file })
}

/// Whether the file is a text, and names no interpreter of its own.
fn is_for_shell(place: &Path) -> bool {
    let start = format::start(place);
    start.is_some_and(|(_, start)| {
        format::is_text(&start) && interpreter::of_script(&start).is_none()
    })
}
