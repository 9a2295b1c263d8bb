//! Running sandboxes, and how commands reach them: `ringfence ps` and `ringfence server-upgrade`.
//!
//! The launcher of a sandbox has a *door*: a socket, called after the sandbox, in a directory of the user's own. A
//! command connects, makes one request and gets one reply. Only who may do anything with the launcher anyway is let in:
//! processes of the same user, or root, that do not live in a sandbox. A task has the same user id, and may even see the
//! socket; it is told from others by its user namespace. The command looks at the launcher likewise. What a launcher does not
//! know it says so of: command and launcher may be of different releases, so both say what they say in JSON.
//!
//! A launcher that is stopped, with its program or without, answers nobody. The kernel says all the same whose door it is
//! (SO_PEERCRED), and what its command line is. So it is listed, and no command waits for it.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, geteuid};
use nvproxy_abi::version::DriverVersion;
use ringfence_ipc::typed::Format;
use ringfence_ipc::{Message, Socket, SocketError};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::net::{SocketFlags, accept_with};
use serde::{Deserialize, Serialize};

/// How a door is called after the sandbox's name.
const SUFFIX: &str = ".sock";
/// How one is called before its launcher's number, as long as nobody can connect to it.
const UNNAMED: &str = ".";
/// The longest request or reply, in bytes.
const MAXIMUM_MESSAGE: usize = 64 << 10;
/// How long a command that connected may take to say what it wants, and a launcher to say what it runs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a launcher may take to answer: longer than any upgrade.
const ANSWER: Duration = Duration::from_secs(90);
/// How often it is looked meanwhile whether it is stopped. One that is so twice is not waited for.
const LOOK: Duration = Duration::from_secs(1);

/// What a sandbox is called: up to 64 letters, digits, `-`, `_` and `.`, the first of them a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name(String);

/// The text is no name.
#[derive(Debug, thiserror::Error)]
#[error(
    "a name has up to 64 letters, digits, '-', '_' and '.', and starts with a letter or a digit"
)]
pub struct UnfitName;

impl FromStr for Name {
    type Err = UnfitName;

    fn from_str(text: &str) -> Result<Name, UnfitName> {
        let is_fit =
            |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.chars().all(is_fit) {
            Ok(Name(text.to_owned()))
        } else {
            Err(UnfitName)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// A sandbox, as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    pub name: Name,
    /// The launcher's number.
    pub process: i32,
    pub driver: String,
    pub command: Vec<String>,
}

impl About {
    /// The sandbox that the calling process launches, called after its number if it has no name.
    pub fn new(name: Option<&Name>, driver: &DriverVersion, command: &[OsString]) -> About {
        let process = std::process::id();
        About {
            name: name.cloned().unwrap_or(Name(process.to_string())),
            process: process as i32,
            driver: driver.to_string(),
            command: command
                .iter()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
        }
    }
}

/// A sandbox in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    pub name: Name,
    /// The launcher's number.
    pub process: i32,
    /// `None` if the launcher is stopped, and so does not say it.
    pub driver: Option<String>,
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

/// A replacement of a server, by the processes' numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Upgrade {
    pub from: i32,
    pub to: i32,
    pub microseconds: u64,
}

/// What a command asks for.
pub enum Request {
    Describe,
    /// Replaces the server by one of this executable.
    Upgrade(OwnedFd),
}

/// A request as it travels; the executable travels beside it. The command may be of a newer release than the launcher, or of an
/// older one.
#[derive(Serialize, Deserialize)]
enum Wish {
    Describe,
    Upgrade,
}

impl Message for Wish {
    const MAXIMUM_BYTES: usize = MAXIMUM_MESSAGE;
    const FORMAT: Format = Format::Json;

    fn has_descriptor(&self) -> bool {
        matches!(self, Wish::Upgrade)
    }
}

/// What a launcher answers.
#[derive(Serialize, Deserialize)]
pub enum Reply {
    Description(About),
    Upgraded(Upgrade),
    Failed(String),
}

impl Message for Reply {
    const MAXIMUM_BYTES: usize = MAXIMUM_MESSAGE;
    const FORMAT: Format = Format::Json;
}

impl Reply {
    /// Sends the reply; a command that is gone needs none.
    pub fn send(&self, socket: &Socket) {
        let _ = socket.say(self, None);
    }
}

/// A command that was let in.
pub struct Visitor {
    pub socket: Socket,
    pub request: Request,
}

/// A launcher's door. It is taken away when this is dropped.
pub struct Door {
    listener: OwnedFd,
    place: Place,
}

/// A file that is removed when this is dropped.
struct Place(PathBuf);

impl Door {
    /// Makes the door of a sandbox, and takes away those of sandboxes whose launcher was killed. Fails if another of that
    /// name is running.
    pub fn open(name: &Name) -> Result<Door, Failure> {
        let directory = directory()?;
        remove_stale(&directory);
        let path = path_of(&directory, name);
        // It gets its name when commands can connect to it: one that refuses them is stale.
        let unnamed = Place(directory.join(format!("{UNNAMED}{}", std::process::id())));
        let _ = fs::remove_file(&unnamed.0);
        let address = UnixAddr::new(&unnamed.0).attempt(unnamed.0.display())?;
        let listener = seqpacket().attempt("socket")?;
        bind(listener.as_raw_fd(), &address).attempt(unnamed.0.display())?;
        listen(&listener, Backlog::MAXALLOWABLE).attempt("listen")?;
        let rename = || {
            let flags = RenameFlags::RENAME_NOREPLACE;
            renameat2(AT_FDCWD, &unnamed.0, AT_FDCWD, &path, flags)
        };
        let mut renamed = rename();
        if renamed == Err(Errno::EEXIST) {
            if matches!(call(&path, soon()), Ok(_) | Err(Errno::EAGAIN)) {
                let Name(name) = name;
                return Err(Failure::setup(format!(
                    "--name {name}: a sandbox of this name is running: choose another name"
                )));
            }
            // Its launcher was killed.
            let _ = fs::remove_file(&path);
            renamed = rename();
        }
        renamed.attempt(path.display())?;
        std::mem::forget(unnamed);
        let place = Place(path);
        Ok(Door { listener, place })
    }

