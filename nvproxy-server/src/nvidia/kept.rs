//! Command descriptions that a predecessor of this server opened, and keeps ([`super::keeper`]).
//!
//! This process has a duplicate of each: for event descriptors, to lend, and to name it in a request of its own. A request
//! *on* one is the keeper's to issue, but for those by which the driver makes a descriptor, and so is one on a UVM description that names one, since UVM then looks into the client
//! as the process that calls it (`RS_SHARE_TYPE_PID` with a kernel client, src/nvidia/src/kernel/rmapi/client_resource.c,
//! 580.142).

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nvproxy_abi::node::Node;
use ringfence_ipc::Socket;
use ringfence_ipc::locks::IgnorePoison;
use smallvec::SmallVec;

use super::issue::Issue;
use super::line::{Line, Named, Order};
use super::{Presence, duplicate, event_descriptor, saved};
use crate::backend::handover::Enclosures;
use crate::backend::{self, Call, DeviceFile};

/// The way to one keeper, which ends when this is dropped, unless another server has this way, too.
pub struct Keeping {
    /// Where lines are made. Locked while one is, because that takes two messages.
    control: Mutex<Socket>,
    idle: Mutex<Vec<Line>>,
    /// Whether this is the server that serves, which alone says what is closed: of what is dropped before or after,
    /// another server has a duplicate.
    serves: AtomicBool,
}

impl Keeping {
    /// The way to the keeper at the other end of `control`.
    pub fn new(control: Socket) -> Keeping {
        Keeping {
            control: Mutex::new(control),
            idle: Mutex::default(),
            serves: AtomicBool::new(false),
        }
    }

    /// A duplicate of the socket, for the next server.
    pub fn duplicate(&self) -> Result<OwnedFd, Errno> {
        let control = self.control.lock().ignore_poison();
        duplicate(control.as_fd())
    }

    /// This server serves from now on, or does no longer.
    pub fn set_serves(&self, serves: bool) {
        self.serves.store(serves, Ordering::SeqCst);
    }

    /// Has the keeper hold a duplicate of a description of this GPU's node.
    pub fn hold_presence(&self, gpu: u8, presence: BorrowedFd<'_>) -> Result<(), Errno> {
        let order = Order::HoldPresence { gpu };
        self.ask(&order, &[presence], &mut []).map(drop)
    }

    /// Has an order carried out. Fails with `EIO` if the keeper is gone.
    fn ask(
        &self,
        order: &Order,
        sent: &[BorrowedFd<'_>],
        payload: &mut [u8],
    ) -> Result<i32, Errno> {
        let idle = || self.idle.lock().ignore_poison();
        let free = idle().pop();
        let mut line = match free {
            Some(line) => line,
            None => {
                let control = self.control.lock().ignore_poison();
                Line::connect(&control)?
            }
        };
        let outcome = line.ask(order, sent, payload)?;
        idle().push(line);
        outcome
    }
}

/// What is kept elsewhere, by the number of this process's duplicate.
#[derive(Default)]
pub struct Register(Mutex<HashMap<RawFd, (Arc<Keeping>, u64)>>);

impl Register {
    fn find(&self, descriptor: BorrowedFd<'_>) -> Option<(Arc<Keeping>, u64)> {
        self.lock().get(&descriptor.as_raw_fd()).cloned()
    }

    /// The keeper of the first description that `call` names and that one keeps.
    pub fn keeper_named(&self, call: &Call<'_>) -> Option<Arc<Keeping>> {
        let mut named = call.descriptors.iter();
        let (keeper, _) = named.find_map(|(_, descriptor)| self.find(*descriptor))?;
        Some(keeper)
    }

