//! The listener: where the kernel hands over the calls that the filter stopped (seccomp_unotify(2)).
//!
//! A task waits in the kernel until its notification is answered. Once received, only a fatal signal takes it out of
//! that wait, so that a request to the driver happens once; then the notification is gone and answering it fails with
//! `ENOENT`, which callers ignore.
//!
//! A program that is started in a container's sandbox later has a filter of its own, and so a listener of its own. Which of them
//! brought a call is a part of what the call is known by: the kernel numbers calls for each listener anew. A listener is known by a
//! number that no other gets, since a call's answer may come after its listener was closed.
//!
//! `unsafe` is here because these are ioctls with pointers.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use caps::{CapSet, Capability};
use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, gettid};
use nvproxy_abi::words;
use nvproxy_protocol::requests::number_of;
use ringfence_confinement::{
    Case, Policy, Problem, Rule, Table, Verdict, install_with_listener, policies,
};
use ringfence_faults::{Act, Point, at, at_task};
use ringfence_ipc::locks::IgnorePoison;

use crate::failure::{Attempt, Failure};
use crate::procfs;
use crate::warnings::warn_once;

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` of linux/seccomp.h, and the flag that wakes the other side on this processor.
const SET_FLAGS: u64 = nix::request_code_write!(b'!', 4, size_of::<u64>()) as u64;
const SYNCHRONOUS_WAKE_UP: u64 = 1;

mod requests {
    use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp};
    nix::ioctl_readwrite!(receive, b'!', 0, seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, seccomp_notif_resp);
    nix::ioctl_write_ptr!(is_valid, b'!', 2, u64);
    nix::ioctl_write_ptr!(add_descriptor, b'!', 3, seccomp_notif_addfd);
}

/// A listener's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(u64);

impl Number {
    /// That of the sandbox's own program, whose listener is there as long as the sandbox.
    pub const FIRST: Number = Number(0);
}

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    id: u64,
    listener: Number,
    /// The calling thread.
    pub task: Pid,
    /// The system call's number.
    pub call: libc::c_long,
    pub arguments: [u64; 6],
}

impl Notification {
    fn known_by(&self) -> Call {
        Call {
            id: self.id,
            listener: self.listener,
            task: self.task,
        }
    }
}

/// Asks the kernel for an optimization that Linux has since 6.6; without it everything works.
fn prepare(listener: &OwnedFd) {
    // SAFETY: the flags are passed by value.
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            SET_FLAGS as libc::Ioctl,
            SYNCHRONOUS_WAKE_UP,
        )
    };
}

/// The tasks' filter, with the words by which the driver reads anything.
fn filter(policy: &Policy<'_>) -> Result<Vec<libc::sock_filter>, Problem> {
    let uvm: Vec<u32> = words::uvm_beyond().collect();
    // For the test of what happens if they are let run.
    let (stopped, let_run) = match at(Point::Words) {
        Some(Act::Drop) => ([&[][..], &[], &[]], words::sized()),
        _ => ([words::sized(), words::any_size(), &uvm], &[][..]),
    };
    let [sized, any_size, uvm] = stopped;
    let tables = [
        ("driver_words", sized),
        ("driver_numbers", any_size),
        ("uvm_words", uvm),
        ("words_let_run", let_run),
        ("namespace_numbers", namespace_numbers()),
    ];
    policy.compile(&tables.map(|(name, numbers)| Table { name, numbers }))
}

/// The numbers of the ioctls by which mount namespaces are opened one after the other (`NS_MNT_GET_NEXT` and `NS_MNT_GET_PREV` of
/// linux/nsfs.h), if a program that the calling thread executes can have the capability that they take.
fn namespace_numbers() -> &'static [u32] {
    let mut sets = [CapSet::Bounding, CapSet::Inheritable].into_iter();
    let has = |set| caps::has_cap(None, set, Capability::CAP_SYS_ADMIN).unwrap_or(true);
    match sets.any(has) {
        true => &[0xb, 0xc],
        false => &[],
    }
}

/// Why no filter with a listener can be installed below another that has one (seccomp(2)).
pub const SUPERVISED: &str =
    "a seccomp listener supervises this process already: start Ringfence outside of that sandbox";

/// Installs the tasks' filter on the calling thread, which must not be able to gain privileges any more, and returns the
/// listener. Programs executed later inherit the filter.
pub fn install() -> Result<OwnedFd, Failure> {
    install_policy(&policies::TASK)
}

/// The same in a container. The calling thread may still be able to gain privileges, and has `CAP_SYS_ADMIN` in its user namespace then.
pub fn install_in_container() -> Result<OwnedFd, Failure> {
    let own = policies::CONTAINER;
    // A test leaves out what is refused, to show that it would notice.
    if at(Point::Refused) != Some(Act::Drop) {
        return install_policy(&own);
    }
    let kept: Vec<Vec<Case<'_>>> = own.rules.iter().map(without_refusals).collect();
    let rules = own.rules.iter().zip(&kept);
    let rules: Vec<Rule<'_>> = rules.map(|(rule, cases)| Rule { cases, ..*rule }).collect();
    install_policy(&Policy {
        rules: &rules,
        ..own
    })
}

/// Installs a filter that refuses nothing and tells of each request of the driver, as [`install`] does.
pub fn install_to_watch() -> Result<OwnedFd, Failure> {
    install_policy(&policies::SURVEY)
}

/// What a rule says of a call besides that it fails.
fn without_refusals<'a>(rule: &Rule<'a>) -> Vec<Case<'a>> {
    let cases = rule.cases.iter().copied();
    cases
        .filter(|case| !matches!(case.verdict, Verdict::Errno(_)))
        .collect()
}

fn install_policy(policy: &Policy<'_>) -> Result<OwnedFd, Failure> {
    let program = filter(policy).attempt("the seccomp filter")?;
    install_with_listener(&program).map_err(|errno| {
        let reason = match errno {
            Errno::EBUSY => SUPERVISED.to_owned(),
            _ => errno.to_string(),
        };
        Failure::setup(format!("the seccomp filter: {reason}"))
    })
}

/// The sentry's ends: of the filter of the sandbox's program, and of those of programs that were started later.
#[derive(Debug)]
pub struct Listener {
    /// The program's.
    first: OwnedFd,
    further: RwLock<BTreeMap<Number, Arc<OwnedFd>>>,
    /// How many further ones there were.
    count: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// A call that was received. Its task's number is its own as long as the call waits, and may be another task's from then
/// on: what a call is known by is what the kernel calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    id: u64,
    listener: Number,
    task: Pid,
}

impl Call {
    /// The thread that made it.
    pub fn task(&self) -> Pid {
        self.task
    }
}

/// What came of holding a task.
pub enum Hold<T> {
    /// It waits in this call, and goes on waiting.
    Waiting(Call),
    /// It was interrupted.
    Interrupted(T),
}

/// An answer, and by which listener the call has come.
#[derive(Clone, Copy, Debug)]
struct Answer {
    listener: Number,
    response: seccomp_notif_resp,
}

impl Answer {
    fn is_to(&self, call: &Call) -> bool {
        (call.listener, call.id) == (self.listener, self.response.id)
    }
}

/// The calls that wait for an answer.
#[derive(Debug, Default)]
struct Waiting {
    /// Those that were received and not yet answered. The tasks of some may have been killed meanwhile.
    received: Vec<Call>,
    /// Those of them that are to go on waiting when their answer is there, and the answer.
    frozen: Vec<(Call, Option<Answer>)>,
    /// Tasks that were interrupted and are about to stop, and by which thread: calls of theirs are not taken on.
    interrupted: Vec<(Pid, Pid)>,
}

impl Waiting {
    /// Whether `task` was interrupted and has not stopped yet. It may also be another by now, which has executed a program
    /// and got the number of its process's first thread: one that is not interrupted is not traced either.
    fn is_to_stop(&self, task: Pid) -> bool {
        let mut interrupted = self.interrupted.iter();
        let Some((_, by)) = interrupted.find(|(interrupted, _)| *interrupted == task) else {
            return false;
        };
        procfs::tracer_of(task) == Some(*by)
    }

    /// Keeps `answer` if its call is frozen; else notes that it waits no more, and returns the answer to be given.
    fn release(&mut self, answer: Answer) -> Option<Answer> {
        let mut frozen = self.frozen.iter_mut();
        if let Some((_, kept)) = frozen.find(|(call, _)| answer.is_to(call)) {
            *kept = Some(answer);
            return None;
        }
        let mut received = self.received.iter();
        if let Some(index) = received.position(|call| answer.is_to(call)) {
            self.received.swap_remove(index);
        }
        Some(answer)
    }
}

impl Listener {
    /// Takes over a listener that [`install`] or [`install_in_container`] made.
    pub fn new(descriptor: OwnedFd) -> Listener {
        prepare(&descriptor);
        Listener {
            first: descriptor,
            further: RwLock::default(),
            count: AtomicU64::new(0),
            waiting: Mutex::default(),
        }
    }

    /// Takes over the listener of a program that was started later.
    pub fn add(&self, descriptor: OwnedFd) -> Number {
        prepare(&descriptor);
        let number = Number(self.count.fetch_add(1, Ordering::Relaxed) + 1);
        let mut further = self.further.write().ignore_poison();
        further.insert(number, Arc::new(descriptor));
        number
    }

    /// Closes a listener that [`Listener::add`] has taken over, and under whose filter no task is left.
    pub fn remove(&self, number: Number) {
        let mut further = self.further.write().ignore_poison();
        further.remove(&number);
    }

    /// Has `ask` ask the kernel by the listener of this number. Fails with `ENOENT`, as the kernel does where the task is gone, if
    /// it was closed.
    fn with<T>(
        &self,
        number: Number,
        ask: impl FnOnce(RawFd) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if number == Number::FIRST {
            return ask(self.first.as_raw_fd());
        }
        let further = self.further.read().ignore_poison();
        let descriptor = further.get(&number).cloned().ok_or(Errno::ENOENT)?;
        drop(further);
        ask(descriptor.as_raw_fd())
    }

    /// Waits for the next call. `None` when no task is left under the filter.
    pub fn receive(&self, number: Number) -> Result<Option<Notification>, Errno> {
        loop {
            // Until Linux 6.11 nothing ends a receive when the last task has ended. That is of no matter of the program's own.
            if number != Number::FIRST && !self.wait(number)? {
                return Ok(None);
            }
            match self.receive_one(number) {
                Ok(None) => {}
                // The task was killed before the notification could be copied, or this thread was interrupted.
                Err(Errno::EINTR) => {}
                // Without tasks a receive would wait for ever; ENOENT is also what a killed task leaves.
                Err(Errno::ENOENT) if self.has_tasks(number) => {}
                Err(Errno::ENOENT) => return Ok(None),
                outcome => return outcome,
            }
        }
    }

    /// A call that waits to be received, if there is one. Does not wait, as long as no other thread receives.
    pub fn receive_waiting(&self, number: Number) -> Option<Notification> {
        while self
            .polled(number, PollTimeout::ZERO)
            .contains(PollFlags::POLLIN)
        {
            match self.receive_one(number) {
                Ok(Some(notification)) => return Some(notification),
                Ok(None) | Err(Errno::EINTR | Errno::ENOENT) => {}
                // Whoever waits for the next call is told.
                Err(_) => return None,
            }
        }
        None
    }

    /// `None` for a call that is to be begun anew, when its task goes on.
    fn receive_one(&self, number: Number) -> Result<Option<Notification>, Errno> {
        // SAFETY: an all-zero notification is a valid one, and the kernel demands it.
        let mut received: seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one notification to the struct, which outlives the call.
        self.with(number, |listener| unsafe {
            requests::receive(listener, &raw mut received)
        })?;
        let (id, task) = (received.id, Pid::from_raw(received.pid as i32));
        let call = Call {
            id,
            listener: number,
            task,
        };
        let mut waiting = self.waiting();
        if waiting.is_to_stop(task) {
            self.restart(call);
            return Ok(None);
        }
        waiting.received.push(call);
        Ok(Some(Notification {
            id,
            listener: number,
            task,
            call: libc::c_long::from(received.data.nr),
            arguments: received.data.args,
        }))
    }

    /// Waits for a call that can be received; `false` if there can be none any more.
    fn wait(&self, number: Number) -> Result<bool, Errno> {
        loop {
            let polled = self.polled(number, PollTimeout::NONE);
            if polled.contains(PollFlags::POLLIN) {
                return Ok(true);
            }
            if polled.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                return Ok(false);
            }
        }
    }

    /// Whether any task still lives under the filter (poll(2) reports a hang-up when none does).
    fn has_tasks(&self, number: Number) -> bool {
        let polled = self.polled(number, PollTimeout::ZERO);
        !polled.contains(PollFlags::POLLHUP)
    }

    /// What poll(2) says: `POLLIN` if a call waits to be received. A listener that was closed has no tasks.
    fn polled(&self, number: Number, timeout: PollTimeout) -> PollFlags {
        let polled = self.with(number, |listener| {
            // SAFETY: it is open as long as this is called.
            let listener = unsafe { BorrowedFd::borrow_raw(listener) };
            let mut listener = [PollFd::new(listener, PollFlags::POLLIN)];
            let _ = poll(&mut listener, timeout);
            Ok(listener[0].revents().unwrap_or(PollFlags::empty()))
        });
        polled.unwrap_or(PollFlags::POLLHUP)
    }

    /// Fails with `ESRCH` unless the task still waits in this call. Its number is its own as long as it does, and may be
    /// another task's from then on. So whoever has learned something of a task by its number asks afterwards, before
    /// anything is done with what was learned; and whoever writes to one asks before. (What is done by the notification, like
    /// answering it, fails by itself if the task is gone.)
    pub fn expect_waiting(&self, notification: &Notification) -> Result<(), Errno> {
        match self.is_waiting(notification.known_by()) {
            true => Ok(()),
            false => Err(Errno::ESRCH),
        }
    }

    /// Whether a task still waits in `call`, and so has had its number all the time.
    pub fn is_waiting(&self, call: Call) -> bool {
        // A test leaves this out, to show that it would notice.
        if at_task(Point::Waiting, call.task.as_raw()) == Some(Act::Drop) {
            return true;
        }
        // SAFETY: the kernel reads the number, which outlives the call.
        let valid = self.with(call.listener, |listener| unsafe {
            requests::is_valid(listener, &raw const call.id)
        });
        valid.is_ok()
    }

    /// Lets the call return `outcome` without being executed.
    pub fn answer(&self, notification: &Notification, outcome: Result<i64, Errno>) {
        let (val, error) = match outcome {
            Ok(value) => (value, 0),
            Err(errno) => (0, -number_of(errno)),
        };
        self.respond(notification, val, error, 0);
    }

    /// Ends a call of a task for which a signal waits, as the kernel ends one that waits (ERESTARTSYS): whether it fails with
    /// `EINTR` or begins anew is the handler's choice (SA_RESTART). The kernel must have told that very thread of a signal:
    /// else the program would see this error, which is the kernel's own.
    pub fn interrupt(&self, notification: &Notification) {
        const ERESTARTSYS: i32 = 512;
        self.respond(notification, 0, -ERESTARTSYS, 0);
    }

    /// Lets the kernel execute the call.
    pub fn let_run(&self, notification: &Notification) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.respond(notification, 0, 0, flags);
    }

    fn respond(&self, notification: &Notification, val: i64, error: i32, flags: u32) {
        let answer = self.waiting().release(Answer {
            listener: notification.listener,
            response: seccomp_notif_resp {
                id: notification.id,
                val,
                error,
                flags,
            },
        });
        if let Some(answer) = answer {
            self.send(answer);
        }
    }

    fn send(&self, answer: Answer) {
        let mut response = answer.response;
        // SAFETY: the kernel reads one response from the struct, which outlives the call.
        let outcome = self.with(answer.listener, |listener| unsafe {
            requests::send(listener, &raw mut response)
        });
        if let Err(errno) = outcome
            && errno != Errno::ENOENT
        {
            warn_once("a system call could not be answered", errno);
        }
    }

    /// Answers the call with `descriptor`: the task gets it under a number of the kernel's choice, which the call
    /// returns. That number. Fails with `ENOENT` if the task is gone; after any other error the call is still to be
    /// answered.
    ///
    /// This takes two steps. `SECCOMP_ADDFD_FLAG_SEND` would do both at once, but is not fit to begin anew: if this
    /// thread is interrupted before the task has installed the descriptor, by the freezer of cgroups for instance, the
    /// kernel takes the descriptor back and lets the task's call return 0 all the same.
    pub fn give(
        &self,
        notification: &Notification,
        descriptor: OwnedFd,
        close_on_exec: bool,
    ) -> Result<RawFd, Errno> {
        let number = self.put(notification, descriptor.as_fd(), close_on_exec, 0, 0)?;
        // From its answer on, the task's descriptor is the only one.
        drop(descriptor);
        self.answer(notification, Ok(i64::from(number)));
        Ok(number)
    }

    /// Puts `descriptor` into the task's table, under a number of the kernel's choice. The call is still to be answered. Fails with
    /// `ENOENT` if the task is gone.
    pub fn add_descriptor(
        &self,
        notification: &Notification,
        descriptor: OwnedFd,
        close_on_exec: bool,
    ) -> Result<RawFd, Errno> {
        self.put(notification, descriptor.as_fd(), close_on_exec, 0, 0)
    }

    /// Puts a duplicate of `descriptor` in the place of the task's descriptor `number`. The call is still to be answered.
    pub fn replace_descriptor(
        &self,
        notification: &Notification,
        descriptor: BorrowedFd<'_>,
        close_on_exec: bool,
        number: RawFd,
    ) -> Result<(), Errno> {
        let flags = libc::SECCOMP_ADDFD_FLAG_SETFD as u32;
        self.put(notification, descriptor, close_on_exec, flags, number)
            .map(drop)
    }

    fn put(
        &self,
        notification: &Notification,
        descriptor: BorrowedFd<'_>,
        close_on_exec: bool,
        flags: u32,
        number: RawFd,
    ) -> Result<RawFd, Errno> {
        let addition = seccomp_notif_addfd {
            id: notification.id,
            flags,
            srcfd: descriptor.as_raw_fd() as u32,
            newfd: number as u32,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC as u32
            } else {
                0
            },
        };
        // SAFETY: the kernel reads the struct, which outlives the call.
        self.with(notification.listener, |listener| unsafe {
            requests::add_descriptor(listener, &raw const addition)
        })
    }

    /// Holds `task`: keeps it in the kernel until [`Listener::thaw`] if it waits for an answer, whatever answer it gets
    /// meanwhile; else calls `interrupt`, which must make it stop before it goes on, and takes on no call of it until
    /// [`Listener::has_stopped`]. One that waits is held as long as it does: it may be killed, and its number be another
    /// task's then.
    pub fn hold<T>(
        &self,
        task: Pid,
        interrupt: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<Hold<T>, Errno> {
        let mut waiting = self.waiting();
        // There may be a call yet of a task that had this number before, and was killed.
        let own = |call: &&Call| call.task == task && self.is_waiting(**call);
        if let Some(call) = waiting.received.iter().find(own).copied() {
            waiting.frozen.push((call, None));
            return Ok(Hold::Waiting(call));
        }
        let interrupted = interrupt()?;
        waiting.interrupted.push((task, gettid()));
        Ok(Hold::Interrupted(interrupted))
    }

    /// An interrupted task has stopped, or ended.
    pub fn has_stopped(&self, task: Pid) {
        self.waiting()
            .interrupted
            .retain(|(interrupted, _)| *interrupted != task);
    }

    /// Lets a call start over once its task, which was interrupted, goes on. (The kernel turns this error into a
    /// restart on the way to the stop that the interruption is; a program never sees it.)
    fn restart(&self, call: Call) {
        const ERESTARTNOINTR: i32 = 513;
        self.send(Answer {
            listener: call.listener,
            response: seccomp_notif_resp {
                id: call.id,
                val: 0,
                error: -ERESTARTNOINTR,
                flags: 0,
            },
        });
    }

    /// Gives a call that was held the answer that it got meanwhile.
    pub fn thaw(&self, call: Call) {
        let mut waiting = self.waiting();
        let mut frozen = waiting.frozen.iter();
        let Some(index) = frozen.position(|(frozen, _)| *frozen == call) else {
            return;
        };
        let (_, kept) = waiting.frozen.swap_remove(index);
        let answer = kept.and_then(|answer| waiting.release(answer));
        drop(waiting);
        if let Some(answer) = answer {
            self.send(answer);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().ignore_poison()
    }
}

#[cfg(test)]
mod tests {
    use ringfence_confinement::Verdict;
    use ringfence_confinement::interpreter::{Call, run};

    use super::*;

    /// Every type and direction, with every number and size that the driver of any release reads.
    #[test]
    fn the_filter_stops_what_any_driver_reads_whatever_its_type() {
        let filter = filter(&policies::TASK).expect("a filter");
        println!("{} instructions", filter.len());
        let stops = |word: u32| {
            let arguments = [3, word.into(), 0, 0, 0, 0];
            run(&filter, &Call::native(libc::SYS_ioctl, arguments)) == Some(Verdict::Notify)
        };
        let sizes = [0, 1, 72, 16383];
        let any = words::any_size().iter();
        let any = any.flat_map(|number| sizes.map(|size| size << 16 | number));
        for read in words::sized().iter().copied().chain(any) {
            for kind in 0..=255u32 {
                for direction in 0..4 {
                    let word = direction << 30 | kind << 8 | read;
                    assert!(stops(word), "{word:#x}");
                }
            }
        }
        // The file layer takes FIGETBSZ before any driver sees it.
        for word in (0..words::UVM_BOUND).filter(|word| *word != 2) {
            assert!(stops(word), "{word:#x}");
        }
        assert!(words::uvm_beyond().all(stops));
    }
}
