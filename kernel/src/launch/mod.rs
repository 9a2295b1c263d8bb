//! The launcher: builds a sandbox, and then waits for it.
//!
//! A sandbox is a tree of processes, and the tree is what guarantees that nothing outlives it:
//!
//! ```text
//! launcher            the caller's process: waits, passes signals on, starts servers, copies for the program's terminal
//! ├─ sentry           process 1 of a process namespace of its own: when it ends, the kernel ends all there
//! │  └─ init          process 1 of the tasks' namespace
//! │     └─ program    ... and its children: the tasks
//! └─ server           process 1 of another, beside the sentry's: the launcher ends it
//! ```
//!
//! The sentry's own namespace has a second purpose. It reads and writes the memory of tasks that it names by number,
//! and in that namespace there is no number that could, by reuse, come to name a process outside the sandbox.
//!
//! The launcher alone is in its caller's process group and session. Sentry, init and servers have sessions of their own;
//! the tasks are in init's, and the program leads a group (`jobs.rs`, `terminal.rs`).
//!
//! Everything below runs in a user namespace that gives no rights outside it, so that the launcher needs none
//! either. Each process is forked while its parent has a single thread, or, the launcher, others that only copy (`pipes.rs`).
//!
//! `unsafe` is here because what the sentry does not need is closed, whoever owns it.

mod children;
pub mod container;
mod copying;
pub(crate) mod core_dumps;
mod credentials;
mod departure;
pub mod descriptors;
pub(crate) mod devices;
mod environment;
mod exec;
mod format;
mod given;
pub mod grants;
pub mod init;
mod inputs;
mod interpreter;
pub mod jobs;
mod kernel_files;
mod kernel_mounts;
pub mod linux;
mod listeners;
mod mountinfo;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod network;
mod ordinary_view;
mod pipes;
mod root;
mod search;
pub mod servers;
mod staging;
mod standing;
mod supervision;
mod terminal;
pub(crate) mod title;
mod upgrade;

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::sched::CloneFlags;
use nix::unistd::ForkResult;
use nvproxy_protocol::options::{Replay, Settings};
use ringfence_faults::Role;
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, attempt_first};
use ringfence_sentry::liaison::SentryEnd;
use ringfence_sentry::server::OnServerExit;
use ringfence_sentry::system_calls::exit_at_once;
use ringfence_sentry::{Sandbox, liaison, log, signals};
use rustix::stdio::{stderr, stdin, stdout};

use self::children::Sentry;
use self::copying::Pace;
use self::grants::Grants;
use self::inputs::{Inputs, ProgramEnds};
use self::pipes::{Diverted, Inlets, Outlets, SentryEnds};
use self::servers::Starter;
use self::supervision::{Ends, Launcher};
use self::terminal::Likeness;
use crate::driver::{Driver, Kind};
use crate::endings::Ending;
use crate::memory;
use crate::record::Output;
use crate::sandboxes::{About, Door, Name};
use crate::trace;

/// What to run, and how.
#[derive(Debug)]
pub struct Options {
    pub driver: Driver,
    /// What the server is told besides.
    pub settings: Settings,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    pub grants: Grants,
    /// What the program inherits besides the standard streams, under the same numbers.
    pub descriptors: Vec<OwnedFd>,
    pub log: Option<PathBuf>,
    pub stats: bool,
    pub on_server_exit: OnServerExit,
    /// What the sandbox is called; `None` for the launcher's process number.
    pub name: Option<Name>,
    /// The engine's name of the container whose sandbox it is, if it is one's.
    pub container: Option<String>,
    /// Where to write a recording of the run.
    pub record: Option<Output>,
    /// Where to write a trace of it.
    pub trace: Option<trace::Output>,
    /// What a recorded driver answers from.
    pub replay: Option<Replay>,
}

/// What the program has of its caller's job.
pub struct Job<'a> {
    /// The signals' mask and actions to start with.
    pub signals: &'a signals::Found,
    /// What to make a terminal after, if the caller has one.
    likeness: Option<&'a Likeness>,
    /// Where init hears of what the caller's shell and terminal want.
    end: jobs::InitEnd,
}

/// What a program inherits: the standard streams, and those of `others`.
fn inherited(others: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    let standard = [stdin(), stdout(), stderr()];
    let others = others.iter().map(OwnedFd::as_fd);
    standard.into_iter().chain(others).collect()
}

