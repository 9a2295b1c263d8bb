//! What a request does to clients and objects, read from its bytes by the offsets in its rows.
//!
//! The bytes are those that the driver is given, or has answered; every field is bounds-checked, and one that lies
//! outside them reads as 0.

use nvproxy_abi::plan::Plan;
use nvproxy_abi::table::{ClientField, Effect, Extent, Mapping, Objects};
use ringfence_faults::{Act, Point, at};
use smallvec::SmallVec;

use super::accounts::{Handle, UNKNOWN_SPACE};
use super::mappings::{Addresses, Uuid};
use super::taken;

/// Handles of objects in a request.
pub(super) type Handles = SmallVec<[Handle; 4]>;

/// RS_SHARE_TYPE_ALL (rs_access.h).
const SHARE_TYPE_ALL: u16 = 1;

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
    /// It makes objects of the copies in a description, whose handles the driver writes where `objects` says.
    Import {
        client: Handle,
        parent: Handle,
        from: u64,
        first: u32,
        base: u32,
        objects: Objects,
        count: u32,
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
    /// A GPU, with this number.
    Device(u32),
    /// Memory of its GPU, no more than as many bytes; the driver writes the object's size at `answer`.
    GpuMemory {
        bytes: u64,
        answer: u32,
    },
    /// Memory of the host, no more than as many bytes.
    HostMemory {
        bytes: u64,
    },
    /// Memory, without the parameters that say how much. The driver refuses it.
    Unsaid,
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
        let client = client.map_or(0, |field| bytes.handle(0, field.at));
        match effect {
            Effect::Allocate { object, .. } if plan.request.effect == Some(Effect::Client) => {
                Deed::Client {
                    answer: object.into(),
                }
            }
            Effect::Allocate { parent, object } => Deed::Object {
                client,
                parent: bytes.handle(0, parent),
                answer: object.into(),
                what: What::of(plan, bytes),
            },
            Effect::Free { object } => Deed::Free {
                client,
                object: bytes.handle(0, object),
            },
            Effect::Duplicate {
                parent,
                object,
                source,
            } => {
                let of = plan.ioctl.clients.get(1);
                let of = of.map_or(0, |field| bytes.handle(0, field.at));
                Deed::Copy {
                    client,
                    parent: bytes.handle(0, parent),
                    answer: object.into(),
                    source: (of, bytes.handle(0, source)),
                }
            }
            Effect::Register => named.map_or(Deed::Nothing, |with| Deed::Register { with }),
            Effect::Attach if at(Point::Counted) != Some(Act::Drop) => Deed::Attach {
                bytes: payload.len() as u64,
            },
            Effect::OsEvent { .. } if at(Point::Counted) == Some(Act::Drop) => Deed::Nothing,
            Effect::OsEvent { key } => Deed::OsEvent {
                client,
                key: bytes.handle(0, key),
            },
            Effect::EndOsEvent { key } => Deed::EndOsEvent {
                client,
                key: bytes.handle(0, key),
            },
            Effect::Share { object, kind } if bytes.short(0, kind) == SHARE_TYPE_ALL => {
                Deed::Share {
                    client,
                    object: bytes.handle(0, object),
                }
            }
            Effect::Show { memory } => Deed::Show {
                client,
                memory: bytes.handle(0, memory),
            },
            Effect::Control { object } => Deed::of_command(plan, bytes, named, (client, object)),
            Effect::Range {
                base,
                length,
                backed,
            } => {
                let backing = match backed {
                    true => taken::of_range(bytes.long(0, length)),
                    false => 0,
                };
                match space() {
                    None if backing == 0 => Deed::Nothing,
                    space => Deed::Range {
                        space: space.unwrap_or(UNKNOWN_SPACE),
                        range: bytes.addresses(base, length),
                        backing,
                    },
                }
            }
            Effect::EndRange { base } => space().map_or(Deed::Nothing, |space| Deed::EndRange {
                space,
                start: bytes.long(0, base),
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
            Effect::Map(mapping) => Deed::Map {
                client,
                memory: bytes.handle(0, mapping.memory),
                space: space().unwrap_or(UNKNOWN_SPACE),
                at: bytes.addresses(mapping.base, mapping.length),
                gpus: bytes.gpus(&mapping),
            },
            Effect::Unmap { base, length, gpu } => {
                space().map_or(Deed::Nothing, |space| Deed::Unmap {
                    space,
                    at: match (base, length) {
                        (Some(base), Some(length)) => bytes.addresses(base, length),
                        _ => 0..u64::MAX,
                    },
                    gpu: gpu.map(|at| bytes.uuid(at.into())),
                })
            }
            _ => Deed::Nothing,
        }
    }

    fn of_command(
        plan: &Plan,
        bytes: Bytes<'_>,
        named: Option<u64>,
        (client, object): (Handle, u16),
    ) -> Deed {
        let (Some(base), Some(effect)) = (plan.request_at, plan.request.effect) else {
            return Deed::Nothing;
        };
        match (effect, named) {
            (Effect::Export(objects), Some(to)) => Deed::Export {
                client,
                to,
                first: bytes.first(base, &objects),
                places: match at(Point::Counted) {
                    Some(Act::Drop) => 0,
                    _ => bytes.places(base, &objects) * size_of::<Handle>() as u64,
                },
                objects: bytes.objects(base, &objects),
            },
            (Effect::Import { parent, objects }, Some(from)) => Deed::Import {
                client,
                parent: bytes.handle(base, parent),
                from,
                first: bytes.first(base, &objects),
                base,
                objects,
                count: bytes.count(base, &objects),
            },
            (Effect::Hold(memory), _) => Deed::Hold {
                client,
                object: bytes.handle(0, object),
                memory: bytes.objects(base, &memory),
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
            Deed::Import { count, .. } => *count as usize,
            // For each GPU the mapping itself, and one more where it lies within another and parts it.
            Deed::Map { gpus, .. } => 2 * gpus.len(),
            Deed::Space { .. } | Deed::Group { .. } | Deed::Range { .. } => 1,
            Deed::Nothing
            | Deed::Client { .. }
            | Deed::Free { .. }
            | Deed::Share { .. }
            | Deed::Show { .. }
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
            Deed::Object { client, .. }
            | Deed::Free { client, .. }
            | Deed::Share { client, .. }
            | Deed::Show { client, .. }
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
        match (plan.request.effect, plan.request_at) {
            (Some(Effect::Device { instance }), Some(base)) => {
                What::Device(bytes.handle(base, instance))
            }
            // Without parameters it is the first GPU (deviceConstruct_IMPL, src/nvidia/src/kernel/gpu/device.c).
            (Some(Effect::Device { .. }), None) => What::Device(0),
            (Some(Effect::GpuMemory(amount)), Some(base)) => What::GpuMemory {
                bytes: taken::of_gpu(bytes, base, &amount),
                answer: base + u32::from(amount.size),
            },
            (Some(Effect::HostMemory(amount)), Some(base)) => What::HostMemory {
                bytes: taken::of_host(bytes, base, &amount),
            },
            (Some(Effect::HostMemoryUpTo { limit, flags }), Some(base)) => What::HostMemory {
                bytes: taken::of_host_up_to(bytes.long(base, limit), bytes.handle(base, flags)),
            },
            (Some(Effect::Pinned { limit }), Some(base)) => What::HostMemory {
                bytes: taken::of_pinned(bytes.long(base, limit)),
            },
            (
                Some(
                    Effect::GpuMemory(_)
                    | Effect::HostMemory(_)
                    | Effect::HostMemoryUpTo { .. }
                    | Effect::Pinned { .. },
                ),
                None,
            ) => What::Unsaid,
            (Some(Effect::Hold(memory)), Some(base)) => What::Holder(bytes.objects(base, &memory)),
            _ => What::Other,
        }
    }
}

/// The bytes of a payload.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    fn read<const N: usize>(self, at: u32) -> [u8; N] {
        let rest = self.0.get(at as usize..);
        rest.and_then(|rest| rest.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    fn uuid(self, at: u32) -> Uuid {
        u128::from_ne_bytes(self.read(at))
    }

    /// The 4 bytes at `at`.
    pub fn word(self, at: u32) -> u32 {
        u32::from_ne_bytes(self.read(at))
    }

    /// The 8 bytes at `at`.
    pub fn long_at(self, at: u32) -> u64 {
        u64::from_ne_bytes(self.read(at))
    }

    fn handle(self, base: u32, at: u16) -> u32 {
        self.word(base + u32::from(at))
    }

    fn long(self, base: u32, at: u16) -> u64 {
        self.long_at(base + u32::from(at))
    }

    fn short(self, base: u32, at: u16) -> u16 {
        u16::from_ne_bytes(self.read(base + u32::from(at)))
    }

    fn addresses(self, base: u16, length: u16) -> Addresses {
        let start = self.long(0, base);
        start..start.saturating_add(self.long(0, length))
    }

    /// The GPUs that memory is mapped for.
    fn gpus(self, mapping: &Mapping) -> SmallVec<[Uuid; 1]> {
        let count = self.long(0, mapping.count_at).min(mapping.most.into());
        let at = |index| u32::from(mapping.gpus) + index * u32::from(mapping.stride);
        (0..count as u32)
            .map(|index| self.uuid(at(index)))
            .collect()
    }

    /// How many of `objects` there are.
    fn count(self, base: u32, objects: &Objects) -> u32 {
        let most = u32::from(objects.most);
        let said = objects.count_at.map(|at| self.short(base, at).into());
        said.unwrap_or(most).min(most)
    }

    fn first(self, base: u32, objects: &Objects) -> u32 {
        objects.first_at.map_or(0, |at| self.short(base, at).into())
    }

    /// How many places a description is to have.
    fn places(self, base: u32, objects: &Objects) -> u64 {
        let places = objects.places_at.map(|at| self.short(base, at));
        places.map_or(0, u64::from)
    }

    fn objects(self, base: u32, objects: &Objects) -> Handles {
        let count = self.count(base, objects);
        (0..count)
            .map(|index| self.element(base, objects, index))
            .collect()
    }

    /// The handle of number `index` in `objects`.
    pub fn element(self, base: u32, objects: &Objects, index: u32) -> Handle {
        self.word(base + u32::from(objects.at) + index * u32::from(objects.stride))
    }

    /// The clients that a field names.
    pub fn clients(self, plan: &Plan, base: u32, field: &ClientField) -> Handles {
        let at = base + u32::from(field.at);
        let (from, count) = match field.extent {
            Extent::One => (at, 1),
            Extent::Array { most, count_at } => (at, self.handle(base, count_at).min(most.into())),
            Extent::Behind => plan
                .segment_behind(at)
                .map_or((0, 0), |segment| (segment.offset, segment.length / 4)),
        };
        (0..count)
            .map(|index| self.word(from + 4 * index))
            .collect()
    }
}
