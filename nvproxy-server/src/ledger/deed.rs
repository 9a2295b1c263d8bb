//! What a request does to clients and objects: its effect, with whose it is and where it takes place.
//!
//! The idea: rows say what a request and the class or command in it do, and the payload says to what. The two together
//! are one deed, in the ledger's words.

use nvproxy_abi::plan::Plan;
use nvproxy_abi::table;
use nvproxy_abi::table::effects::{Amount, Effect};
use ringfence_faults::{Act, Point, at};
use smallvec::SmallVec;

use super::accounts::{Handle, UNKNOWN_SPACE};
use super::mappings::{Addresses, Uuid};
use super::payload::{Bytes, Elements, Handles, Named, Values};
use super::taken;

/// RS_SHARE_TYPE_ALL (rs_access.h).
const SHARE_TYPE_ALL: u16 = 1;

/// By what NV_ESC_RM_VID_HEAP_CONTROL chooses a class (nvos.h).
const NVOS32_ALLOC_FLAGS_VIRTUAL: u32 = 0x8_0000;
const NVOS32_ATTR_LOCATION: u32 = 0x3 << 25;
const NVOS32_ATTR_LOCATION_VIDMEM: u32 = 0;
const NVOS32_ATTR2_USE_EGM: u32 = 1 << 24;

/// What a request is about to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Nothing that concerns the ledger.
    Nothing,
    /// It makes a client, whose handle the driver writes at `answer`.
    Client { answer: u32 },
    /// It makes an object, whose handle the driver writes at `answer`.
    Object {
        client: Handle,
        parent: Handle,
        answer: u32,
        what: What,
    },
    /// It frees an object.
    Free { client: Handle, object: Handle },
    /// It makes a copy of another client's object, whose handle the driver writes at `answer`.
    Copy {
        client: Handle,
        parent: Handle,
        answer: u32,
        source: (Handle, Handle),
    },
    /// It makes a record of an event of the operating system.
    OsEvent { client: Handle, key: u32 },
    /// It takes one away.
    EndOsEvent { client: Handle, key: u32 },
    /// It lets everybody copy an object, and all below it.
    Share { client: Handle, object: Handle },
    /// It puts memory into a dma-buf, of which the program gets a descriptor.
    DmaBuf {
        client: Handle,
        memory: Handles,
        /// For which the driver takes as many bytes of the host's memory.
        backing: u64,
    },
    /// It lets a task map memory through the description that came with it.
    Show { client: Handle, memory: Handle },
    /// It has the driver keep as many bytes with the description, a list of GPUs.
    Attach { bytes: u64 },
    /// It registers the description with another.
    Register { with: u64 },
    /// It puts copies of objects into a description, from a place on; 0 leaves a place as it is. If the description has no
    /// places yet the driver keeps as many bytes for them.
    Export {
        places: u64,
        client: Handle,
        to: u64,
        first: u32,
        objects: Handles,
    },
    /// It makes objects of the copies in a description, or of what others exported, whose handles the driver writes where
    /// `objects` says.
    Import {
        client: Handle,
        parent: Handle,
        from: Option<u64>,
        first: u32,
        objects: Elements<Handle>,
    },
    /// It makes an object keep memory.
    Hold {
        client: Handle,
        object: Handle,
        memory: Handles,
    },
    /// It makes a range in an address space, for which the driver takes as many bytes of the host's memory.
    Range {
        space: u64,
        range: Addresses,
        backing: u64,
    },
    /// It makes an address space, for which the driver takes as many bytes of the host's memory.
    Space { space: u64, backing: u64 },
    /// It makes a range group in an address space.
    Group { space: u64 },
    /// It takes one away.
    EndGroup { space: u64 },
    /// It takes away the range that begins there.
    EndRange { space: u64, start: u64 },
    /// It makes an address space keep memory.
    Map {
        client: Handle,
        memory: Handle,
        space: u64,
        at: Addresses,
        gpus: SmallVec<[Uuid; 1]>,
    },
    /// It makes an address space keep nothing there, for a GPU or for all.
    Unmap {
        space: u64,
        at: Addresses,
        gpu: Option<Uuid>,
    },
}

