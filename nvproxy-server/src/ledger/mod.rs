//! Who owns what in a sandbox, and how much it may have.
//!
//! The idea: the driver is the authority on what exists, and [`accounts::Ledger`] follows it, from what it was asked and
//! what it answered. A request is *admitted* before it is issued, and *settled* after. To admit it is to check that the
//! clients that it names are the sandbox's own, to make room for the objects and the memory that it asks for, and so to
//! answer it in the driver's place if there is none. To settle it is to enter what came of it.
//!
//! The order in which requests are entered has to be the order in which the driver carried them out: if an object's
//! handle were freed and given out again by two requests at once, entering them the other way round would leave memory
//! uncharged. So no two requests that change the objects of one client are under way at the same time: each holds the
//! client's gate, from before it is admitted until it is settled.
//!
//! Requests may come from a hostile sentry, but they were planned by the tables, and their outcome is the driver's. Only
//! of a pinned request the outcome is the sentry's word (docs/ARCHITECTURE.md, Pins); what is entered of one displaces
//! nothing. What it takes is charged when the descriptor is lent for it, and no other is finished than was begun: so a
//! sentry that never says how one came out has it charged until description and client are gone. Until it is said, the
//! driver may have an object that the ledger does not know. What is copied of its client in the meantime, and not known,
//! counts as a copy of it.
//!
//! UVM keeps what is mapped, and its descriptions belong to the tasks: the host tells which of them a request was issued on
//! and which are gone, where that can matter, for what is over the limit or is asked for. So are those through which tasks
//! can have mapped memory of the host, which the driver keeps for them ([`shown`]).
//!
//! Memory is charged before the driver is asked for it, by what the driver will take ([`taken`]). What the ledger does not
//! see is memory of a GPU that the driver takes for itself: for channels, contexts and page tables, and for managed memory.
//! Of the host's memory the driver's own records count, roughly ([`accounts::RECORD`]).

pub mod accounts;
mod content;
mod deed;
mod kept;
mod mappings;
mod numbered;
mod shown;
pub mod size;
mod taken;
mod visible;

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use nix::errno::Errno;
use nvproxy_abi::plan::Plan;
use nvproxy_abi::status::{
    NV_ERR_INSUFFICIENT_RESOURCES, NV_ERR_INVALID_ARGUMENT, NV_ERR_INVALID_OBJECT_PARENT,
    NV_ERR_INVALID_STATE, NV_ERR_NO_MEMORY, NV_ERR_OBJECT_NOT_FOUND, NV_OK,
};
use nvproxy_abi::table::{Effect, MemoryList};
use ringfence_faults::{Act, Point, at};
use serde_json::value::{RawValue, to_raw_value};
use smallvec::SmallVec;

use self::accounts::{Full, Ledger, Limits, Pin, Pool};
use self::content::Content;
use self::deed::{Bytes, Deed, What};
use crate::host::Host;
use crate::request::{Action, Executed, Prepared};

/// As many gates as there can be requests in flight.
const GATES: usize = 256;

/// The ledger of one sandbox, for all threads of its server.
pub struct Books {
    ledger: Mutex<Ledger>,
    /// By the handle of the client, modulo their number.
    gates: Vec<Mutex<()>>,
}

/// A request that holds the gates that it needs.
pub struct Passage<'a> {
    deed: Deed,
    _gates: SmallVec<[MutexGuard<'a, ()>; 2]>,
}

/// A request that may be issued, and what was set aside for it.
#[must_use = "what was set aside has to be entered or given back"]
pub struct Admission<'a> {
    passage: Passage<'a>,
    /// For each object that it may add, what the object will have.
    contents: SmallVec<[Option<Content>; 1]>,
    /// For how many objects room was made.
    objects: usize,
    client: bool,
}

/// One open description, as far as the ledger is concerned: when the last who can issue a request on it is gone, what
/// it owned is gone, too. It has to be dropped after the description itself.
pub struct Account {
    books: Arc<Books>,
    description: u64,
}

impl Account {
    /// The account of the description that the server calls `description`.
    pub fn new(books: &Arc<Books>, description: u64) -> Arc<Account> {
        Arc::new(Account {
            books: Arc::clone(books),
            description,
        })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.books.ledger().close(self.description);
    }
}

