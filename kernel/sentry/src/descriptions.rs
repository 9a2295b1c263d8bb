//! Which of the server's handles a task's descriptor means, and when the last task has let go of one.
//!
//! Tasks duplicate, pass, inherit and close descriptors natively, so nothing that the sentry could write down about
//! descriptor *numbers* stays true. What stays true is the open file description behind them, and the kernel answers
//! two questions about one that the sentry itself does not hold:
//!
//! - A description registered in an epoll instance is not kept alive by it, and kcmp(2) compares what is registered
//!   there with a task's descriptor. Such a `Witness` recognizes a description, orders it among others, and notices
//!   when it is gone.
//! - The simulated driver's descriptions cannot be polled, hence not registered; but each has an inode of its own, by
//!   which it is recognized, and inotify(7) tells of its last close.
//!
//! UVM's descriptions on the real driver are neither: the server keeps no state about them, so they are recognized by
//! their device number and sent along with each request.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, RwLock};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use nvproxy_abi::node::Node;
use ringfence_ipc::locks::IgnorePoison;

use super::nodes::Room;
use crate::procfs::process_of;
use crate::system_calls::{
    compare_with_registered, pidfd_getfd, pidfd_open_process, pidfd_open_thread, share_descriptors,
};

/// What a server calls a description that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    /// Which of the sandbox's servers gave it: what one server calls something means nothing to the next.
    pub server: u32,
    /// The server's name for it, or 0 if it keeps nothing.
    pub number: u64,
}

/// An open file description that a server made for a task.
#[derive(Debug)]
pub struct Description {
    pub handle: Handle,
    pub node: Node,
    /// Its place among those that the sandbox can have.
    pub room: Option<Room>,
}

impl PartialEq for Description {
    fn eq(&self, other: &Description) -> bool {
        (self.handle, self.node) == (other.handle, other.node)
    }
}

impl Eq for Description {}

/// What a task's descriptor turns out to be.
#[derive(Debug)]
pub enum Identified {
    /// One that the server made.
    Device(Arc<Description>),
    /// UVM's, which the server does not keep.
    Uvm(OwnedFd),
    /// Anything else: a duplicate of it.
    Foreign(OwnedFd),
    /// The task has no such descriptor.
    Closed,
}

/// Recognizes one description without holding it.
#[derive(Debug)]
struct Witness {
    epoll: Epoll,
    /// The number that the description had when it was registered.
    registered: RawFd,
    of: Arc<Description>,
}

impl Witness {
    /// Fails with `EPERM` if the description cannot be polled.
    fn new(description: &OwnedFd, of: Arc<Description>) -> Result<Witness, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(description, EpollEvent::new(EpollFlags::empty(), 0))?;
        Ok(Witness {
            epoll,
            registered: description.as_raw_fd(),
            of,
        })
    }

    /// Where `descriptor` of `task` stands in the kernel's order, seen from this description.
    fn compare(&self, task: Pid, descriptor: RawFd) -> Result<Ordering, Errno> {
        compare_with_registered(task, descriptor, self.epoll.0.as_fd(), self.registered)
    }

    fn is_gone(&self) -> bool {
        // Any descriptor of this process does for the other side of the comparison: the epoll instance itself.
        self.compare(Pid::this(), self.epoll.0.as_raw_fd()) == Err(Errno::ENOENT)
    }
}

/// The identity of a description that has an inode of its own: device and number.
pub type Inode = (u64, u64);

/// How a description that was just registered tells of its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Registered {
    /// By a sweep.
    Witnessed,
    /// By inotify, on this inode.
    ByInode(Inode),
}

/// The way to a task's descriptors.
#[derive(Debug)]
struct Table {
    pidfd: OwnedFd,
    /// The first thread of the task's process, if the pidfd is for that one: before Linux 6.9 none is for another thread.
    leader: Option<Pid>,
}

impl Table {
    /// Fails if the task is gone.
    fn of(task: Pid) -> Result<Table, Errno> {
        match pidfd_open_thread(task) {
            Err(Errno::EINVAL) => {
                let leader = process_of(task).ok_or(Errno::ESRCH)?;
                Ok(Table {
                    pidfd: pidfd_open_process(leader)?,
                    leader: (leader != task).then_some(leader),
                })
            }
            opened => Ok(Table {
                pidfd: opened?,
                leader: None,
            }),
        }
    }

    /// A duplicate of `descriptor` of `task`. Fails with `EOPNOTSUPP` if that is not among the first thread's and cannot be
    /// had in another way.
    fn duplicate(&self, task: Pid, descriptor: RawFd) -> Result<OwnedFd, Errno> {
        let copy = pidfd_getfd(self.pidfd.as_fd(), descriptor);
        // Afterwards: those who share their descriptors now have done so ever since one of them was made.
        match self.leader.map(|leader| share_descriptors(task, leader)) {
            Some(Ok(false)) => Err(Errno::EOPNOTSUPP),
            Some(Err(errno)) => Err(errno),
            None | Some(Ok(true)) => copy,
        }
    }
}

