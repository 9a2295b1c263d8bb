//! Threads that wait for a child to execute a program or end, as after vfork(2).
//!
//! No interruption stops such a thread until then, and then it stops before it executes anything of its program. Whether the
//! child uses its memory changes nothing about that. A thread that is on its way to such a wait must not be taken for one that
//! waits: its child does not exist yet, and would not be held. So two facts are asked for. By proc_pid_wchan(5) it sleeps in the
//! kernel's function that does the waiting, or in the one that calls it if the compiler made one of both (kernel_clone in
//! kernel/fork.c), and in nothing that makes the child. By proc_pid_syscall(5) it is in a call that makes a child and waits.
//!
//! Of a thread that executes a program the kernel tells neither until all the memory of the old one is taken down
//! (exec_update_lock: lock_trace in fs/proc/base.c, exec_mmap in fs/exec.c), and no signal ends that wait but one that kills.
//! So a thread of its own asks. Who holds the others does not wait for it: as long as there is no answer, a thread counts as one that
//! does not stop.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::unistd::Pid;
use ringfence_faults::{Act, Point, at_task};

use super::{USUAL, alarm};
use crate::arch::VFORK;
use crate::procfs;

/// Tells who waits for a child.
#[derive(Default)]
pub struct Vforks(RefCell<Option<Asking>>);

/// What is between a thread that asks the kernel and the one that wants to know.
struct Asking {
    questions: Sender<Pid>,
    answers: Receiver<bool>,
    /// Whether a question has no answer yet.
    is_open: bool,
}

impl Vforks {
    /// Whether `thread` waits for a child, as far as the kernel says so at once.
    pub fn is_in_one(&self, thread: Pid) -> bool {
        let mut asking = self.0.borrow_mut();
        // Most sandboxes never need the thread. If there can be none, nothing is known.
        if asking.is_none() {
            *asking = Asking::begin();
        }
        asking.as_mut().is_some_and(|asking| asking.ask(thread))
    }
}

impl Asking {
    fn begin() -> Option<Asking> {
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        let tell = move || {
            // It rings for the thread that traces.
            alarm::leave_to_others();
            for thread in asked {
                if answer.send(waits_for_a_child(thread)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("vforks".to_owned());
        thread.spawn(tell).ok()?;
        Some(Asking {
            questions,
            answers,
            is_open: false,
        })
    }

    /// Takes no answer but to a question that is asked here: by the time of a later one, the number may be another thread's.
    fn ask(&mut self, thread: Pid) -> bool {
        if self.is_open && self.answers.try_recv().is_err() {
            return false;
        }
        // That thread never ends.
        let _ = self.questions.send(thread);
        let answer = self.answers.recv_timeout(USUAL);
        self.is_open = answer.is_err();
        answer == Ok(true)
    }
}

fn waits_for_a_child(thread: Pid) -> bool {
    const FUNCTIONS: [&str; 2] = ["kernel_clone", "wait_for_vfork_done"];
    const WAITS: u64 = libc::CLONE_VFORK as u64;
    // A test leaves this out, to have a thread that does not stop.
    if at_task(Point::Vforked, thread.as_raw()) == Some(Act::Drop) {
        return false;
    }
    let function = procfs::text(thread, "wchan");
    // A compiler that takes a function apart appends to its name, after a dot.
    if !FUNCTIONS.contains(&function.split('.').next().unwrap_or_default()) {
        return false;
    }
    let call = procfs::text(thread, "syscall");
    let mut words = call.split(' ');
    let number = words.next().and_then(|number| number.parse().ok());
    let flags = words
        .next()
        .and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    match number {
        Some(number) if Some(number) == VFORK => true,
        Some(libc::SYS_clone) => flags.is_some_and(|flags| flags & WAITS != 0),
        _ => false,
    }
}