impl Books {
    /// The books of a sandbox that has nothing yet.
    pub fn new(limits: Limits) -> Arc<Books> {
        Books::keeping(Ledger::new(limits))
    }

    fn keeping(ledger: Ledger) -> Arc<Books> {
        Arc::new(Books {
            ledger: Mutex::new(ledger),
            gates: (0..GATES).map(|_| Mutex::default()).collect(),
        })
    }

    /// What another server needs in order to keep these books on, but for the limits. No request may be under way.
    pub fn save(&self) -> Result<Box<RawValue>, String> {
        to_raw_value(&*self.ledger()).map_err(|error| format!("the ledger: {error}"))
    }

    /// What is in the books, in words for a programmer, if there is anything.
    pub fn left(&self) -> Option<String> {
        let ledger = self.ledger();
        (!ledger.is_empty()).then(|| format!("{ledger:?}"))
    }

    /// Books that go on where others were saved, with the limits that the launcher gave this process.
    pub fn restore(saved: &RawValue, limits: Limits) -> Result<Arc<Books>, String> {
        let ledger: Ledger =
            serde_json::from_str(saved.get()).map_err(|error| format!("the ledger: {error}"))?;
        Ok(Books::keeping(ledger.with_limits(limits)))
    }

    /// Waits until nothing that concerns the same clients is under way.
    pub fn pass(&self, prepared: &Prepared) -> Passage<'_> {
        let deed = self.deed_of(prepared);
        let gates = self.gates_of(&deed);
        let gates = gates.map(|gate| gate.lock().unwrap_or_else(PoisonError::into_inner));
        Passage {
            _gates: gates.collect(),
            deed,
        }
    }

    /// The same, if it takes no waiting.
    pub fn try_pass(&self, prepared: &Prepared) -> Option<Passage<'_>> {
        let deed = self.deed_of(prepared);
        let gates = self.gates_of(&deed).map(|gate| match gate.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        Some(Passage {
            _gates: gates.collect::<Option<_>>()?,
            deed,
        })
    }

    fn deed_of(&self, prepared: &Prepared) -> Deed {
        let (plan, payload) = (&prepared.plan, prepared.buffer.bytes());
        Deed::of(plan, payload, prepared.named, || prepared.description())
    }

    /// In the order in which all requests lock them, each once.
    fn gates_of(&self, deed: &Deed) -> impl Iterator<Item = &Mutex<()>> {
        let clients = deed.concerns();
        let mut gates: SmallVec<[usize; 2]> = clients
            .iter()
            .map(|client| *client as usize % GATES)
            .collect();
        gates.sort_unstable();
        gates.dedup();
        gates.into_iter().filter_map(|gate| self.gates.get(gate))
    }

    /// Admits a request, or answers it: with the NV_STATUS that the driver would have for it.
    pub fn admit<'a>(
        &'a self,
        host: &dyn Host,
        prepared: &Prepared,
        passage: Passage<'a>,
    ) -> Result<Admission<'a>, u32> {
        let mut admission = Admission {
            passage,
            contents: SmallVec::new(),
            objects: 0,
            client: false,
        };
        let (plan, payload) = (&prepared.plan, prepared.buffer.bytes());
        if admission.passage.deed == Deed::Nothing
            && !names_clients(plan)
            && prepared.action == Action::Issue
        {
            return Ok(admission);
        }
        let mut ledger = self.ledger();
        let deed = &admission.passage.deed;
        match prepared.action {
            Action::Issue => {}
            // The driver ties the description that it is lent on to its clients.
            Action::Lend => {
                let bytes = deed.host_memory().unwrap_or(0);
                let begun = ledger.begin_pin(pin_of(prepared, deed), bytes);
                return begun.map(|()| admission).map_err(|Full| NV_ERR_NO_MEMORY);
            }
            // It has been issued already, by the task. What it has is what it was begun with, whatever is said of it now.
            Action::Pinned(_) => {
                let mut content = ledger.finish_pin(pin_of(prepared, deed));
                // A test leaves out the look whether it was begun.
                if content.is_none() && at(Point::Begun) == Some(Act::Drop) {
                    let key = ledger.charge_anyway(Pool::Host, deed.host_memory().unwrap_or(0));
                    content = Some(Content {
                        gpu: None,
                        memory: vec![key],
                    });
                }
                let content = content.ok_or(NV_ERR_INVALID_STATE)?;
                admission.contents.push(Some(content));
                admission.objects = 1;
                return Ok(admission);
            }
        }
        check_clients(&ledger, plan, payload)?;
        check_shared(&ledger, &admission.passage.deed)?;
        if let Deed::OsEvent { .. } = admission.passage.deed
            && !ledger.has_room_for_os_event()
        {
            return Err(NV_ERR_INSUFFICIENT_RESOURCES);
        }
        let mut outcome = set_aside(&mut ledger, &mut admission);
        if outcome.is_err() && forget_ended(&mut ledger, host) {
            outcome = set_aside(&mut ledger, &mut admission);
        }
        outcome.map_err(|NoRoom(status)| status)?;
        Ok(admission)
    }

    /// Enters what came of a request, and makes what it tells of memory agree with the limit.
    pub fn settle(&self, host: &dyn Host, admission: Admission<'_>, executed: &mut Executed) {
        let list = executed.prepared.plan.request.memory_list;
        if executed.prepared.action == Action::Lend {
            // One that is not lent is not finished, either.
            if executed.outcome.is_err() {
                let pin = pin_of(&executed.prepared, &admission.passage.deed);
                self.ledger().give_up_pin(pin);
            }
            return;
        }
        let is_issued = executed.prepared.action == Action::Issue;
        if admission.passage.deed == Deed::Nothing && list.is_none() && is_issued {
            return;
        }
        let came = Came::of(executed, &admission.passage.deed);
        let mark = shown_by(&admission, &executed.prepared, came).map(|shown| host.mark(shown));
        let mut ledger = self.ledger();
        if let Some(mark) = mark {
            if ledger.should_look_for_ended() {
                forget_ended(&mut ledger, host);
            }
            for content in admission.contents.iter().flatten() {
                ledger.show(mark, content);
            }
        }
        if let Some(list) = list.filter(|_| came == Came::About) {
            forget_ended(&mut ledger, host);
            show(&ledger, &mut executed.prepared, &list);
        }
        enter(&mut ledger, admission, &executed.prepared, came);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which pin a request begins or finishes.
fn pin_of(prepared: &Prepared, deed: &Deed) -> Pin {
    let (client, parent) = match deed {
        Deed::Object { client, parent, .. } => (*client, *parent),
        _ => (0, 0),
    };
    Pin {
        description: prepared.handle,
        client,
        parent,
    }
}

/// Enters which address spaces and which descriptions that show memory are gone, and whether any is.
fn forget_ended(ledger: &mut Ledger, host: &dyn Host) -> bool {
    let ended = host.ended(&ledger.marks());
    for mark in &ended {
        ledger.end_address_space(*mark);
        ledger.end_shown(*mark);
    }
    ledger.looked_for_ended();
    let are_unpinned = ledger.release_unpinned();
    are_unpinned || !ended.is_empty()
}

/// The description through which a task can map memory of the host, now that the request has come about.
fn shown_by<'a>(
    admission: &Admission<'_>,
    prepared: &'a Prepared,
    came: Came,
) -> Option<BorrowedFd<'a>> {
    let takes_the_hosts = match &admission.passage.deed {
        Deed::Show { .. } => admission.contents.iter().any(Option::is_some),
        deed => deed.host_memory().is_some(),
    };
    let is_shown = came == Came::About && takes_the_hosts && at(Point::Mapped) != Some(Act::Drop);
    prepared.target_of_mapping().filter(|_| is_shown)
}

