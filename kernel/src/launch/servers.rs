//! Starting servers: the first one of a sandbox, and those that follow it.
//!
//! Each is started by the launcher, in the sandbox's user and process namespaces, so that the kernel ends it with the
//! sentry, which is process 1 there. A process enters a process namespace by being started in it. So the launcher forks
//! one that enters the namespaces and forks the server in turn, as a child of the launcher's.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stdin, fexecve, fork};
use nvproxy_server::confinement;
use ringfence_confinement::pass_on;
use ringfence_ipc::Socket;

use super::namespaces::{Namespaces, fork_with};
use super::{Options, c_strings, descriptors};
use crate::failure::{Attempt, Failure, SETUP};
use crate::system_calls::{exit_at_once, pidfd_open};

/// A server that was started. It is the launcher's child, which has to wait for it.
pub struct Server {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Where it is told to hand over.
    pub supervision: Socket,
}

/// What a server starts with as its standard input.
pub enum Input<'a> {
    /// Its end of the control socket.
    Control(&'a Socket),
    /// The socket to the server whose place it takes.
    Predecessor(&'a Socket),
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

    /// Starts a server, of another executable than usual if there is one, without waiting until it has started. The
    /// calling process must have one thread.
    pub fn start(
        &self,
        executable: Option<BorrowedFd<'_>>,
        input: Input<'_>,
    ) -> Result<Server, Failure> {
        let (supervision, server_supervision) = Socket::pair().attempt("socketpair")?;
        let execution = Execution::new(self, executable, input, &server_supervision)?;
        let (mut report, reporter) = std::io::pipe().attempt("pipe")?;
        // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
        let between = match unsafe { fork() }.attempt("starting the server")? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => execution.start_inside(&self.namespaces, reporter),
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
            supervision,
        })
    }
}

/// All that it takes to execute a server.
struct Execution<'a> {
    executable: BorrowedFd<'a>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    input: BorrowedFd<'a>,
    supervision: BorrowedFd<'a>,
    shared: &'a [OwnedFd],
}

impl<'a> Execution<'a> {
    fn new(
        starter: &'a Starter<'_>,
        executable: Option<BorrowedFd<'a>>,
        input: Input<'a>,
        supervision: &'a Socket,
    ) -> Result<Execution<'a>, Failure> {
        let supervision = supervision.as_fd();
        let mut arguments = starter.arguments.clone();
        let number = supervision.as_raw_fd();
        arguments.extend(c_strings(&[format!("--supervision={number}").into()])?);
        let input = match input {
            Input::Control(socket) => socket.as_fd(),
            Input::Predecessor(socket) => {
                arguments.push(c"--take-over".to_owned());
                socket.as_fd()
            }
        };
        Ok(Execution {
            executable: executable.unwrap_or(starter.executable.as_fd()),
            arguments,
            environment: environment()?,
            input,
            supervision,
            shared: starter.shared,
        })
    }

    /// The process between launcher and server: reports the server's number, or why there is none, and ends.
    fn start_inside(&self, namespaces: &Namespaces, mut reporter: PipeWriter) -> ! {
        let started = namespaces.enter().and_then(|()| {
            // Its parent is this process's, which is also told of its end.
            fork_with(CloneFlags::CLONE_PARENT)
        });
        let line = match started.attempt("starting the server") {
            Ok(ForkResult::Child) => {
                drop(reporter);
                let failure = match self.execute(namespaces) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                eprintln!("ringfence: {failure}");
                exit_at_once(i32::from(SETUP))
            }
            Ok(ForkResult::Parent { child }) => child.to_string(),
            Err(failure) => failure.to_line(),
        };
        // If nobody reads it any more, nobody is left to tell.
        let _ = reporter.write_all(line.as_bytes());
        exit_at_once(0)
    }

    fn execute(&self, namespaces: &Namespaces) -> Result<Infallible, Failure> {
        namespaces.assume_identity()?;
        // Changing the user takes this back.
        prctl::set_pdeathsig(Signal::SIGKILL).attempt("prctl")?;
        self.shared.iter().try_for_each(descriptors::pass_on)?;
        // The rights that it needs in order to give them up.
        pass_on(&confinement::NEEDED).map_err(Failure::setup)?;
        dup2_stdin(self.input).attempt("the server's standard input")?;
        fcntl(self.supervision, FcntlArg::F_SETFD(FdFlag::empty())).attempt("fcntl")?;
        fexecve(self.executable, &self.arguments, &self.environment).attempt("executing the server")
    }
}

/// The server's environment. Everything that it has to know is in its command line, so it gets only what test builds look
/// for, and none of the caller's secrets, which whoever takes it over could read.
fn environment() -> Result<Vec<CString>, Failure> {
    let entries = ringfence_faults::VARIABLES.iter().filter_map(|name| {
        let mut entry = OsString::from(name);
        entry.push("=");
        entry.push(std::env::var_os(name)?);
        Some(entry)
    });
    c_strings(&entries.collect::<Vec<_>>())
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
