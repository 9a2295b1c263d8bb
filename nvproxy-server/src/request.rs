//! One request inside the server: taken out of shared memory once, validated, issued, and handed back.
//!
//! A request is *prepared* on the event loop, which owns the handle table: the payload is copied, planned with the
//! driver's tables, and its handles are looked up. A prepared request is self-contained, so it can be *executed* on the
//! loop or on a worker.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use nvproxy_abi::plan::{MAXIMUM_PAYLOAD, Plan, Planner, Step};
use nvproxy_abi::refusal::Refusal;
use nvproxy_abi::status::NV_OK;
use nvproxy_abi::table::Role;
use nvproxy_abi::{Abi, words};
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::{Arena, Submission};
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use crate::backend::{Backend, Call, DeviceFile, Made};
use crate::faults;
use crate::version_check::Check;
use nvproxy_protocol::clock;
use nvproxy_protocol::requests::{
    ARGUMENT_HANDLES, ARGUMENT_ISSUER, CLOSED_DESCRIPTOR, Issuer, Kind, MAXIMUM_DESCRIPTORS,
    UNUSED_NUMBER,
};

/// Most descriptor fields that a request's row can have, and so most handles that may follow a request.
const MAXIMUM_HANDLES_IN_REQUEST: usize = 16;

/// What stands in the place of the number of a descriptor that the driver makes, until the program has it.
const NOTHING_MADE: [u8; 4] = (-1i32).to_ne_bytes();

/// What a task's own call answers with the simulated driver, whose lent file is none of a device: that the task has made it.
const CARRIED_OUT: Result<i32, Errno> = Err(Errno::ENOTTY);

/// Whether a test has the simulated driver carry out a pin when its descriptor is lent.
fn is_early() -> bool {
    at(Point::Lend) == Some(Act::Drop)
}

/// What stops a request before it reaches the driver.
#[derive(Debug)]
pub enum Rejection {
    /// The tables or the backend refuse it; the program sees this errno.
    Errno(Errno),
    /// The tables refuse it, and say which.
    Refused(Refusal),
    /// The message breaks the protocol: a sentry that plans with the same tables cannot send it.
    Malformed(&'static str),
}

impl From<Errno> for Rejection {
    fn from(errno: Errno) -> Self {
        Rejection::Errno(errno)
    }
}

/// Bytes aligned to 8, as the driver's structs need.
#[derive(Default)]
pub struct Buffer {
    words: Vec<u64>,
    length: usize,
}

impl Buffer {
    /// Makes room for exactly `length` bytes, whose content is whatever was there. Fails with `ENOMEM`.
    pub fn resize(&mut self, length: usize) -> Result<(), Errno> {
        let words = length.div_ceil(8);
        let missing = words.saturating_sub(self.words.len());
        self.words.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
        self.words.resize(words, 0);
        self.length = length;
        Ok(())
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.length]
    }

    /// The bytes, to change them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.words.as_mut_bytes()[..self.length]
    }
}

/// A descriptor field and what is to stand in it while the driver looks.
struct Substitution {
    at: usize,
    by: Substitute,
}

enum Substitute {
    File(Description),
    Carried,
    Unused,
}

/// What to do with a prepared request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Issue it.
    Issue,
    /// It is valid; lend the command descriptor for the task to issue it.
    Lend,
    /// The task issued it, with this outcome.
    Pinned(Result<i32, Errno>),
}

/// A validated request.
pub struct Prepared {
    pub cookie: u64,
    pub handle: u64,
    pub payload_offset: u32,
    pub action: Action,
    /// The description that the request's field of role `Command` names.
    pub named: Option<u64>,
    pub plan: Plan,
    pub buffer: Buffer,
    /// Who makes it, where that is told.
    pub issuer: Option<Issuer>,
    code: u32,
    substitutions: SmallVec<[Substitution; 2]>,
    carried: Option<OwnedFd>,
    /// What the driver has made for the program.
    made: Option<OwnedFd>,
    file: Arc<dyn DeviceFile>,
    /// Of `file`, unless that came with the request.
    _account: Option<Arc<dyn Account>>,
}

/// What came of a request.
pub struct Executed {
    pub prepared: Prepared,
    pub outcome: Result<i32, Errno>,
    pub lent: Option<OwnedFd>,
    /// When the driver was asked, as [`clock::now`] gives it, and how many nanoseconds it took; 0 if it was not.
    pub asked: u64,
    pub nanoseconds: u64,
}

