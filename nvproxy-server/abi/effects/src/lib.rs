//! What a request does to clients, objects and memory: the one definition of it.
//!
//! The idea: whoever speaks of an effect speaks of the same fields, and only writes them in a form of its own. A rule
//! names a field by its path in a structure, a row says where it lies, and the server has what a program wrote there. So
//! an [`Effect`] is generic over its [`Form`], and [`Effect::rewrite`] takes it from one form to another, field by field.
//! How long a field is, is its type: a `u32`, of 4 bytes, for a handle.
//!
//! Whoever adds an effect adds a variant here, with its arm in `rewrite`, and says in the server's ledger what deed it is.
//! The compiler asks for both. Rules, rows, the generated tables and the tests of tables take it as it is.

#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::hash::Hash;

use serde::Deserialize;

/// A handle of an object, or the number that stands for one.
pub type Handle = u32;

/// The name of a GPU.
pub type Uuid = u128;

/// How fields are written.
pub trait Form {
    /// A field that holds a `T`.
    type Field<T: Number>: Clone + Debug + Eq + Hash;
    /// An array of `T`, or of structures that begin with one.
    type Array<T: Number>: Clone + Debug + Eq + Hash;
}

/// What a field can hold: an unsigned number, as the processor writes it.
pub trait Number: Copy + Debug + Default + Eq + Hash {
    /// Bytes of the field.
    const BYTES: u32 = size_of::<Self>() as u32;

