//! A command's end: asking one launcher for something, or all what they run.
//!
//! A launcher that is stopped, with its program or without, answers nobody. The kernel says all the same whose door it is
//! (SO_PEERCRED), and what its command line is. So it is listed, and no command waits for it.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;
use ringfence_ipc::Socket;
use ringfence_sentry::failure::{Attempt, Failure};
use serde::Serialize;

use super::peer::{
    SUFFIX, Stranger, Unanswered, call, check_peer, existing, hear, path_of, place, remove_stale,
    soon,
};
use super::{About, Name, Reply, Upgrade, Wish};

/// How long a launcher may take to answer: longer than any upgrade.
const ANSWER: Duration = Duration::from_secs(90);

/// How often it is looked meanwhile whether it is stopped. One that is so twice is not waited for.
const LOOK: Duration = Duration::from_secs(1);

/// A sandbox in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    pub name: Name,
    /// The launcher's number.
    pub process: i32,
    /// `None` if the launcher is stopped, and so does not say it.
    pub driver: Option<String>,
    /// The program's command line; the launcher's own, if that is stopped.
    pub command: Vec<String>,
    pub is_stopped: bool,
}

impl From<About> for Listed {
    fn from(about: About) -> Listed {
        Listed {
            name: about.name,
            process: about.process,
            driver: Some(about.driver),
            command: about.command,
            is_stopped: false,
        }
    }
}

/// The sandboxes of this user that are running, by name.
#[derive(Debug, Default)]
pub struct Running {
    pub found: Vec<Listed>,
    /// Those whose launchers do not answer.
    pub silent: Vec<Name>,
    /// How many there are whose launchers live in another user namespace, and so tell nothing.
    pub elsewhere: usize,
}

/// Asks every launcher of this user what it runs. All are waited for together, and not for long, whether they do not answer or
/// have no room for another question.
pub fn list() -> Result<Running, Failure> {
    let Some(directory) = existing()? else {
        return Ok(Running::default());
    };
    remove_stale(&directory);
    let entries = fs::read_dir(&directory).attempt(directory.display())?;
    let deadline = soon();
    let mut running = Running::default();
    let (mut asked, mut full) = (Vec::new(), Vec::new());
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| name.strip_suffix(SUFFIX)?.parse::<Name>().ok())
        else {
            continue;
        };
        if !ask(&path, &name, Instant::now(), &mut running, &mut asked) {
            full.push((path, name));
        }
    }
    // Only now that all others were asked, who have as long to answer.
    for (path, name) in full {
        if !ask(&path, &name, deadline, &mut running, &mut asked) {
            running.silent.push(name);
        }
    }
    for (socket, name) in asked {
        if socket.wait_readable(deadline) == Ok(false) {
            running.silent.push(name);
        } else if let Ok((Reply::Description(about), _)) = hear(&socket, deadline) {
            running.found.push(about.into());
        }
    }
    running
        .found
        .sort_by(|one, other| one.name.0.cmp(&other.name.0));
    running.silent.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(running)
}

/// Asks a launcher what it runs, unless it is stopped: that needs not be asked. `false` if there was no room for the question
/// until then.
fn ask(
    door: &Path,
    name: &Name,
    deadline: Instant,
    running: &mut Running,
    asked: &mut Vec<(Socket, Name)>,
) -> bool {
    let socket = match call(door, deadline) {
        Ok(socket) => socket,
        Err(errno) => return errno != Errno::EAGAIN,
    };
    match check_peer(&socket) {
        Ok(_) => {}
        Err(Stranger::Sandboxed) => {
            running.elsewhere += 1;
            return true;
        }
        Err(_) => return true,
    }
    match launcher_of(&socket) {
        Ok(launcher) if is_stopped(launcher) => {
            running.found.push(Listed::stopped(name.clone(), launcher));
        }
        _ if socket.say(&Wish::Describe, None).is_ok() => asked.push((socket, name.clone())),
        _ => {}
    }
    true
}

impl Listed {
    fn stopped(name: Name, launcher: Pid) -> Listed {
        Listed {
            name,
            process: launcher.as_raw(),
            driver: None,
            command: line_of(launcher),
            is_stopped: true,
        }
    }
}

/// The launcher whose door was called at. It can have ended since.
fn launcher_of(socket: &Socket) -> Result<Pid, Errno> {
    let peer = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(Pid::from_raw(peer.pid()))
}

