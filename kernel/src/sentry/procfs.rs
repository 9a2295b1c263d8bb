//! What `/proc` says of a task.
//!
//! A task chooses its name itself, from any bytes, and the name stands in several of these files. So none of them is
//! taken for UTF-8: to a reader that insists on it, such a task would look like one that is gone.

use nix::unistd::Pid;

/// What `/proc/TASK/FILE` says, whatever is no UTF-8 replaced; nothing if the task is gone.
pub fn text(task: Pid, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{task}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The process that a thread belongs to; nothing if the thread is gone.
pub fn process_of(thread: Pid) -> Option<Pid> {
    let status = text(thread, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.map(Pid::from_raw)
}
