//! A sandbox's own processes, as one sees them from outside.
//!
//! They are found by what the kernel says of them: whose children they are, and what they are called. Nothing of
//! Ringfence is changed or asked for that.

use std::fs;
use std::io;

use crate::value::{Attempt, NotMeasured};

/// What the server calls itself: the start of its first argument.
const SERVER: &str = "ringfence-nvproxy-server";

/// The processes between a program and the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    pub sentry: u32,
    pub server: u32,
}

impl Processes {
    /// Those of the sandbox that the process `launcher` started and that is ready.
    pub fn of(launcher: u32) -> Result<Processes, NotMeasured> {
        let found = find(launcher).attempt("/proc")?;
        found.ok_or_else(|| {
            NotMeasured::failed("the sandbox", "its sentry and its server were not found")
        })
    }
}

fn find(launcher: u32) -> io::Result<Option<Processes>> {
    let (mut sentry, mut server) = (None, None);
    for process in children(launcher)? {
        let name = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        if name.starts_with(SERVER.as_bytes()) {
            server = Some(process);
        } else {
            sentry = Some(process);
        }
    }
    Ok(sentry
        .zip(server)
        .map(|(sentry, server)| Processes { sentry, server }))
}

/// The processes whose parent is `parent`.
pub fn children(parent: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ended meanwhile is no child any more.
        let line = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if parent_in(&line) == Some(parent) {
            found.push(process);
        }
    }
    Ok(found)
}

/// The parent in a line of `/proc/PID/stat` (proc_pid_stat(5)): two words after the name, which is in parentheses and may
/// have such itself.
fn parent_in(line: &str) -> Option<u32> {
    let (_, after_name) = line.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// The memory that a process has to itself, and its part of what it shares, in KiB (proc_pid_smaps(5), `Pss`).
pub fn proportional_memory(process: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    pss_in(&text).ok_or_else(|| io::Error::other("smaps_rollup has no line `Pss`"))
}

fn pss_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("7 (sh) S 3 7 7 0"), Some(3));
        assert_eq!(parent_in("7 (a) S 9 (b) R 4 7"), Some(4));
        assert_eq!(parent_in("7 sh S 3"), None);
    }

    #[test]
    fn own_children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn();
        let child = child.as_mut().expect("sleep");
        assert!(
            children(std::process::id())
                .expect("/proc")
                .contains(&child.id())
        );
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    #[test]
    fn memory_is_read_from_the_line_that_says_pss() {
        let text = "Rss:  5000 kB\nPss:                 812 kB\nPss_Dirty:  1 kB\n";
        assert_eq!(pss_in(text), Some(812));
        assert_eq!(pss_in("Rss: 1 kB\n"), None);
    }
}
