//! Requests that tasks make without the sentry: `ringfence run --fast`.
//!
//! A task can be given a *lane* ([`ringfence_ipc::lane`]), in which it puts prompt requests for a thread of the server to
//! take. The server believes a lane no more than it believes its sentry's rings, and treats its requests by the same code:
//! they are copied once, planned with the tables, and ruled on by the ledger. A task that was taken over, and every task
//! is taken to be, can do by a lane less than by the trap:
//!
//! - It cannot name handles. It names what the sentry has *vouched* for: descriptions that a descriptor of its own means.
//! - Whatever is not a plain prompt request is *refused*, before anything is issued, and nothing is said of it. The task
//!   makes it by the trap then, where it is refused with a reason, or takes its turn, or gets a descriptor.
//!
//! A lane has one thread, which does one request at a time. So of what a server has, a lane takes up a thread, a region, and
//! a buffer as long as the payload of a slot; there are few lanes; and they share no limit with the sentry's requests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use ringfence_ipc::lane::{Answer, GEOMETRY, LaneServer, Request};
use ringfence_ipc::{Arena, Region, Submission};

use super::away::Away;
use super::{Server, completion, node_of};
use crate::lane::Grant;
use crate::protocol::{ARGUMENT_HANDLE, encode_result};
use crate::request::{Buffer, Context, Rejection};

/// Lanes that a sandbox may have at once. Further processes go on by the trap.
const MAXIMUM_LANES: usize = 16;
/// Descriptions that a lane's process may name.
const MAXIMUM_GRANTS: usize = 1024;

/// The lanes of a sandbox.
#[derive(Default)]
pub struct Lanes {
    /// Those that have a thread, be it one that is about to end.
    threads: Mutex<Vec<Arc<Lane>>>,
    issued: AtomicU64,
}

/// What the threads of the server share of one lane.
struct Lane {
    /// The sentry's name for it.
    name: u64,
    /// To wake its thread by.
    arena: Arena,
    is_ended: AtomicBool,
    /// What its process may name, by the number that it uses for that.
    grants: Mutex<Vec<Grant>>,
}

impl Lanes {
    /// None, in a server that takes the place of one to which so many requests came.
    pub fn after(issued: u64) -> Lanes {
        Lanes {
            issued: AtomicU64::new(issued),
            ..Lanes::default()
        }
    }

    /// How many requests were issued.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// Closes all lanes: each answers what it has taken, and takes nothing more.
    pub fn end(&self) {
        for lane in self.list().iter() {
            lane.end();
        }
    }

    /// Wakes the threads of lanes that were closed once more: a task can have taken a wake away.
    pub fn hasten(&self) {
        for lane in self.list().iter().filter(|lane| lane.is_ended()) {
            LaneServer::wake(&lane.arena);
        }
    }

    fn find(&self, name: u64) -> Result<Arc<Lane>, Errno> {
        let list = self.list();
        let lane = list
            .iter()
            .find(|lane| lane.name == name && !lane.is_ended());
        lane.map(Arc::clone).ok_or(Errno::ESRCH)
    }

    /// Those whose thread is there.
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Lane>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread of a lane is about to end.
    fn forget(&self, ended: &Lane) {
        self.list().retain(|lane| !std::ptr::eq(&**lane, ended));
    }
}

