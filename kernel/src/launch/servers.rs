//! Starting servers: the first one of a sandbox, and those that follow it.
//!
//! Each is a child of the launcher's, process 1 of a process namespace of its own, in a user namespace of its own. Both
//! lie beside the sentry's, whose rights over processes end with its namespaces: a sentry that was taken over has no number
//! for a server, and no right over one that it has another name for.
//!
//! So nothing of the sandbox ends a server by its end. The launcher does, and the kernel ends it with the launcher.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fexecve, setsid};
use nvproxy_protocol::options::{self, Left, Naming};
use nvproxy_protocol::supervision::{refused, send};
use nvproxy_server::confinement;
use ringfence_confinement::pass_on;
use ringfence_faults::{Act, Point, Role};
use ringfence_ipc::{Socket, handshake};
use ringfence_sentry::failure::{Attempt, Failure, SETUP};
use ringfence_sentry::liaison::never_wait;
use ringfence_sentry::system_calls::{
    exit_at_once, pidfd_open_process, pidfd_open_thread, pidfd_signal,
};

use super::namespaces::{self, OF_ONE_PROCESS, fork_into_user_namespace};
use super::pipes::{Inlets, ServerEnds};
use super::{Options, c_strings, children, descriptors};
use crate::driver::Kind;

/// How a server's command line begins: what `ps` shows, and what asks for a server.
pub const COMMAND: [&str; 2] = ["ringfence-nvproxy-server", "nvproxy-server"];

/// A server that was started. It is the launcher's child, which has to wait for it.
pub struct Server {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// Where it is told to hand over.
    pub supervision: Socket,
}

impl Server {
    /// Kills it, if it has not ended yet.
    pub(super) fn end(&self) {
        let _ = pidfd_signal(self.pidfd.as_fd(), Signal::SIGKILL);
    }

    /// Waits until it has ended. It may have been waited for.
    pub(super) fn wait(&self) {
        children::wait_for(self.pid);
    }

    /// Whether it has ended; then it was waited for, too.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(
            waitpid(self.pid, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive)
        )
    }
}

/// What a server starts with as its standard input.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Its end of the control socket.
    Control(&'a Socket),
    /// The socket to the server whose place it takes.
    Predecessor(&'a Socket),
}

/// How the servers of one sandbox are started.
pub struct Starter<'a> {
    pub(super) options: &'a Options,
    /// Beside which they live.
    sentry: Pid,
    /// By which they say what they have to say.
    inlets: &'a Inlets,
    executable: OwnedFd,
    /// What a recorded driver reports to: files that it shares with the program.
    shared: &'a [OwnedFd],
}

impl<'a> Starter<'a> {
    /// With this executable, for the sandbox of this sentry.
    pub fn new(
        options: &'a Options,
        sentry: Pid,
        inlets: &'a Inlets,
    ) -> Result<Starter<'a>, Failure> {
        let executable = File::open("/proc/self/exe").attempt("/proc/self/exe")?;
        let shared = match &options.replay {
            Some(_) => &options.descriptors[..],
            None => &[],
        };
        Ok(Starter {
            options,
            sentry,
            inlets,
            executable: executable.into(),
            shared,
        })
    }

    /// Starts a server, of another executable than usual if there is one, without waiting until it has started. The
    /// calling process must have one thread, but for those that only copy.
    pub fn start(
        &self,
        executable: Option<BorrowedFd<'_>>,
        input: Input<'_>,
    ) -> Result<Server, Failure> {
        let (supervision, server_supervision) = Socket::pair().attempt("socketpair")?;
        never_wait(&supervision).attempt("socketpair")?;
        let ends = self.inlets.for_server()?;
        let execution = Execution::new(self, executable, input, &server_supervision, &ends)?;
        match self.fork()? {
            ForkResult::Parent { child: pid } => Ok(Server {
                pid,
                pidfd: open_whole(pid)
                    .attempt("the server's pidfd")
                    .inspect_err(|_| children::abandon(pid))?,
                supervision,
            }),
            ForkResult::Child => {
                let Err(failure) = execution.execute();
                execution.refuse(&failure);
                exit_at_once(i32::from(SETUP))
            }
        }
    }

    /// Forks this process into namespaces of the child's own. The child is the same user to the kernel as the sentry is.
    fn fork(&self) -> Result<ForkResult, Failure> {
        // A test leaves this out, to show that it would notice.
        match ringfence_faults::fork_beside(self.sentry.as_raw()) {
            None => fork_into_user_namespace(
                OF_ONE_PROCESS.union(CloneFlags::CLONE_NEWNET),
                self.options.grants.identity,
            ),
            Some(Ok(0)) => Ok(ForkResult::Child),
            Some(forked) => forked
                .map(|child| ForkResult::Parent {
                    child: Pid::from_raw(child),
                })
                .attempt("starting the server"),
        }
    }
}

