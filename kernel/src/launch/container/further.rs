//! The process that starts a further program in a container's sandbox (`exec`), and stands in for it.
//!
//! The low-level runtime has made it in the namespaces and groups of the container's first process, where no task sees it, as who the
//! program is to be, with the descriptors that the program is to have. It has some rights lent, as the first process has.
//!
//! The idea: it becomes all that the program is to be, and only then makes the process that executes it, in the process namespace of
//! the tasks. So from the moment that a task could see that process, trace it or copy its descriptors, there is nothing more to be had of
//! it than of the program itself: it has no right that was lent, the filter and the Landlock domain are around it, and no descriptor is left
//! that the program does not get. What is entered the sentry has handed over (`ringfence_sentry::entrance`), and no path is followed in
//! the tasks' mount namespace but that of the directory that the program starts in, and its own.
//!
//! Before that it is in the sentry's mount namespace, where a program of the image's with CAP_SYS_ADMIN can exchange what `/proc` is at any
//! time. So it looks once, and goes by the directory that it has found to be the kernel's.
//!
//! Afterwards this process waits. The engine waits for it, and signals it: so it passes signals on, and ends as the program has.
//! If it is killed, so is the program.
//!
//! `unsafe` is here because descriptors are handed over as bare numbers, and because a file is executed by its descriptor with the
//! environment as it is, which no library in use does.

#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, chdir, setsid};
use ringfence_faults::{Act, Point, Role};
use ringfence_ipc::Socket;
use ringfence_sentry::entrance::{Part, Sent};
use ringfence_sentry::failure::{Attempt, Failure, attempt_first};
use ringfence_sentry::log;
use ringfence_sentry::signals::{self, Found};
use ringfence_sentry::system_calls::{exit_at_once, pidfd_open_process};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{WaitOptions, ioctl_tiocsctty};
use rustix::stdio::stdin;

use super::told::{self, Further};
use super::{domain, first, program};
use crate::endings::Ending;
use crate::launch::namespaces::fork_with;
use crate::launch::{c_strings, title};

/// The word that asks for the same once more.
pub const WORD_AGAIN: &str = "container-further-again";

/// Executes this executable anew, so that this process knows nothing of the path that it was executed by: a task could read it in what
/// it makes.
pub fn forget(number: RawFd) -> Result<u8, Failure> {
    const DOING: &str = "/proc/self/exe";
    let processes = first::expect_processes()?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let executable = openat(&processes, "self/exe", flags, Mode::empty()).attempt(DOING)?;
    let words = [title::FURTHER, WORD_AGAIN, &number.to_string()];
    let words = c_strings(&words.map(OsString::from))?;
    let mut words: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    words.push(std::ptr::null());
    // SAFETY: the words, of which the last is null, and the environment outlive the call, which reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            executable.as_raw_fd(),
            c"".as_ptr(),
            words.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    Err(Errno::result(result).err().unwrap_or(Errno::EIO)).attempt(DOING)
}

unsafe extern "C" {
    /// environ(7)
    static environ: *const *const libc::c_char;
}

