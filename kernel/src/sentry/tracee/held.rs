//! All threads of the sandbox but one, held.
//!
//! Not only those that share the one's memory or descriptors could interfere with what it is made to do: any may write
//! to its memory or copy its descriptors, if the kernel lets it trace the one, or has `/proc/PID/mem` open. A task that
//! starts is found, because the search goes on until two passes in a row find the same, and the kernel says that no task
//! was made during either ([`Numbers`]). To find nothing new is not enough: a task may make another and be gone before it
//! is looked at, and so may its successor.
//!
//! Threads are held by number. A number is a thread's own until its parent, or its tracer, has waited for its end. That
//! is this process for the threads that it has interrupted, and it notices. A thread that waits for the sentry's answer is
//! not traced, and may be killed in the meantime, and its number be given to one that runs. So those are looked at once
//! more when nothing runs any more that could make a thread.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;
use ringfence_faults::{Act, Point, at_task};

use super::{Look, Numbers, PAUSE, Seized, Stragglers, has_ended};
use crate::seccomp::listener::{Call, Hold, Listener};
use crate::sentry::procfs;

/// How long it usually takes at most until the last of some threads that were interrupted has stopped.
const PROMPT: Duration = Duration::from_micros(500);

/// How much longer threads may take to stand still: some two seconds, in looks that are a millisecond apart. The clock
/// goes on while the sandbox is frozen by the freezer of cgroups, and no look is taken then.
struct Patience {
    /// When the last thread was interrupted.
    since: Instant,
    looks: u32,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            since: Instant::now(),
            looks: 2000,
        }
    }

    /// Whether most stops come yet without a pause.
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < PROMPT
    }

    /// Between two passes over all tasks; false if there have been enough of them. Nobody pauses at first, since a task
    /// that starts and ends all the time is to be overtaken.
    fn is_left_for_a_pass(&mut self) -> bool {
        if !self.is_fresh() {
            return self.pause();
        }
        let is_left = self.looks > 0;
        self.looks = self.looks.saturating_sub(1);
        is_left
    }

    /// Pauses until the next look; false if there have been enough of them.
    fn pause(&mut self) -> bool {
        let is_left = self.looks > 0;
        self.looks = self.looks.saturating_sub(1);
        std::thread::sleep(PAUSE);
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
}

/// Every task of the sandbox but one. They go on when this is dropped.
pub struct Held<'a> {
    listener: &'a Listener,
    stragglers: &'a Stragglers,
    /// Threads that wait in the kernel for the sentry's own answer, and are kept waiting.
    frozen: Vec<Call>,
    /// Threads that were interrupted and have not stopped yet.
    interrupted: Vec<Seized<'a>>,
    /// Threads that wait in the kernel for a child that uses their memory, and is held: they stop when it is not.
    behind_a_child: Vec<Seized<'a>>,
    stopped: Vec<Seized<'a>>,
}