fn names_clients(plan: &Plan) -> bool {
    plan.rows().any(|(row, _)| !row.clients.is_empty())
}

/// Whether every client that a request names is the sandbox's own. 0 is nobody's, and left to the driver to answer.
fn check_clients(ledger: &Ledger, plan: &Plan, payload: &[u8]) -> Result<(), u32> {
    for (row, base) in plan.rows() {
        for field in row.clients {
            let mut named = Bytes(payload).clients(plan, base, field).into_iter();
            let are_own = named.all(|client| client == 0 || ledger.has_client(client));
            // A test leaves this out, to show that it would notice.
            if !are_own && at(Point::Owned) != Some(Act::Drop) {
                return Err(field.absent);
            }
        }
    }
    Ok(())
}

/// Whether what everybody is to be let copy is memory. What else a client has is nobody's business, and what is below it
/// would be copied with it. An object that does not exist is left to the driver to answer.
fn check_shared(ledger: &Ledger, deed: &Deed) -> Result<(), u32> {
    match deed {
        Deed::Share { client, object }
            if (client == object || ledger.has_object(*client, *object))
                && !ledger.keeps_memory(*client, *object)
                && at(Point::Shared) != Some(Act::Drop) =>
        {
            Err(NV_ERR_INVALID_ARGUMENT)
        }
        _ => Ok(()),
    }
}

