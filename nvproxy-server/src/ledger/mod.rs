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
//! UVM keeps what is mapped, and its descriptions belong to the tasks: the backend tells which of them a request was issued on
//! and which are gone, where that can matter, for what is over the limit or is asked for. So are those through which tasks
//! can have mapped memory of the host, which the driver keeps for them (`shown`).
//!
//! Memory is charged before the driver is asked for it, by what the driver will take (`taken`). What the ledger does not
//! see is memory of a GPU that the driver takes for itself: for channels, contexts and page tables, and for managed memory.
//! Of the host's memory the driver's own records count, roughly ([`limits::RECORD`]).

pub mod accounts;
mod aside;
mod content;
mod deed;
mod kept;
pub mod limits;
mod mappings;
mod numbered;
mod outcome;
mod payload;
mod taken;
mod visible;

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use nix::errno::Errno;
use nvproxy_abi::status::{
    NV_ERR_INSUFFICIENT_RESOURCES, NV_ERR_INVALID_ARGUMENT, NV_ERR_INVALID_CLIENT,
    NV_ERR_INVALID_OBJECT_HANDLE, NV_ERR_INVALID_STATE, NV_ERR_NO_MEMORY, NV_ERR_OBJECT_NOT_FOUND,
    NV_ERR_STATE_IN_USE,
};
use nvproxy_abi::table::{Effect, Family, MemoryList, Whose};
use nvproxy_protocol::requests::Issuer;
use ringfence_faults::{Act, Point, at};
use ringfence_ipc::locks::IgnorePoison;
use serde_json::value::{RawValue, to_raw_value};
use smallvec::SmallVec;

use self::accounts::{Ledger, Pin, Pool};
use self::aside::{NoRoom, set_aside};
use self::content::Content;
use self::deed::{Deed, What};
use self::limits::{Full, Limits};
use self::outcome::{Came, enter};
use self::payload::Bytes;
use crate::backend::Backend;
use crate::backend::handover;
use crate::request::{self, Action, Executed, Prepared};

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

