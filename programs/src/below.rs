//! All processes that came of this one, and their end.
//!
//! The idea: the kernel gives an orphan to the nearest process above that asks for it (`PR_SET_CHILD_SUBREAPER`). Once this one
//! has, whatever a program has started stays below it, in whichever group or session that lives, and is found there.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use rustix::process::{WaitOptions, wait};

/// How long to wait for those that were killed before a further look.
const PAUSE: Duration = Duration::from_millis(1);

/// Whoever is orphaned below this process becomes its child from now on.
pub fn adopt_orphans() -> Result<(), Errno> {
    set_child_subreaper(true)
}

/// Kills every process below this one. Those that are started meanwhile are found by a further call.
pub fn kill_all() {
    for process in all() {
        // It may have ended meanwhile.
        let _ = kill(process, Signal::SIGKILL);
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
fn all() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for number in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(parent) = parent_of(number) {
            children.entry(parent).or_default().push(number);
        }
    }
    let mut found = vec![getpid().as_raw()];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(process).unwrap_or_default());
        next += 1;
    }
    found.into_iter().skip(1).map(Pid::from_raw).collect()
}

fn parent_of(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name is in parentheses and may hold anything; what follows it are words (proc_pid_stat(5)).
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
