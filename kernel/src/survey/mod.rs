//! `ringfence survey`: what a program would be refused in a sandbox, found out without one.
//!
//! The idea: whoever has a card that nobody here has can say what its programs ask for, if that costs them nothing. The
//! program runs as it would without Ringfence, under a filter that tells of its requests of the driver and refuses nothing.
//! Each is copied as the sentry would copy it, by the same tables (`nvproxy-abi`), and then goes to the driver, whatever
//! came of that. What the tables would have refused is counted.
//!
//! Nothing here is a wall. The program has all of its user's rights, and could change a request after it was looked at.
//! What a sandbox refuses for other reasons than the tables', memory beyond a limit say, is not found.

mod notes;
mod report;
mod start;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::policy::{Capabilities, FirmwareCommands, Granted};
use nvproxy_abi::support::support;
use nvproxy_abi::version::DriverVersion;
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::seccomp::listener::{Listener, Notification, Number};
use ringfence_sentry::system_calls::pidfd_open_process;
use ringfence_sentry::{log, signals};
use rustix::fs::OFlags;
use rustix::process::WaitOptions;

use self::notes::Notes;
use self::report::Surroundings;
use crate::driver::{device_directory, host_version};
use crate::endings::Ending;
use crate::outputs::Place;

/// What to run, and by what it is judged.
#[derive(Debug)]
pub struct Options {
    pub command: Vec<OsString>,
    /// What the sandbox would be given.
    pub capabilities: Capabilities,
    pub firmware_commands: FirmwareCommands,
    /// The release to take the driver for.
    pub abi: Option<DriverVersion>,
    /// Where the findings go as JSON.
    pub out: Option<PathBuf>,
}

/// Runs the program to its end, says what it would have been refused, and returns how it has ended.
pub fn run(options: &Options) -> Result<Ending, Failure> {
    let surroundings = surroundings(options)?;
    let granted = Granted {
        capabilities: options.capabilities,
        firmware_commands: options.firmware_commands,
    };
    let tables = Abi::of_release(&surroundings.tables, granted);
    let mut notes = Notes::new(tables.attempt("the tables")?);
    let out = options.out.as_deref().map(open).transpose()?;
    let found = signals::block()?;
    let (child, listener) = start::start(&options.command, found)?;
    log::print("ringfence: survey: the program runs without a sandbox, with all of your rights\n");
    let ending = Watch::new(child, listener)?.until_all_have_ended(&mut notes)?;
    log::print(&report::text(&surroundings, &notes));
    if let Some((path, file)) = out {
        report::write(file, &surroundings, &notes)
            .map_err(|error| cannot(&path, &error.to_string()))?;
    }
    Ok(ending)
}

fn surroundings(options: &Options) -> Result<Surroundings, Failure> {
    let version = host_version().ok_or_else(|| {
        Failure::setup(
            "this machine has no NVIDIA driver (/sys/module/nvidia/version is missing): a survey is of what programs \
             ask a real one",
        )
    })?;
    let driver = DriverVersion::from_str(&version)
        .attempt(format_args!("the driver's version '{version:.40}'"))?;
    let supported = support(&options.abi.unwrap_or(driver), options.capabilities);
    let supported = supported.map_err(|error| {
        let nearest = error.nearest;
        Failure::setup(format!(
            "{error}; --driver-abi {nearest} judges the program by the tables of that one"
        ))
    })?;
    Ok(Surroundings {
        driver,
        tables: supported.tables,
        capabilities: options.capabilities,
        firmware_commands: options.firmware_commands,
        gpus: report::gpus(),
        command: options.command.clone(),
    })
}

/// The file for the findings, empty. It is made before the program starts, so that one that cannot be written is known at once.
fn open(path: &Path) -> Result<(PathBuf, std::fs::File), Failure> {
    let opened = Place::find(path, &[]).and_then(|place| place.open(OFlags::TRUNC));
    let file = opened.map_err(|problem| cannot(path, &problem.to_string()))?;
    Ok((path.to_owned(), file))
}

fn cannot(path: &Path, reason: &str) -> Failure {
    let path = path.display();
    Failure::setup(format!(
        "--out {path}: {reason}: name a file that you may write to"
    ))
}

/// The program while it runs, and all that it has started.
struct Watch {
    child: Pid,
    process: OwnedFd,
    listener: Listener,
    /// The same, to wait for.
    calls: OwnedFd,
    signals: signals::Descriptor,
}

impl Watch {
    fn new(child: Pid, listener: OwnedFd) -> Result<Watch, Failure> {
        Ok(Watch {
            child,
            process: pidfd_open_process(child).attempt("the program's pidfd")?,
            calls: listener.try_clone().attempt("the listener")?,
            listener: Listener::new(listener),
            signals: signals::descriptor()?,
        })
    }

    /// Notes what is asked for until nobody is left who could ask. That may be later than the program's own end.
    fn until_all_have_ended(&mut self, notes: &mut Notes) -> Result<Ending, Failure> {
        let mut ending = None;
        loop {
            let process = ending.is_none().then(|| self.process.as_fd());
            let awaited = [
                Some(self.signals.as_fd()),
                Some(self.calls.as_fd()),
                process,
            ];
            let mut polled: Vec<PollFd<'_>> = awaited
                .into_iter()
                .flatten()
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
                .collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).attempt("poll"),
            }
            let came = |index: usize| {
                let polled = polled.get(index).and_then(PollFd::revents);
                polled.unwrap_or(PollFlags::empty())
            };
            let (signalled, calls, ended) = (came(0), came(1), came(2));
            drop(polled);
            if signalled.contains(PollFlags::POLLIN) {
                self.signals.forward(self.child)?;
            }
            while let Some(notification) = self.listener.receive_waiting(Number::FIRST) {
                self.note(&notification, notes);
                self.listener.let_run(&notification);
            }
            if !ended.is_empty() && ending.is_none() {
                ending = self.reap()?;
            }
            // No task is left under the filter.
            if let (Some(ending), true) = (ending, calls.contains(PollFlags::POLLHUP)) {
                return Ok(ending);
            }
        }
    }

    fn note(&self, notification: &Notification, notes: &mut Notes) {
        let [descriptor, command, argument, ..] = notification.arguments;
        let Some(node) = node_of(&device_directory(), notification.task, descriptor as i32) else {
            return;
        };
        notes.take(notification.task, node, command as u32, argument);
    }

    /// How the program has ended, if it has.
    fn reap(&self) -> Result<Option<Ending>, Failure> {
        let number = rustix::process::Pid::from_raw(self.child.as_raw());
        // (By rustix, since nix's fails on one that a real-time signal ended.)
        let waited = rustix::process::waitpid(number, WaitOptions::NOHANG);
        let Some((_, status)) = waited.attempt("waiting for the program")? else {
            return Ok(None);
        };
        let signal = status.terminating_signal();
        let signalled = signal.map(|signal| 128 + signal);
        let ended = status.exit_status().or(signalled);
        let named = signal.and_then(|signal| Signal::try_from(signal).ok());
        Ok(ended.map(|status| Ending::of_program(status as u8, named)))
    }
}

/// The driver's node that a descriptor of a task is of, where its nodes are in `directory`.
pub fn node_of(directory: &Path, task: Pid, descriptor: i32) -> Option<Node> {
    let link = std::fs::read_link(format!("/proc/{task}/fd/{descriptor}")).ok()?;
    let name = link.strip_prefix(directory).ok()?;
    Node::from_file_name(name.to_str()?)
}