/// A descriptor for this server, of which the number cannot have come to mean another, since it is this process's child. It
/// is for all of its threads: the first one can end before the others.
fn open_whole(server: Pid) -> Result<OwnedFd, Errno> {
    // A test leaves this out, to show that it would notice.
    match ringfence_faults::at(Point::Whole) {
        Some(Act::Drop) => pidfd_open_thread(server),
        _ => pidfd_open_process(server),
    }
}

/// All that it takes to execute a server.
struct Execution<'a> {
    executable: BorrowedFd<'a>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    input: Input<'a>,
    supervision: &'a Socket,
    ends: &'a ServerEnds,
    shared: &'a [OwnedFd],
    /// Whether it opens descriptors of its own anew, which takes a `/proc`. It gets one that shows itself and nothing else.
    needs_processes: bool,
}

impl<'a> Execution<'a> {
    fn new(
        starter: &'a Starter<'_>,
        executable: Option<BorrowedFd<'a>>,
        input: Input<'a>,
        supervision: &'a Socket,
        ends: &'a ServerEnds,
    ) -> Result<Execution<'a>, Failure> {
        let left = Left {
            supervision: supervision.as_fd().as_raw_fd(),
            log: ends.log.as_ref().map(AsRawFd::as_raw_fd),
            takes_over: matches!(input, Input::Predecessor(_)),
        };
        Ok(Execution {
            executable: executable.unwrap_or(starter.executable.as_fd()),
            arguments: command_line(starter.options, left)?,
            environment: environment()?,
            input,
            supervision,
            ends,
            shared: starter.shared,
            needs_processes: starter.options.driver.kind != Kind::Host,
        })
    }

    /// Tells whoever waits for the server that there is none, and why: it says so to the user.
    fn refuse(&self, failure: &Failure) {
        match self.input {
            Input::Control(socket) => handshake::refuse(socket, failure),
            // A launcher that is gone needs no reason.
            Input::Predecessor(_) => drop(send(self.supervision, &refused(failure), None)),
        }
    }

    fn execute(&self) -> Result<Infallible, Failure> {
        ringfence_faults::act_as(Role::ServerStart);
        // Nothing that is sent to the caller's group is for a server.
        setsid().attempt("setsid")?;
        prctl::set_pdeathsig(Signal::SIGKILL).attempt("prctl")?;
        namespaces::isolate_mounts()?;
        if self.needs_processes {
            namespaces::mount_processes()?;
        }
        self.shared.iter().try_for_each(descriptors::pass_on)?;
        // The rights that it needs in order to give them up.
        pass_on(&confinement::NEEDED).attempt("the server")?;
        let (Input::Control(input) | Input::Predecessor(input)) = self.input;
        dup2_stdin(input).attempt("the server's standard input")?;
        fcntl(self.supervision.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).attempt("fcntl")?;
        self.ends.log.iter().try_for_each(descriptors::pass_on)?;
        // Nothing that the caller has open is left: all else is closed on execution. A test leaves this out, to show that it
        // would notice.
        if ringfence_faults::at(Point::Descriptors) != Some(Act::Drop) {
            dup2_stdout(&self.ends.messages).attempt("the server's standard output")?;
            dup2_stderr(&self.ends.messages).attempt("the server's standard error")?;
        }
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
fn command_line(options: &Options, left: Left) -> Result<Vec<CString>, Failure> {
    let told = options::Options {
        driver: options.driver.clone(),
        settings: options.settings.clone(),
        left,
        naming: Naming {
            container: options.container.clone(),
        },
        replay: options.replay.clone(),
    };
    let mut words = COMMAND.map(OsString::from).to_vec();
    words.extend(told.to_arguments());
    c_strings(&words)
}