/// Runs `options.command` in a sandbox and returns how to end.
pub fn run(options: &Options) -> Result<Ending, Failure> {
    tracing::debug!("starting a sandbox");
    descriptors::raise_limit()?;
    memory::check_limits()?;
    let command = c_strings(&options.command)?;
    if let Err(failure) = core_dumps::forbid() {
        tracing::warn!("crashes in the sandbox are told to the host: {failure}");
    }
    if options.driver.kind == Kind::Host
        && let Some(warning) = linux::missing_walls()
    {
        tracing::warn!("{warning}");
    }
    let found = signals::block()?;
    let about = About::new(
        options.name.as_ref(),
        &options.driver.version,
        &options.command,
    );
    title::prepare(&about.name.to_string());
    let door = match &options.name {
        Some(name) => Some(Door::open(name).attempt(format_args!("--name {name}"))?),
        // Without a door the sandbox works as well; it cannot be upgraded.
        None => Door::open(&about.name)
            .inspect_err(|failure| tracing::debug!("no door: {failure}"))
            .ok(),
    };
    let (inputs, program_ends) = inputs::create(&inherited(&options.descriptors))?;
    let (inlets, outlets) = pipes::create(options)?;
    let sentry_ends = inlets.for_sentry()?;
    let own_ends = inlets.for_server()?;
    let (launcher_end, sentry_end) = liaison::pair().attempt("socketpair")?;
    let (job, init_end) = jobs::pair().attempt("socketpair")?;
    let (terminal, likeness) = terminal::open(&inherited(&options.descriptors)).unzip();
    let mut own = namespaces::OF_ONE_PROCESS;
    own.set(CloneFlags::CLONE_NEWNET, !options.grants.network);
    match namespaces::fork_into_user_namespace(own, options.grants.identity)? {
        ForkResult::Parent { child } => {
            // From here on it is ended, and waited for, whatever fails.
            let sentry = Sentry::new(child);
            drop((sentry_end, sentry_ends, init_end, program_ends));
            let diverted = own_ends.divert();
            signals::heed_faults()?;
            let ends = Ends {
                liaison: launcher_end,
                job,
                terminal,
                door,
            };
            let pipes = (inputs, inlets, outlets, diverted);
            supervise(options, &sentry, ends, about, pipes)
        }
        ForkResult::Child => {
            drop((launcher_end, job, terminal, inputs, inlets, outlets));
            drop(own_ends);
            sentry_ends.divert();
            if let Some(door) = door {
                door.leave();
            }
            let job = Job {
                signals: &found,
                likeness: likeness.as_ref(),
                end: init_end,
            };
            let ends = (&sentry_ends, program_ends);
            let status = sentry_process(options, &command, job, sentry_end, ends).unwrap_or_else(
                |failure| {
                    log::print(&format!("ringfence: {failure}\n"));
                    failure.status
                },
            );
            exit_at_once(i32::from(status))
        }
    }
}

/// What the launcher does once the sentry was started.
fn supervise(
    options: &Options,
    sentry: &Sentry,
    ends: Ends,
    about: About,
    (inputs, inlets, outlets, diverted): (Inputs, Inlets, Outlets, Diverted),
) -> Result<Ending, Failure> {
    let pace = Pace::default();
    let launcher = Starter::new(options, sentry.pid(), &inlets)
        .and_then(|starter| Launcher::new(sentry, starter, ends, about, &pace))
        .inspect_err(|_| sentry.end());
    // Also if that failed: somebody may have said why.
    let copying = outlets.copy(options, &pace)?;
    let filling = inputs.copy()?;
    let ending = launcher.and_then(Launcher::wait);
    // What is copied does not end before.
    sentry.end();
    filling.finish();
    drop((inlets, diverted));
    let copied = copying.finish(options, &pace);
    tracing::debug!("the sandbox is gone");
    let ending = ending?;
    copied?;
    if let Some(output) = &options.record {
        output.publish()?;
    }
    Ok(ending)
}

fn sentry_process(
    options: &Options,
    command: &[CString],
    job: Job<'_>,
    liaison: SentryEnd,
    (ends, program_ends): (&SentryEnds, ProgramEnds),
) -> Result<u8, Failure> {
    ringfence_faults::act_as(Role::Sentry);
    title::take(title::SENTRY);
    // What is sent to the caller's group is for the launcher alone, which passes it on once.
    jobs::leave_session()?;
    nix::sys::prctl::set_dumpable(false).attempt("prctl")?;
    namespaces::isolate_mounts()?;
    program_ends.take_place()?;
    given::protect_files(&options.descriptors)?;
    // The sentry's own `/proc` does not have the file.
    let numbers = ringfence_sentry::tracee::Numbers::open().attempt("/proc/loadavg")?;
    namespaces::mount_processes()?;
    let sandbox = build(options, command, job, (liaison, numbers), ends)?;
    memory::raise_limit_of_files()?;
    let supervision = ringfence_sentry::Options {
        driver: &options.driver,
        command: &options.command,
        stats: options.stats,
        on_server_exit: options.on_server_exit,
        record: options.record.as_ref().map(Output::for_sentry),
        trace: options.trace.as_ref().map(trace::Output::for_sentry),
    };
    ringfence_sentry::run(&supervision, sandbox)
}

/// Starts the tasks' first processes, and lets go of what only these need.
#[allow(unsafe_code)]
fn build(
    options: &Options,
    command: &[CString],
    job: Job<'_>,
    (liaison, numbers): (SentryEnd, ringfence_sentry::tracee::Numbers),
    ends: &SentryEnds,
) -> Result<Sandbox, Failure> {
    let (listener, task_listener) = Socket::pair().attempt("socketpair")?;
    let (report, task_report) = Socket::pair().attempt("socketpair")?;
    let working_directory = std::env::current_dir().ok();
    let start = || namespaces::fork_with(namespaces::OF_ONE_PROCESS);
    let started = attempt_first("starting init", || Ok::<_, Infallible>(start()))?;
    let refused = |errno| namespaces::refused(errno, namespaces::OF_ONE_PROCESS);
    let init = match started.map_err(refused)? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((liaison, listener, report, numbers));
            let program = exec::Program {
                command,
                driver: &options.driver,
                grants: &options.grants,
                descriptors: &options.descriptors,
                working_directory: working_directory.as_ref(),
                job,
                listener: task_listener,
            };
            init::run(program, task_report)
        }
    };
    drop((job, task_listener, task_report));
    let needed = [
        listener.as_fd(),
        report.as_fd(),
        liaison.as_fd(),
        numbers.as_fd(),
    ];
    // SAFETY: this process, which never returns from here to who owns the rest, uses nothing else.
    unsafe { ends.take_place(options, &needed) }?;
    Ok(Sandbox {
        init,
        is_container: false,
        uvm: ringfence_sentry::uvm_number(&options.driver),
        listener,
        report,
        liaison,
        numbers,
        way: None,
    })
}

fn c_strings(command: &[OsString]) -> Result<Vec<CString>, Failure> {
    command
        .iter()
        .map(|argument| {
            CString::new(argument.clone().into_vec()).attempt("an argument with a zero byte")
        })
        .collect()
}