/// Descriptors that came with a submission.
pub type Descriptors = SmallVec<[OwnedFd; MAXIMUM_DESCRIPTORS]>;

/// What is told by being dropped that nobody has a description any more.
pub trait Account: Send + Sync {}

/// A description that the server holds. The ledger is told once nobody has it any more, and so the fields are dropped
/// in this order.
#[derive(Clone)]
pub struct Description {
    pub file: Arc<dyn DeviceFile>,
    pub account: Arc<dyn Account>,
}

/// Looks up files by handle, and the backend: what preparing needs of the server.
pub trait Files {
    fn file(&self, handle: u64) -> Result<Description, Errno>;
}

/// Everything about a request that does not come out of shared memory.
pub struct Context<'a, F> {
    pub abi: &'static Abi,
    pub backend: &'a dyn Backend,
    pub files: &'a F,
    pub arena: &'a Arena,
}

impl<F: Files> Context<'_, F> {
    /// Validates `submission`, whose descriptor field `node` was decoded from and which `carried` came with, in this order: the target if it
    /// has no handle, and what a field names.
    pub fn prepare(
        &self,
        submission: &Submission,
        node: Node,
        action: Action,
        carried: Descriptors,
        mut buffer: Buffer,
    ) -> Result<Prepared, Rejection> {
        let handles = self.copy_in(submission, &mut buffer)?;
        let plan = self.plan(submission.code, node, buffer.bytes())?;
        let pins = Kind::from_wire(submission.kind) != Some(Kind::Ioctl);
        if plan.pins() != pins {
            return Err(Rejection::Malformed(
                "a pinning request and its kind disagree",
            ));
        }
        let mut carried = carried.into_iter();
        let (file, account) = match submission.target {
            0 => {
                let target = carried.next();
                let target = target.ok_or(Rejection::Malformed("a request without a target"))?;
                (self.backend.carried(target)?, None)
            }
            handle => {
                let Description { file, account } = self.files.file(handle)?;
                (file, Some(account))
            }
        };
        let carried = carried.next();
        let substitutions = self.substitutions(&plan, &buffer, &handles, carried.is_some())?;
        let named = handles.first().copied();
        Ok(Prepared {
            cookie: submission.cookie,
            handle: submission.target,
            payload_offset: submission.payload_offset,
            action,
            named: named.filter(|handle| *handle != CLOSED_DESCRIPTOR),
            plan,
            buffer,
            issuer: Issuer::decode(submission.arguments[ARGUMENT_ISSUER]).filter(|_| !pins),
            code: word(submission.code, node),
            substitutions,
            carried,
            made: None,
            file,
            _account: account,
        })
    }

    /// Copies the payload out of shared memory, the only time that it is read, and parts the handles from the request.
    fn copy_in(
        &self,
        submission: &Submission,
        buffer: &mut Buffer,
    ) -> Result<SmallVec<[u64; 2]>, Rejection> {
        let count = usize::try_from(submission.arguments[ARGUMENT_HANDLES]).unwrap_or(usize::MAX);
        let length = submission.payload_length as usize;
        if count > MAXIMUM_HANDLES_IN_REQUEST || length > MAXIMUM_PAYLOAD + 8 * count {
            return Err(Rejection::Malformed("a payload larger than any request"));
        }
        let Some(request_length) = length.checked_sub(8 * count) else {
            return Err(Rejection::Malformed("a payload shorter than its handles"));
        };
        buffer.resize(length)?;
        self.arena
            .read(submission.payload_offset, buffer.bytes_mut())
            .map_err(|_| Rejection::Malformed("a payload outside the arena"))?;
        let handles = buffer.bytes()[request_length..]
            .chunks_exact(8)
            .map(|bytes| bytes.try_into().map_or(0, u64::from_ne_bytes))
            .collect();
        buffer.resize(request_length)?;
        Ok(handles)
    }

    /// Plans the request again, over the server's own copy. The payload must be exactly what the plan asks for.
    fn plan(&self, code: u32, node: Node, payload: &[u8]) -> Result<Plan, Rejection> {
        let mut planner = Planner::new(self.abi, node, code, 0).map_err(Rejection::Refused)?;
        let mut known = 0;
        loop {
            match planner
                .step(&payload[..known])
                .map_err(Rejection::Refused)?
            {
                Step::Complete => break,
                Step::Fetch(fetch) => {
                    let end = (fetch.offset as usize)
                        .saturating_add(fetch.length as usize)
                        .saturating_add(7)
                        & !7;
                    if end > payload.len() {
                        return Err(Rejection::Malformed("a payload shorter than its plan"));
                    }
                    known = end;
                }
            }
        }
        if known != payload.len() {
            return Err(Rejection::Malformed("a payload longer than its plan"));
        }
        Ok(planner.finish())
    }

    /// Pairs each descriptor field with what is to stand in it. Fields that hold a negative number are left alone.
    fn substitutions(
        &self,
        plan: &Plan,
        buffer: &Buffer,
        handles: &[u64],
        carried: bool,
    ) -> Result<SmallVec<[Substitution; 2]>, Rejection> {
        let mut handles = handles.iter();
        let mut carried = carried;
        let mut substitutions = SmallVec::new();
        for field in &plan.descriptors {
            let at = field.at as usize;
            let bytes = buffer
                .bytes()
                .get(at..at + 4)
                .and_then(|bytes| bytes.try_into().ok());
            let number = bytes
                .map(i32::from_ne_bytes)
                .ok_or(Rejection::Malformed("a descriptor field outside"))?;
            if number < 0 {
                continue;
            }
            let by = match field.role {
                Role::Command => {
                    match *handles
                        .next()
                        .ok_or(Rejection::Malformed("too few handles"))?
                    {
                        CLOSED_DESCRIPTOR => Substitute::Unused,
                        handle => Substitute::File(self.files.file(handle)?),
                    }
                }
                Role::Held if std::mem::take(&mut carried) => Substitute::Carried,
                // What is to be made names nothing.
                Role::Held | Role::Result => Substitute::Unused,
            };
            substitutions.push(Substitution { at, by });
        }
        if handles.next().is_some() || carried {
            return Err(Rejection::Malformed(
                "more handles or descriptors than descriptor fields",
            ));
        }
        Ok(substitutions)
    }
}

