//! What `/proc` says of a task.
//!
//! A task chooses its name itself, from any bytes, and the name stands in several of these files. So none of them is
//! taken for UTF-8: to a reader that insists on it, such a task would look like one that is gone.

use std::num::NonZeroU32;
use std::os::fd::RawFd;

use nix::unistd::Pid;
use nvproxy_protocol::requests::Issuer;

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

/// The process that made a task, or whose child it has become; nothing if the task is gone.
pub fn parent_of(task: Pid) -> Option<Pid> {
    let status = text(task, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.map(Pid::from_raw)
}

/// The process of a thread, and its effective user as this process's user namespace has it (proc_pid_status(5), `Uid`); nothing if the
/// thread is gone.
pub fn issuer(thread: Pid) -> Option<Issuer> {
    let status = text(thread, "status");
    let value = |name: &str, at: usize| {
        let mut values = status
            .lines()
            .find_map(|line| line.strip_prefix(name))?
            .split_whitespace();
        values.nth(at)?.parse::<u32>().ok()
    };
    Some(Issuer {
        user: value("Uid:", 1)?,
        process: NonZeroU32::new(value("Tgid:", 0)?)?,
    })
}

/// The state of a task (proc_pid_stat(5)); nothing if the task is gone.
pub fn state(task: Pid) -> Option<char> {
    let stat = text(task, "stat");
    // The name, in parentheses, may contain anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

/// Whether a task is about to be ended, or has something to be told by a signal that nobody has told it (proc_pid_status(5)).
pub fn is_wanted(task: Pid) -> bool {
    let status = text(task, "status");
    let pending = status.lines().filter_map(|line| {
        let line = line
            .strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    let lives = state(task).is_some_and(|state| !matches!(state, 'Z' | 'X'));
    !lives || pending.into_iter().any(|signals| signals != 0)
}

/// The thread that traces `task` (proc_pid_status(5), `TracerPid`); `None` if none does, or if it is gone.
pub fn tracer_of(task: Pid) -> Option<Pid> {
    const NONE: libc::pid_t = 0;
    let status = text(task, "status");
    let mut lines = status.lines();
    let number = lines.find_map(|line| line.strip_prefix("TracerPid:"))?;
    let number = number.trim().parse().ok()?;
    (number != NONE).then_some(Pid::from_raw(number))
}

/// Whether the task's descriptor is closed by exec (proc_pid_fdinfo(5)). A descriptor that has just been closed counts as
/// one that is.
pub fn is_close_on_exec(task: Pid, descriptor: RawFd) -> bool {
    let information = text(task, &format!("fdinfo/{descriptor}"));
    let flags = information
        .lines()
        .find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_CLOEXEC != 0)
}
