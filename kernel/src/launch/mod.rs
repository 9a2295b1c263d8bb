//! The launcher: builds a sandbox, and then waits for it.
//!
//! A sandbox is a tree of processes, and the tree is what guarantees that nothing outlives it:
//!
//! ```text
//! launcher            the caller's process: waits, passes signals on
//! └─ sentry           process 1 of a process namespace of its own: when it ends, the kernel ends all below
//!    ├─ server
//!    └─ init          process 1 of the tasks' namespace
//!       └─ program    ... and its children: the tasks
//! ```
//!
//! The sentry's own namespace has a second purpose. It reads and writes the memory of tasks that it names by number,
//! and in that namespace there is no number that could, by reuse, come to name a process outside the sandbox.
//!
//! Everything below runs in a user namespace that gives no rights outside it, so that the launcher needs none
//! either. Each process is forked while its parent has a single thread.

mod credentials;
pub mod descriptors;
pub(crate) mod devices;
mod environment;
mod exec;
pub mod grants;
pub mod init;
mod kernel_files;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod network;
mod root;

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execv, fork};
use nvproxy_server::confinement;
use nvproxy_server::process::raise_descriptor_limit;
use nvproxy_server::recorded::Replay;
use ringfence_confinement::pass_on;
use ringfence_ipc::Socket;

use self::grants::Grants;
use crate::driver::Driver;
use crate::failure::{Attempt, Failure, SETUP};
use crate::record::Output;
use crate::sentry::{self, Sandbox};
use crate::signals;

/// What to run, and how.
#[derive(Debug)]
pub struct Options {
    pub driver: Driver,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    pub grants: Grants,
    /// What the program inherits besides the standard streams, under the same numbers.
    pub descriptors: Vec<OwnedFd>,
    pub log: Option<PathBuf>,
    pub stats: bool,
    /// Where to write a recording of the run.
    pub record: Option<Output>,
    /// What a recorded driver answers from.
    pub replay: Option<Replay>,
}

/// Runs `options.command` in a sandbox and returns the exit status to end with.
pub fn run(options: &Options) -> Result<u8, Failure> {
    tracing::debug!("starting a sandbox");
    let command = c_strings(&options.command)?;
    let original_mask = signals::block()?;
    let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    own.set(CloneFlags::CLONE_NEWNET, !options.grants.network);
    match namespaces::fork_into_user_namespace(own, options.grants.identity)? {
        ForkResult::Parent { child } => {
            let status = wait(child);
            tracing::debug!("the sandbox is gone");
            let status = status?;
            if let Some(output) = &options.record {
                output.publish()?;
            }
            Ok(status)
        }
        ForkResult::Child => {
            let status =
                sentry_process(options, &command, &original_mask).unwrap_or_else(|failure| {
                    eprintln!("ringfence: {failure}");
                    failure.status
                });
            std::process::exit(i32::from(status));
        }
    }
}

fn sentry_process(
    options: &Options,
    command: &[CString],
    mask: &signals::Mask,
) -> Result<u8, Failure> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).attempt("prctl")?;
    nix::sys::prctl::set_dumpable(false).attempt("prctl")?;
    namespaces::isolate_mounts()?;
    namespaces::mount_proc()?;
    let sandbox = build(options, command, mask)?;
    raise_descriptor_limit().map_err(Failure::setup)?;
    let supervision = sentry::Options {
        driver: &options.driver,
        command: &options.command,
        stats: options.stats,
        record: options.record.as_ref(),
    };
    sentry::run(&supervision, sandbox)
}

/// Starts the server and the tasks' first processes.
fn build(options: &Options, command: &[CString], mask: &signals::Mask) -> Result<Sandbox, Failure> {
    let (control, server_control) = Socket::pair().attempt("socketpair")?;
    let server = start_server(options, server_control.into())?;
    let (listener, task_listener) = Socket::pair().attempt("socketpair")?;
    let (report, task_report) = std::io::pipe().attempt("pipe")?;
    let working_directory = std::env::current_dir().ok();
    let own_namespace = File::open("/proc/self/ns/pid").attempt("/proc/self/ns/pid")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).attempt("a process namespace")?;
    // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
    let init = match unsafe { fork() }.attempt("starting init")? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((control, listener, report, own_namespace));
            let program = exec::Program {
                command,
                driver: &options.driver,
                grants: &options.grants,
                descriptors: &options.descriptors,
                working_directory: working_directory.as_ref(),
                mask,
                listener: task_listener,
            };
            init::run(program, task_report)
        }
    };
    // A process whose children are to live in another namespace cannot start threads.
    nix::sched::setns(&own_namespace, CloneFlags::CLONE_NEWPID)
        .attempt("the sentry's process namespace")?;
    Ok(Sandbox {
        init,
        server,
        listener,
        report,
        control,
    })
}

/// Starts this executable again, as the server, without waiting until it has started.
fn start_server(options: &Options, control: OwnedFd) -> Result<Pid, Failure> {
    let mut arguments = vec![
        OsString::from("ringfence-nvproxy-server"),
        OsString::from("nvproxy-server"),
    ];
    arguments.extend(
        options
            .driver
            .to_arguments()
            .into_iter()
            .map(OsString::from),
    );
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
    let arguments = c_strings(&arguments)?;
    // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
    match unsafe { fork() }.attempt("starting the server")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // The control socket is the server's standard input: the one descriptor that it is given. If this fails
            // the socket closes, which the sentry reports.
            let Err(reason) = become_server(options, &control, &arguments);
            eprintln!("ringfence: starting the server: {reason}");
            std::process::exit(i32::from(SETUP))
        }
    }
}

/// Executes the server, with the rights that it needs in order to give them up.
fn become_server(
    options: &Options,
    control: &OwnedFd,
    arguments: &[CString],
) -> Result<Infallible, String> {
    if options.replay.is_some() {
        // A recorded driver reports to files that it shares with the program.
        let mut shared = options.descriptors.iter();
        let shared = shared.try_for_each(descriptors::pass_on);
        shared.map_err(|failure| failure.message)?;
    }
    pass_on(&confinement::NEEDED)?;
    nix::unistd::dup2_stdin(control)
        .and_then(|()| execv(c"/proc/self/exe", arguments))
        .map_err(|errno| errno.to_string())
}

/// Waits for the sentry, passing on the signals that are meant for the program, and returns its exit status.
fn wait(sentry: Pid) -> Result<u8, Failure> {
    let signals = signals::descriptor()?;
    loop {
        match waitpid(sentry, Some(WaitPidFlag::WNOHANG)).attempt("waiting for the sentry")? {
            WaitStatus::Exited(_, status) => return Ok(status as u8),
            WaitStatus::Signaled(_, signal, _) => {
                return Err(Failure {
                    status: SETUP,
                    message: format!("the sentry was ended by {signal}, and the sandbox with it"),
                });
            }
            _ => signals.forward(sentry)?,
        }
    }
}

fn c_strings(command: &[OsString]) -> Result<Vec<CString>, Failure> {
    command
        .iter()
        .map(|argument| {
            CString::new(argument.clone().into_vec()).attempt("an argument with a zero byte")
        })
        .collect()
}