    /// The number at the start of `bytes`, if they are enough.
    fn first_of(bytes: &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Number for $number {
            fn first_of(bytes: &[u8]) -> Option<$number> {
                bytes.first_chunk().map(|bytes| <$number>::from_ne_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u16, u32, u64, u128);

/// The form of the tables: a field is its offset in the parameters, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offsets;

impl Form for Offsets {
    type Field<T: Number> = u16;
    type Array<T: Number> = Array;
}

/// An array in the parameters: no more than `most` elements, each `stride` bytes behind the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Array {
    pub at: u16,
    pub stride: u16,
    pub most: u16,
}

/// The form that has nothing: for who looks at every field and makes nothing of it.
impl Form for () {
    type Field<T: Number> = ();
    type Array<T: Number> = ();
}

/// How each field of an effect is taken from one form to another.
pub trait Rewrite<'a, From: Form, To: Form> {
    type Error;

    fn field<T: Number>(&mut self, field: &'a From::Field<T>) -> Result<To::Field<T>, Self::Error>;

    fn array<T: Number>(&mut self, array: &'a From::Array<T>) -> Result<To::Array<T>, Self::Error>;
}

/// What becomes of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    bound(
        deserialize = "F::Field<u16>: Deserialize<'de>, F::Field<u32>: Deserialize<'de>, \
                       F::Field<u64>: Deserialize<'de>, F::Field<u128>: Deserialize<'de>, \
                       F::Array<u32>: Deserialize<'de>, F::Array<u64>: Deserialize<'de>, F::Array<u128>: Deserialize<'de>"
    )
)]
pub enum Effect<F: Form> {
    /// An ioctl: an object of some class comes to be below `parent`. 0 as `object` means that the driver chooses the
    /// handle, which it writes there.
    Allocate {
        parent: F::Field<Handle>,
        object: F::Field<Handle>,
    },
    /// An ioctl: memory of a GPU, memory of the host or a range of addresses comes to be below `parent`, as the amount's flags
    /// say. Of `object`, see `Allocate`.
    AllocateByFlags {
        parent: F::Field<Handle>,
        object: F::Field<Handle>,
        amount: Amount<F>,
    },
    /// An ioctl: an object and all below it are gone; with the client's own, the client.
    Free { object: F::Field<Handle> },
    /// An ioctl: `object` comes to be as a copy of the object `source` of the second client.
    Duplicate {
        parent: F::Field<Handle>,
        object: F::Field<Handle>,
        source: F::Field<Handle>,
    },
    /// An ioctl: the description uses the clients of the one in the descriptor field from now on.
    Register,
    /// An ioctl: the driver keeps its argument, a list of GPUs, with the description.
    Attach,
    /// An ioctl: the driver keeps a record of an event of the operating system, under the client and this number.
    OsEvent { key: F::Field<u32> },
    /// An ioctl: that record is gone.
    EndOsEvent { key: F::Field<u32> },
    /// An ioctl: an object may be copied by others, by the RS_SHARE_TYPE_* in `kind`.
    Share {
        object: F::Field<Handle>,
        kind: F::Field<u16>,
    },
    /// An ioctl: a task can map this memory through the description in the descriptor field from now on.
    Show { memory: F::Field<Handle> },
    /// An ioctl: as many of these objects of the client lie in a dma-buf from now on, so many bytes of each, of which the program has a
    /// descriptor.
    DmaBuf {
        memory: F::Array<Handle>,
        sizes: F::Array<u64>,
        count: F::Field<u32>,
    },
    /// The ioctl by which control commands are issued, to this object.
    Control { object: F::Field<Handle> },
    /// A control command: copies of objects come to be in the description in the descriptor field.
    Export(Objects<F>),
    /// A control command: copies of what is in the description in the descriptor field, or of what others exported where there
    /// is no such field, come to be below `parent`; without it, below the client.
    Import {
        parent: Option<F::Field<Handle>>,
        objects: Objects<F>,
    },
    /// The object that a control command is issued to, or that is allocated, keeps this memory from now on.
    Hold(Objects<F>),
    /// A class: its objects are clients.
    Client,
    /// A class: its objects stand for the GPU with this number, and use the address space that a client has on it.
    Device {
        instance: F::Field<u32>,
        shares: F::Field<u32>,
    },
    /// A class: its objects take memory of the GPU that they belong to.
    GpuMemory(Amount<F>),
    /// A class: its objects take memory of the host.
    HostMemory(Amount<F>),
    /// A class, as NVOS02_PARAMETERS name it: its objects take memory of the host, a byte more than `limit` says.
    HostMemoryUpTo {
        limit: F::Field<u64>,
        flags: F::Field<u32>,
    },
    /// A class, as NVOS02_PARAMETERS name it: its objects take nothing. The driver writes the size of the GPU's memory at
    /// `limit`, less a byte.
    MemorySize { limit: F::Field<u64> },
    /// A class: its objects keep pages of the task, a byte more than `limit` says.
    Pinned { limit: F::Field<u64> },
    /// An ioctl of UVM: a range of the description's address space comes to be, in which memory can be mapped, or for
    /// which the driver takes host memory if it is `backed`.
    Range {
        base: F::Field<u64>,
        length: F::Field<u64>,
        #[serde(default)]
        backed: bool,
    },
    /// An ioctl of UVM: the range that begins there is gone, and what is mapped in it.
    EndRange { base: F::Field<u64> },
    /// An ioctl of UVM: the description has an address space from now on, if it had none.
    AddressSpace,
    /// An ioctl of UVM: the description's address space has one more range group.
    RangeGroup,
    /// An ioctl of UVM: it has one less.
    EndRangeGroup,
    /// An ioctl of UVM: the description keeps memory of the client from now on, in a range of its address space, for each
    /// of `count` GPUs.
    Map {
        base: F::Field<u64>,
        length: F::Field<u64>,
        memory: F::Field<Handle>,
        gpus: F::Array<Uuid>,
        count: F::Field<u64>,
    },
    /// An ioctl of UVM: the description no longer keeps what it kept in a range, or anywhere, for a GPU, or for all.
    Unmap {
        base: Option<F::Field<u64>>,
        length: Option<F::Field<u64>>,
        gpu: Option<F::Field<Uuid>>,
    },
}

/// Handles of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(
    deny_unknown_fields,
    bound(deserialize = "F::Field<u16>: Deserialize<'de>, F::Array<u32>: Deserialize<'de>")
)]
pub struct Objects<F: Form> {
    /// One handle, an array of them, or one of structures that begin with one.
    pub field: F::Array<Handle>,
    /// How many there are; without it there are as many as there can be.
    pub count: Option<F::Field<u16>>,
    /// Which place in the description is that of the first; without it, it is place 0.
    pub first: Option<F::Field<u16>>,
    /// How many places the description is to have, if it has none yet.
    pub places: Option<F::Field<u16>>,
}

/// How much memory an object takes: fields of NV_MEMORY_ALLOCATION_PARAMS. The driver writes the size as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(
    deny_unknown_fields,
    bound(deserialize = "F::Field<u32>: Deserialize<'de>, F::Field<u64>: Deserialize<'de>")
)]
pub struct Amount<F: Form> {
    pub size: F::Field<u64>,
    pub alignment: F::Field<u64>,
    pub flags: F::Field<u32>,
    pub attr: F::Field<u32>,
    pub attr2: F::Field<u32>,
}

impl Copy for Effect<Offsets> {}
impl Copy for Objects<Offsets> {}
impl Copy for Amount<Offsets> {}