/// Starts the program, and returns its status when it has ended.
pub fn start(number: RawFd) -> Result<u8, Failure> {
    ringfence_faults::act_as(Role::Program);
    prctl::set_dumpable(false).attempt("prctl")?;
    // SAFETY: the front has put them there for this process, and nothing was opened since.
    let [told, socket] = unsafe { told::take(number) }?;
    let told: Further = told::read(told)?;
    let processes = first::expect_processes()?;
    title::prepare_by(&text_of(&processes, "self/stat")?, &told.name);
    title::take(title::FURTHER);
    let command: Vec<OsString> = told.command.iter().map(OsString::from).collect();
    let command = c_strings(&command)?;
    if told.has_terminal {
        first::leave_terminal()?;
    }
    let found = signals::block()?;
    let label = told.label.as_deref();
    program::take_label(processes.as_fd(), label)?;
    drop(processes);
    let socket = Socket::from(socket);
    let rules = enter(&socket)?;
    // A test makes the process of the program before, to show that it would notice.
    let is_seen = ringfence_faults::at(Point::Seen) == Some(Act::Drop);
    let become_a_task = || become_a_task(&told, rules, socket);
    let (now, then) = match is_seen {
        false => (Some(become_a_task), None),
        true => (None, Some(become_a_task)),
    };
    now.map_or(Ok(()), |become_a_task| become_a_task())?;
    let start = || fork_with(CloneFlags::empty());
    match attempt_first("starting the program", start)? {
        ForkResult::Child => {
            let failure = then.map_or(Ok(()), |become_a_task| become_a_task());
            let failure = failure.and_then(|()| run(&told, &command, &found));
            let failure = match failure {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            log::print(&format!("ringfence: {failure}\n"));
            exit_at_once(i32::from(failure.status))
        }
        ForkResult::Parent { child } => stand_in(child),
    }
}

/// What a file in this directory says.
fn text_of(directory: &OwnedFd, path: &str) -> Result<String, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(directory, path, flags, Mode::empty()).attempt(path)?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).attempt(path)?;
    Ok(text)
}

/// Makes of this process what the program is to be, but for its process namespace, into which its children are born from here on.
fn become_a_task(told: &Further, rules: Option<OwnedFd>, sentry: Socket) -> Result<(), Failure> {
    let own = pidfd_open_process(Pid::this()).attempt("pidfd_open")?;
    sentry
        .send(Sent::Process as u64, own.as_fd())
        .attempt("entering the sandbox")?;
    drop(own);
    let directory = &told.working_directory;
    chdir(directory).attempt(format_args!("directory {}", directory.display()))?;
    told.rights.give_back_early()?;
    if let Some(rules) = rules {
        domain::enter(rules.as_fd())?;
    }
    program::enter_filter(&told.closed, &sentry)?;
    told.rights.give_back();
    told.rights.expect_given_back()
}

/// Enters the program's namespaces, and returns the rules of its Landlock domain.
fn enter(sentry: &Socket) -> Result<Option<OwnedFd>, Failure> {
    const DOING: &str = "entering the sandbox";
    let mut rules = None;
    loop {
        let (tag, part) = sentry.receive().attempt(DOING)?;
        match Part::ALL.iter().find(|part| **part as u64 == tag) {
            Some(Part::Domain) => rules = Some(part),
            Some(Part::Mounts) => {
                setns(part, CloneFlags::CLONE_NEWNS).attempt("the program's mounts")?;
            }
            Some(Part::Processes) => {
                setns(part, CloneFlags::CLONE_NEWPID).attempt("the program's processes")?;
                return Ok(rules);
            }
            None => return Err(Failure::setup(format!("{DOING}: an unknown part"))),
        }
    }
}

/// Becomes the program. Returns only if that failed.
fn run(told: &Further, command: &[CString], found: &Found) -> Result<Infallible, Failure> {
    // Where the engine's profile refuses it the sentry sees to the program's end, as it does if it is asked for too late.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    setsid().attempt("setsid")?;
    if told.has_terminal {
        ioctl_tiocsctty(stdin()).attempt("the program's terminal")?;
    }
    signals::restore(found).attempt("the program's signals")?;
    program::execute(command)
}

/// Stands in for the program until that has ended.
fn stand_in(program: Pid) -> Result<u8, Failure> {
    // Else what is mounted there could not be unmounted.
    let _ = chdir("/");
    let signals = signals::descriptor()?;
    let number = rustix::process::Pid::from_raw(program.as_raw());
    loop {
        let waited = rustix::process::waitpid(number, WaitOptions::NOHANG);
        match waited.attempt("waiting for the program")? {
            None => signals.forward(program)?,
            Some((_, status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(status), _) => return Ok(status as u8),
                (None, Some(number)) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        Ending::Signal(signal).take();
                    }
                    return Ok(128 + number as u8);
                }
                (None, None) => {}
            },
        }
    }
}
