//! The listeners of tasks' filters, which the launcher holds beside the sentry ([`ringfence_sentry::liaison::Plea::HoldListener`]).
//!
//! A sandbox has one of its program, and a container's one of each program that was started in it later. One under whose filter no
//! task is left is let go of when the next comes.
//!
//! The sentry sends them, and may have been taken over. So there are only so many, and nothing is asked of a descriptor that is none
//! of the kernel's listeners: another process could keep whoever asks waiting.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// So many at a time. What comes beyond that is not held.
const MAXIMUM: usize = 1024;

/// What /proc/PID/fd shows of a listener (`seccomp_notify_ops` of kernel/seccomp.c).
const LISTENER: &str = "anon_inode:seccomp notify";

#[derive(Default)]
pub struct Listeners(Vec<OwnedFd>);

impl Listeners {
    /// Holds one until the sandbox is over, or no task is left under its filter.
    pub fn hold(&mut self, listener: OwnedFd) {
        self.0.retain(has_tasks);
        if self.0.len() < MAXIMUM && is_listener(&listener) {
            self.0.push(listener);
        }
    }
}

fn is_listener(descriptor: &OwnedFd) -> bool {
    let shown = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    shown.is_ok_and(|shown| shown == Path::new(LISTENER))
}

fn has_tasks(listener: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(listener.as_fd(), PollFlags::empty())];
    let _ = poll(&mut polled, PollTimeout::ZERO);
    let found = polled[0].revents().unwrap_or(PollFlags::empty());
    !found.contains(PollFlags::POLLHUP)
}
