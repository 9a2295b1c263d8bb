//! Shares: what there is little of, divided among the sandbox's processes.
//!
//! Nearly all requests are over in microseconds, and are served in the order in which they come. A few keep for long
//! what others need as well: a thread of the server, one of the arena's large slots, the turn to pin. Of each a process
//! gets a part, however many threads it has. What goes beyond that waits here, as the notification that it came as: it
//! has no thread, no slot and no place in a ring, and its task waits in the kernel. When something becomes free, the
//! processes that wait take turns.
//!
//! A process is whoever shares an address space (kcmp(2), `KCMP_VM`). The kernel is asked only where it matters: once more
//! is in use than one process may have.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use nix::unistd::Pid;
use nvproxy_abi::plan::Plan;
use ringfence_ipc::DEFAULT_ARENA;
use ringfence_ipc::locks::IgnorePoison;
use slab::Slab;

use super::times::Times;
use crate::seccomp::listener::Notification;
use crate::system_calls::share_memory;

/// How many there are of something, and how many of them one process may have.
struct Limit {
    total: usize,
    /// Of the total: for processes that have none yet.
    reserved: usize,
    each: usize,
}

/// What is shared, in the order of [`Needs`].
const LIMITS: [Limit; 3] = [
    // The server has 64 threads for what may take long, and needs some of them for everything else.
    Limit {
        total: 60,
        reserved: 12,
        each: 16,
    },
    Limit {
        total: DEFAULT_ARENA[1].count as usize,
        reserved: 0,
        each: 1,
    },
    // A thread cannot be held for two pins.
    Limit {
        total: 1,
        reserved: 0,
        each: 1,
    },
];

/// What a request keeps until it is finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs([bool; LIMITS.len()]);

impl Needs {
    /// A thread of the server, because the driver may take long.
    pub const THREAD: Needs = Needs([true, false, false]);

    /// What a request with a payload of `length` bytes keeps.
    pub fn of(plan: &Plan, length: usize) -> Needs {
        let pins = plan.pins();
        // The server's part in a pin is prompt.
        let thread = plan.may_block() && !pins;
        Needs([thread, length > DEFAULT_ARENA[0].bytes as usize, pins])
    }

    fn each(self) -> impl Iterator<Item = usize> {
        (0..LIMITS.len()).filter(move |index| self.0[*index])
    }
}

/// What a request was given; it is given back when this is dropped.
#[derive(Default)]
pub struct Share {
    needs: Needs,
    /// How many looks had been taken for pins when it was asked for ([`super::tracee::Looks`]).
    pub since: u64,
    /// Where it came from, under which number; `None` if it is nothing.
    held: Option<(Arc<Shares>, usize)>,
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((shares, number)) = self.held.take() {
            shares.give_back(number);
        }
    }
}

/// A call that may go on.
pub struct Ready {
    pub notification: Notification,
    pub times: Times,
    pub share: Share,
}

/// What is shared, who has it, and who waits for it.
#[derive(Default)]
pub struct Shares {
    state: Mutex<State>,
    readied: Condvar,
}

#[derive(Default)]
struct State {
    holders: Slab<(Pid, Needs)>,
    /// One queue for each process that waits; the next in turn is first.
    queues: VecDeque<VecDeque<Waiting>>,
    /// What was given, by its number in `holders`, to calls that waited.
    ready: VecDeque<(Waiting, usize)>,
}

struct Waiting {
    notification: Notification,
    needs: Needs,
    since: u64,
    times: Times,
}

impl Shares {
    /// What `notification` needs, if it can have it now; else `None`, and it waits until [`Shares::next`] returns it.
    /// `already` is what it has waited for before, and `since` when this is, in looks.
    pub fn take(
        self: &Arc<Self>,
        notification: &Notification,
        needs: Needs,
        times: Times,
        already: Share,
        since: u64,
    ) -> Option<Share> {
        // Its memory may have changed while it waited, and so what it needs.
        if already.needs == needs {
            return Some(already);
        }
        drop(already);
        if needs == Needs::default() {
            return Some(Share::default());
        }
        let mut state = self.state();
        let task = notification.task;
        let queue = state.queue_of(task);
        if queue.is_none() && state.has_room(task, needs) {
            let number = state.holders.insert((task, needs));
            return Some(self.share(needs, since, number));
        }
        let waiting = Waiting {
            notification: *notification,
            needs,
            since,
            times,
        };
        match queue.and_then(|index| state.queues.get_mut(index)) {
            Some(queue) => queue.push_back(waiting),
            None => state.queues.push_back(VecDeque::from([waiting])),
        }
        None
    }

    /// Waits for a call whose turn has come.
    pub fn next(self: &Arc<Self>) -> Ready {
        let mut state = self.state();
        loop {
            if let Some((waiting, number)) = state.ready.pop_front() {
                return Ready {
                    notification: waiting.notification,
                    times: waiting.times,
                    share: self.share(waiting.needs, waiting.since, number),
                };
            }
            let woken = self.readied.wait(state);
            state = woken.ignore_poison();
        }
    }

    fn share(self: &Arc<Self>, needs: Needs, since: u64, number: usize) -> Share {
        Share {
            needs,
            since,
            held: Some((Arc::clone(self), number)),
        }
    }

    fn give_back(&self, number: usize) {
        let mut state = self.state();
        state.holders.remove(number);
        if state.hand_out() {
            self.readied.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }
}

impl State {
    /// The queue of the process that `task` belongs to.
    fn queue_of(&self, task: Pid) -> Option<usize> {
        let is_of_its_process = |waiting: &Waiting| share_memory(waiting.notification.task, task);
        self.queues
            .iter()
            .position(|queue| queue.back().is_some_and(is_of_its_process))
    }

    /// Whether all of `needs` is there for the process of `task`.
    fn has_room(&self, task: Pid, needs: Needs) -> bool {
        needs.each().all(|index| {
            let Limit {
                total,
                reserved,
                each,
            } = LIMITS[index];
            let holders = || {
                self.holders
                    .iter()
                    .filter(move |(_, (_, held))| held.0[index])
            };
            let all = holders().count();
            let own = || holders().filter(|(_, (holder, _))| share_memory(*holder, task));
            let more = |own| own == 0 || own < each && all < total - reserved;
            all < total && (all < each || more(own().count()))
        })
    }

    /// Gives what is there to those whose turn it is; whether anybody got something.
    fn hand_out(&mut self) -> bool {
        let mut any = false;
        let mut passed_over = 0;
        while passed_over < self.queues.len() {
            let Some(mut queue) = self.queues.pop_front() else {
                break;
            };
            let fits = |next: &Waiting| self.has_room(next.notification.task, next.needs);
            if queue.front().is_some_and(fits)
                && let Some(next) = queue.pop_front()
            {
                let number = self.holders.insert((next.notification.task, next.needs));
                self.ready.push_back((next, number));
                (any, passed_over) = (true, 0);
            } else {
                passed_over += 1;
            }
            if !queue.is_empty() {
                self.queues.push_back(queue);
            }
        }
        any
    }
}
