//! What a server does that has handed over: it issues, for the one that serves, the requests on the command descriptions
//! that it opened itself, and nothing else.
//!
//! The driver remembers of a client which process made it (`RmClient.ProcID`, src/nvidia/src/kernel/rmapi/client.c, 580.142)
//! and wants the same one again, for mappings (`rm_create_mmap_context`, arch/nvalloc/unix/src/osapi.c) and where another
//! client duplicates an object (`RS_SHARE_TYPE_PID`, client_resource.c). A process cannot pass its number on. So it stays for
//! as long as there is a client that it made.
//!
//! The serving server validates, rules and accounts; what reaches a keeper comes from a process of the same trust over a
//! socket that nobody else has. A keeper ends when that socket's other end is closed: the serving server has dropped the
//! last description that is kept here, has ended, or was lost.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;

use nix::errno::Errno;
use nvproxy_abi::plan::Segment;
use ringfence_ipc::Socket;
use ringfence_ipc::locks::IgnorePoison;

use super::Presence;
use super::issue::Issue;
use super::line::{Line, Named, Order, Received};
use crate::backend::Call;
use crate::request::{Buffer, replace};

/// What one server keeps for those that follow it.
pub struct Keeper {
    pub control: Socket,
    pub commands: BTreeMap<u64, Arc<OnceLock<OwnedFd>>>,
    pub presences: BTreeMap<u8, Arc<Presence>>,
    pub issue: Issue,
}

/// What the threads of a keeper share.
struct Kept {
    commands: Mutex<BTreeMap<u64, Arc<OnceLock<OwnedFd>>>>,
    /// At most one for each GPU, until the keeper ends.
    presences: Mutex<BTreeMap<u8, Arc<Presence>>>,
    issue: Issue,
}

impl Keeper {
    /// Returns when nothing is left to be kept.
    pub fn run(self) {
        let kept = Arc::new(Kept {
            commands: Mutex::new(self.commands),
            presences: Mutex::new(self.presences),
            issue: self.issue,
        });
        while let Ok(line) = Line::accept(&self.control) {
            let kept = Arc::clone(&kept);
            let started = thread::Builder::new()
                .name("line".to_owned())
                .spawn(move || kept.obey(line));
            if let Err(error) = started {
                // The line is closed with that, and the request on it fails.
                tracing::warn!("no thread can be started for a request, which fails: {error}");
            }
        }
    }
}

impl Kept {
    /// Carries orders out until none can come any more.
    fn obey(&self, mut line: Line) {
        while let Ok(Received {
            order,
            mut payload,
            sent,
        }) = line.receive()
        {
            let outcome = self.perform(order, &mut payload, sent);
            if line.answer(outcome, payload.bytes()).is_err() {
                return;
            }
        }
    }

    fn perform(
        &self,
        order: Order,
        payload: &mut Buffer,
        sent: Vec<OwnedFd>,
    ) -> Result<i32, Errno> {
        let mut sent = sent.into_iter();
        match order {
            Order::Issue {
                target,
                request,
                segments,
                descriptors,
            } => {
                let mut find = |named| match named {
                    Named::Kept(file) => self.command(file),
                    Named::Sent => sent.next().map(OnceLock::from).map(Arc::new),
                };
                let target = find(target).ok_or(Errno::EBADF)?;
                let found = descriptors.into_iter().map(|(at, named)| {
                    let descriptor = find(named).ok_or(Errno::EBADF)?;
                    Ok((at, descriptor))
                });
                let descriptors = found.collect::<Result<Vec<_>, Errno>>()?;
                let segments = segments
                    .into_iter()
                    .map(|(offset, length, pointer_at)| Segment {
                        offset,
                        length,
                        pointer_at,
                    });
                let segments: Vec<Segment> = segments.collect();
                self.issue(&target, request, payload, &segments, &descriptors)
            }
            Order::Close { file } => {
                // The lock is not held while the driver frees what was made through the description.
                let closed = self.commands().remove(&file);
                closed.map(|_| 0).ok_or(Errno::EBADF)
            }
            Order::HoldPresence { gpu } => {
                let presence = Presence(sent.next().ok_or(Errno::EBADF)?);
                let mut presences = self.presences.lock().ignore_poison();
                presences.insert(gpu, Arc::new(presence));
                Ok(0)
            }
        }
    }

    /// Issues a request with this process's numbers in its descriptor fields. What stood there is put back.
    fn issue(
        &self,
        target: &OnceLock<OwnedFd>,
        request: u32,
        payload: &mut Buffer,
        segments: &[Segment],
        descriptors: &[(usize, Arc<OnceLock<OwnedFd>>)],
    ) -> Result<i32, Errno> {
        let target = target.get().ok_or(Errno::EBADF)?;
        let mut originals = Vec::with_capacity(descriptors.len());
        for (at, descriptor) in descriptors {
            let number = descriptor.get().ok_or(Errno::EBADF)?.as_raw_fd();
            let original = replace(payload.bytes_mut(), *at, number.to_ne_bytes());
            originals.push((*at, original));
        }
        let call = Call {
            request,
            payload: payload.bytes_mut(),
            segments,
            descriptors: &[],
            made: None,
        };
        let outcome = (self.issue)(target, call);
        for (at, original) in originals {
            replace(payload.bytes_mut(), at, original);
        }
        outcome
    }

    fn command(&self, file: u64) -> Option<Arc<OnceLock<OwnedFd>>> {
        self.commands().get(&file).cloned()
    }

    fn commands(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OnceLock<OwnedFd>>>> {
        self.commands.lock().ignore_poison()
    }
}