impl<'a> Held<'a> {
    /// Holds every thread but `caller`, which itself waits in the kernel. Fails with `EAGAIN` if a thread cannot be
    /// stopped in good time.
    pub fn all_but(
        caller: Pid,
        init: Pid,
        numbers: &Numbers,
        listener: &'a Listener,
        stragglers: &'a Stragglers,
    ) -> Result<Held<'a>, Errno> {
        let mut patience = Patience::new();
        let mut held = Held {
            listener,
            stragglers,
            frozen: Vec::new(),
            interrupted: stragglers.take(),
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
            let (mut any_new, mut any_gone) = (false, false);
            // All are interrupted before the first is waited for: they stop at the same time.
            for process in tasks(init)? {
                let threads = threads(process);
                any_gone |= threads.is_empty();
                for thread in threads {
                    if known.contains(&thread) {
                        continue;
                    }
                    match held.hold(thread)? {
                        Found::Held => {
                            known.insert(thread);
                            any_new = true;
                        }
                        Found::Ended => {}
                        Found::Gone => any_gone = true,
                    }
                }
            }
            let is_settled = !any_new && !any_gone && before_the_last == Some(numbers.last()?);
            // A test leaves this out, to show that it would notice.
            let is_settled = match at_task(Point::Settled, caller.as_raw()) {
                Some(Act::Drop) => !any_new,
                _ => is_settled,
            };
            before_the_last = Some(before);
            if any_new {
                patience.since = Instant::now();
            } else if is_settled && held.interrupted.is_empty() && held.all_wait(&mut known) {
                return Ok(held);
            }
            held.wait_for_interrupted(&mut patience, &mut known)?;
            if !patience.is_left_for_a_pass() {
                return Err(Errno::EAGAIN);
            }
        }
    }

    /// Takes hold of one thread.
    fn hold(&mut self, thread: Pid) -> Result<Found, Errno> {
        let stragglers = self.stragglers;
        let seize = || Seized::new(thread, Seized::OPTIONS, stragglers);
        match self.listener.hold(thread, seize) {
            Ok(Hold::Interrupted(seized)) => self.interrupted.push(seized),
            Ok(Hold::Waiting(call)) => self.frozen.push(call),
            Err(Errno::ESRCH) => return Ok(Found::Gone),
            Err(_) if has_ended(thread) => return Ok(Found::Ended),
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

    /// Waits until each interrupted thread has stopped or ended, or waits for a child.
    fn wait_for_interrupted(
        &mut self,
        patience: &mut Patience,
        known: &mut BTreeSet<Pid>,
    ) -> Result<(), Errno> {
        while let Some(seized) = self.interrupted.last_mut() {
            let thread = seized.thread;
            match seized.look()? {
                Look::Running if patience.is_fresh() => std::thread::yield_now(),
                Look::Running if waits_for_a_child(thread) => {
                    self.behind_a_child.extend(self.interrupted.pop());
                }
                Look::Running if !has_ended(thread) => {
                    if !patience.pause() {
                        return Err(Errno::EAGAIN);
                    }
                }
                Look::Running | Look::Ended => {
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
        // Those that have not stopped become stragglers, which stop yet and go on then.
        self.stopped.clear();
        for call in self.frozen.drain(..) {
            self.listener.thaw(call);
        }
    }
}

/// The sandbox's tasks: all processes of the sentry's process namespace, which `/proc` shows, but itself and `init`, which
/// is process 1 of the tasks' own. Servers have namespaces beside it.
pub fn tasks(init: Pid) -> Result<Vec<Pid>, Errno> {
    let own = Pid::this();
    let entries = std::fs::read_dir("/proc").map_err(|_| Errno::EIO)?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers
        .map(Pid::from_raw)
        .filter(|process| ![own, init].contains(process))
        .collect())
}

fn threads(process: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.map(Pid::from_raw).collect()
}

/// Whether `thread` waits for a child that uses its memory to execute a program or end, as after vfork(2). No
/// interruption stops it until then.
///
/// A thread that is on its way to such a wait must not be taken for one that waits: its child does not exist yet, and
/// would not be held. So two facts are asked for. By proc_pid_syscall(5) it is in a call that makes a child and waits;
/// and by proc_pid_wchan(5) it sleeps in the kernel's function that does the waiting, or in the one that calls it
/// if the compiler made one of both (kernel_clone in kernel/fork.c), and in nothing that makes the child.
fn waits_for_a_child(thread: Pid) -> bool {
    const FUNCTIONS: [&str; 2] = ["kernel_clone", "wait_for_vfork_done"];
    const FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    let call = procfs::text(thread, "syscall");
    let mut words = call.split(' ');
    let number = words.next().and_then(|number| number.parse().ok());
    let flags = words
        .next()
        .and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let makes_one = match number {
        Some(libc::SYS_vfork) => true,
        Some(libc::SYS_clone) => flags.is_some_and(|flags| flags & FLAGS == FLAGS),
        _ => false,
    };
    let function = procfs::text(thread, "wchan");
    // A compiler that takes a function apart appends to its name, after a dot.
    makes_one && FUNCTIONS.contains(&function.split('.').next().unwrap_or_default())
}
