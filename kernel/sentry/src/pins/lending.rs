//! The command descriptor of a pin, and the tasks that are held meanwhile.
//!
//! To hold all others takes some hundred microseconds, and so does what the server looks at before it lends the descriptor. Neither needs
//! the other, so both happen at the same time. But nobody stands still for a server that takes long.

use std::os::fd::OwnedFd;
use std::sync::MutexGuard;
use std::time::Duration;

use nix::errno::Errno;
use ringfence_faults::{Act, Point, at_task};
use ringfence_ipc::locks::IgnorePoison;

use super::Pin;
use crate::tracee::Held;
use crate::{Asked, Reply, Sentry};

/// How long the others are held while the server has not lent the command descriptor yet. It does so in some 100 µs, unless the
/// objects that the request concerns are in use.
const LENDING: Duration = Duration::from_millis(1);

impl Pin<'_> {
    /// Holds all others, and has the command descriptor lent. The server does that meanwhile. If it takes long, nobody is held until it has.
    pub(super) fn hold_and_borrow(&self, lent: &mut Lent) -> Result<(Others<'_>, OwnedFd), Errno> {
        let mut others = self.hold()?;
        if !lent.is_there_within(LENDING) {
            drop(others);
            lent.wait(self.sentry)?;
            others = self.hold()?;
        }
        let lent = lent.take(self.sentry)?;
        Ok((others, lent))
    }

    fn hold(&self) -> Result<Others<'_>, Errno> {
        let (task, pins) = (self.notification.task, &self.sentry.pins);
        let holding = pins.holding.lock().ignore_poison();
        // A test leaves this out, to show that it would notice.
        let is_to_hold = at_task(Point::Hold, task.as_raw()) != Some(Act::Drop);
        let hold = || {
            // In a container that is the program itself.
            let init = (!self.sentry.is_container).then_some(self.sentry.init);
            let (listener, tracer) = (&self.sentry.listener, self.tracer);
            Held::all_but(task, init, &pins.numbers, listener, tracer, &self.to_begin)
        };
        Ok(Others {
            _held: is_to_hold.then(hold).transpose()?,
            _holding: holding,
        })
    }
}

/// All tasks but the caller, held. They go on when this is dropped, and others may hold them then.
pub struct Others<'a> {
    _held: Option<Held<'a>>,
    _holding: MutexGuard<'a, ()>,
}

/// The command descriptor, which the server was asked to lend.
pub enum Lent {
    Asked(Asked),
    /// What it has answered, until that was taken.
    Answered(Result<Option<OwnedFd>, Errno>),
}

impl From<Asked> for Lent {
    fn from(asked: Asked) -> Lent {
        Lent::Asked(asked)
    }
}

impl Lent {
    fn answered(&mut self, reply: Result<Reply, Errno>) {
        let lent = reply.and_then(|reply| reply.outcome.map(|_| reply.descriptor));
        *self = Lent::Answered(lent);
    }

    /// Whether the server has answered by then.
    fn is_there_within(&mut self, within: Duration) -> bool {
        if let Lent::Asked(asked) = self {
            let Some(reply) = asked.reply_within(within) else {
                return false;
            };
            self.answered(Ok(reply));
        }
        true
    }

    /// Waits until the server has answered. Fails if it does not lend it.
    pub fn wait(&mut self, sentry: &Sentry) -> Result<(), Errno> {
        let nothing = Lent::Answered(Ok(None));
        match std::mem::replace(self, nothing) {
            Lent::Asked(asked) => self.answered(sentry.reply(asked, || false)),
            answered => *self = answered,
        }
        match self {
            Lent::Answered(Err(errno)) => Err(*errno),
            _ => Ok(()),
        }
    }

    /// Whether it was lent, and that is to be ended; it is said once.
    pub fn give_back(&mut self, sentry: &Sentry) -> bool {
        let was_lent = self.wait(sentry).is_ok();
        *self = Lent::Answered(Err(Errno::ECANCELED));
        was_lent
    }

    /// Takes it, once. Fails as [`Lent::wait`] does.
    fn take(&mut self, sentry: &Sentry) -> Result<OwnedFd, Errno> {
        self.wait(sentry)?;
        match self {
            Lent::Answered(Ok(lent)) => lent.take().ok_or(Errno::EIO),
            _ => Err(Errno::EIO),
        }
    }
}
