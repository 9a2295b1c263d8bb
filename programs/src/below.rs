//! All processes that came of this one, and their end.
//!
//! The idea: the kernel gives an orphan to the nearest process above that asks for it (`PR_SET_CHILD_SUBREAPER`). Once this one
//! has, whatever a program has started stays below it, in whichever group or session that lives, and is found there. Only its
//! own parent waits for a process, and then its number may be another's at any moment: so each is killed by a descriptor
//! (pidfd_open(2)) that was looked at first.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::getpid;
use rustix::process::{self, PidfdFlags, WaitOptions, wait};

/// How long to wait for those that were killed before a further look.
const PAUSE: Duration = Duration::from_millis(1);

/// Whoever is orphaned below this process becomes its child from now on.
pub fn adopt_orphans() -> Result<(), Errno> {
    set_child_subreaper(true)
}

/// Kills every process below this one. Those that are started meanwhile are found by a further call.
pub fn kill_all() {
    for process in all() {
        process.kill();
    }
}

/// A process as it was found. The number alone says little: once its parent has waited for it, the kernel gives it to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    number: i32,
    parent: i32,
    /// When it began, in the kernel's ticks. A later one of the same number began later.
    began: u64,
}

impl Found {
    fn of(number: i32) -> Option<Found> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name is in parentheses and may hold anything; what follows it are words (proc_pid_stat(5)).
        let (_, rest) = stat.rsplit_once(')')?;
        let mut words = rest.split_whitespace();
        Some(Found {
            number,
            parent: words.nth(1)?.parse().ok()?,
            began: words.nth(17)?.parse().ok()?,
        })
    }

    /// Whether who has the number now is who was found. Its parent may be another: orphans get one.
    fn is_still_there(&self) -> bool {
        Found::of(self.number).is_some_and(|now| now.began == self.began)
    }

    /// Kills it, and nobody who has its number by now.
    fn kill(&self) {
        let Some(number) = process::Pid::from_raw(self.number) else {
            return;
        };
        // The descriptor first: whoever is looked at after that, the descriptor stays with one process.
        let descriptor = process::pidfd_open(number, PidfdFlags::empty());
        if matches!(descriptor, Err(rustix::io::Errno::SRCH)) || !self.is_still_there() {
            return;
        }
        // It may have ended meanwhile.
        let _ = match descriptor {
            Ok(descriptor) => process::pidfd_send_signal(descriptor, process::Signal::KILL),
            // Some containers have no descriptors of processes, and who is not killed would be waited for without an end.
            Err(_) => process::kill_process(number, process::Signal::KILL),
        };
    }
}

/// Kills every process below this one, and waits for each, until none is left. Whoever calls this has no child that it needs.
pub fn end_all() {
    loop {
        kill_all();
        if !reap() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits for those that have ended already. Whether there are others.
fn reap() -> bool {
    // Threads that are traced are waited for as well.
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(nix::libc::__WALL as u32);
    loop {
        match wait(options) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Every process below this one, parents first.
fn all() -> Vec<Found> {
    let mut children: BTreeMap<i32, Vec<Found>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for number in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(process) = Found::of(number) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let own = getpid().as_raw();
    let mut found = children.remove(&own).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(&process.number).unwrap_or_default());
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// By the number alone the process would be killed.
    #[test]
    fn who_has_the_number_of_one_that_was_found_is_not_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a child");
        let found = Found::of(child.id() as i32).expect("it is there");
        assert_eq!(found.parent, getpid().as_raw());
        assert!(all().contains(&found));
        let of_an_earlier_one = Found {
            began: found.began - 1,
            ..found
        };
        of_an_earlier_one.kill();
        // Had it been killed, it would get no other signal after that.
        let pid = process::Pid::from_child(&child);
        process::kill_process(pid, process::Signal::TERM).expect("it is there");
        let status = child.wait().expect("an end");
        assert_eq!(status.signal(), Some(nix::libc::SIGTERM));
        // Nobody has the number.
        found.kill();
    }

    #[test]
    fn who_was_found_is_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a child");
        Found::of(child.id() as i32).expect("it is there").kill();
        let status = child.wait().expect("an end");
        assert_eq!(status.signal(), Some(nix::libc::SIGKILL));
    }
}
