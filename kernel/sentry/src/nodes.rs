//! Open nodes, divided among the sandbox's processes.
//!
//! The server keeps so many descriptions for a sandbox and no more, fewer if its limit of descriptors is low. The idea: a
//! process may open one more as long as it has opened fewer than are left. So one that takes all that it can has half, two
//! have a third each, and who has none yet finds some, however many the others are; no part is fixed beforehand.
//!
//! A description counts for the process that opened it until the last task has let go of it, whoever that is: it goes from
//! one to another natively, and the sentry does not see it go. The first `UNCOUNTED`th part is nobody's, so that the
//! kernel is asked only where it matters which process a task is of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use nvproxy_protocol::requests::MAXIMUM_HANDLES;
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::locks::IgnorePoison;

use super::procfs::process_of;

/// As many descriptors a server has at most for each description that it keeps.
const DESCRIPTORS: usize = 2;

/// Of how many descriptions one is nobody's.
const UNCOUNTED: usize = 64;

/// How many descriptions are open, and who opened them.
#[derive(Debug)]
pub struct Nodes {
    /// How many there can be.
    total: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by: HashMap<Pid, usize>,
}

/// How many descriptors a server may have: as many as this process, since both were started with the caller's limit, or that of a
/// container's engine. The sentry's filter does not let it ask.
pub fn descriptors() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    limit.map_or(0, |(_, most)| usize::try_from(most).unwrap_or(usize::MAX))
}

/// The place of one description, given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    nodes: Arc<Nodes>,
    opener: Option<Pid>,
}

impl Nodes {
    /// For a server that may have so many `descriptors`.
    pub fn within(descriptors: usize) -> Nodes {
        Nodes {
            total: match at(Point::Nodes) {
                Some(Act::Value(total)) => total as usize,
                // For the test of what holds without it.
                Some(Act::Drop) => usize::MAX,
                _ => MAXIMUM_HANDLES.min(descriptors / DESCRIPTORS),
            },
            open: Mutex::default(),
        }
    }

    /// Room for a description that `task` opens. Fails with `EMFILE` if its process has opened as many as are left.
    pub fn take(self: &Arc<Nodes>, task: Pid) -> Result<Room, Errno> {
        let matters = self.open().all >= self.total / UNCOUNTED;
        let opener = if matters { process_of(task) } else { None };
        let mut open = self.open();
        let left = self.total.saturating_sub(open.all);
        if let Some(opener) = opener {
            let own = open.by.get(&opener).copied().unwrap_or(0);
            if own >= left {
                return Err(Errno::EMFILE);
            }
            open.by.insert(opener, own + 1);
        }
        open.all += 1;
        Ok(Room {
            nodes: Arc::clone(self),
            opener,
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().ignore_poison()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut open = self.nodes.open();
        open.all = open.all.saturating_sub(1);
        let Some(opener) = self.opener else {
            return;
        };
        match open.by.get_mut(&opener) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(open.by.remove(&opener)),
        }
    }
}