/// What a new object is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A GPU, with this number. It uses the address space of a client that is named by its handle; 0 is its own.
    Device {
        gpu: u32,
        shares: Handle,
    },
    /// Memory of its GPU, no more than as many bytes; the driver writes the object's size at `answer`.
    GpuMemory {
        bytes: u64,
        answer: u32,
    },
    /// Memory of the host, no more than as many bytes.
    HostMemory {
        bytes: u64,
    },
    /// Nothing; the driver writes the size of its GPU's memory at `answer`, less a byte.
    MemorySize {
        answer: u32,
    },
    /// Memory, without the parameters that say how much. The driver refuses it.
    Unsaid,
    /// Memory of which nobody counts how much there is.
    Uncounted,
    /// It keeps these objects' memory.
    Holder(Handles),
    Other,
}

impl Deed {
    /// Reads a request. `named` is the description in its descriptor field, and `space` tells which address space it is
    /// issued on.
    pub fn of(
        plan: &Plan,
        payload: &[u8],
        named: Option<u64>,
        space: impl FnOnce() -> Option<u64>,
    ) -> Deed {
        let bytes = Bytes(payload);
        let Some(effect) = plan.ioctl.effect else {
            return Deed::Nothing;
        };
        let client = plan.ioctl.clients.first();
        let client = client.map_or(0, |field| bytes.word(field.at.into()));
        match bytes.effect(0, &effect) {
            Effect::Allocate { object, .. } if plan.makes_client() => {
                Deed::Client { answer: object.at }
            }
            Effect::Allocate { parent, object } => Deed::Object {
                client,
                parent: parent.value,
                answer: object.at,
                what: What::of(plan, bytes),
            },
            Effect::AllocateByFlags {
                parent,
                object,
                amount,
            } => Deed::Object {
                client,
                parent: parent.value,
                answer: object.at,
                what: What::by_flags(&amount),
            },
            Effect::Free { object } => Deed::Free {
                client,
                object: object.value,
            },
            Effect::Duplicate {
                parent,
                object,
                source,
            } => {
                let of = plan.ioctl.clients.get(1);
                let of = of.map_or(0, |field| bytes.word(field.at.into()));
                Deed::Copy {
                    client,
                    parent: parent.value,
                    answer: object.at,
                    source: (of, source.value),
                }
            }
            Effect::Register => named.map_or(Deed::Nothing, |with| Deed::Register { with }),
            Effect::Attach if at(Point::Counted) != Some(Act::Drop) => Deed::Attach {
                bytes: payload.len() as u64,
            },
            Effect::OsEvent { .. } if at(Point::Counted) == Some(Act::Drop) => Deed::Nothing,
            Effect::OsEvent { key } => Deed::OsEvent {
                client,
                key: key.value,
            },
            Effect::EndOsEvent { key } => Deed::EndOsEvent {
                client,
                key: key.value,
            },
            Effect::Share { object, kind } if kind.value == SHARE_TYPE_ALL => Deed::Share {
                client,
                object: object.value,
            },
            Effect::Show { memory } => Deed::Show {
                client,
                memory: memory.value,
            },
            Effect::DmaBuf {
                memory,
                sizes,
                count,
            } => {
                let count = u64::from(count.value);
                Deed::DmaBuf {
                    client,
                    memory: bytes.elements(&memory.first(count)).collect(),
                    backing: taken::of_dma_buf(bytes.elements(&sizes.first(count))),
                }
            }
            Effect::Control { object } => {
                Deed::of_command(plan, bytes, named, (client, object.value))
            }
            effect @ (Effect::Range { .. }
            | Effect::EndRange { .. }
            | Effect::AddressSpace
            | Effect::RangeGroup
            | Effect::EndRangeGroup
            | Effect::Map { .. }
            | Effect::Unmap { .. }) => Deed::of_space(bytes, client, effect, space),
            Effect::Share { .. } | Effect::Attach => Deed::Nothing,
            // No ioctl's, but a command's or a class's.
            Effect::Export(_)
            | Effect::Import { .. }
            | Effect::Hold(_)
            | Effect::Client
            | Effect::Device { .. }
            | Effect::GpuMemory(_)
            | Effect::HostMemory(_)
            | Effect::HostMemoryUpTo { .. }
            | Effect::MemorySize { .. }
            | Effect::Pinned { .. } => Deed::Nothing,
        }
    }

