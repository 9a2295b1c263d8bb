//! The threads that take on calls: those that receive notifications, and one for calls that waited for their share.
//!
//! One receiver at a time has the [`Turn`] to receive. It keeps its turn while what it received is done promptly, so
//! that a busy task is served by one thread without a hand-over, and passes it on before anything that takes long, so
//! that no task waits for another's request.
//!
//! A signal can interrupt a call until it is received, and not after. So before the receiver does anything about a call, it
//! receives all that wait. They wait for it beside the turn, which whoever has next takes them on.
//!
//! Each listener has receivers of its own, which end with the last task under its filter: the program's, and that of each program
//! that was started in a container's sandbox later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::errno::Errno;
use ringfence_faults::Point;
use ringfence_ipc::locks::IgnorePoison;

use super::shares::{Ready, Share};
use super::times::Times;
use super::{Sentry, recognition};
use crate::failure::{A_THREAD, Attempt, Failure};
use crate::seccomp::listener::{Notification, Number};
use crate::warnings::warn_once;

/// Threads that receive notifications. Past this many calls being worked on at once, further ones wait in the kernel.
const MAXIMUM_RECEIVERS: usize = 64;
/// The same of the listener of a program that was started later.
const MAXIMUM_FURTHER: usize = 8;
/// So many there are from the beginning: one receives while the other is at work. Where the program has taken all processes,
/// there are no others.
const FIRST: usize = 2;

/// Calls that are received before the first of them is taken on. Tasks decide how many wait.
const AT_ONCE: usize = 64;

/// The receivers of a listener, and whose turn it is.
#[derive(Default)]
pub struct Receivers {
    listener: Number,
    /// Held by the thread that receives: what it has received and not taken on.
    turn: Mutex<VecDeque<Notification>>,
    /// Threads that wait for their turn.
    waiting: AtomicUsize,
    count: AtomicUsize,
}

impl Receivers {
    /// Those of this listener.
    pub fn of(listener: Number) -> Receivers {
        Receivers {
            listener,
            ..Receivers::default()
        }
    }

    /// How many there may be.
    fn maximum(&self) -> usize {
        match self.listener == Number::FIRST {
            true => MAXIMUM_RECEIVERS,
            false => MAXIMUM_FURTHER,
        }
    }
}

/// The turn to receive notifications.
pub struct Turn<'a> {
    sentry: &'a Arc<Sentry>,
    receivers: &'a Arc<Receivers>,
    held: Option<MutexGuard<'a, VecDeque<Notification>>>,
}

impl<'a> Turn<'a> {
    fn none(sentry: &'a Arc<Sentry>, receivers: &'a Arc<Receivers>) -> Turn<'a> {
        Turn {
            sentry,
            receivers,
            held: None,
        }
    }

    /// Waits for it, unless this thread has it still.
    fn take(&mut self) -> &mut VecDeque<Notification> {
        let receivers = self.receivers;
        self.held.get_or_insert_with(|| {
            receivers.waiting.fetch_add(1, Ordering::SeqCst);
            let held = receivers.turn.lock().ignore_poison();
            receivers.waiting.fetch_sub(1, Ordering::SeqCst);
            held
        })
    }

    /// The next call to be taken on, when the turn and a call are there. `None` when no task is left.
    fn next(&mut self) -> Result<Option<Notification>, Errno> {
        let (listener, number) = (&self.sentry.listener, self.receivers.listener);
        let received = self.take();
        if received.is_empty() {
            received.extend(listener.receive(number)?);
        }
        let others = std::iter::from_fn(|| listener.receive_waiting(number));
        received.extend(others.take(AT_ONCE));
        Ok(received.pop_front())
    }

    /// Lets another thread receive, because this one is about to do something that takes long.
    pub fn pass_on(&mut self) {
        if self.held.take().is_some() && self.receivers.waiting.load(Ordering::SeqCst) == 0 {
            self.sentry.add_receiver(self.receivers);
        }
    }
}

