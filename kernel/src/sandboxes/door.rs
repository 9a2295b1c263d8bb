//! A launcher's end: its door, and who is let in.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Backlog, UnixAddr, bind, listen};
use ringfence_confinement::linux::Feature;
use ringfence_ipc::{Socket, SocketError};
use ringfence_sentry::failure::{Attempt, Failure};
use rustix::net::{SocketFlags, accept_with};

use super::peer::{
    Known, UNNAMED, Unanswered, call, check_peer, directory, hear, path_of, remove_stale,
    seqpacket, soon,
};
use super::{Name, Reply, Request, Wish};

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
                return Err(Failure::setup(
                    "a sandbox of this name is running: choose another name",
                ));
            }
            // Its launcher was killed.
            let _ = fs::remove_file(&path);
            renamed = rename();
        }
        let named = renamed.map(|()| {
            std::mem::forget(unnamed);
            Place(path.clone())
        });
        let place = named.attempt(path.display())?;
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
        let known = check_peer(&socket)
            .inspect_err(|reason| tracing::warn!("a command was turned away: {reason}"))
            .ok()?;
        let request = match hear(&socket, soon()) {
            Ok((Wish::Describe, _)) => Request::Describe,
            Ok((Wish::Upgrade, _)) if known == Known::ByNumber => {
                let since = Feature::PeerDescriptors.row().since;
                let reason = format!(
                    "before Linux {since} no ringfence process can be sure who asks for that"
                );
                Reply::Failed(reason).send(&socket);
                return None;
            }
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

fn has_hung_up(socket: &Socket) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1))
}