impl<F: Form> Effect<F> {
    /// The same effect in another form.
    pub fn rewrite<'a, G: Form, R: Rewrite<'a, F, G>>(
        &'a self,
        how: &mut R,
    ) -> Result<Effect<G>, R::Error> {
        Ok(match self {
            Effect::Allocate { parent, object } => Effect::Allocate {
                parent: how.field(parent)?,
                object: how.field(object)?,
            },
            Effect::AllocateByFlags {
                parent,
                object,
                amount,
            } => Effect::AllocateByFlags {
                parent: how.field(parent)?,
                object: how.field(object)?,
                amount: amount.rewrite(how)?,
            },
            Effect::Free { object } => Effect::Free {
                object: how.field(object)?,
            },
            Effect::Duplicate {
                parent,
                object,
                source,
            } => Effect::Duplicate {
                parent: how.field(parent)?,
                object: how.field(object)?,
                source: how.field(source)?,
            },
            Effect::Register => Effect::Register,
            Effect::Attach => Effect::Attach,
            Effect::OsEvent { key } => Effect::OsEvent {
                key: how.field(key)?,
            },
            Effect::EndOsEvent { key } => Effect::EndOsEvent {
                key: how.field(key)?,
            },
            Effect::Share { object, kind } => Effect::Share {
                object: how.field(object)?,
                kind: how.field(kind)?,
            },
            Effect::Show { memory } => Effect::Show {
                memory: how.field(memory)?,
            },
            Effect::DmaBuf {
                memory,
                sizes,
                count,
            } => Effect::DmaBuf {
                memory: how.array(memory)?,
                sizes: how.array(sizes)?,
                count: how.field(count)?,
            },
            Effect::Control { object } => Effect::Control {
                object: how.field(object)?,
            },
            Effect::Export(objects) => Effect::Export(objects.rewrite(how)?),
            Effect::Import { parent, objects } => Effect::Import {
                parent: optional(how, parent)?,
                objects: objects.rewrite(how)?,
            },
            Effect::Hold(objects) => Effect::Hold(objects.rewrite(how)?),
            Effect::Client => Effect::Client,
            Effect::Device { instance, shares } => Effect::Device {
                instance: how.field(instance)?,
                shares: how.field(shares)?,
            },
            Effect::GpuMemory(amount) => Effect::GpuMemory(amount.rewrite(how)?),
            Effect::HostMemory(amount) => Effect::HostMemory(amount.rewrite(how)?),
            Effect::HostMemoryUpTo { limit, flags } => Effect::HostMemoryUpTo {
                limit: how.field(limit)?,
                flags: how.field(flags)?,
            },
            Effect::MemorySize { limit } => Effect::MemorySize {
                limit: how.field(limit)?,
            },
            Effect::Pinned { limit } => Effect::Pinned {
                limit: how.field(limit)?,
            },
            Effect::Range {
                base,
                length,
                backed,
            } => Effect::Range {
                base: how.field(base)?,
                length: how.field(length)?,
                backed: *backed,
            },
            Effect::EndRange { base } => Effect::EndRange {
                base: how.field(base)?,
            },
            Effect::AddressSpace => Effect::AddressSpace,
            Effect::RangeGroup => Effect::RangeGroup,
            Effect::EndRangeGroup => Effect::EndRangeGroup,
            Effect::Map {
                base,
                length,
                memory,
                gpus,
                count,
            } => Effect::Map {
                base: how.field(base)?,
                length: how.field(length)?,
                memory: how.field(memory)?,
                gpus: how.array(gpus)?,
                count: how.field(count)?,
            },
            Effect::Unmap { base, length, gpu } => Effect::Unmap {
                base: optional(how, base)?,
                length: optional(how, length)?,
                gpu: optional(how, gpu)?,
            },
        })
    }
}

impl<F: Form> Objects<F> {
    fn rewrite<'a, G: Form, R: Rewrite<'a, F, G>>(
        &'a self,
        how: &mut R,
    ) -> Result<Objects<G>, R::Error> {
        Ok(Objects {
            field: how.array(&self.field)?,
            count: optional(how, &self.count)?,
            first: optional(how, &self.first)?,
            places: optional(how, &self.places)?,
        })
    }
}

impl<F: Form> Amount<F> {
    fn rewrite<'a, G: Form, R: Rewrite<'a, F, G>>(
        &'a self,
        how: &mut R,
    ) -> Result<Amount<G>, R::Error> {
        Ok(Amount {
            size: how.field(&self.size)?,
            alignment: how.field(&self.alignment)?,
            flags: how.field(&self.flags)?,
            attr: how.field(&self.attr)?,
            attr2: how.field(&self.attr2)?,
        })
    }
}

fn optional<'a, F: Form, G: Form, R: Rewrite<'a, F, G>, T: Number>(
    how: &mut R,
    field: &'a Option<F::Field<T>>,
) -> Result<Option<G::Field<T>>, R::Error> {
    field.as_ref().map(|field| how.field(field)).transpose()
}
