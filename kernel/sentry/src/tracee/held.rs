//! All threads of the sandbox but one, held.
//!
//! Not only those that share the one's memory or descriptors could interfere with what it is made to do: any may write
//! to its memory or copy its descriptors, if the kernel lets it trace the one, or has `/proc/PID/mem` open. A task that
//! starts is found, because the search goes on until two passes in a row find the same, and the kernel says that no task
//! was made during either ([`Numbers`]). To find nothing new is not enough: a task may make another and be gone before it
//! is looked at, and so may its successor.
//!
//! Threads are held by number. A number is a thread's own until its parent, or its tracer, has waited for its end. That
//! is this process for the threads that it has interrupted, and it notices. There are two exceptions. A thread that waits
//! for the sentry's answer is not traced, and may be killed in the meantime, and its number be given to one that runs. And a
//! thread that executes a program takes the number of its process's first one, whoever traces that. So all are looked at
//! once more when nothing runs any more that could make a thread or execute a program.
//!
//! Who executes a program waits until the process's other threads are gone, and those that are traced are when their tracer
//! has waited for them. So whenever this waits for anybody, it also waits for those that have ended.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Pid, gettid};
use ringfence_faults::{Act, Point, at, at_task};

use super::patience::Work;
use super::{Look, Numbers, Patience, Seized, Tracer, has_ended};
use crate::procfs;
use crate::seccomp::listener::{Call, Hold, Listener};

/// How long it usually takes at most until the last of some threads that were interrupted has stopped.
const PROMPT: Duration = Duration::from_micros(500);

/// Passes over all tasks, and pauses between them.
struct Passes<'a> {
    /// When the last thread was interrupted.
    since: Instant,
    work: Work,
    /// How many more there may be without a pause.
    unpaused: u32,
    patience: &'a Patience<'a>,
}

impl<'a> Passes<'a> {
    fn new(patience: &'a Patience<'a>) -> Passes<'a> {
        Passes {
            since: Instant::now(),
            work: Work::begin(),
            unpaused: 2000,
            patience,
        }
    }

    /// Whether most stops come yet without a pause.
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < PROMPT
    }

    /// Between two passes over all tasks; false if there have been enough of them. Nobody pauses at first, since a task
    /// that starts and ends all the time is to be overtaken.
    fn is_left(&mut self) -> bool {
        // A test leaves this out, to show that it would notice.
        if at(Point::Passed) != Some(Act::Drop) {
            self.patience.spend(&mut self.work);
        }
        if !self.is_fresh() {
            return self.patience.pause();
        }
        let is_left = self.unpaused > 0 && self.patience.is_left();
        self.unpaused = self.unpaused.saturating_sub(1);
        is_left
    }
}

/// What came of taking hold of a thread.
#[derive(PartialEq, Eq)]
enum Found {
    Held,
    /// It has ended, and is still there to be waited for.
    Ended,
    /// It is gone, and may have made another that was not there yet to be found.
    Gone,
    /// It cannot be seized yet, because a thread of its process executes a program.
    Busy,
}

/// Every task of the sandbox but one. They go on when this is dropped.
pub struct Held<'a> {
    listener: &'a Listener,
    tracer: &'a Tracer,
    /// Threads that wait in the kernel for the sentry's own answer, and are kept waiting.
    frozen: Vec<Call>,
    /// Threads that were interrupted and have not stopped yet.
    interrupted: Vec<Seized<'a>>,
    /// Threads that wait in the kernel for a child that is held: they stop when it is not.
    behind_a_child: Vec<Seized<'a>>,
    stopped: Vec<Seized<'a>>,
}

