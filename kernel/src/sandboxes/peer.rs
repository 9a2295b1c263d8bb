//! Where doors lie, and who is behind one: what launcher and command look at likewise.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, geteuid};
use ringfence_ipc::{Message, Socket, SocketError};
use ringfence_sentry::failure::{Attempt, Failure};
use ringfence_sentry::system_calls::pidfd_open_process;

use super::Name;

/// How a door is called after the sandbox's name.
pub(super) const SUFFIX: &str = ".sock";
/// How one is called before its launcher's number, as long as nobody can connect to it.
pub(super) const UNNAMED: &str = ".";

/// How long a command that connected may take to say what it wants, and a launcher to say what it runs.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Takes away the doors of launchers that were killed.
pub(super) fn remove_stale(directory: &Path) {
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("it does not answer")]
    Silence,
    #[error(
        "its ringfence process is stopped: continue it, with `fg` or `kill -CONT {0}`, and try again"
    )]
    Stopped(Pid),
    #[error("its ringfence process, {0}, did not answer for {1:?}")]
    Late(Pid, Duration),
    #[error(transparent)]
    Socket(SocketError),
}

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub(super) fn hear<M: Message>(
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
pub(super) enum Stranger {
    #[error("it is of user {0}")]
    User(u32),
    #[error("it lives in another user namespace, as sandboxed programs do")]
    Sandboxed,
    #[error("it has ended")]
    Ended,
    #[error(transparent)]
    System(#[from] Errno),
}

/// How well it is known who is at the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nobody else can be taken for it.
    Surely,
    /// By the number of its process, before Linux 6.5 (`Feature::PeerDescriptors`). A process of a sandbox that has ended, while
    /// another holds the connection, is taken for whoever has its number by then. So this is enough to be told something,
    /// and not to have anything executed.
    ByNumber,
}

/// Fails, with the reason, unless the other side is a process of this user or root, outside of any sandbox.
pub(super) fn check_peer(socket: &Socket) -> Result<Known, Stranger> {
    let peer = getsockopt(socket, sockopt::PeerCredentials)?;
    let own = geteuid().as_raw();
    // Root is nobody whom a sandbox of an ordinary user could be taken for: there it has no such id.
    if peer.uid() == 0 && own != 0 {
        return Ok(Known::Surely);
    }
    if peer.uid() != own {
        return Err(Stranger::User(peer.uid()));
    }
    let (known, process) = match getsockopt(socket, sockopt::PeerPidfd) {
        Err(Errno::ENOPROTOOPT) => (
            Known::ByNumber,
            pidfd_open_process(Pid::from_raw(peer.pid())),
        ),
        process => (Known::Surely, process),
    };
    let process = match process {
        Err(Errno::ESRCH) => return Err(Stranger::Ended),
        process => process?,
    };
    let namespace = |process: Pid| fs::read_link(format!("/proc/{process}/ns/user"));
    let is_outside = match (namespace(Pid::from_raw(peer.pid())), namespace(Pid::this())) {
        (Ok(peer), Ok(own)) => peer == own,
        _ => false,
    };
    // If it lives still its number is its own, and it was its namespace.
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(0) if is_outside => Ok(known),
        Ok(0) => Err(Stranger::Sandboxed),
        _ => Err(Stranger::Ended),
    }
}

pub(super) fn seqpacket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// Connects to a door. Fails with `EAGAIN` if there is no room for another question until then: whoever listens there takes
/// none, as a launcher that is stopped, and others have asked before.
pub(super) fn call(path: &Path, deadline: Instant) -> Result<Socket, Errno> {
    let socket = seqpacket()?;
    let left = deadline.saturating_duration_since(Instant::now());
    // None at all would mean for ever (socket(7)).
    let limit = left.max(Duration::from_micros(1));
    let limit = TimeVal::microseconds(limit.as_micros() as i64);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(Socket::from(socket))
}

pub(super) fn path_of(directory: &Path, name: &Name) -> PathBuf {
    directory.join(format!("{}{SUFFIX}", name.0))
}

/// Where the directory of the doors of this user's sandboxes is, or would be.
pub(super) fn place() -> PathBuf {
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
    match parents.filter(|parent| parent.is_absolute()).find(own) {
        Some(parent) => parent.join("ringfence"),
        None => PathBuf::from(format!("/tmp/ringfence-{user}")),
    }
}

/// That directory, if there is one.
pub(super) fn existing() -> Result<Option<PathBuf>, Failure> {
    let path = place();
    match fs::symlink_metadata(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        _ => own_alone(path).map(Some),
    }
}

/// That directory, which is made if there is none.
pub(super) fn directory() -> Result<PathBuf, Failure> {
    let path = place();
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).attempt(path.display());
        }
        _ => {}
    }
    own_alone(path)
}

/// Fails if the directory is not of this user alone: in /tmp somebody else may have been there first.
fn own_alone(path: PathBuf) -> Result<PathBuf, Failure> {
    let status = fs::symlink_metadata(&path).attempt(path.display())?;
    if status.is_dir() && status.uid() == geteuid().as_raw() && status.mode() & 0o077 == 0 {
        Ok(path)
    } else {
        Err(Failure::setup(format!(
            "{}: it is not a directory of yours that only you may use: remove it",
            path.display()
        )))
    }
}