    /// Lets go of the door without taking it away, in a process that it is not.
    pub fn leave(self) {
        std::mem::forget(self.place);
    }

    /// Lets in who knocks, if it may come in and says what it wants.
    pub fn admit(&self) -> Option<Visitor> {
        let accepted = accept_with(&self.listener, SocketFlags::CLOEXEC).ok()?;
        let socket = Socket::from(accepted);
        // It has given up, as those have that came while the launcher was stopped.
        if has_hung_up(&socket) {
            return None;
        }
        if let Err(reason) = check_peer(&socket) {
            tracing::warn!("a command was turned away: {reason}");
            return None;
        }
        let request = match hear(&socket, soon()) {
            Ok((Wish::Describe, _)) => Request::Describe,
            Ok((Wish::Upgrade, executable)) => Request::Upgrade(executable?),
            Err(Unanswered::Socket(SocketError::Malformed(reason))) => {
                let release = env!("CARGO_PKG_VERSION");
                let reason = format!(
                    "its launcher, of release {release}, does not know what was asked: {reason}"
                );
                Reply::Failed(reason).send(&socket);
                return None;
            }
            Err(_) => return None,
        };
        Some(Visitor { socket, request })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing is lost if somebody else was faster.
        let _ = fs::remove_file(&self.0);
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// The sandboxes of this user that are running, by name.
#[derive(Debug, Default)]
pub struct Running {
    pub found: Vec<Listed>,
    /// Those whose launchers do not answer.
    pub silent: Vec<Name>,
}

/// Asks every launcher of this user what it runs. All are waited for together, and not for long, whether they do not answer or
/// have no room for another question.
pub fn list() -> Result<Running, Failure> {
    let directory = directory()?;
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
        Ok(socket) if check_peer(&socket).is_ok() => socket,
        outcome => return outcome.err() != Some(Errno::EAGAIN),
    };
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
            command: command_of(launcher),
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

/// The command that a launcher runs, by its own command line.
fn command_of(launcher: Pid) -> Vec<String> {
    let line = fs::read(format!("/proc/{launcher}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
    let end = words.iter().position(|word| *word == "--");
    let command = words.into_iter().skip(end.map_or(0, |end| end + 1));
    command.map(str::to_owned).collect()
}

fn has_hung_up(socket: &Socket) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
}

/// Takes away the doors of launchers that were killed.
fn remove_stale(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let text = path.file_name().and_then(|name| name.to_str());
        // A door is called after its launcher, unless the sandbox has a name: then only the door can tell.
        let launcher = text.map(|text| text.trim_start_matches(UNNAMED).trim_end_matches(SUFFIX));
        let is_launcher_there = launcher.is_some_and(|launcher| {
            launcher.parse::<u32>().is_ok() && Path::new("/proc").join(launcher).exists()
        });
        let is_refused = || call(&path, Instant::now()).err() == Some(Errno::ECONNREFUSED);
        if !is_launcher_there && is_refused() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Has the server of the sandbox `name` replaced by one of this executable.
pub fn upgrade(name: &Name, executable: BorrowedFd<'_>) -> Result<Upgrade, Failure> {
    let socket = match call(&path_of(&directory()?, name), soon()) {
        Ok(socket) => socket,
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => {
            let names: Vec<String> = list()?
                .found
                .into_iter()
                .map(|listed| listed.name.0)
                .collect();
            let running = match names.is_empty() {
                true => "none is running".to_owned(),
                false => format!("running are {}", names.join(", ")),
            };
            let Name(name) = name;
            return Err(Failure::setup(format!(
                "there is no sandbox {name}: {running}"
            )));
        }
        Err(Errno::EAGAIN) => {
            return Err(Failure::setup(format!(
                "{}: its ringfence process does not answer: continue it, if it is stopped",
                name.0
            )));
        }
        Err(errno) => return Err(errno).attempt(&name.0),
    };
    check_peer(&socket).attempt(&name.0)?;
    let said = socket.say(&Wish::Upgrade, Some(executable));
    said.attempt(&name.0)?;
    wait_for_answer(&socket, launcher_of(&socket).attempt(&name.0)?).map_err(|reason| Failure {
        status: 1,
        message: format!("{}: {reason}", name.0),
    })?;
    let (reply, _) = hear(&socket, soon()).attempt(&name.0)?;
    match reply {
        Reply::Upgraded(upgrade) => Ok(upgrade),
        Reply::Failed(reason) => Err(Failure {
            status: 1,
            message: format!("{}: {reason}; the server was not replaced", name.0),
        }),
        Reply::Description(_) => Err(Failure::setup("the launcher answered something else")),
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("it does not answer")]
    Silence,
    #[error(
        "its ringfence process is stopped: continue it, with `fg` or `kill -CONT {0}`, and try again"
    )]
    Stopped(Pid),
    #[error("its ringfence process, {0}, did not answer for {ANSWER:?}")]
    Late(Pid),
    #[error(transparent)]
    Socket(SocketError),
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
            return Err(Unanswered::Late(launcher));
        }
    }
    Ok(())
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn hear<M: Message>(
    socket: &Socket,
    deadline: Instant,
) -> Result<(M, Option<OwnedFd>), Unanswered> {
    let heard = socket.hear_until(deadline);
    heard.map_err(|error| match error {
        SocketError::WouldBlock => Unanswered::Silence,
        error => Unanswered::Socket(error),
    })
}

/// Why nothing is said to a process.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("it is of user {0}")]
    User(u32),
    #[error("it lives in another user namespace, as sandboxed programs do")]
    Sandboxed,
    #[error("it has ended")]
    Ended,
    #[error(transparent)]
    System(#[from] Errno),
}

/// Fails, with the reason, unless the other side is a process of this user or root, outside of any sandbox.
fn check_peer(socket: &Socket) -> Result<(), Stranger> {
    let peer = getsockopt(socket, sockopt::PeerCredentials)?;
    let own = geteuid().as_raw();
    // Root is nobody whom a sandbox of an ordinary user could be taken for: there it has no such id.
    if peer.uid() == 0 && own != 0 {
        return Ok(());
    }
    if peer.uid() != own {
        return Err(Stranger::User(peer.uid()));
    }
    let process = getsockopt(socket, sockopt::PeerPidfd)?;
    let namespace = |process: Pid| fs::read_link(format!("/proc/{process}/ns/user"));
    let is_outside = match (namespace(Pid::from_raw(peer.pid())), namespace(Pid::this())) {
        (Ok(peer), Ok(own)) => peer == own,
        _ => false,
    };
    // If it lives still its number is its own, and it was its namespace.
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) if is_outside => Ok(()),
        Ok(0) => Err(Stranger::Sandboxed),
        _ => Err(Stranger::Ended),
    }
}