impl Lane {
    fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
        LaneServer::wake(&self.arena);
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::SeqCst)
    }

    fn grant(&self, number: u64) -> Option<Grant> {
        let number = usize::try_from(number).ok()?;
        self.grants().get(number).copied()
    }

    /// The number by which the lane's process names what is vouched for from now on. When there are too many, that of one
    /// which is closed is given again.
    fn vouch(&self, grant: Grant, is_open: impl Fn(u64) -> bool) -> Result<usize, Errno> {
        let mut grants = self.grants();
        let known = grants.iter().position(|known| known.handle == grant.handle);
        if let Some(number) = known {
            return Ok(number);
        }
        if grants.len() < MAXIMUM_GRANTS {
            grants.push(grant);
            return Ok(grants.len() - 1);
        }
        let closed = grants.iter().position(|known| !is_open(known.handle));
        let number = closed.ok_or(Errno::ENOSPC)?;
        if let Some(place) = grants.get_mut(number) {
            *place = grant;
        }
        Ok(number)
    }

    fn grants(&self) -> MutexGuard<'_, Vec<Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Opens a lane, and starts its thread.
    pub(super) fn open_lane(self: &Arc<Self>, submission: &Submission) -> Result<(), Rejection> {
        let name = submission.target;
        if self.lanes.find(name).is_ok() {
            return Err(Rejection::Malformed("a lane that there is already"));
        }
        if self.lanes.list().len() >= MAXIMUM_LANES {
            return Err(Errno::EAGAIN.into());
        }
        let region = Region::create(GEOMETRY).map_err(|_| Errno::ENOMEM)?;
        let end = LaneServer::new(&region).ok_or(Errno::ENOMEM)?;
        let lane = Arc::new(Lane {
            name,
            arena: end.arena().clone(),
            is_ended: AtomicBool::new(false),
            grants: Mutex::default(),
        });
        self.lanes.list().push(Arc::clone(&lane));
        let (server, served) = (self.away(), Arc::clone(&lane));
        // Started by the leader, so that it lives in the host's confinement as the leader does.
        let thread = thread::Builder::new().name("lane".to_owned());
        if thread.spawn(move || serve(&server, &served, end)).is_err() {
            self.lanes.forget(&lane);
            return Err(Errno::EAGAIN.into());
        }
        self.complete(completion(submission.cookie, Ok(0)), Some(region.into()));
        Ok(())
    }

    /// Lets a lane's process name a description.
    pub(super) fn vouch(&self, submission: &Submission) -> Result<(), Rejection> {
        let grant = Grant {
            handle: submission.arguments[ARGUMENT_HANDLE],
            node: node_of(submission)?,
        };
        let lane = self.lanes.find(submission.target)?;
        let is_open = |handle| self.shared().handles.get(handle).is_ok();
        if !is_open(grant.handle) {
            return Err(Errno::EBADF.into());
        }
        let number = lane.vouch(grant, is_open)?;
        let mut done = completion(submission.cookie, Ok(0));
        done.values[0] = number as u64;
        self.complete(done, None);
        Ok(())
    }

    /// The process of a lane has ended, or has another.
    pub(super) fn close_lane(&self, submission: &Submission) -> Result<(), Rejection> {
        let lane = self.lanes.find(submission.target)?;
        lane.end();
        self.complete(completion(submission.cookie, Ok(0)), None);
        Ok(())
    }

    /// Says how many requests came by lanes.
    pub(super) fn count_lanes(&self, submission: &Submission) {
        let mut done = completion(submission.cookie, Ok(0));
        done.values[0] = self.lanes.issued();
        self.complete(done, None);
    }

    /// Issues one request of a lane; `None` if it is to be made by the trap.
    fn issue_for(
        &self,
        lane: &Lane,
        arena: &Arena,
        slot: usize,
        request: Request,
        buffer: &mut Buffer,
    ) -> Option<i64> {
        let grant = lane.grant(request.subject)?;
        let context = Context {
            abi: self.abi,
            host: &*self.host,
            files: self,
            arena,
        };
        let prepared = context.prepare_from_lane(grant, slot, request, buffer)?;
        let Some(passage) = self.books.try_pass(&prepared) else {
            *buffer = prepared.buffer;
            return None;
        };
        let executed = self.admitted(prepared, passage);
        self.lanes.issued.fetch_add(1, Ordering::Relaxed);
        if executed.outcome.is_ok() {
            let bytes = executed.prepared.buffer.bytes();
            // The range was checked when the request was read from it.
            let _ = arena.write(executed.prepared.payload_offset, bytes);
        }
        *buffer = executed.prepared.buffer;
        Some(encode_result(executed.outcome))
    }
}

/// What the thread of a lane does, until the lane is closed.
fn serve(server: &Away, lane: &Lane, mut end: LaneServer) {
    let mut buffer = Buffer::default();
    while !lane.is_ended() {
        if let Some((slot, request)) = end.take() {
            let issued = server.issue_for(lane, end.arena(), slot, request, &mut buffer);
            end.answer(slot, issued.map_or(Answer::Refused, Answer::Done));
        } else if !end.look(server.spin, || lane.is_ended()) {
            end.sleep(|| lane.is_ended());
        }
    }
    end.close();
    server.lanes.forget(lane);
}
