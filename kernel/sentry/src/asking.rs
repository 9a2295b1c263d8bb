//! What the sentry asks the server for itself, and waits for: a pin's two questions.
//!
//! A request of a task's is resumed where its answer comes in. Who waits for an answer himself is handed it there, by a channel.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use ringfence_ipc::Submission;

use super::server::ServerLink;
use super::times::DriverTime;
use super::{Continuation, Sentry};

/// A question that the server has, and where its answer comes.
pub struct Asked(mpsc::Receiver<Reply>);

impl Asked {
    /// The answer if it comes `within` so much time. Who has asked on another thread leaves it to that to consume.
    pub fn reply_within(&self, within: Duration) -> Option<Reply> {
        let asked = Instant::now();
        loop {
            match self.0.try_recv() {
                Ok(reply) => return Some(reply),
                Err(TryRecvError::Empty) if asked.elapsed() < within => thread::yield_now(),
                Err(_) => return None,
            }
        }
    }
}

/// An answer that outlives the moment of its arrival.
pub struct Reply {
    pub outcome: Result<i32, Errno>,
    pub values: [u64; 4],
    pub descriptor: Option<OwnedFd>,
    pub payload: Vec<u8>,
    pub driver: DriverTime,
}

impl Sentry {
    /// Asks the server something whose answer the caller takes up later.
    pub fn ask(
        &self,
        link: &ServerLink,
        submission: Submission,
        payload: &[u8],
    ) -> Result<Asked, Errno> {
        let (sender, receiver) = mpsc::sync_channel(1);
        link.submit(self, submission, payload, &[], Continuation::Call(sender))?;
        Ok(Asked(receiver))
    }

    /// The answer if it comes `within` so much time.
    pub fn prompt_reply(&self, asked: &Asked, within: Duration) -> Option<Reply> {
        let begun = Instant::now();
        let mut reply = None;
        let enough = || {
            reply = reply.take().or_else(|| asked.0.try_recv().ok());
            reply.is_some() || begun.elapsed() >= within
        };
        self.consume_with(within, || (), enough);
        reply.or_else(|| asked.reply_within(within.saturating_sub(begun.elapsed())))
    }

    /// Waits for an answer, until that is no longer of use to anybody: then it fails with `EIO`. That is looked at now and
    /// then.
    pub fn reply(
        &self,
        Asked(receiver): Asked,
        is_useless: impl Fn() -> bool,
    ) -> Result<Reply, Errno> {
        const NOW_AND_THEN: Duration = Duration::from_millis(100);
        let mut reply = None;
        self.consume(
            || (),
            || {
                reply = reply.take().or_else(|| receiver.try_recv().ok());
                reply.is_some() || is_useless()
            },
        );
        loop {
            match reply {
                Some(reply) => return Ok(reply),
                None if is_useless() => return Err(Errno::EIO),
                None => match receiver.recv_timeout(NOW_AND_THEN) {
                    Ok(received) => reply = Some(received),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Err(Errno::EIO),
                },
            }
        }
    }
}