impl<'a> Held<'a> {
    /// Holds every thread but `caller`, which itself waits in the kernel. Fails with `EAGAIN` if a thread cannot be
    /// stopped as long as there is `patience`.
    pub fn all_but(
        caller: Pid,
        init: Option<Pid>,
        numbers: &Numbers,
        listener: &'a Listener,
        tracer: &'a Tracer,
        patience: &Patience<'_>,
    ) -> Result<Held<'a>, Errno> {
        let mut passes = Passes::new(patience);
        let mut alarm = tracer.alarm.borrow_mut();
        // A test leaves this out, to show that it would notice.
        let _ringing = (at_task(Point::Alarm, caller.as_raw()) != Some(Act::Drop))
            .then(|| alarm.start())
            .transpose()?;
        let mut held = Held {
            listener,
            tracer,
            frozen: Vec::new(),
            interrupted: tracer.take_stragglers(),
            behind_a_child: Vec::new(),
            stopped: Vec::new(),
        };
        // Those that are held, by their numbers; each is taken out when its thread is seen to have ended, since another may
        // have it then.
        let mut known: BTreeSet<Pid> = held
            .interrupted
            .iter()
            .map(|seized| seized.thread)
            .collect();
        known.insert(caller);
        // A thread that starts another before it stops is why this looks again until nothing new is found; threads
        // that are held start none. A number may be given out before a pass whose task is to be seen only after it has
        // been passed by: the next pass finds that one.
        let mut before_the_last = None;
        loop {
            let before = numbers.last()?;
            let (mut any_new, mut any_gone, mut any_busy) = (false, false, false);
            // All are interrupted before the first is waited for: they stop at the same time.
            let processes = tasks(init)?;
            at_task(Point::Pass, caller.as_raw());
            for process in processes {
                let threads = threads(process);
                any_gone |= threads.is_empty();
                for thread in threads {
                    if known.contains(&thread) {
                        continue;
                    }
                    match held.hold(process, thread)? {
                        Found::Held => {
                            known.insert(thread);
                            any_new = true;
                        }
                        Found::Ended => {}
                        Found::Gone => any_gone = true,
                        Found::Busy => any_busy = true,
                    }
                }
            }
            let is_settled =
                !any_new && !any_gone && !any_busy && before_the_last == Some(numbers.last()?);
            // A test leaves this out, to show that it would notice.
            let is_settled = match at_task(Point::Settled, caller.as_raw()) {
                Some(Act::Drop) => !any_new,
                _ => is_settled,
            };
            before_the_last = Some(before);
            if any_new {
                passes.since = Instant::now();
            } else if is_settled && held.interrupted.is_empty() && held.all_are_there(&mut known) {
                return Ok(held);
            }
            held.wait_for_interrupted(&passes, &mut known)?;
            if any_busy {
                held.pause(&passes, &mut known)?;
            }
            if !passes.is_left() {
                return Err(Errno::EAGAIN);
            }
        }
    }

    /// Takes hold of one thread of `process`.
    fn hold(&mut self, process: Pid, thread: Pid) -> Result<Found, Errno> {
        let tracer = self.tracer;
        let seize = || match Seized::new(thread, Seized::OPTIONS, tracer) {
            // It was seized under another number, and has executed a program since.
            // A test leaves this out, to show that it would notice.
            Err(Errno::EPERM)
                if !has_ended(thread)
                    && procfs::tracer_of(thread) == Some(gettid())
                    && at_task(Point::Traced, thread.as_raw()) != Some(Act::Drop) =>
            {
                Ok(Seized::born(thread, tracer))
            }
            Err(Errno::ESRCH) => {
                tracer.follow(process);
                Err(Errno::ESRCH)
            }
            seized => seized,
        };
        match self.listener.hold(thread, seize) {
            Ok(Hold::Interrupted(seized)) => self.interrupted.push(seized),
            Ok(Hold::Waiting(call)) => self.frozen.push(call),
            Err(Errno::ESRCH) => {
                self.expect_stop(process);
                return Ok(Found::Gone);
            }
            Err(Errno::EINTR) => return Ok(Found::Busy),
            Err(_) if has_ended(thread) => return Ok(Found::Ended),
            // The number was that of one that had ended, and is another's now, which has executed a program.
            Err(Errno::EPERM) if procfs::tracer_of(thread).is_none() => return Ok(Found::Gone),
            Err(errno) => return Err(errno),
        }
        Ok(Found::Held)
    }

    /// Whether all threads that wait in a call do so still. Those that do not were killed, and are not `known` any more.
    fn all_wait(&mut self, known: &mut BTreeSet<Pid>) -> bool {
        let listener = self.listener;
        let gone = self
            .frozen
            .extract_if(.., |call| !listener.is_waiting(*call));
        let gone: Vec<Call> = gone.collect();
        for call in &gone {
            listener.thaw(*call);
            known.remove(&call.task());
        }
        gone.is_empty()
    }

    /// Has this wait for the thread of this number if that was held by it and does not stand still any more, since the number
    /// is that of another now.
    fn expect_stop(&mut self, number: Pid) {
        let is_another =
            |seized: &mut Seized<'_>| seized.thread == number && procfs::state(number) != Some('t');
        let stopped = self.stopped.extract_if(.., is_another);
        let behind_a_child = self.behind_a_child.extract_if(.., is_another);
        self.interrupted.extend(stopped.chain(behind_a_child));
    }

    /// Whether all that are held are there still, under the numbers that they are `known` by.
    fn all_are_there(&mut self, known: &mut BTreeSet<Pid>) -> bool {
        let have_stopped = self.all_stand_still(known);
        self.all_wait(known) && have_stopped
    }

    /// Whether all threads that have stopped are there still. Those that are not were killed, and are not `known` any more.
    fn all_stand_still(&mut self, known: &mut BTreeSet<Pid>) -> bool {
        let has_ended = |seized: &mut Seized<'_>| matches!(seized.look(), Ok(Look::Ended(_)));
        let stopped = self.stopped.extract_if(.., has_ended);
        let behind_a_child = self.behind_a_child.extract_if(.., has_ended);
        let gone: Vec<Seized<'_>> = stopped.chain(behind_a_child).collect();
        self.note_gone(&gone, known);
        gone.is_empty()
    }

    /// These threads have ended, and their numbers may become others'.
    fn note_gone(&self, gone: &[Seized<'_>], known: &mut BTreeSet<Pid>) {
        for seized in gone {
            known.remove(&seized.thread);
            self.listener.has_stopped(seized.thread);
        }
    }

    /// Looks at all that were interrupted: has those be gone that have ended, and those be stopped that have stopped.
    fn sort_interrupted(&mut self, known: &mut BTreeSet<Pid>) {
        let mut gone = Vec::new();
        for mut seized in std::mem::take(&mut self.interrupted) {
            match seized.look() {
                Ok(Look::Ended(_)) => gone.push(seized),
                Ok(Look::Stopped(_)) => {
                    self.listener.has_stopped(seized.thread);
                    self.stopped.push(seized);
                }
                Ok(Look::Running) | Err(_) => self.interrupted.push(seized),
            }
        }
        self.note_gone(&gone, known);
    }

    /// Pauses until the next look, and has those be gone that were killed: also of those that it is not waited for yet, since
    /// who executes a program waits for them.
    fn pause(&mut self, passes: &Passes<'_>, known: &mut BTreeSet<Pid>) -> Result<(), Errno> {
        // A test leaves this out, to show that it would notice.
        if at(Point::Sorted) != Some(Act::Drop) {
            self.sort_interrupted(known);
        }
        self.all_stand_still(known);
        match passes.patience.pause() {
            true => Ok(()),
            false => Err(Errno::EAGAIN),
        }
    }

    /// Waits until each interrupted thread has stopped or ended, or waits for a child.
    fn wait_for_interrupted(
        &mut self,
        passes: &Passes<'_>,
        known: &mut BTreeSet<Pid>,
    ) -> Result<(), Errno> {
        while let Some(seized) = self.interrupted.last_mut() {
            let thread = seized.thread;
            match seized.look()? {
                Look::Running if passes.is_fresh() => std::thread::yield_now(),
                Look::Running if self.tracer.vforks.is_in_one(thread) => {
                    self.behind_a_child.extend(self.interrupted.pop());
                }
                Look::Running if !has_ended(thread) => {
                    self.pause(passes, known)?;
                }
                Look::Running | Look::Ended(_) => {
                    drop(self.interrupted.pop());
                    known.remove(&thread);
                    self.listener.has_stopped(thread);
                }
                Look::Stopped(_) => {
                    self.stopped.extend(self.interrupted.pop());
                    self.listener.has_stopped(thread);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.stopped.clear();
        // One may have stopped since it was looked at, and the listener has to hear of it.
        for seized in self
            .interrupted
            .drain(..)
            .chain(self.behind_a_child.drain(..))
        {
            seized.lag();
        }
        for call in self.frozen.drain(..) {
            self.listener.thaw(call);
        }
    }
}

/// The sandbox's tasks: all processes of the sentry's process namespace, which `/proc` shows, but itself and `init`, if process
/// 1 of the tasks' own is no task. Servers have namespaces beside it. A process that is about to start a program in a container's sandbox
/// is among them, and whoever waits for its end.
pub fn tasks(init: Option<Pid>) -> Result<Vec<Pid>, Errno> {
    let own = Pid::this();
    let entries = std::fs::read_dir("/proc").map_err(|_| Errno::EIO)?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers
        .map(Pid::from_raw)
        .filter(|process| *process != own && Some(*process) != init)
        .collect())
}

fn threads(process: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).collect()
}
