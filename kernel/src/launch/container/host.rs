//! The launcher of a container's sandbox: it stays on the host, outside of what the low-level runtime makes.
//!
//! The idea: the front forks it before it becomes the low-level runtime. So it is no child of the engine's, has none of
//! its descriptors, and is in none of the container's namespaces and groups. It is told that the container is gone by the
//! end of the socket to the sentry, which the low-level runtime holds until the sentry has it: so it outlives no container,
//! whatever becomes of its making.
//!
//! The sentry is no child of it. By the descriptor that the sentry sends for itself it is ended.
//!
//! `unsafe` is here because of fork(2), and because all that the engine has left open is closed.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{ForkResult, chdir, fork, setsid};
use nvproxy_protocol::driver::Driver;
use nvproxy_protocol::options::Settings;
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure, attempt_first};
use ringfence_sentry::server::OnServerExit;
use ringfence_sentry::system_calls::exit_at_once;
use ringfence_sentry::{liaison, log, signals, visible};

use super::told::{self, HANDED, Told};
use crate::launch::children::{self, Sentry};
use crate::launch::copying::Pace;
use crate::launch::grants::Grants;
use crate::launch::servers::Starter;
use crate::launch::supervision::{Ends, Launcher};
use crate::launch::{Options, descriptors, jobs, pipes, title};
use crate::sandboxes::{About, Door, Name};

/// What is attempted twice, and is one thing to who is told of it.
const STARTING: &str = "starting the launcher";

/// A container that is to be launched.
#[derive(Debug)]
pub struct Container {
    /// What the engine calls it.
    pub engines_name: String,
    /// The same, if a sandbox can be called that.
    pub name: Option<Name>,
    pub driver: Driver,
    pub settings: Settings,
    pub on_server_exit: OnServerExit,
    /// The program and its arguments, to be shown.
    pub command: Vec<OsString>,
    /// Where messages go.
    pub log: PathBuf,
    /// What is removed when the container is gone.
    pub bundle: PathBuf,
    /// What the log is to say first.
    pub warnings: Vec<String>,
    /// What says, as long as this process has it, that the bundle is somebody's.
    pub lock: OwnedFd,
}

/// Starts the launcher, and returns what the first process is to be handed. By `door` further programs get in.
pub fn start(
    container: Container,
    told: &Told,
    door: OwnedFd,
) -> Result<[OwnedFd; HANDED], Failure> {
    let messages = open_log(&container.log)?;
    let options = options(&container);
    let (liaison, sentry_liaison) = liaison::pair().attempt("socketpair")?;
    let (job, init_end) = jobs::pair().attempt("socketpair")?;
    let (inlets, outlets) = pipes::create(&options)?;
    let sentry_messages = inlets.for_sentry()?.into_messages();
    let told = told::write(told)?;
    let (above, below) = Socket::pair().attempt("socketpair")?;
    // SAFETY: this process has one thread.
    match attempt_first(STARTING, || unsafe { fork() })? {
        ForkResult::Parent { child } => {
            drop(below);
            children::wait_for(child);
            if let Some(failure) = Failure::reported(above) {
                return Err(failure);
            }
            let [socket, flag] = init_end.into_descriptors();
            Ok([
                told,
                sentry_liaison.into(),
                socket,
                flag,
                sentry_messages,
                door,
            ])
        }
        ForkResult::Child => {
            // The launcher is no child of the low-level runtime's, which could wait for it.
            // SAFETY: this process has one thread.
            match attempt_first(STARTING, || unsafe { fork() }) {
                Ok(ForkResult::Child) => {}
                Ok(ForkResult::Parent { .. }) => exit_at_once(0),
                Err(failure) => {
                    failure.tell(&below);
                    exit_at_once(0)
                }
            }
            drop((above, below));
            drop((sentry_liaison, init_end, sentry_messages, told, door));
            let ends = (liaison, job, inlets, outlets);
            if let Err(failure) = launch(&container, &options, messages, ends) {
                tell(&failure);
            }
            // What is left of the caller's belongs to the other process.
            exit_at_once(0)
        }
    }
}

/// Opens a log to add to it. An engine's shim has no mask for new files, so it is said here that not everybody may write it.
pub fn append_to(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640).open(path)
}

