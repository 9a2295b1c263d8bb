//! Starting servers: the first one of a sandbox, and those that follow it.
//!
//! Each is started by the launcher, in the sandbox's user and process namespaces, so that the kernel ends it with the
//! sentry, which is process 1 there. A process enters a process namespace by being started in it. So the launcher forks
//! one that enters the namespaces and forks the server in turn, as a child of the launcher's.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stdin, fexecve, fork};
use nvproxy_server::confinement;
use ringfence_confinement::pass_on;

use super::namespaces::{Namespaces, fork_with};
use super::{Options, c_strings, descriptors};
use crate::failure::{Attempt, Failure, SETUP};
use crate::system_calls::pidfd_open;

/// A server that was started. It is the launcher's child, which has to wait for it.
pub struct Server {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// How the servers of one sandbox are started.
pub struct Starter<'a> {
    namespaces: Namespaces,
    executable: OwnedFd,
    arguments: Vec<CString>,
    /// What a recorded driver reports to: files that it shares with the program.
    shared: &'a [OwnedFd],
}

impl<'a> Starter<'a> {
    /// With this executable, in these namespaces.
    pub fn new(options: &'a Options, namespaces: Namespaces) -> Result<Starter<'a>, Failure> {
        let executable = File::open("/proc/self/exe").attempt("/proc/self/exe")?;
        let shared = match &options.replay {
            Some(_) => &options.descriptors[..],
            None => &[],
        };
        Ok(Starter {
            namespaces,
            executable: executable.into(),
            arguments: arguments(options)?,
            shared,
        })
    }

    /// Starts a server whose standard input is `control`, without waiting until it has started. The calling process
    /// must have one thread.
    pub fn start(&self, control: BorrowedFd<'_>) -> Result<Server, Failure> {
        let (mut report, reporter) = std::io::pipe().attempt("pipe")?;
        // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
        let between = match unsafe { fork() }.attempt("starting the server")? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => self.start_inside(control, reporter),
        };
        drop(reporter);
        let mut line = String::new();
        report
            .read_to_string(&mut line)
            .attempt("starting the server")?;
        waitpid(between, None).attempt("starting the server")?;
        let pid = line.parse().map(Pid::from_raw);
        let pid = pid.map_err(|_| Failure::parse(&line))?;
        Ok(Server {
            pid,
            // It is this process's child, so that the number cannot have come to mean another.
            pidfd: pidfd_open(pid).attempt("the server's pidfd")?,
        })
    }

    /// The process between launcher and server: reports the server's number, or why there is none, and ends.
    fn start_inside(&self, control: BorrowedFd<'_>, mut reporter: PipeWriter) -> ! {
        let started = self.namespaces.enter().and_then(|()| {
            // Its parent is this process's, which is also told of its end.
            fork_with(CloneFlags::CLONE_PARENT)
        });
        let line = match started.attempt("starting the server") {
            Ok(ForkResult::Child) => {
                drop(reporter);
                let failure = match self.execute(control) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                eprintln!("ringfence: {failure}");
                std::process::exit(i32::from(SETUP))
            }
            Ok(ForkResult::Parent { child }) => child.to_string(),
            Err(failure) => failure.to_line(),
        };
        // If nobody reads it any more, nobody is left to tell.
        let _ = reporter.write_all(line.as_bytes());
        std::process::exit(0)
    }

    fn execute(&self, control: BorrowedFd<'_>) -> Result<Infallible, Failure> {
        prctl::set_pdeathsig(Signal::SIGKILL).attempt("prctl")?;
        self.shared.iter().try_for_each(descriptors::pass_on)?;
        // The rights that it needs in order to give them up.
        pass_on(&confinement::NEEDED).map_err(Failure::setup)?;
        dup2_stdin(control).attempt("the server's standard input")?;
        let environment = std::env::vars_os().map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry)
        });
        let environment: Vec<CString> = environment.filter_map(Result::ok).collect();
        fexecve(self.executable.as_fd(), &self.arguments, &environment)
            .attempt("executing the server")
    }
}

/// The server's command line.
fn arguments(options: &Options) -> Result<Vec<CString>, Failure> {
    let mut arguments = vec![
        OsString::from("ringfence-nvproxy-server"),
        OsString::from("nvproxy-server"),
    ];
    let driver = options.driver.to_arguments();
    arguments.extend(driver.into_iter().map(OsString::from));
    if let Some(log) = &options.log {
        arguments.extend([OsString::from("--log"), log.into()]);
    }
    if let Some(replay) = &options.replay {
        arguments.extend([
            OsString::from("--recording"),
            replay.recording.clone().into(),
            OsString::from("--progress"),
            replay.progress.clone().into(),
            OsString::from("--report"),
            replay.report.clone().into(),
        ]);
    }
    c_strings(&arguments)
}