/// The status for a request for which there is no room, or of which it cannot be told how much it needs.
struct NoRoom(u32);

impl NoRoom {
    const OBJECTS: NoRoom = NoRoom(NV_ERR_INSUFFICIENT_RESOURCES);
    const MEMORY: NoRoom = NoRoom(NV_ERR_NO_MEMORY);
}

impl From<Full> for NoRoom {
    fn from(Full: Full) -> NoRoom {
        NoRoom::MEMORY
    }
}

/// Sets aside what a request may need, so that requests under way cannot together take more than there is. Nothing is set
/// aside if there is no room.
fn set_aside(ledger: &mut Ledger, admission: &mut Admission<'_>) -> Result<(), NoRoom> {
    let no_objects = |_: Full| NoRoom::OBJECTS;
    let deed = &admission.passage.deed;
    let objects = match deed {
        Deed::Unmap { space, at, gpu } => ledger.parted_by(*space, at, gpu.as_ref()),
        _ => deed.objects(),
    };
    ledger.expect_objects(objects).map_err(no_objects)?;
    match deed {
        Deed::Client { .. } => {
            ledger.expect_client().map_err(no_objects)?;
            admission.client = true;
        }
        Deed::Object {
            client,
            parent,
            what,
            ..
        } => match new_content(ledger, *client, *parent, what) {
            Ok(content) => admission.contents.push(Some(content)),
            Err(refusal) => {
                ledger.expected_objects(objects);
                return Err(refusal);
            }
        },
        Deed::Range { backing, .. } | Deed::Space { backing, .. } if *backing > 0 => {
            match ledger.charge(Pool::Host, *backing) {
                Ok(key) => admission.contents.push(Some(Content {
                    gpu: None,
                    memory: vec![key],
                })),
                Err(Full) => {
                    ledger.expected_objects(objects);
                    return Err(NoRoom::MEMORY);
                }
            }
        }
        Deed::Copy { source, .. } => {
            let copy = ledger.copy_of(source.0, source.1);
            admission.contents.push(copy);
        }
        Deed::Attach { bytes } => {
            let list = ledger.charge(Pool::Host, *bytes)?;
            admission.contents.push(Some(Content::of(list)));
        }
        Deed::Export {
            client,
            objects: exported,
            to,
            places,
            ..
        } => {
            let bytes = if ledger.has_places(*to) { 0 } else { *places };
            match ledger.charge(Pool::Host, bytes) {
                Ok(key) => admission.contents.push(Some(Content::of(key))),
                Err(Full) => {
                    ledger.expected_objects(objects);
                    return Err(NoRoom::MEMORY);
                }
            }
            let copies = exported
                .iter()
                .map(|object| ledger.copy_of(*client, *object));
            admission.contents.extend(copies);
        }
        Deed::Import {
            from, first, count, ..
        } => {
            let places = (0..*count).map(|index| first.saturating_add(index));
            let copies = places.map(|place| ledger.copy_of_exported(*from, place));
            admission.contents.extend(copies);
        }
        Deed::Hold { client, memory, .. } => {
            let held = memory.iter().map(|memory| ledger.copy_of(*client, *memory));
            admission.contents.extend(held);
        }
        Deed::Show { client, memory } => {
            let shown = ledger.host_memory_of(*client, *memory);
            admission.contents.push(shown);
        }
        Deed::Map { client, memory, .. } => {
            let mapped = ledger.copy_of(*client, *memory);
            admission.contents.push(mapped);
        }
        Deed::Nothing
        | Deed::Free { .. }
        | Deed::Share { .. }
        | Deed::OsEvent { .. }
        | Deed::EndOsEvent { .. }
        | Deed::Register { .. }
        | Deed::Space { .. }
        | Deed::Group { .. }
        | Deed::EndGroup { .. }
        | Deed::Range { .. }
        | Deed::EndRange { .. }
        | Deed::Unmap { .. } => {}
    }
    admission.objects = objects;
    Ok(())
}

