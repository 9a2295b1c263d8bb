//! Process 1 of the tasks' namespace: starts the program, passes signals on to it, reaps what its children leave, and
//! ends with its status. When it ends, whichever way, the kernel ends every task.

use std::convert::Infallible;
use std::io::{PipeWriter, Write};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork};
use ringfence_confinement::{Confinement, policies};
use rustix::process::WaitOptions;

use super::exec::{self, Program};
use super::{namespaces, network, root};
use crate::failure::{Attempt, Failure, SETUP};
use crate::signals;
use crate::system_calls::exit_at_once;

/// Runs as init until the program ends. A failure before that goes to `report`.
pub fn run(program: Program<'_>, report: PipeWriter) -> ! {
    let signals = signals::descriptor();
    let status = signals.map_err(drop).and_then(|signals| {
        let task = start(program, &report)?;
        confine().map_err(|failure| tell(&failure, &report))?;
        drop(report);
        Ok(reap(task, &signals))
    });
    // A failure was reported; the sentry knows its status.
    exit_at_once(status.unwrap_or(i32::from(SETUP)))
}

fn start(program: Program<'_>, report: &PipeWriter) -> Result<Pid, ()> {
    let started = set_up(&program).and_then(|()| {
        // SAFETY: this process has one thread, so the child may go on as if nothing had happened.
        match unsafe { fork() }.attempt("starting the program")? {
            ForkResult::Parent { child } => Ok(child),
            ForkResult::Child => exec::run(&program).map(|never: Infallible| match never {}),
        }
    });
    started.map_err(|failure| tell(&failure, report))
}

fn tell(failure: &Failure, mut report: &PipeWriter) {
    // If nobody reads it any more, nobody is left to tell.
    let _ = writeln!(report, "{}", failure.to_line());
}

/// Leaves this process what it needs until the program has ended: the calls of `confinement/policies/init.policy`.
pub fn confine() -> Result<(), Failure> {
    const ADDRESS_SPACE: u64 = 1 << 30;
    const DESCRIPTORS: u64 = 64;
    let program = policies::INIT.compile(&[]).attempt("init's filter")?;
    Confinement {
        kept: None,
        landlock: false,
        capabilities: &[],
        address_space: ADDRESS_SPACE,
        descriptors: DESCRIPTORS,
        program: &program,
    }
    .enter()
    .attempt("init's confinement")
}

fn set_up(program: &Program<'_>) -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).attempt("prctl")?;
    prctl::set_dumpable(false).attempt("prctl")?;
    namespaces::isolate_mounts()?;
    if !program.grants.network {
        network::bring_up_loopback()?;
    }
    root::build(program.grants, &program.driver.node_names())
}

/// Waits for every child until `task` has ended; the status as a shell would give it. (By rustix, since nix's `waitpid`
/// fails on a child that a real-time signal ended.)
fn reap(task: Pid, signals: &signals::Descriptor) -> i32 {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) if ended.as_raw_nonzero().get() == task.as_raw() => {
                let signalled = status.terminating_signal().map(|signal| 128 + signal);
                if let Some(status) = status.exit_status().or(signalled) {
                    return status;
                }
            }
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                if signals.forward(task).is_err() {
                    return i32::from(SETUP);
                }
            }
            Err(_) => return i32::from(SETUP),
        }
    }
}