    /// What a request of UVM does to an address space.
    fn of_space(
        bytes: Bytes<'_>,
        client: Handle,
        effect: Effect<Values>,
        space: impl FnOnce() -> Option<u64>,
    ) -> Deed {
        match effect {
            Effect::Range {
                base,
                length,
                backed,
            } => {
                let backing = match backed {
                    true => taken::of_range(length.value),
                    false => 0,
                };
                match space() {
                    None if backing == 0 => Deed::Nothing,
                    space => Deed::Range {
                        space: space.unwrap_or(UNKNOWN_SPACE),
                        range: addresses(base.value, length.value),
                        backing,
                    },
                }
            }
            Effect::EndRange { base } => space().map_or(Deed::Nothing, |space| Deed::EndRange {
                space,
                start: base.value,
            }),
            Effect::AddressSpace | Effect::RangeGroup if at(Point::Counted) == Some(Act::Drop) => {
                Deed::Nothing
            }
            Effect::AddressSpace => Deed::Space {
                space: space().unwrap_or(UNKNOWN_SPACE),
                backing: taken::ADDRESS_SPACE,
            },
            Effect::RangeGroup => Deed::Group {
                space: space().unwrap_or(UNKNOWN_SPACE),
            },
            Effect::EndRangeGroup => {
                space().map_or(Deed::Nothing, |space| Deed::EndGroup { space })
            }
            Effect::Map {
                base,
                length,
                memory,
                gpus,
                count,
            } => Deed::Map {
                client,
                memory: memory.value,
                space: space().unwrap_or(UNKNOWN_SPACE),
                at: addresses(base.value, length.value),
                gpus: bytes.elements(&gpus.first(count.value)).collect(),
            },
            Effect::Unmap { base, length, gpu } => {
                space().map_or(Deed::Nothing, |space| Deed::Unmap {
                    space,
                    at: match (base, length) {
                        (Some(base), Some(length)) => addresses(base.value, length.value),
                        _ => 0..u64::MAX,
                    },
                    gpu: gpu.map(|gpu| gpu.value),
                })
            }
            _ => Deed::Nothing,
        }
    }

    fn of_command(
        plan: &Plan,
        bytes: Bytes<'_>,
        named: Option<u64>,
        (client, object): (Handle, Handle),
    ) -> Deed {
        let (Some(base), Some(effect)) = (plan.request_at, plan.request.effect) else {
            return Deed::Nothing;
        };
        match (bytes.effect(base, &effect), named) {
            (Effect::Export(objects), Some(to)) => Deed::Export {
                client,
                to,
                first: objects.first(),
                places: match at(Point::Counted) {
                    Some(Act::Drop) => 0,
                    _ => objects.places() * size_of::<Handle>() as u64,
                },
                objects: bytes.elements(&objects.named()).collect(),
            },
            (Effect::Import { parent, objects }, from) => Deed::Import {
                client,
                parent: parent.map_or(client, |parent| parent.value),
                from,
                first: objects.first(),
                objects: objects.named(),
            },
            (Effect::Hold(memory), _) => Deed::Hold {
                client,
                object,
                memory: bytes.elements(&memory.named()).collect(),
            },
            _ => Deed::Nothing,
        }
    }

    /// Bytes of the host's memory that its object takes.
    pub fn host_memory(&self) -> Option<u64> {
        match self {
            Deed::Object {
                what: What::HostMemory { bytes },
                ..
            } => Some(*bytes),
            _ => None,
        }
    }

    /// How many objects, copies, address spaces, range groups, ranges and mappings it may add.
    pub fn objects(&self) -> usize {
        match self {
            Deed::Object { .. } | Deed::Copy { .. } | Deed::OsEvent { .. } => 1,
            Deed::Export { objects, .. } => objects.len(),
            Deed::Import { objects, .. } => objects.count as usize,
            // For each GPU the mapping itself, and one more where it lies within another and parts it.
            Deed::Map { gpus, .. } => 2 * gpus.len(),
            Deed::Space { .. } | Deed::Group { .. } | Deed::Range { .. } => 1,
            Deed::Nothing
            | Deed::Client { .. }
            | Deed::Free { .. }
            | Deed::Share { .. }
            | Deed::Show { .. }
            | Deed::DmaBuf { .. }
            | Deed::EndOsEvent { .. }
            | Deed::Register { .. }
            | Deed::Attach { .. }
            | Deed::Hold { .. }
            | Deed::EndGroup { .. }
            | Deed::EndRange { .. }
            // What it adds depends on what there is.
            | Deed::Unmap { .. } => 0,
        }
    }

