//! Traced processes that a signal has stopped, and that stay so until another has them go on.
//!
//! The idea: the tracer does not resume the threads of such a process. A stop begins with a signal that the tracer passes on, and
//! ends with SIGCONT, which is pending from the moment it is sent until the tracer passes it on. So the tracer looks for a
//! pending one, as long as anything is stopped. (PTRACE_LISTEN would have the kernel tell of it, but takes `unsafe`.)

use std::collections::{HashMap, HashSet};
use std::fs;

use nix::errno::Errno;
use nix::unistd::Pid;
use ringfence_sentry::system_calls::resume;

/// Whether a process that gets this signal and does nothing about it stops.
pub fn stops(signal: i32) -> bool {
    const STOPS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    STOPS.contains(&signal)
}

/// The processes, and their threads that are not resumed.
#[derive(Debug, Default)]
pub struct StoppedProcesses {
    /// They have got a signal that stops, and none yet that has them go on.
    processes: HashSet<Pid>,
    /// By thread, its process.
    threads: HashMap<Pid, Pid>,
}

impl StoppedProcesses {
    /// Whether no thread is held.
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// A thread is about to get a signal.
    pub fn passed_on(&mut self, thread: Pid, signal: i32) -> Result<(), Errno> {
        match process_of(thread) {
            Some(process) if stops(signal) => drop(self.processes.insert(process)),
            Some(process) if signal == libc::SIGCONT => self.let_go(process)?,
            _ => {}
        }
        Ok(())
    }

    /// A thread has stopped with its process. It is held, unless that goes on already.
    pub fn hold(&mut self, thread: Pid) -> Result<(), Errno> {
        match process_of(thread) {
            Some(process) if self.processes.contains(&process) => {
                self.threads.insert(thread, process);
                Ok(())
            }
            _ => resume(thread, 0),
        }
    }

    /// A thread has ended.
    pub fn ended(&mut self, thread: Pid) {
        self.threads.remove(&thread);
        self.processes.remove(&thread);
    }

    /// Lets those go on for which SIGCONT is pending.
    pub fn look(&mut self) -> Result<(), Errno> {
        let held = self.threads.iter();
        let sent: HashSet<Pid> = held
            .filter(|(thread, _)| is_to_go_on(**thread))
            .map(|(_, process)| *process)
            .collect();
        sent.into_iter().try_for_each(|it| self.let_go(it))
    }

    fn let_go(&mut self, process: Pid) -> Result<(), Errno> {
        self.processes.remove(&process);
        let of_it = self.threads.extract_if(|_, its| *its == process);
        for (thread, _) in of_it {
            match resume(thread, 0) {
                // It may have been killed meanwhile.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn process_of(thread: Pid) -> Option<Pid> {
    let process = field(&status(thread)?, "Tgid")?.parse().ok()?;
    Some(Pid::from_raw(process))
}

/// Whether SIGCONT is pending for a thread or for its process.
fn is_to_go_on(thread: Pid) -> bool {
    const BIT: u64 = 1 << (libc::SIGCONT - 1);
    let text = status(thread).unwrap_or_default();
    let is_in = |name| {
        let signals = field(&text, name).and_then(|set| u64::from_str_radix(set, 16).ok());
        signals.is_some_and(|signals| signals & BIT != 0)
    };
    is_in("SigPnd") || is_in("ShdPnd")
}

/// What /proc tells of a thread (proc_pid_status(5)).
fn status(thread: Pid) -> Option<String> {
    let bytes = fs::read(format!("/proc/{thread}/status")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}
