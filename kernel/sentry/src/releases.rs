//! Noticing what tasks let go of.
//!
//! The kernel says of a witness that its description is gone only when asked. It is asked soon after descriptions were
//! opened, for many are used once and closed, then at growing intervals while there are any, and never while there are
//! none: a close is noticed within `LONGEST`. (inotify(7) would tell of each close of a node at once. But taking
//! down its watches made the end of a sandbox wait for the kernel, some 16 ms on an H100; see docs/MEASUREMENTS.md.)
//!
//! Of the simulated driver's descriptions, each of which has an inode of its own, inotify does tell.
//!
//! What is left when the sandbox ends is closed by the server's end.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nvproxy_protocol::requests::Kind;
use ringfence_ipc::Submission;
use ringfence_ipc::locks::IgnorePoison;

use super::descriptions::{Description, Handle, Inode, Registered};
use super::{Continuation, Sentry};
use crate::warnings::warn_once;

/// How soon after an open the witnesses are asked.
const SHORTEST: Duration = Duration::from_millis(20);
/// How long it takes at most until a close is noticed.
const LONGEST: Duration = Duration::from_millis(500);

const LAST_CLOSES: AddWatchFlags =
    AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_CLOSE_NOWRITE);

/// What tells of descriptions that come and go.
pub struct Releases {
    inotify: Inotify,
    inodes: Mutex<HashMap<WatchDescriptor, Inode>>,
    /// Written when there is a new witness and `due_soon` was false.
    witnessed: EventFd,
    /// Whether the witnesses are about to be asked anyway.
    due_soon: AtomicBool,
    /// Handles of descriptions that no task got.
    abandoned: Mutex<Vec<Handle>>,
}

impl Releases {
    pub fn new() -> Result<Releases, Errno> {
        Ok(Releases {
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
            inodes: Mutex::default(),
            witnessed: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            due_soon: AtomicBool::new(false),
            abandoned: Mutex::default(),
        })
    }

    /// Watches a description that has an inode of its own.
    pub fn watch_inode(&self, description: &OwnedFd, inode: Inode) -> Result<(), Errno> {
        // The path leads to the open file itself (proc_pid_fd(5)).
        let path = format!("/proc/self/fd/{}", description.as_raw_fd());
        let mut inodes = self.inodes.lock().ignore_poison();
        let watch = self.inotify.add_watch(path.as_str(), LAST_CLOSES)?;
        inodes.insert(watch, inode);
        Ok(())
    }

    /// The inodes of their own that were closed for the last time since the last call.
    fn closed(&self) -> Vec<Inode> {
        let mut closed = Vec::new();
        // EAGAIN ends the events that are there.
        while let Ok(events) = self.inotify.read_events() {
            let mut inodes = self.inodes.lock().ignore_poison();
            for event in events
                .iter()
                .filter(|event| event.mask.intersects(LAST_CLOSES))
            {
                if let Some(inode) = inodes.remove(&event.wd) {
                    closed.push(inode);
                    // It may be gone already, with its inode.
                    let _ = self.inotify.rm_watch(event.wd);
                }
            }
        }
        closed
    }

    fn take_abandoned(&self) -> Vec<Handle> {
        let mut abandoned = self.abandoned.lock().ignore_poison();
        std::mem::take(&mut *abandoned)
    }

    /// Waits until something was closed, something was opened, or the `deadline` has come.
    fn wait(&self, deadline: Option<Instant>) {
        let timeout =
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                // Rounded up, so as not to come early.
                Some(left) => PollTimeout::from(left.as_millis().min(1000) as u16 + 1),
                None => PollTimeout::NONE,
            };
        let [inotify, witnessed] = [self.inotify.as_fd(), self.witnessed.as_fd()];
        let mut watched =
            [inotify, witnessed].map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        // An error ends the wait early, which does no harm.
        let _ = poll(&mut watched, timeout);
    }
}

