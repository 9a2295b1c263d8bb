//! The descriptions that tasks hold: opening one, closing it, and handing out its event descriptor.
//!
//! The backend says which thread can open a node: the leader at once, one that has given up the lead, or one that is not
//! confined.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use ringfence_ipc::Submission;

use super::{Server, Slow, completion, node_of, timed};
use crate::backend::{OpenFlags, Opened, Opener};
use crate::faults;
use crate::ledger::Account;
use crate::request::{Description, Files, Rejection};
use nvproxy_protocol::clock;
use nvproxy_protocol::requests::{OPEN_NONBLOCKING, VALUE_HANDLE};

/// One description that a task holds.
pub struct Entry {
    pub description: Description,
    pub event_granted: bool,
}

impl Files for Server {
    fn file(&self, handle: u64) -> Result<Description, Errno> {
        let shared = self.shared();
        let entry = shared.handles.get(handle)?;
        Ok(entry.description.clone())
    }
}

impl Server {
    pub(super) fn open(
        self: &Arc<Self>,
        submission: &Submission,
    ) -> Result<Option<Slow>, Rejection> {
        let node = node_of(submission)?;
        let flags = OpenFlags {
            nonblocking: submission.code & OPEN_NONBLOCKING != 0,
        };
        let cookie = submission.cookie;
        match self.backend.opener(node) {
            Opener::Prompt => self.open_node(cookie, node, flags),
            Opener::Patient => {
                return Ok(Some(Slow::Open {
                    cookie,
                    node,
                    flags,
                }));
            }
            Opener::Unconfined => {
                let server = self.away();
                self.workers.submit(move || {
                    server.open_node(cookie, node, flags);
                    server.publish();
                });
            }
        }
        Ok(None)
    }

    pub(super) fn open_node(&self, cookie: u64, node: Node, flags: OpenFlags) {
        let asked = clock::now();
        let outcome = faults::open(&*self.backend, node, flags);
        let nanoseconds = clock::now() - asked;
        let answer = |outcome| timed(completion(cookie, outcome), asked, nanoseconds);
        let stored = outcome.and_then(|Opened { file, granted }| {
            let handle = match file {
                Some(file) => self.shared().handles.insert(|handle| Entry {
                    description: Description {
                        file,
                        account: Account::new(&self.books, handle),
                    },
                    event_granted: false,
                })?,
                None => 0,
            };
            Ok((handle, granted))
        });
        match stored {
            Ok((handle, granted)) => {
                let mut done = answer(Ok(0));
                done.values[VALUE_HANDLE] = handle;
                self.complete(done, Some(granted));
            }
            Err(errno) => {
                tracing::debug!("open {}: {errno}", node.file_name());
                self.complete(answer(Err(errno)), None);
            }
        }
    }

    /// Closing what was used can take long (the driver frees every object of a client), and nobody waits for it.
    pub(super) fn close(self: &Arc<Self>, submission: &Submission) -> Result<(), Rejection> {
        let entry = self.shared().handles.remove(submission.target)?;
        if entry.description.file.is_ready() {
            let server = self.away();
            self.workers.submit(move || {
                drop(entry);
                drop(server);
            });
        }
        self.complete(completion(submission.cookie, Ok(0)), None);
        Ok(())
    }

    /// The event descriptor of the description that `handle` names, unless its tasks have it already.
    pub(super) fn grant_event(&self, handle: u64) -> Option<OwnedFd> {
        let mut shared = self.shared();
        let entry = shared.handles.get_mut(handle).ok()?;
        if entry.event_granted {
            return None;
        }
        match entry.description.file.event_descriptor() {
            Ok(descriptor) => {
                entry.event_granted = true;
                Some(descriptor)
            }
            Err(errno) => {
                tracing::warn!("no event descriptor: {errno}");
                None
            }
        }
    }
}