/// Everything that the sandbox's tasks hold.
#[derive(Debug, Default)]
pub struct Descriptions {
    witnesses: RwLock<Witnesses>,
    /// What each descriptor number meant last, in whichever task: right nearly always, and checked always.
    guesses: Mutex<HashMap<RawFd, Arc<Witness>>>,
    inodes: RwLock<HashMap<Inode, Arc<Description>>>,
    tasks: Mutex<HashMap<Pid, Arc<Table>>>,
    /// How many of them are kept.
    maximum_tasks: usize,
    /// The device number of UVM's node on the real driver.
    uvm: Option<u64>,
}

impl Descriptions {
    /// With the device number of UVM's node, if the driver is the real one, in a process that may have so many `descriptors`.
    pub fn new(uvm: Option<u64>, descriptors: usize) -> Descriptions {
        Descriptions {
            uvm,
            maximum_tasks: MAXIMUM_TASK_DESCRIPTORS.min(descriptors / PART_FOR_TASKS),
            ..Descriptions::default()
        }
    }

    /// Makes `granted` known as `of`, before any task has it. The caller lets go of it once a task has.
    pub fn register(&self, granted: &OwnedFd, of: &Arc<Description>) -> Result<Registered, Errno> {
        match Witness::new(granted, Arc::clone(of)) {
            Ok(witness) => {
                self.witnesses
                    .write()
                    .ignore_poison()
                    .insert(witness, granted);
                Ok(Registered::Witnessed)
            }
            Err(Errno::EPERM) => {
                let status = fstat(granted)?;
                let inode = (status.st_dev, status.st_ino);
                self.inodes
                    .write()
                    .ignore_poison()
                    .insert(inode, Arc::clone(of));
                Ok(Registered::ByInode(inode))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Expects `descriptor` of some task to be `of`, which was just given to it under this number.
    pub fn expect(&self, descriptor: RawFd, of: &Arc<Description>) {
        let witnesses = self.witnesses.read().ignore_poison();
        let witness = witnesses
            .ordered
            .iter()
            .find(|witness| Arc::ptr_eq(&witness.of, of));
        if let Some(witness) = witness {
            self.guess(descriptor, Arc::clone(witness));
        }
    }

    fn guess(&self, descriptor: RawFd, witness: Arc<Witness>) {
        let mut guesses = self.guesses.lock().ignore_poison();
        if guesses.len() >= MAXIMUM_GUESSES {
            guesses.clear();
        }
        guesses.insert(descriptor, witness);
    }

    /// What `descriptor` of `task` is. `on_uvm` says that it is used as UVM's, which decides where to look first. Fails if
    /// the task is gone.
    pub fn identify(
        &self,
        task: Pid,
        descriptor: RawFd,
        on_uvm: bool,
    ) -> Result<Identified, Errno> {
        let witnessed = || match self.witnessed(task, descriptor) {
            Err(Errno::EBADF) => Ok(None),
            found => found.map(|found| found.map(Identified::Device)),
        };
        if !on_uvm && let Some(found) = witnessed()? {
            return Ok(found);
        }
        let copy = match self.duplicate(task, descriptor) {
            Ok(copy) => copy,
            Err(Errno::EBADF) => return Ok(Identified::Closed),
            Err(errno) => return Err(errno),
        };
        let status = fstat(&copy)?;
        if let Some(description) = self
            .inodes
            .read()
            .ignore_poison()
            .get(&(status.st_dev, status.st_ino))
        {
            return Ok(Identified::Device(Arc::clone(description)));
        }
        if self.uvm.is_some_and(|uvm| uvm == status.st_rdev) {
            return Ok(Identified::Uvm(copy));
        }
        let found = if on_uvm { witnessed()? } else { None };
        Ok(found.unwrap_or(Identified::Foreign(copy)))
    }

    /// A duplicate of `descriptor` of `task`. Fails with `EOPNOTSUPP` where the kernel can duplicate none of this thread's.
    pub fn duplicate(&self, task: Pid, descriptor: RawFd) -> Result<OwnedFd, Errno> {
        let known = self.tasks.lock().ignore_poison().get(&task).cloned();
        if let Some(known) = known {
            match known.duplicate(task, descriptor) {
                // The task of that number ended; there may be a new one, of another process.
                Err(Errno::ESRCH | Errno::EOPNOTSUPP) => {}
                other => return other,
            }
        }
        let opened = Arc::new(Table::of(task)?);
        let copy = opened.duplicate(task, descriptor);
        let mut tasks = self.tasks.lock().ignore_poison();
        if tasks.len() >= self.maximum_tasks {
            tasks.clear();
        }
        tasks.insert(task, opened);
        copy
    }

    fn witnessed(&self, task: Pid, descriptor: RawFd) -> Result<Option<Arc<Description>>, Errno> {
        let guess = self
            .guesses
            .lock()
            .ignore_poison()
            .get(&descriptor)
            .cloned();
        if let Some(guess) = guess {
            match guess.compare(task, descriptor) {
                Ok(Ordering::Equal) => return Ok(Some(Arc::clone(&guess.of))),
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        let found = self
            .witnesses
            .read()
            .ignore_poison()
            .search(task, descriptor)?;
        Ok(found.map(|witness| {
            let description = Arc::clone(&witness.of);
            self.guess(descriptor, witness);
            description
        }))
    }

    /// Forgets the descriptions that no task has any more, and returns those of them that nothing else leads to.
    pub fn sweep(&self) -> Vec<Arc<Description>> {
        let mut witnesses = self.witnesses.write().ignore_poison();
        let mut gone = witnesses.take_gone();
        drop(witnesses);
        let inodes = self.inodes.read().ignore_poison();
        gone.retain(|description| !inodes.values().any(|other| Arc::ptr_eq(other, description)));
        drop(inodes);
        if !gone.is_empty() {
            self.guesses.lock().ignore_poison().retain(|_, witness| {
                !gone
                    .iter()
                    .any(|description| Arc::ptr_eq(&witness.of, description))
            });
        }
        gone
    }

    /// Whether any description is known by a witness.
    pub fn any_witnessed(&self) -> bool {
        !self.witnesses.read().ignore_poison().ordered.is_empty()
    }

    /// Forgets this inode, of whose last close inotify told, and returns its description unless something else leads to
    /// that: an event descriptor that has taken its place.
    pub fn forget(&self, inode: Inode) -> Option<Arc<Description>> {
        let description = self.inodes.write().ignore_poison().remove(&inode)?;
        let has_stand_in = self
            .witnesses
            .read()
            .ignore_poison()
            .recognize(&description);
        (!has_stand_in).then_some(description)
    }
}

/// Processes whose descriptors are kept at hand; beyond, all are looked up anew.
const MAXIMUM_TASK_DESCRIPTORS: usize = 256;
/// The part of this process's descriptors that these take at most: one in so many.
const PART_FOR_TASKS: usize = 8;
/// Descriptor numbers for which a guess is kept.
const MAXIMUM_GUESSES: usize = 4096;

/// Witnesses in the kernel's order of what they recognize.
#[derive(Debug, Default)]
struct Witnesses {
    ordered: Vec<Arc<Witness>>,
    /// What witnesses recognized that were found to have nothing left to recognize.
    gone: Vec<Arc<Description>>,
}

impl Witnesses {
    /// Puts `witness` in its place, which is that of `description`.
    fn insert(&mut self, witness: Witness, description: &OwnedFd) {
        let (mut low, mut high) = (0, self.ordered.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.ordered[middle].compare(Pid::this(), description.as_raw_fd()) {
                Ok(Ordering::Greater) => low = middle + 1,
                Ok(_) => high = middle,
                // Its description is gone: it says nothing about the order any more, and would mislead.
                Err(_) => {
                    self.gone.push(Arc::clone(&self.ordered.remove(middle).of));
                    high -= 1;
                }
            }
        }
        self.ordered.insert(low, Arc::new(witness));
    }

    /// Whether any witness is left of `description`.
    fn recognize(&self, description: &Arc<Description>) -> bool {
        self.ordered
            .iter()
            .any(|witness| Arc::ptr_eq(&witness.of, description))
    }

    /// The witness that recognizes `descriptor` of `task`. Where one has nothing left to recognize, which says nothing
    /// about the order, its neighbours are asked instead.
    fn search(&self, task: Pid, descriptor: RawFd) -> Result<Option<Arc<Witness>>, Errno> {
        let (mut low, mut high) = (0, self.ordered.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let mut asked = middle;
            let ordering = loop {
                match self.ordered[asked].compare(task, descriptor) {
                    Err(Errno::ENOENT) if asked + 1 < high => asked += 1,
                    Err(Errno::ENOENT) => break None,
                    ordering => break Some(ordering?),
                }
            };
            match ordering {
                Some(Ordering::Equal) => return Ok(Some(Arc::clone(&self.ordered[asked]))),
                // The task's description comes before the witness's.
                Some(Ordering::Less) | None => high = middle,
                Some(Ordering::Greater) => low = asked + 1,
            }
        }
        Ok(None)
    }

    /// Takes out what is gone; returns the descriptions that no other witness recognizes.
    fn take_gone(&mut self) -> Vec<Arc<Description>> {
        let mut gone = std::mem::take(&mut self.gone);
        self.ordered.retain(|witness| {
            let is_gone = witness.is_gone();
            if is_gone {
                gone.push(Arc::clone(&witness.of));
            }
            !is_gone
        });
        gone.retain(|description| {
            !self
                .ordered
                .iter()
                .any(|witness| Arc::ptr_eq(&witness.of, description))
        });
        gone.sort_by_key(|description| description.handle);
        gone.dedup();
        gone
    }
}

#[cfg(test)]
mod tests;