    /// Has `keeper` issue `call` on `target`. Descriptors that it does not have are sent along.
    pub fn issue(
        &self,
        keeper: &Arc<Keeping>,
        target: BorrowedFd<'_>,
        call: Call<'_>,
    ) -> Result<i32, Errno> {
        let mut sent: SmallVec<[BorrowedFd<'_>; 4]> = SmallVec::new();
        let mut name = |descriptor| match self.find(descriptor) {
            Some((other, file)) if Arc::ptr_eq(&other, keeper) => Named::Kept(file),
            _ => {
                sent.push(descriptor);
                Named::Sent
            }
        };
        let target = name(target);
        let descriptors = call.descriptors.iter();
        let descriptors = descriptors.map(|(at, descriptor)| (*at, name(*descriptor)));
        let segments = call.segments.iter();
        let order = Order::Issue {
            target,
            request: call.request,
            segments: segments
                .map(|segment| (segment.offset, segment.length, segment.pointer_at))
                .collect(),
            descriptors: descriptors.collect(),
        };
        keeper.ask(&order, &sent, call.payload)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RawFd, (Arc<Keeping>, u64)>> {
        self.0.lock().ignore_poison()
    }
}

/// A description of `nvidiactl` or of a GPU's node that is kept.
///
/// The driver frees a client when the last duplicate is closed, and closes what it has duplicated itself by the numbers that
/// this had in the table of who made the request (`nv_cap_close_fd`, kernel-open/nvidia/nv-caps.c). That is the keeper. So its duplicate
/// is closed last: the fields are dropped in their order.
pub struct KeptFile {
    node: Node,
    /// The server that opened it, counted from the first.
    opened_by: u64,
    /// Its number there.
    file: u64,
    registered: Registered,
    /// The duplicate.
    command: OwnedFd,
    kept: Kept,
    issue: Issue,
    _presence: Option<Arc<Presence>>,
}

impl KeptFile {
    pub fn new(
        (node, presence): (Node, Option<Arc<Presence>>),
        (opened_by, file): (u64, u64),
        command: OwnedFd,
        keeper: Arc<Keeping>,
        (register, issue): (&Arc<Register>, Issue),
    ) -> KeptFile {
        let number = command.as_raw_fd();
        register.lock().insert(number, (Arc::clone(&keeper), file));
        KeptFile {
            node,
            opened_by,
            file,
            registered: Registered {
                register: Arc::clone(register),
                number,
            },
            command,
            kept: Kept { keeper, file },
            issue,
            _presence: presence,
        }
    }
}

/// An entry of the register, as long as this is there.
struct Registered {
    register: Arc<Register>,
    number: RawFd,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.register.lock().remove(&self.number);
    }
}

/// What a keeper keeps, as long as this is there.
struct Kept {
    keeper: Arc<Keeping>,
    file: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.keeper.serves.load(Ordering::SeqCst) {
            // With a keeper that is gone, its duplicate is closed.
            let order = Order::Close { file: self.file };
            let _ = self.keeper.ask(&order, &[], &mut []);
        }
    }
}

impl DeviceFile for KeptFile {
    fn number(&self) -> Result<i32, Errno> {
        Ok(self.command.as_raw_fd())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.command.as_fd())
    }

    fn ioctl(&self, call: Call<'_>) -> Result<i32, Errno> {
        // The driver puts what it makes into the table of who asks, and exports memory for any process: its own client
        // copies it (`rm_dma_buf_dup_mem_handle`, src/nvidia/arch/nvalloc/unix/src/osapi.c, in all releases).
        if call.made.is_some() {
            return (self.issue)(&self.command, call);
        }
        let register = &self.registered.register;
        register.issue(&self.kept.keeper, self.command.as_fd(), call)
    }

    fn event_descriptor(&self) -> Result<OwnedFd, Errno> {
        event_descriptor(&self.command)
    }

    fn lend(&self) -> Result<OwnedFd, Errno> {
        duplicate(self.command.as_fd())
    }

    fn pinned(&self, issued: Result<i32, Errno>, _call: Call<'_>) -> Result<i32, Errno> {
        // The kernel wrote the parameters to the task's memory itself.
        issued
    }

    fn save(&self, enclosures: &mut Enclosures) -> Result<serde_json::Value, backend::Error> {
        let origin = (self.opened_by, self.file);
        let saved = saved::save_command(self.node, Some(&self.command), origin, enclosures);
        Ok(saved?)
    }
}