    /// The clients and address spaces that it concerns: no two requests that concern the same are under way at once.
    pub fn concerns(&self) -> SmallVec<[Handle; 2]> {
        match *self {
            Deed::Nothing | Deed::Client { .. } | Deed::Attach { .. } | Deed::Register { .. } => {
                SmallVec::new()
            }
            Deed::Object {
                client,
                what: What::Device { shares, .. },
                ..
            } if shares != 0 => SmallVec::from_slice(&[client, shares]),
            Deed::Object { client, .. }
            | Deed::Free { client, .. }
            | Deed::Share { client, .. }
            | Deed::Show { client, .. }
            | Deed::DmaBuf { client, .. }
            | Deed::OsEvent { client, .. }
            | Deed::EndOsEvent { client, .. }
            | Deed::Export { client, .. }
            | Deed::Import { client, .. }
            | Deed::Hold { client, .. } => SmallVec::from_slice(&[client]),
            Deed::Map { client, space, .. } => SmallVec::from_slice(&[client, space as u32]),
            Deed::Space { space, .. }
            | Deed::Group { space }
            | Deed::EndGroup { space }
            | Deed::Range { space, .. }
            | Deed::EndRange { space, .. }
            | Deed::Unmap { space, .. } => SmallVec::from_slice(&[space as u32]),
            Deed::Copy {
                client,
                source: (of, _),
                ..
            } => SmallVec::from_slice(&[client, of]),
        }
    }
}

impl What {
    fn of(plan: &Plan, bytes: Bytes<'_>) -> What {
        let Some(effect) = plan.request.effect else {
            return What::Other;
        };
        let Some(base) = plan.request_at else {
            return What::without_parameters(&effect);
        };
        match bytes.effect(base, &effect) {
            Effect::Device { instance, shares } => What::Device {
                gpu: instance.value,
                shares: shares.value,
            },
            Effect::GpuMemory(amount) => What::GpuMemory {
                bytes: taken::of_gpu(&amount),
                answer: amount.size.at,
            },
            Effect::HostMemory(amount) => What::HostMemory {
                bytes: taken::of_host(&amount),
            },
            Effect::HostMemoryUpTo { limit, flags } => What::HostMemory {
                bytes: taken::of_host_up_to(limit.value, flags.value),
            },
            Effect::MemorySize { limit } => What::MemorySize { answer: limit.at },
            Effect::Pinned { limit } => What::HostMemory {
                bytes: taken::of_pinned(limit.value),
            },
            Effect::Hold(memory) => What::Holder(bytes.elements(&memory.named()).collect()),
            _ => What::Other,
        }
    }

    /// What NV_ESC_RM_VID_HEAP_CONTROL makes, in the driver's order (`_rmVidHeapControlAllocCommon`,
    /// src/nvidia/interface/deprecated/rmapi_deprecated_vidheapctrl.c, 580.142). 595 no longer has the second.
    fn by_flags(amount: &Amount<Values>) -> What {
        if at(Point::Counted) == Some(Act::Drop) {
            return What::Other;
        }
        let location = amount.attr.value & NVOS32_ATTR_LOCATION;
        match (amount.flags.value, amount.attr2.value) {
            (flags, _) if flags & NVOS32_ALLOC_FLAGS_VIRTUAL != 0 => What::Other,
            (_, attr2) if attr2 & NVOS32_ATTR2_USE_EGM != 0 => What::Uncounted,
            _ if location == NVOS32_ATTR_LOCATION_VIDMEM => What::GpuMemory {
                bytes: taken::of_gpu(amount),
                answer: amount.size.at,
            },
            _ => What::HostMemory {
                bytes: taken::of_host(amount),
            },
        }
    }

    fn without_parameters(effect: &table::Effect) -> What {
        match effect {
            // It is the first GPU (deviceConstruct_IMPL, src/nvidia/src/kernel/gpu/device.c).
            Effect::Device { .. } => What::Device { gpu: 0, shares: 0 },
            Effect::GpuMemory(_)
            | Effect::HostMemory(_)
            | Effect::HostMemoryUpTo { .. }
            | Effect::Pinned { .. } => What::Unsaid,
            _ => What::Other,
        }
    }
}

/// The addresses of a range of `length` bytes.
fn addresses(base: u64, length: u64) -> Addresses {
    base..base.saturating_add(length)
}

#[cfg(test)]
mod tests;
