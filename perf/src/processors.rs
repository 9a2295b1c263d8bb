//! On which processors it all happens.
//!
//! Claims are about two processors where nothing else is said: as many as let two processes be busy at once, so that
//! the figures of a large machine and of a small one are about the same thing. A thread's processors are inherited by
//! what it starts, a sandbox included, and Ringfence counts those when it decides how long to look for work.

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The processors that the calling thread may use, in order.
pub fn available() -> Result<Vec<usize>, Errno> {
    let set = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count())
        .filter(|processor| set.is_set(*processor).unwrap_or(false))
        .collect())
}

/// Confines the calling thread, and what it starts from now on, to these.
pub fn confine_to(processors: &[usize]) -> Result<(), Errno> {
    confine(SELF, processors)
}

/// Confines another thread. The first one of a process has the process's number.
pub fn confine_thread(thread: u32, processors: &[usize]) -> Result<(), Errno> {
    confine(Pid::from_raw(thread as i32), processors)
}

fn confine(thread: Pid, processors: &[usize]) -> Result<(), Errno> {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(*processor)?;
    }
    sched_setaffinity(thread, &set)
}

/// The first two that do not share a core, or the first two, or the only one.
pub fn two(available: &[usize]) -> Vec<usize> {
    choose_two(available, |processor| {
        let path = format!("/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list");
        std::fs::read_to_string(path).unwrap_or_default()
    })
}

fn choose_two(available: &[usize], core: impl Fn(usize) -> String) -> Vec<usize> {
    let Some((first, others)) = available.split_first() else {
        return Vec::new();
    };
    let of_first = core(*first);
    let second = others.iter().find(|other| core(**other) != of_first);
    let second = second.or(others.first());
    [*first].into_iter().chain(second.copied()).collect()
}

/// Confines the calling thread until this is dropped.
#[derive(Debug)]
pub struct Confined {
    before: Vec<usize>,
}

impl Confined {
    /// To two processors, or to one where there is no other.
    pub fn to_two() -> Result<Confined, Errno> {
        let before = available()?;
        confine_to(&two(&before))?;
        Ok(Confined { before })
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // They were its own before.
        let _ = confine_to(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_are_of_different_cores_where_there_are_such() {
        // Processors 0 and 1 share a core, and 2 and 3.
        let pairs = |processor: usize| (processor / 2).to_string();
        assert_eq!(choose_two(&[0, 1, 2, 3], pairs), [0, 2]);
        assert_eq!(choose_two(&[0, 1], pairs), [0, 1]);
        assert_eq!(choose_two(&[3], pairs), [3]);
        assert!(choose_two(&[], pairs).is_empty());
    }

    #[test]
    fn a_confinement_ends() {
        let before = available().expect("processors");
        let confined = Confined::to_two().expect("confined");
        assert_eq!(available(), Ok(two(&before)));
        drop(confined);
        assert_eq!(available(), Ok(before));
    }
}
