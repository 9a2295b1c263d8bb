//! What the processes of a sandbox are called in the host's lists (`ps`, `top`, `pgrep`).
//!
//! Launcher, sentry and init are one executable that has forked, and so all three would have the launcher's name and command
//! line, with the program's arguments in it. Who looks for the process to stop, or for the one that takes the memory, could not
//! tell them apart. So each but the launcher gives itself a name (comm, of which the kernel keeps 15 bytes) and writes it
//! over its copy of the command line, with the sandbox's name behind it.
//!
//! The kernel shows whoever asks for a command line the memory that the arguments lay in when the process was executed.
//! Where that is, /proc/self/stat says (proc_pid_stat(5)). If it cannot be found, the command line stays what it was.
//!
//! `unsafe` is here because that memory is written to.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::ptr;
use std::sync::OnceLock;

use nix::sys::prctl;

/// The launcher of a container's sandbox, which no user has started.
pub const LAUNCHER: &str = "ringfence-launcher";
/// The sentry.
pub const SENTRY: &str = "ringfence-sentry";
/// What starts a further program in a container's sandbox, and stands in for it.
pub const FURTHER: &str = "ringfence-exec";
/// Process 1 of the tasks' namespace.
pub const INIT: &str = "ringfence-init";
/// What continues a launcher that is stopped.
pub const WATCH: &str = "ringfence-watch";
/// A server, which has a command line of its own, and by itself the name of a descriptor.
pub const SERVER: &str = "nvproxy-server";

/// `arg_start` and `arg_end`, the 48th and the 49th field, counted from the third, which is the first behind the name.
const START: usize = 48 - 3;
const END: usize = 49 - 3;

/// What is needed to write over the command line.
struct Place {
    start: usize,
    length: usize,
    sandbox: String,
}

static PLACE: OnceLock<Option<Place>> = OnceLock::new();

/// Notes where the command line is, and what the sandbox is called, for this process and those that it forks. The command line
/// was read.
pub fn prepare(sandbox: &str) {
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        prepare_by(&stat, sandbox);
    }
}

/// The same by what /proc/self/stat says, of a process that reads it otherwise.
pub fn prepare_by(stat: &str, sandbox: &str) {
    PLACE.get_or_init(|| {
        let (start, end) = place(stat)?;
        Some(Place {
            start,
            length: end.checked_sub(start)?,
            sandbox: sandbox.to_owned(),
        })
    });
}

fn place(stat: &str) -> Option<(usize, usize)> {
    // The name is in parentheses, and may have any in it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace();
    let start = fields.nth(START)?.parse().ok()?;
    let end = fields.nth(END - START - 1)?.parse().ok()?;
    // The kernel says 0 to whom it does not want to tell.
    (start != 0).then_some((start, end))
}

/// Calls this process, which is no launcher.
pub fn take(name: &str) {
    call(name);
    let Some(Some(place)) = PLACE.get() else {
        return;
    };
    let title = format!("{name} {}", place.sandbox);
    let mut bytes = title.into_bytes();
    // The last byte stays zero: by that the kernel knows that nothing has grown into the environment.
    bytes.truncate(place.length.saturating_sub(1));
    bytes.resize(place.length, 0);
    // SAFETY: the kernel has laid the arguments there, in memory of this process's own that it may write to, and they stay
    // there for good. Nobody has references to them: they were copied when the command line was read. Whoever reads them
    // again, by the addresses that main got, finds strings that end within.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.start as *mut u8, bytes.len()) };
}

/// Gives the calling process, by its first thread, this name alone.
pub fn call(name: &str) {
    // A name has no zero byte. If it is not taken, the process has another and is the same.
    let _ = CString::new(name).map(|name| prctl::set_name(&name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_whatever_the_name_is() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) S (b) R {}\n", fields.join(" "));
        assert_eq!(place(&stat), Some((48, 49)));
        let hidden = stat.replace(" 48 49 ", " 0 0 ");
        assert_eq!(place(&hidden), None);
        assert_eq!(place("7 (a) R 1 2"), None);
    }
}