impl request::Account for Account {}

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
    pub fn save(&self) -> Result<Box<RawValue>, handover::Error> {
        to_raw_value(&*self.ledger()).map_err(handover::Error::Ledger)
    }

    /// What is in the books, in words for a programmer, if there is anything once it was looked what is gone.
    pub fn left(&self, backend: &dyn Backend) -> Option<String> {
        let mut ledger = self.ledger();
        forget_ended(&mut ledger, backend);
        (!ledger.is_empty()).then(|| format!("{ledger:?}"))
    }

    /// Books that go on where others were saved, with the limits that the launcher gave this process.
    pub fn restore(saved: &RawValue, limits: Limits) -> Result<Arc<Books>, handover::Error> {
        let ledger: Ledger = serde_json::from_str(saved.get()).map_err(handover::Error::Ledger)?;
        Ok(Books::keeping(ledger.with_limits(limits)))
    }

    /// Waits until nothing that concerns the same clients is under way.
    pub fn pass(&self, prepared: &Prepared) -> Passage<'_> {
        let deed = self.deed_of(prepared);
        let gates = self.gates_of(&deed);
        let gates = gates.map(|gate| gate.lock().ignore_poison());
        Passage {
            _gates: gates.collect(),
            deed,
        }
    }

    /// The same, if it takes no waiting.
    pub fn try_pass(&self, prepared: &Prepared) -> Option<Passage<'_>> {
        let deed = self.deed_of(prepared);
        let gates = self
            .gates_of(&deed)
            .map(|gate| gate.try_lock().ignore_poison());
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

    /// The description that has to stay open until a request is settled, if there is one. The driver looks for a client by its number
    /// alone where it exports memory, whoever has it: nobody else may have got it meanwhile.
    pub fn relies_on(&self, passage: &Passage<'_>) -> Option<u64> {
        match passage.deed {
            Deed::DmaBuf { client, .. } => self.ledger().description_of(client),
            _ => None,
        }
    }

    /// Admits a request, or answers it: with the NV_STATUS that the driver would have for it.
    pub fn admit<'a>(
        &'a self,
        backend: &dyn Backend,
        prepared: &Prepared,
        passage: Passage<'a>,
    ) -> Result<Admission<'a>, u32> {
        let mut admission = Admission {
            passage,
            contents: SmallVec::new(),
            objects: 0,
            client: false,
        };
        if admission.passage.deed == Deed::Nothing
            && !prepared.plan.names_clients()
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
        check_clients(&ledger, prepared, &admission.passage.deed)?;
        check_shared(&ledger, &admission.passage.deed)?;
        check_named(&ledger, &admission.passage.deed)?;
        check_dma_buf(&ledger, &admission.passage.deed)?;
        if let Deed::OsEvent { .. } = admission.passage.deed
            && !ledger.has_room_for_os_event()
        {
            return Err(NV_ERR_INSUFFICIENT_RESOURCES);
        }
        let mut outcome = set_aside(&mut ledger, &mut admission);
        if outcome.is_err() && forget_ended(&mut ledger, backend) {
            outcome = set_aside(&mut ledger, &mut admission);
        }
        outcome.map_err(|NoRoom(status)| status)?;
        Ok(admission)
    }

    /// Enters what came of a request, and makes what it tells of memory agree with the limit.
    pub fn settle(&self, backend: &dyn Backend, admission: Admission<'_>, executed: &mut Executed) {
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
        let mark = shown_by(&admission, &executed.prepared, came).map(|shown| backend.mark(shown));
        let mut ledger = self.ledger();
        if let Some(mark) = mark {
            if ledger.should_look_for_ended() {
                forget_ended(&mut ledger, backend);
            }
            for content in admission.contents.iter().flatten() {
                ledger.show(mark, content);
            }
        }
        if let Some(list) = list.filter(|_| came == Came::About) {
            forget_ended(&mut ledger, backend);
            show(&ledger, &mut executed.prepared, &list);
        }
        if let Deed::Object {
            what: What::MemorySize { answer },
            ..
        } = admission.passage.deed
            && let (Came::About, Some(limit)) = (came, ledger.gpu_memory_limit())
        {
            visible::limit_size(executed.prepared.buffer.bytes_mut(), answer, limit);
        }
        enter(&mut ledger, admission, &executed.prepared, came);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().ignore_poison()
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
fn forget_ended(ledger: &mut Ledger, backend: &dyn Backend) -> bool {
    let ended = backend.ended(&ledger.marks());
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

/// Whether every client that a request names is the sandbox's own, or where it has to be, the one that makes it. 0 is nobody's,
/// and left to the driver to answer.
///
/// To the driver all of the sandbox's clients are one process's, and it lets each have what another has. So those of another process
/// and another user are nobody's here, unless they are named to copy what everybody has been let copy. Another than who issues the request,
/// or on nvidiactl, where a client makes it, than who made that. (There the driver lets nobody else use the client, but to export
/// its memory.)
fn check_clients(ledger: &Ledger, prepared: &Prepared, deed: &Deed) -> Result<(), u32> {
    let (plan, payload) = (&prepared.plan, prepared.buffer.bytes());
    let maker = plan.ioctl.clients.first();
    let maker = maker.map(|field| Bytes(payload).word(field.at.into()));
    let issuer = match plan.family {
        Family::Uvm => prepared.issuer,
        _ if plan.result_at().is_some() => prepared.issuer,
        _ => maker.and_then(|maker| ledger.made_by(maker)),
    };
    let is_shared = |client| match deed {
        Deed::Copy { source, .. } => source.0 == client && ledger.is_shared(source.0, source.1),
        _ => false,
    };
    let is_let = |client| is_let(issuer, ledger.made_by(client)) || is_shared(client);
    for (row, base) in plan.rows() {
        for field in row.clients {
            let mut named = Bytes(payload).clients(plan, base, field).into_iter();
            let are_own = named.all(|client| match client {
                0 => true,
                client => match field.whose {
                    Whose::Maker => maker == Some(client),
                    Whose::Description => {
                        maker.is_some_and(|maker| ledger.are_together(maker, client))
                            && is_let(client)
                    }
                    Whose::Sandbox => ledger.has_client(client) && is_let(client),
                },
            });
            // A test leaves this out, to show that it would notice.
            if !are_own && at(Point::Owned) != Some(Act::Drop) {
                return Err(field.absent);
            }
        }
    }
    Ok(())
}

/// Whether who makes a request is let use a client of this task's: of the same process, or the same user (`osValidateClientTokens`,
/// src/nvidia/arch/nvalloc/unix/src/os.c, 580.142). Of a sandbox with one user none are told.
fn is_let(issuer: Option<Issuer>, maker: Option<Issuer>) -> bool {
    let (Some(issuer), Some(maker)) = (issuer, maker) else {
        return true;
    };
    let is_related = issuer.user == maker.user || issuer.process == maker.process;
    // A test leaves this out, to show that it would notice.
    is_related || at(Point::Related) == Some(Act::Drop)
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

/// Whether every client that a device names will be there as long as the device is ([`accounts`], `named.rs`).
fn check_named(ledger: &Ledger, deed: &Deed) -> Result<(), u32> {
    let answer = match deed {
        Deed::Free { client, object } if client == object && ledger.is_named(*client) => {
            Err(NV_ERR_STATE_IN_USE)
        }
        Deed::Object {
            client,
            what: What::Device { shares, .. },
            ..
        } if !ledger.may_name(*client, *shares) => Err(NV_ERR_INVALID_CLIENT),
        _ => Ok(()),
    };
    // A test leaves this out, to show that it would notice.
    match at(Point::Outlasted) {
        Some(Act::Drop) => Ok(()),
        _ => answer,
    }
}

/// Whether what is to lie in a dma-buf is memory of a GPU's that the client has, and that is charged. The driver exports no other,
/// and goes on keeping it.
fn check_dma_buf(ledger: &Ledger, deed: &Deed) -> Result<(), u32> {
    let Deed::DmaBuf { client, memory, .. } = deed else {
        return Ok(());
    };
    if ledger.is_doubtful(*client) {
        return Err(NV_ERR_INVALID_OBJECT_HANDLE);
    }
    let mut not_known = memory
        .iter()
        .filter(|memory| !ledger.keeps_gpu_memory(*client, **memory));
    match not_known.next() {
        // A test leaves this out, to show that it would notice.
        Some(memory) if at(Point::Exported) != Some(Act::Drop) => {
            Err(match ledger.has_object(*client, *memory) {
                true => NV_ERR_INVALID_ARGUMENT,
                false => NV_ERR_OBJECT_NOT_FOUND,
            })
        }
        _ => Ok(()),
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