/// Whether a process is stopped, by a signal or a debugger (proc_pid_stat(5)).
fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Its name, which may have anything in it, stands in parentheses before.
    let state = stat.rsplit_once(") ").map(|(_, state)| state);
    state.is_some_and(|state| state.starts_with(['T', 't']))
}

/// A launcher's own command line.
fn line_of(launcher: Pid) -> Vec<String> {
    let line = fs::read(format!("/proc/{launcher}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    let words = line.trim_end_matches('\0').split('\0');
    words.map(str::to_owned).collect()
}

/// Has the server of a sandbox replaced by one of this executable. The sandbox is called `wanted`, or that is the number of its
/// process, or the beginning of its container's id. Returns its name, too.
pub fn upgrade(wanted: &Name, executable: BorrowedFd<'_>) -> Result<(Name, Upgrade), Failure> {
    let directory = existing()?.unwrap_or_else(place);
    let (name, called) = match call(&path_of(&directory, wanted), soon()) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ECONNREFUSED) => {
            let name = otherwise_called(wanted)?;
            let called = call(&path_of(&directory, &name), soon());
            (name, called)
        }
        called => (wanted.clone(), called),
    };
    let socket = match called {
        Err(Errno::EAGAIN) => {
            return Err(Failure::setup(format!(
                "{name}: its ringfence process does not answer: continue it, if it is stopped"
            )));
        }
        called => called.attempt(&name)?,
    };
    let upgrade = replace_server(&name, &socket, executable)?;
    Ok((name, upgrade))
}

/// The sandbox that is called otherwise, and whose `ringfence` process has this number, or whose container's id begins so.
fn otherwise_called(wanted: &Name) -> Result<Name, Failure> {
    let Name(text) = wanted;
    let Running { found, silent, .. } = list()?;
    let mut processes = found.iter();
    if let Some(listed) = processes.find(|listed| listed.process.to_string() == *text) {
        return Ok(listed.name.clone());
    }
    let names: Vec<Name> = found.into_iter().map(|listed| listed.name).collect();
    // One that does not answer is meant, too.
    let meant = names.iter().chain(&silent);
    let meant: Vec<&Name> = meant.filter(|name| name.is_id_beginning(text)).collect();
    let names: Vec<&str> = match &meant[..] {
        [only] => return Ok((*only).clone()),
        [] => names.iter().map(|name| name.0.as_str()).collect(),
        several => {
            let several: Vec<&str> = several.iter().map(|name| name.0.as_str()).collect();
            return Err(Failure::setup(format!(
                "{text} is the beginning of {}: write more of the one that you mean",
                several.join(" and ")
            )));
        }
    };
    let running = match names.is_empty() {
        true => "none is running".to_owned(),
        false => format!("running are {}", names.join(", ")),
    };
    Err(Failure::setup(format!(
        "there is no sandbox {text}: {running}"
    )))
}

/// Asks the launcher at the other end of `socket` for another server.
fn replace_server(
    name: &Name,
    socket: &Socket,
    executable: BorrowedFd<'_>,
) -> Result<Upgrade, Failure> {
    check_peer(socket).attempt(name)?;
    let said = socket.say(&Wish::Upgrade, Some(executable));
    said.attempt(name)?;
    wait_for_answer(socket, launcher_of(socket).attempt(name)?).map_err(|reason| Failure {
        status: 1,
        message: format!("{name}: {reason}"),
    })?;
    let (reply, _) = hear(socket, soon()).attempt(name)?;
    match reply {
        Reply::Upgraded(upgrade) => Ok(upgrade),
        Reply::Failed(reason) => Err(Failure {
            status: 1,
            message: format!("{name}: {reason}; the server was not replaced"),
        }),
        Reply::Description(_) => Err(Failure::setup("the launcher answered something else")),
    }
}

/// Waits until a launcher answers, if it is not stopped.
fn wait_for_answer(socket: &Socket, launcher: Pid) -> Result<(), Unanswered> {
    let deadline = Instant::now() + ANSWER;
    let mut was_stopped = false;
    while socket.wait_readable(Instant::now() + LOOK) == Ok(false) {
        let is_stopped = is_stopped(launcher);
        if is_stopped && was_stopped {
            return Err(Unanswered::Stopped(launcher));
        }
        was_stopped = is_stopped;
        if Instant::now() >= deadline {
            return Err(Unanswered::Late(launcher, ANSWER));
        }
    }
    Ok(())
}