fn seqpacket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// Connects to a door. Fails with `EAGAIN` if there is no room for another question until then: whoever listens there takes
/// none, as a launcher that is stopped, and others have asked before.
fn call(path: &Path, deadline: Instant) -> Result<Socket, Errno> {
    let socket = seqpacket()?;
    let left = deadline.saturating_duration_since(Instant::now());
    // None at all would mean for ever (socket(7)).
    let limit = left.max(Duration::from_micros(1));
    let limit = TimeVal::microseconds(limit.as_micros() as i64);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(Socket::from(socket))
}

fn path_of(directory: &Path, name: &Name) -> PathBuf {
    directory.join(format!("{}{SUFFIX}", name.0))
}

/// The directory of the doors of this user's sandboxes, which is made if there is none.
fn directory() -> Result<PathBuf, Failure> {
    let user = geteuid();
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let fallback = [
        PathBuf::from(format!("/run/user/{user}")),
        PathBuf::from("/run"),
    ];
    let parents = session.into_iter().chain(fallback);
    let own = |parent: &PathBuf| {
        let status = fs::metadata(parent);
        status.is_ok_and(|status| status.is_dir() && status.uid() == user.as_raw())
    };
    let path = match parents.filter(|parent| parent.is_absolute()).find(own) {
        Some(parent) => parent.join("ringfence"),
        None => PathBuf::from(format!("/tmp/ringfence-{user}")),
    };
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).attempt(path.display());
        }
        _ => {}
    }
    // In /tmp somebody else may have been there first.
    let status = fs::symlink_metadata(&path).attempt(path.display())?;
    if status.is_dir() && status.uid() == user.as_raw() && status.mode() & 0o077 == 0 {
        Ok(path)
    } else {
        Err(Failure::setup(format!(
            "{}: it is not a directory of yours that only you may use: remove it",
            path.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_a_file() {
        let is_name = |text: &str| text.parse::<Name>().is_ok();
        assert!(is_name("a") && is_name("Train-7_b.2") && is_name(&"x".repeat(64)));
        for wrong in ["", ".", "..", "a/b", "-x", "a b", "ä", &"x".repeat(65)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