/// What a new object will have.
fn new_content(
    ledger: &mut Ledger,
    client: u32,
    parent: u32,
    what: &What,
) -> Result<Content, NoRoom> {
    let gpu = ledger.gpu_of(client, parent);
    Ok(match what {
        What::Device(instance) => Content {
            gpu: Some(*instance),
            memory: Vec::new(),
        },
        // The driver refuses these as well: what cannot be accounted for must not depend on it.
        What::Unsaid => return Err(NoRoom(NV_ERR_INVALID_ARGUMENT)),
        What::GpuMemory { bytes, .. } => {
            let Some(number) = gpu else {
                let exists = client == parent || ledger.has_object(client, parent);
                return Err(NoRoom(match exists {
                    true => NV_ERR_INVALID_OBJECT_PARENT,
                    false => NV_ERR_OBJECT_NOT_FOUND,
                }));
            };
            let memory = vec![ledger.charge(Pool::Gpu(number), *bytes)?];
            Content { gpu, memory }
        }
        What::HostMemory { bytes } => Content {
            gpu,
            memory: vec![ledger.charge(Pool::Host, *bytes)?],
        },
        What::Holder(memory) => {
            let held = memory
                .iter()
                .filter_map(|memory| ledger.copy_of(client, *memory));
            Content {
                gpu,
                memory: held.flat_map(|content| content.memory).collect(),
            }
        }
        What::Other => Content {
            gpu,
            memory: Vec::new(),
        },
    })
}

/// Whether what a request asks for came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    About,
    /// The driver leaves memory of the host that it has allocated, and answers EINVAL, if that cannot be made ready to be
    /// mapped (`RmIoctl`, NV_ESC_RM_ALLOC_MEMORY, src/nvidia/arch/nvalloc/unix/src/escape.c). By the answer it cannot be
    /// told from a request that was not looked at, whose status is the program's own.
    Perhaps,
    ToNothing,
}

impl Came {
    fn of(executed: &Executed, deed: &Deed) -> Came {
        let (prepared, outcome) = (&executed.prepared, executed.outcome);
        let status = prepared.status();
        if status.is_some_and(|status| status != NV_OK) {
            return Came::ToNothing;
        }
        let may_be_left = prepared.action == Action::Issue
            && deed.host_memory().is_some()
            && at(Point::Counted) != Some(Act::Drop);
        match outcome {
            Ok(_) => Came::About,
            Err(Errno::EINVAL) if may_be_left => Came::Perhaps,
            Err(_) => Came::ToNothing,
        }
    }
}

/// Enters what came of a request, or gives back what was set aside for it.
fn enter(ledger: &mut Ledger, admission: Admission<'_>, prepared: &Prepared, came: Came) {
    let Admission {
        passage: Passage { deed, _gates },
        contents,
        objects,
        client,
    } = admission;
    if client {
        ledger.expected_client();
    }
    ledger.expected_objects(objects);
    let mut contents = contents.into_iter();
    if came != Came::ToNothing {
        let answer = Bytes(prepared.buffer.bytes());
        enter_success(ledger, &deed, &mut contents, (prepared, came), answer);
    }
    for content in contents.flatten() {
        ledger.release(content);
    }
}