/// When the witnesses are asked next.
#[derive(Default)]
struct Schedule {
    next: Option<(Instant, Duration)>,
}

impl Schedule {
    /// Something was opened.
    fn hasten(&mut self) {
        let soon = Instant::now() + SHORTEST;
        if self.next.is_none_or(|(due, _)| due > soon) {
            self.next = Some((soon, SHORTEST));
        }
    }

    fn is_due(&self) -> bool {
        self.next.is_some_and(|(due, _)| due <= Instant::now())
    }

    /// The witnesses were asked, and `any` are left.
    fn advance(&mut self, any: bool) {
        self.next = self.next.filter(|_| any).map(|(_, interval)| {
            let interval = (interval * 2).min(LONGEST);
            (Instant::now() + interval, interval)
        });
    }
}

impl Sentry {
    /// Makes a description that a task is about to get known, so that it is recognized and its end is noticed.
    pub fn register(&self, granted: &OwnedFd, description: &Arc<Description>) -> Result<(), Errno> {
        match self.descriptions.register(granted, description)? {
            Registered::ByInode(inode) => self
                .releases
                .watch_inode(granted, inode)
                .inspect_err(|_| drop(self.descriptions.forget(inode))),
            Registered::Witnessed if self.releases.due_soon.swap(true, Ordering::SeqCst) => Ok(()),
            // The counter is far from full: it is reset whenever it is seen.
            Registered::Witnessed => self.releases.witnessed.write(1).map(drop),
        }
    }

    /// The server made a description that no task will get. It is told so by the thread that waits for releases: the
    /// one that resumes answers must not wait for room in the ring, which it is the one to make.
    pub fn abandon(&self, handle: Handle) {
        let abandoned = &self.releases.abandoned;
        abandoned.lock().ignore_poison().push(handle);
        // The counter is far from full: it is reset whenever it is seen.
        let _ = self.releases.witnessed.write(1);
    }

    /// Tells the server of every description that the tasks have let go of, until the process ends.
    pub fn release_for_ever(&self) {
        let mut schedule = Schedule::default();
        loop {
            let due = schedule.next.map(|(due, _)| due);
            self.releases.wait(due);
            if self.releases.witnessed.read().is_ok() {
                schedule.hasten();
            }
            for handle in self.releases.take_abandoned() {
                self.release(handle);
            }
            for inode in self.releases.closed() {
                if let Some(description) = self.descriptions.forget(inode) {
                    self.release(description.handle);
                }
            }
            if schedule.is_due() {
                self.releases.due_soon.store(false, Ordering::SeqCst);
                for description in self.descriptions.sweep() {
                    self.release(description.handle);
                }
                schedule.advance(self.descriptions.any_witnessed());
            }
            // Not this thread: there may be something to consume for ever, and what is let go of would stay.
            self.have_consumed();
        }
    }

    fn release(&self, handle: Handle) {
        if let Some(recorder) = &self.recorder {
            recorder.closed(handle);
        }
        // A server that was lost has closed all that it had.
        let Ok(link) = self.server.link_of(handle) else {
            return;
        };
        let submission = Submission {
            kind: Kind::Close as u16,
            target: handle.number,
            ..Submission::default()
        };
        if let Err(errno) = link.submit(self, submission, &[], &[], Continuation::Nothing)
            && errno != Errno::EIO
        {
            warn_once("a description could not be closed", errno);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_slows_down_and_stops() {
        let mut schedule = Schedule::default();
        assert!(!schedule.is_due());
        schedule.hasten();
        let mut intervals = Vec::new();
        for _ in 0..7 {
            schedule.advance(true);
            intervals.extend(schedule.next.map(|(_, interval)| interval.as_millis()));
        }
        assert_eq!(intervals, [40, 80, 160, 320, 500, 500, 500]);
        schedule.hasten();
        assert_eq!(schedule.next.map(|(_, interval)| interval), Some(SHORTEST));
        schedule.advance(false);
        assert!(schedule.next.is_none());
    }
}
