//! Programs whose stand-in was killed.
//!
//! Whoever ends the process that stands in for a further program (`entrance.rs`) means the program. The kernel ends that as well, unless it
//! has become another user since (prctl(2), `PR_SET_PDEATHSIG`), or has asked not to be. Then it becomes a child of the sentry, which is
//! process 1 of the stand-in's process namespace. No other task does but the sandbox's own program: the others' parents are of their own
//! namespace. So every other child of the sentry is an orphan. It is killed, if the sentry may, and waited for.
//!
//! A number that was waited for may be another task's, which nobody holds for a pin that is under way. So it is the thread that carries
//! out pins that waits, between two of them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

use super::procfs;
use super::tracee::tasks;

/// Ends the orphans that there are. Whether some are about to end, so that this is to be called again soon.
pub fn end(init: Pid) -> bool {
    let own = Pid::this();
    let all = tasks(Some(init)).unwrap_or_default().into_iter();
    let orphans = all.filter(|task| procfs::parent_of(*task) == Some(own));
    let mut are_left = false;
    for orphan in orphans {
        // Its number is its own until it was waited for, which is done here.
        let is_killed = kill(orphan, Signal::SIGKILL).is_ok();
        let number = rustix::process::Pid::from_raw(orphan.as_raw());
        let waited = waitpid(number, WaitOptions::NOHANG);
        are_left |= is_killed && matches!(waited, Ok(None));
    }
    are_left
}