fn enter_success(
    ledger: &mut Ledger,
    deed: &Deed,
    contents: &mut impl Iterator<Item = Option<Content>>,
    (prepared, came): (&Prepared, Came),
    answer: Bytes<'_>,
) {
    let mut next = || contents.next().flatten().unwrap_or_default();
    match deed {
        // What is shown was entered before.
        Deed::Nothing | Deed::Share { .. } | Deed::Show { .. } => {}
        Deed::OsEvent { client, key } => ledger.add_os_event(prepared.handle, *client, *key),
        Deed::EndOsEvent { client, key } => ledger.end_os_event(*client, *key),
        Deed::Client { answer: at } => ledger.add_client(answer.word(*at), prepared.handle),
        Deed::Object {
            client,
            parent,
            answer: at,
            what,
        } => {
            let (content, object) = (next(), answer.word(*at));
            if let (What::GpuMemory { answer: at, .. }, Some(key)) = (what, content.memory.first())
            {
                let size = answer.long_at(*at);
                if ledger.raise(*key, size) {
                    tracing::warn!(
                        "the driver took {size} bytes for an object of which it was taken to need less"
                    );
                }
            }
            let is_pinned = prepared.action != Action::Issue;
            let displaces = !is_pinned && came == Came::About;
            let is_there = ledger.has_object(*client, object);
            if displaces || (object != 0 && !is_there) {
                ledger.add_object(*client, object, *parent, content);
            } else if is_pinned && is_there {
                // One of the two is gone, and it is not known which.
                ledger.hold(*client, object, content);
            } else {
                ledger.release(content);
            }
        }
        Deed::Free { client, object } => ledger.free(*client, *object),
        Deed::Copy {
            client,
            parent,
            answer: at,
            ..
        } => ledger.add_object(*client, answer.word(*at), *parent, next()),
        Deed::Register { with } => ledger.register(prepared.handle, *with),
        Deed::Attach { .. } => ledger.keep_with(prepared.handle, next()),
        Deed::Export {
            to, first, objects, ..
        } => {
            let places = next();
            match ledger.has_places(*to) {
                true => ledger.release(places),
                false => ledger.add_places(*to, places),
            }
            for (index, object) in (0..).zip(objects) {
                let content = next();
                if *object == 0 {
                    ledger.release(content);
                } else {
                    ledger.add_exported(*to, first.saturating_add(index), content);
                }
            }
        }
        Deed::Import {
            client,
            parent,
            base,
            objects,
            count,
            ..
        } => {
            for index in 0..*count {
                let (object, content) = (answer.element(*base, objects, index), next());
                if object == 0 {
                    ledger.release(content);
                } else {
                    ledger.add_object(*client, object, *parent, content);
                }
            }
        }
        Deed::Hold {
            client,
            object,
            memory,
        } => {
            for _ in memory {
                ledger.hold(*client, *object, next());
            }
        }
        Deed::Map {
            space, at, gpus, ..
        } => ledger.map(*space, at, gpus, next()),
        Deed::Space { space, .. } => ledger.add_space(*space, next()),
        Deed::Group { space } => ledger.add_group(*space),
        Deed::EndGroup { space } => ledger.end_group(*space),
        Deed::Range { space, range, .. } => ledger.add_range(*space, range, next()),
        Deed::EndRange { space, start } => ledger.end_range(*space, *start),
        Deed::Unmap { space, at, gpu } => ledger.unmap(*space, at, gpu.as_ref()),
    }
}

/// Rewrites what a control command tells of the memory of the GPU that it was issued for.
fn show(ledger: &Ledger, prepared: &mut Prepared, list: &MemoryList) {
    let (Some(limit), Some(Effect::Control { object })) =
        (ledger.gpu_memory_limit(), prepared.plan.ioctl.effect)
    else {
        return;
    };
    let bytes = Bytes(prepared.buffer.bytes());
    let client = prepared.plan.ioctl.clients.first();
    let client = client.map_or(0, |field| bytes.word(field.at.into()));
    let gpu = ledger.gpu_of(client, bytes.word(object.into()));
    let charged = gpu.map_or(0, |gpu| ledger.charged(gpu));
    let payload = prepared.buffer.bytes_mut();
    visible::limit(&prepared.plan, list, payload, limit, charged);
}

/// Answers a request in the driver's place: nothing of it changes but the status, or it fails with an errno: what pins
/// with that of too little memory, what has no status with the one that the driver has for everything.
pub fn answer(mut prepared: Prepared, status: u32) -> Executed {
    let outcome = match (prepared.action, prepared.set_status(status)) {
        // What the task was to issue itself has no answer of the driver's, nor has what it cannot have issued.
        (Action::Lend, _) => Err(Errno::ENOMEM),
        (Action::Pinned(_), _) => Err(Errno::EPROTO),
        (_, true) => Ok(0),
        (_, false) => Err(Errno::EINVAL),
    };
    Executed {
        prepared,
        outcome,
        lent: None,
        asked: 0,
        nanoseconds: 0,
    }
}