impl Prepared {
    /// Whether the backend has all that it takes to issue this on any thread.
    pub fn is_ready(&self) -> bool {
        self.file.is_ready()
            && self
                .substitutions
                .iter()
                .all(|substitution| match &substitution.by {
                    Substitute::File(description) => description.file.is_ready(),
                    Substitute::Carried | Substitute::Unused => true,
                })
    }

    /// The description that the request is issued on, if the backend can tell: a handle, or what the backend calls one that
    /// came with the request.
    pub fn description(&self) -> Option<u64> {
        match self.handle {
            0 => self.file.description(),
            handle => Some(handle),
        }
    }

    /// The description that came to be named in the request, which is what a task can map after some requests.
    pub fn target_of_mapping(&self) -> Option<BorrowedFd<'_>> {
        self.carried.as_ref().map(AsFd::as_fd)
    }

    /// Issues the request. What stood in its descriptor fields and the bits that the plan sets on the way in are put
    /// back afterwards, so that the program sees its own.
    pub fn execute(mut self, backend: &dyn Backend) -> Executed {
        let asked = clock::now();
        let mut lent = None;
        let outcome = match self.action {
            Action::Issue => self.substituted(backend, faults::ioctl),
            Action::Lend => {
                // A test has the simulated driver do already what the real one has done when the server is told.
                if is_early() {
                    let done =
                        |file: &dyn DeviceFile, call: Call<'_>| file.pinned(CARRIED_OUT, call);
                    let _ = self.substituted(backend, done);
                }
                self.file.lend().map(|descriptor| {
                    lent = Some(descriptor);
                    0
                })
            }
            Action::Pinned(CARRIED_OUT) if is_early() => Ok(0),
            Action::Pinned(issued) => {
                self.substituted(backend, |file, call| file.pinned(issued, call))
            }
        };
        let nanoseconds = clock::now() - asked;
        Executed {
            prepared: self,
            outcome,
            lent,
            asked,
            nanoseconds,
        }
    }

    /// The outcome of a request that is answered with success and not issued.
    pub fn answered(mut self) -> Executed {
        self.set_status(NV_OK);
        Executed {
            prepared: self,
            outcome: Ok(0),
            lent: None,
            asked: 0,
            nanoseconds: 0,
        }
    }

    fn substituted(
        &mut self,
        backend: &dyn Backend,
        issue: impl FnOnce(&dyn DeviceFile, Call<'_>) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        let mut originals: SmallVec<[(usize, [u8; 4]); 2]> = SmallVec::new();
        let mut descriptors: SmallVec<[(usize, BorrowedFd<'_>); 2]> = SmallVec::new();
        for Substitution { at, by } in &self.substitutions {
            let (number, descriptor) = match (by, &self.carried) {
                (Substitute::File(Description { file, .. }), _) => {
                    (file.number()?, file.descriptor())
                }
                (Substitute::Carried, Some(carried)) => match backend.number_of(carried.as_fd()) {
                    Ok(number) => (number, Some(carried.as_fd())),
                    Err(_) => (UNUSED_NUMBER, None),
                },
                (Substitute::Carried, None) | (Substitute::Unused, _) => (UNUSED_NUMBER, None),
            };
            descriptors.extend(descriptor.map(|descriptor| (*at, descriptor)));
            originals.push((
                *at,
                replace(self.buffer.bytes_mut(), *at, number.to_ne_bytes()),
            ));
        }
        // A test leaves what follows as the program has it.
        let is_left = at(Point::ForcedBits) == Some(Act::Drop);
        for (at, maker) in self.plan.filled_in().filter(|_| !is_left) {
            let at = at as usize;
            let maker = read_u32(self.buffer.bytes(), maker as usize);
            if read_u32(self.buffer.bytes(), at) == 0 {
                let none = replace(self.buffer.bytes_mut(), at, maker.to_ne_bytes());
                originals.push((at, none));
            }
        }
        let forced = self.plan.forced_bits();
        let forced = forced.filter(|_| !is_left);
        let hidden = forced.map(|(at, bits)| {
            let at = at as usize;
            let original = read_u64(self.buffer.bytes(), at);
            let forced = bits.in_place_of(original);
            replace(self.buffer.bytes_mut(), at, forced.to_ne_bytes());
            (at, original ^ forced, original)
        });
        let check = match at(Point::Instead) {
            Some(Act::Drop) => None,
            _ => Check::begin(self.plan.ioctl.name, self.buffer.bytes_mut()),
        };
        let made_at = self.plan.result_at().map(|at| at as usize);
        let call = Call {
            request: self.code,
            payload: self.buffer.bytes_mut(),
            segments: &self.plan.segments,
            descriptors: &descriptors,
            made: made_at.map(|at| Made {
                at,
                descriptor: &mut self.made,
            }),
        };
        let outcome = issue(&*self.file, call);
        let outcome = match check {
            Some(check) => check.end(self.buffer.bytes_mut(), outcome),
            None => outcome,
        };
        if let Some((at, changed, original)) = hidden {
            let answered = read_u64(self.buffer.bytes(), at);
            let value = answered & !changed | original & changed;
            replace(self.buffer.bytes_mut(), at, value.to_ne_bytes());
        }
        // The number is this process's own.
        originals.extend(made_at.map(|at| (at, NOTHING_MADE)));
        for (at, original) in originals {
            replace(self.buffer.bytes_mut(), at, original);
        }
        outcome
    }

    /// What the driver has made for the program, if it says that it has.
    pub fn take_made(&mut self) -> Option<OwnedFd> {
        let made = self.made.take();
        let made = made.filter(|_| self.status() == Some(NV_OK));
        match at(Point::Made) {
            Some(Act::Garbage) => made.and_then(|_| faults::no_dma_buf()),
            _ => made,
        }
    }

    /// The NV_STATUS that the driver left in the argument, if this request has such a field.
    pub fn status(&self) -> Option<u32> {
        let at = self.plan.status_at()? as usize;
        let bytes = self.buffer.bytes().get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    }

    /// Puts an NV_STATUS into the argument; false if this request has no such field.
    pub fn set_status(&mut self, status: u32) -> bool {
        let at = self.plan.status_at().map(|at| at as usize);
        let field = at.and_then(|at| self.buffer.bytes_mut().get_mut(at..at + 4));
        field
            .map(|field| field.copy_from_slice(&status.to_ne_bytes()))
            .is_some()
    }
}

/// The word that a request is issued by: what the plan did not look at is none of the sender's choice. The server's own
/// filter knows no other type than the driver's.
fn word(code: u32, node: Node) -> u32 {
    match node {
        Node::Uvm | Node::OpenOnly(_) => code,
        Node::Control | Node::Gpu(_) => words::canonical(code),
    }
}

/// Puts `by` at `at` and returns what was there. Offsets come from a plan that was made for these bytes; one outside
/// them would be a mistake in the tables, and changes nothing.
pub fn replace<const N: usize>(bytes: &mut [u8], at: usize, by: [u8; N]) -> [u8; N] {
    match bytes
        .get_mut(at..at + N)
        .and_then(|field| <&mut [u8; N]>::try_from(field).ok())
    {
        Some(field) => std::mem::replace(field, by),
        None => by,
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |field| u32::from_ne_bytes(*field))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|field| field.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}
