//! One request of the sentry's, from its preparation to its completion.
//!
//! What can be done promptly the leader does at once. For what may wait it gives up the lead, and what has no command
//! descriptor yet goes to the pool.

use std::sync::Arc;

use nvproxy_abi::status::{self, NV_ERR_INVALID_OBJECT_HANDLE, NV_OK};
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::Submission;

use super::{Server, Slow, completion, node_of, timed};
use crate::ledger::{self, Passage};
use crate::request::{Action, Context, Descriptors, Executed, Files, Prepared, Rejection};
use crate::tenants;

/// Buffers that are kept for further requests.
const MAXIMUM_SPARE: usize = 64;
/// A wrong of the sentry's.
const NOT_BEGUN: &str = "the end of a pin that was not begun";

impl Server {
    pub(super) fn request(
        self: &Arc<Self>,
        submission: &Submission,
        action: Action,
        carried: Descriptors,
    ) -> Result<Option<Slow>, Rejection> {
        let node = node_of(submission)?;
        let buffer = self.shared().spare.pop().unwrap_or_default();
        let context = Context {
            abi: self.abi,
            backend: &*self.backend,
            files: &**self,
            arena: &self.arena,
        };
        let prepared = context.prepare(submission, node, action, carried, buffer)?;
        if !self.load.copied(prepared.buffer.bytes().len()) {
            return Err(Rejection::Malformed("payloads larger than the arena"));
        }
        at(Point::Prepared);
        if !prepared.is_ready() {
            let server = self.away();
            self.workers.submit(move || {
                server.issue(prepared);
                server.publish();
            });
            return Ok(None);
        }
        if prepared.plan.may_block() {
            return Ok(Some(Slow::Request(prepared)));
        }
        let Some(passage) = self.books.try_pass(&prepared) else {
            return Ok(Some(Slow::Request(prepared)));
        };
        self.issue_admitted(prepared, passage);
        Ok(None)
    }

    /// Issues a request once no other is under way that concerns the same objects.
    pub(super) fn issue(&self, prepared: Prepared) {
        let passage = self.books.pass(&prepared);
        self.issue_admitted(prepared, passage);
    }

    fn issue_admitted<'a>(&'a self, prepared: Prepared, passage: Passage<'a>) {
        let executed = self.admitted(prepared, passage);
        self.executed(executed);
    }

    /// Issues a request, if it names nothing that is another's and the ledger admits it.
    pub(super) fn admitted<'a>(&'a self, mut prepared: Prepared, passage: Passage<'a>) -> Executed {
        if prepared.plan.is_answered() && at(Point::Instead) != Some(Act::Drop) {
            return prepared.answered();
        }
        let relied = self.books.relies_on(&passage);
        let _kept = match relied.map(|description| self.file(description)).transpose() {
            // A test leaves this out, to show that it would notice.
            Ok(_) if relied.is_some() && at(Point::Relied) == Some(Act::Drop) => None,
            Ok(kept) => kept,
            // Its client is about to end.
            Err(_) => return ledger::answer(prepared, NV_ERR_INVALID_OBJECT_HANDLE),
        };
        let admitted = tenants::check(&*self.backend, &prepared)
            .and_then(|()| self.books.admit(&*self.backend, &prepared, passage));
        match admitted {
            Ok(admission) => {
                tenants::hush(&mut prepared);
                if relied.is_some() {
                    at(Point::Relied);
                }
                let mut executed = prepared.execute(&*self.backend);
                self.books.settle(&*self.backend, admission, &mut executed);
                tenants::clear(&*self.backend, &mut executed);
                executed
            }
            Err(status) => {
                if matches!(prepared.action, Action::Pinned(_)) && self.is_new(NOT_BEGUN) {
                    tracing::warn!("malformed message: {NOT_BEGUN}");
                }
                let (name, status_name) = (prepared.plan.request.name, status::name(status));
                tracing::debug!("{name}: not issued: {}", status_name.unwrap_or_default());
                ledger::answer(prepared, status)
            }
        }
    }

    /// Writes back what the driver left and completes the request.
    fn executed(&self, executed: Executed) {
        let Executed {
            mut prepared,
            outcome,
            lent,
            asked,
            nanoseconds,
        } = executed;
        let mut done = timed(completion(prepared.cookie, outcome), asked, nanoseconds);
        let mut descriptor = lent;
        if outcome.is_ok() && prepared.action != Action::Lend {
            let bytes = prepared.buffer.bytes();
            // The range was checked when the request was read from it.
            if self.arena.write(prepared.payload_offset, bytes).is_ok() {
                done.payload_length = bytes.len() as u32;
            }
            if prepared.plan.makes_event() && prepared.status() == Some(NV_OK) {
                descriptor = self.grant_event(prepared.handle);
            }
            descriptor = descriptor.or_else(|| prepared.take_made());
        }
        self.load.dropped(prepared.buffer.bytes().len());
        self.complete(done, descriptor);
        let mut shared = self.shared();
        if shared.spare.len() < MAXIMUM_SPARE {
            shared.spare.push(prepared.buffer);
        }
    }
}