impl Sentry {
    /// Starts the first receivers. Fails if there can be none. How many there are afterwards says nothing: they may have ended
    /// with the last task, of which somebody has thought better.
    pub(super) fn add_first_receivers(self: &Arc<Self>) -> Result<(), Failure> {
        let receivers = &self.receivers;
        self.add_receiver_after(receivers, |_| ())
            .attempt(A_THREAD)?;
        for _ in 1..FIRST {
            self.add_receiver(receivers);
        }
        ringfence_faults::at(Point::Receivers);
        Ok(())
    }

    /// Starts a thread that receives notifications, if there are not too many.
    pub(super) fn add_receiver(self: &Arc<Self>, receivers: &Arc<Receivers>) {
        if let Err(error) = self.add_receiver_after(receivers, |_| ()) {
            warn_once(
                "no further thread can be started, so calls that need the driver wait for each other",
                error,
            );
        }
    }

    /// The same, and has it do something `first`.
    pub(super) fn add_receiver_after(
        self: &Arc<Self>,
        receivers: &Arc<Receivers>,
        first: impl FnOnce(&Sentry) + Send + 'static,
    ) -> std::io::Result<()> {
        if receivers.count.fetch_add(1, Ordering::SeqCst) >= receivers.maximum() {
            receivers.count.fetch_sub(1, Ordering::SeqCst);
            return Ok(());
        }
        let (sentry, of) = (Arc::clone(self), Arc::clone(receivers));
        let receiver = thread::Builder::new()
            .name("receiver".to_owned())
            .stack_size(256 << 10);
        let started = receiver.spawn(move || {
            first(&sentry);
            sentry.receive(&of);
            // The last one leaves nothing of a listener under which there can be no task any more.
            if of.count.fetch_sub(1, Ordering::SeqCst) == 1 && of.listener != Number::FIRST {
                sentry.listener.remove(of.listener);
            }
        });
        started.map(drop).inspect_err(|_| {
            receivers.count.fetch_sub(1, Ordering::SeqCst);
        })
    }

    fn receive(self: &Arc<Self>, receivers: &Arc<Receivers>) {
        let mut payload = Vec::new();
        let mut turn = Turn::none(self, receivers);
        loop {
            match turn.next() {
                Ok(Some(notification)) => self.handle(notification, &mut turn, &mut payload),
                Ok(None) => return,
                Err(errno) => {
                    tracing::error!("receiving notifications: {errno}");
                    return;
                }
            }
            self.consume(|| turn.pass_on(), || false);
        }
    }

    /// Takes on calls whose turn to get their share has come.
    pub(super) fn take_on(self: &Arc<Self>) {
        let mut payload = Vec::new();
        let mut turn = Turn::none(self, &self.receivers);
        loop {
            let Ready {
                notification,
                times,
                share,
            } = self.shares.next();
            self.go_on(notification, times, share, &mut turn, &mut payload);
            self.have_consumed();
        }
    }

    fn handle(&self, notification: Notification, turn: &mut Turn<'_>, payload: &mut Vec<u8>) {
        match notification.call {
            libc::SYS_ioctl if self.is_pin(&notification) => return,
            libc::SYS_fcntl => return self.lock(notification, turn),
            _ => {}
        }
        let times = self.observer.start();
        self.go_on(notification, times, Share::default(), turn, payload);
    }

    /// Handles an ioctl or an open, which has waited for its `share` or starts with none.
    fn go_on(
        &self,
        notification: Notification,
        times: Times,
        share: Share,
        turn: &mut Turn<'_>,
        payload: &mut Vec<u8>,
    ) {
        if notification.call == libc::SYS_ioctl {
            return self.ioctl(notification, times, share, turn, payload);
        }
        match recognition::recognize(&notification) {
            Some(open) if self.driver.has(open.node) => {
                match self.listener.expect_waiting(&notification) {
                    Ok(()) => self.open(notification, open, times, share),
                    Err(errno) => self.listener.answer(&notification, Err(errno)),
                }
            }
            _ => self.listener.let_run(&notification),
        }
    }
}
