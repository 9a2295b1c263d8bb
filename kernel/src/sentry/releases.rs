//! Noticing what tasks let go of.
//!
//! inotify(7) tells when a description of a watched file is closed for the last time, by whomever: for the real
//! driver's nodes that is the moment to look which of the witnesses are gone; for the simulated driver's descriptions,
//! each of which has an inode of its own, it names the very one. Event descriptors have no file that could be watched,
//! so while there are any the witnesses are looked at once in a while as well.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nvproxy_server::protocol::Kind;
use ringfence_ipc::Submission;

use super::descriptions::{Description, Inode};
use super::{Continuation, Sentry};

/// Closes come in bursts; a look waits this long for the rest of one.
const BURST: Duration = Duration::from_millis(10);
/// How often to look while there are event descriptors.
const INTERVAL_MILLISECONDS: u16 = 500;

const LAST_CLOSES: AddWatchFlags =
    AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_CLOSE_NOWRITE);

/// The files that are watched for last closes.
pub struct Watches {
    inotify: Inotify,
    inodes: Mutex<HashMap<WatchDescriptor, Inode>>,
}

impl Watches {
    pub fn new() -> Result<Watches, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Watches {
            inotify,
            inodes: Mutex::default(),
        })
    }

    /// Watches a node of the real driver.
    pub fn watch_node(&self, path: &Path) -> Result<(), Errno> {
        self.inotify.add_watch(path, LAST_CLOSES).map(drop)
    }

    /// Watches a description that has an inode of its own.
    pub fn watch_inode(&self, description: &OwnedFd, inode: Inode) -> Result<(), Errno> {
        // The path leads to the open file itself (proc_pid_fd(5)).
        let path = format!("/proc/self/fd/{}", description.as_raw_fd());
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = self.inotify.add_watch(path.as_str(), LAST_CLOSES)?;
        inodes.insert(watch, inode);
        Ok(())
    }

    /// What was closed since the last call: inodes of their own, and whether any node was.
    fn closed(&self) -> (Vec<Inode>, bool) {
        let mut closed = Vec::new();
        let mut node = false;
        // EAGAIN ends the events that are there.
        while let Ok(events) = self.inotify.read_events() {
            let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
            for event in events
                .iter()
                .filter(|event| event.mask.intersects(LAST_CLOSES))
            {
                match inodes.remove(&event.wd) {
                    Some(inode) => {
                        closed.push(inode);
                        // It may be gone already, with its inode.
                        let _ = self.inotify.rm_watch(event.wd);
                    }
                    None => node = true,
                }
            }
        }
        (closed, node)
    }
}

impl Sentry {
    /// Tells the server of every description that the tasks have let go of, until the process ends.
    pub fn release_for_ever(&self) {
        loop {
            let look_anyway = self.event_descriptors.load(Ordering::Relaxed);
            let timeout = if look_anyway {
                PollTimeout::from(INTERVAL_MILLISECONDS)
            } else {
                PollTimeout::NONE
            };
            let mut watched = [PollFd::new(self.watches.inotify.as_fd(), PollFlags::POLLIN)];
            if let Ok(1..) = poll(&mut watched, timeout) {
                std::thread::sleep(BURST);
            }
            let (inodes, node_closed) = self.watches.closed();
            for description in inodes
                .into_iter()
                .filter_map(|inode| self.descriptions.forget(inode))
            {
                self.release(&description);
            }
            if node_closed || look_anyway {
                for description in self.descriptions.sweep() {
                    self.release(&description);
                }
            }
            self.consume();
        }
    }

    fn release(&self, description: &Description) {
        let submission = Submission {
            kind: Kind::Close as u16,
            target: description.handle,
            ..Submission::default()
        };
        if let Err(errno) = self
            .link
            .submit(submission, &[], &[], Continuation::Nothing)
        {
            tracing::warn!("a description could not be closed: {errno}");
        }
    }
}