/// Opens the log that the settings name.
pub fn open_log(path: &Path) -> Result<File, Failure> {
    append_to(path).map_err(|error| {
        let path = path.display();
        Failure::setup(format!(
            "runtime.log of the settings: {path}: {error}: make its directory, or name another file"
        ))
    })
}

fn options(container: &Container) -> Options {
    Options {
        driver: container.driver.clone(),
        settings: container.settings.clone(),
        command: container.command.clone(),
        grants: Grants::default(),
        descriptors: Vec::new(),
        log: None,
        stats: false,
        on_server_exit: container.on_server_exit,
        name: container.name.clone(),
        container: Some(container.engines_name.clone()),
        record: None,
        trace: None,
        replay: None,
    }
}

type EndsOfLauncher = (
    liaison::LauncherEnd,
    jobs::LauncherEnd,
    pipes::Inlets,
    pipes::Outlets,
);

/// What the launcher does until the container is gone.
fn launch(
    container: &Container,
    options: &Options,
    messages: File,
    (liaison, job, inlets, outlets): EndsOfLauncher,
) -> Result<(), Failure> {
    setsid().attempt("setsid")?;
    let lock = container.lock.as_raw_fd();
    write_to_log(messages, &container.engines_name)?;
    leave_the_engine(lock, &liaison, &job, &inlets, &outlets)?;
    log::write_for_container(&container.engines_name);
    for warning in &container.warnings {
        // They have words of the specification's in them.
        tracing::warn!("{}", visible::escaped(warning));
    }
    chdir("/").attempt("/")?;
    let about = About::new(
        container.name.as_ref(),
        &options.driver.version,
        &options.command,
    );
    title::prepare(&about.name.to_string());
    title::take(title::LAUNCHER);
    signals::block()?;
    let door = Door::open(&about.name)
        .inspect_err(|failure| tracing::debug!("no door: {failure}"))
        .ok();
    signals::heed_faults()?;
    let sentry = Sentry::elsewhere();
    let ends = Ends {
        liaison,
        job,
        terminal: None,
        door,
    };
    let pace = Pace::default();
    let launcher = Starter::new(options, sentry.pid(), &inlets)
        .and_then(|starter| Launcher::new(&sentry, starter, ends, about, &pace));
    let copying = outlets.copy(options, &pace)?;
    let ended = launcher.and_then(Launcher::wait);
    sentry.end();
    drop(inlets);
    let copied = copying.finish(options, &pace);
    // Before the bundle goes, by which others see that all was said.
    if let Err(failure) = ended.map(drop).and(copied) {
        tell(&failure);
    }
    let _ = fs::remove_dir_all(&container.bundle);
    Ok(())
}

fn tell(failure: &Failure) {
    log::print(&log::failing(failure));
}

/// Has what this process says go to the log, in the place of what the engine has open.
fn write_to_log(messages: File, name: &str) -> Result<(), Failure> {
    let nothing: OwnedFd = File::open("/dev/null").attempt("/dev/null")?.into();
    let log: OwnedFd = messages.into();
    for (end, number) in [(&nothing, 0), (&log, 1), (&log, 2)] {
        if number == libc::STDERR_FILENO {
            log::stderr_is_log_of(name);
        }
        // SAFETY: these are the engine's, which nobody here uses.
        unsafe { descriptors::put_in_place(end, number) }?;
    }
    // They are closed with the rest.
    std::mem::forget((nothing, log));
    Ok(())
}

/// Closes all else that the engine has open.
fn leave_the_engine(
    lock: RawFd,
    liaison: &liaison::LauncherEnd,
    job: &jobs::LauncherEnd,
    inlets: &pipes::Inlets,
    outlets: &pipes::Outlets,
) -> Result<(), Failure> {
    let mut kept = vec![0, 1, 2, lock, liaison.as_fd().as_raw_fd()];
    kept.extend(job.descriptors().iter().map(AsRawFd::as_raw_fd));
    kept.extend(inlets.descriptors().chain(outlets.descriptors()));
    // SAFETY: this process uses nothing else from here on, and drops nothing else.
    unsafe { descriptors::close_all_but(kept) }
}
