//! The calls that a pin has its helper make so that the sentry is notified: to be given what is to be mapped, and the request
//! itself. They are the same call, and only what was prepared is answered.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::unistd::Pid;
use ringfence_faults::{Point, at_task};

use super::Sentry;
use super::parameters::Parameters;
use crate::seccomp::listener::Notification;

/// A call that a helper is about to make: what it must look like to be let through.
pub(super) struct Expected {
    pub helper: Pid,
    pub descriptor: RawFd,
    pub command: u32,
    pub page: u64,
    pub parameters: Arc<Parameters>,
    pub what: What,
}

/// What the call is made for.
pub(super) enum What {
    /// To be given what is to be mapped. Nothing is at the page yet.
    Files,
    /// The request itself. If these are its parameters, the helper's table gets what is lent.
    Request { bytes: Vec<u8>, lent: Arc<OwnedFd> },
}

impl Expected {
    /// Whether `notification` is the very call that was prepared, and its parameters are the validated ones.
    fn is_met_by(&self, notification: &Notification) -> bool {
        let [descriptor, command, page, ..] = notification.arguments;
        let are_validated = || match &self.what {
            What::Files => true,
            What::Request { bytes, .. } => {
                let mut found = vec![0; bytes.len()];
                let read = self.parameters.read(self.helper, page, &mut found);
                read.is_ok() && found == *bytes
            }
        };
        descriptor as RawFd == self.descriptor
            && command as u32 == self.command
            && page == self.page
            && are_validated()
    }
}

/// Under which of its descriptors' numbers the helper has the file of the instruction, if it makes the call on `descriptor`:
/// another one, which any limit that has room for two has room for.
pub(super) fn number_of_code(descriptor: RawFd) -> RawFd {
    RawFd::from(descriptor == 0)
}

impl Sentry {
    /// Whether `notification` is the ioctl of a pin under way, which only the sentry can have caused. Answers it.
    pub fn is_pin(&self, notification: &Notification) -> bool {
        let mut expected = self.pins.expected();
        let Some(expected) = expected.take_if(|expected| expected.helper == notification.task)
        else {
            return false;
        };
        let number = expected.descriptor;
        let put = |file, number| {
            self.listener
                .replace_descriptor(notification, file, true, number)
        };
        let outcome = match (expected.is_met_by(notification), &expected.what) {
            (false, _) => Err(Errno::EPERM),
            (true, What::Files) => {
                let file = expected.parameters.file();
                put(self.pins.code.file(), number_of_code(number))
                    .and_then(|()| file.map_or(Ok(()), |file| put(file, number)))
            }
            (true, What::Request { lent, .. }) => put(lent.as_fd(), number),
        };
        match (outcome, &expected.what) {
            (Ok(()), What::Files) => {
                self.pins.was_given.store(true, Ordering::SeqCst);
                self.listener.answer(notification, Ok(0));
            }
            (Ok(()), What::Request { .. }) => {
                at_task(Point::PinChecked, expected.helper.as_raw());
                self.pins.was_let_through.store(true, Ordering::SeqCst);
                self.listener.let_run(notification);
            }
            (Err(errno), _) => self.listener.answer(notification, Err(errno)),
        }
        true
    }
}
