//! The processes of a sandbox as they are seen from outside, in `/proc`.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually;

/// One process, told from a later one of the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    parent: Pid,
    /// In clock ticks since boot (proc_pid_stat(5)).
    started: u64,
}

impl Process {
    /// The process that has this number now; `None` if none has, or only a zombie. One whose first thread has ended is no
    /// zombie as long as others go on.
    pub fn find(pid: Pid) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold anything; what follows it are words.
        let (_, rest) = stat.rsplit_once(')')?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [state, parent, ..] = words[..] else {
            return None;
        };
        let process = Process {
            pid,
            parent: Pid::from_raw(parent.parse().ok()?),
            started: words.get(19)?.parse().ok()?,
        };
        let has_ended = matches!(state, "Z" | "X") && !has_other_threads(pid);
        (!has_ended).then_some(process)
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Process::find(self.pid).as_ref() == Some(self)
    }

    /// Stops it, and waits until each of its threads stands still.
    pub fn stop(&self) {
        kill(self.pid, Signal::SIGSTOP).expect("kill");
        let has_stopped = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        eventually("every thread has stopped", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads");
            tasks.filter_map(Result::ok).all(has_stopped)
        });
    }

    /// Its children, oldest first.
    pub fn children(&self) -> Vec<Process> {
        let entries = fs::read_dir("/proc").expect("/proc");
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut children: Vec<Process> = numbers
            .filter_map(|number| Process::find(Pid::from_raw(number)))
            .filter(|process| process.parent == self.pid)
            .collect();
        children.sort_by_key(|process| process.started);
        children
    }

    /// Itself and all below it, as far as they are there while this looks.
    pub fn descendants(&self) -> Vec<Process> {
        let mut found = vec![*self];
        let mut next = 0;
        while let Some(process) = found.get(next) {
            found.extend(process.children());
            next += 1;
        }
        found
    }

    fn only_child(&self) -> Process {
        match self.children()[..] {
            [child] => child,
            ref children => panic!("{self:?} has not one child but {children:?}"),
        }
    }

    fn name_given(&self) -> String {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }
}

/// Whether a process has threads besides the first.
fn has_other_threads(process: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    tasks.is_ok_and(|tasks| tasks.count() > 1)
}

/// The processes of a sandbox whose program has no children.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    pub launcher: Process,
    pub sentry: Process,
    pub server: Process,
    pub init: Process,
    pub program: Process,
}

impl Tree {
    /// Each process but the server.
    pub const OTHERS: [fn(&Tree) -> Process; 4] = [
        |tree| tree.launcher,
        |tree| tree.sentry,
        |tree| tree.init,
        |tree| tree.program,
    ];

    /// The tree below a launcher whose program is running.
    pub fn of(launcher: u32) -> Tree {
        let launcher = Process::find(Pid::from_raw(launcher as i32)).expect("the launcher");
        // One whose first thread has ended has lost its name.
        let is_server = |process: &Process| {
            ["ringfence-nvproxy-server", ""].contains(&process.name_given().as_str())
        };
        // A program that does not need it can be faster.
        eventually("there are a sentry and a server", || {
            let children = launcher.children();
            children.len() == 2 && children.iter().any(is_server)
        });
        let children = launcher.children();
        let [server, sentry] = children[..] else {
            panic!("the launcher's children are {children:?}");
        };
        let (server, sentry) = if is_server(&server) {
            (server, sentry)
        } else {
            (sentry, server)
        };
        assert!(is_server(&server) && !is_server(&sentry));
        let init = sentry.only_child();
        Tree {
            launcher,
            sentry,
            server,
            init,
            program: init.only_child(),
        }
    }

    /// Kills one of the processes.
    pub fn kill(&self, role: fn(&Tree) -> Process) {
        kill(role(self).pid, Signal::SIGKILL).expect("kill");
    }

    /// Waits until no process of the sandbox is left.
    pub fn expect_gone(&self) {
        for process in [
            self.launcher,
            self.sentry,
            self.server,
            self.init,
            self.program,
        ] {
            eventually(&format!("{process:?} is gone, of {self:?}"), || {
                !process.is_alive()
            });
        }
    }
}

/// Whether the first thread of a process keeps SIGCONT, as one does at the fault `await-sigcont`. Sent before, it is lost.
pub fn keeps_sigcont(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    // Bit 0 is signal 1 (man 5 proc_pid_status).
    blocked.is_some_and(|set| set >> (Signal::SIGCONT as u32 - 1) & 1 == 1)
}
