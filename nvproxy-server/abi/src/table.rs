//! The types of the tables' rows. A row says all that has to be known to carry a request to the driver, and who may make
//! it; what the request does is none of its business.

use std::borrow::Cow;

pub use nvproxy_abi_effects::{self as effects, Array, Offsets};

use crate::policy::Capabilities;

/// The kinds of requests, which are looked up in a table each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// ioctls on `/dev/nvidiactl` and the GPUs, by number (NV_ESC_*).
    Frontend,
    /// Control commands (NV_ESC_RM_CONTROL), by NVOS54_PARAMETERS.cmd.
    Control,
    /// Allocation classes (NV_ESC_RM_ALLOC, NV_ESC_RM_ALLOC_MEMORY), by hClass.
    Alloc,
    /// ioctls on `/dev/nvidia-uvm`, by command word.
    Uvm,
}

/// One request: an ioctl, a control command or a class. Offsets are bytes into its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub id: u32,
    /// NVIDIA's name.
    pub name: &'static str,
    /// The structure of its parameters, where it has one.
    pub structure: Option<&'static str>,
    /// Bytes of its parameters, or [`Request::ANY`] where the driver takes several sizes, or [`Request::BOUNDED`].
    pub size: u32,
    pub pointers: &'static [Pointer],
    pub descriptors: &'static [Descriptor],
    /// Where the driver writes its NV_STATUS, where it does.
    pub status_at: Option<u16>,
    pub traits: Traits,
    /// What the request is, where that depends on a field of it.
    pub variants: Option<Variants>,
    /// Flags with which it is refused.
    pub refused_flags: Option<RefusedFlags>,
    /// The capabilities each of which allows it. None, for the rows of [`Variants`].
    pub capabilities: Capabilities,
    /// For whom the driver reserves it: it is never issued then, whatever the capabilities say.
    pub reserved: Option<Reserved>,
    /// Handles of clients. The first of an ioctl's is the client that makes the request.
    pub clients: &'static [ClientField],
    /// What becomes of objects once it has succeeded.
    pub effect: Option<Effect>,
    /// It tells how much memory a GPU has.
    pub memory_list: Option<MemoryList>,
    /// Names of GPUs: the request is only issued if they are of GPUs that the sandbox was given.
    pub gpus: &'static [GpuField],
    /// Fields with which it is only issued if they hold certain values.
    pub passed: &'static [Passed],
    /// Lists of GPUs in the answer, of which those are told that the sandbox was given.
    pub gpu_lists: &'static [GpuList],
    /// What the answer is not to tell.
    pub cleared: &'static [Cleared],
}

/// NVIDIA's name for a request, or the number of what has none, which the tables say in brackets.
pub fn shown_name(name: &'static str, id: u32) -> Cow<'static, str> {
    match name.starts_with('(') {
        true => format!("{id:#x} {name}").into(),
        false => name.into(),
    }
}

/// A name of a GPU in the parameters, or several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuField {
    pub at: u16,
    pub naming: Naming,
    /// The NV_STATUS with which the driver answers a name that no GPU has; `None` where it has an errno for it.
    pub absent: Option<u32>,
}

/// How GPUs are named. An id has 4 bytes and is the driver's own number for a GPU (`gpuId`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// An id.
    Id,
    /// A UUID, of 16 bytes.
    Uuid,
    /// As many ids as the 4-byte field at `count_at` says, and never more than `most`.
    Counted { most: u16, count_at: u16 },
    /// Ids up to the first that is `end`, and never more than `most`; those that are `unused` name none.
    Until {
        most: u16,
        end: u32,
        unused: Option<u32>,
    },
    /// Ids up to the end of the parameters; those that are `unused` name none.
    Rest { unused: u32 },
}

/// A field that is only passed with certain values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// The field's name.
    pub field: &'static str,
    pub at: u16,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u8,
    /// Other values are passed, too, unless the request makes a client.
    pub of_clients: bool,
    pub values: Values,
    pub otherwise: Otherwise,
}

/// What becomes of a request with another value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Otherwise {
    /// It is refused with this NV_STATUS, or with EINVAL where its argument has no place for one.
    Refused(u32),
    /// The driver is told this value, and the program finds its own in the answer.
    Instead(u64),
}

/// Values of a field, unsigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    OneOf(&'static [u64]),
    AtLeast(u64),
    AtMost(u64),
}

impl Values {
    /// Whether `value` is one of them.
    pub fn contain(&self, value: u64) -> bool {
        match self {
            Values::OneOf(values) => values.contains(&value),
            Values::AtLeast(least) => value >= *least,
            Values::AtMost(most) => value <= *most,
        }
    }
}

/// A list of GPUs in an answer: elements of `stride` bytes, each with a GPU's id at `id_at`. Elements that are taken out are
/// followed up by those behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GpuList {
    pub at: u16,
    pub stride: u16,
    /// How many elements it has, or [`GpuList::REST`] where it goes on to the end of the parameters.
    pub most: u16,
    pub id_at: u16,
    /// What fills the elements behind the last.
    pub fill: u8,
    /// The 4-byte field that says how many elements there are, where there is one.
    pub count_at: Option<u16>,
}

impl GpuList {
    /// The `most` of lists that go on to the end of the parameters.
    pub const REST: u16 = u16::MAX;
}

/// Bytes of an answer in whose place `fill` is told: `length` of them at each of `count` places, `stride` bytes apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cleared {
    pub at: u16,
    pub length: u16,
    pub stride: u16,
    pub count: u16,
    pub fill: u8,
}

/// Handles of clients in the parameters, 4 bytes each. 0 names no client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientField {
    pub at: u16,
    pub extent: Extent,
    /// The NV_STATUS with which the driver answers a handle that no client has.
    pub absent: u32,
    pub whose: Whose,
    /// Whether the driver is told the client that makes the request where the program names none. Parameters that have such a
    /// field cannot be left out.
    pub is_filled_in: bool,
}

/// Which of the sandbox's clients a request may name. The driver keeps some numbers, and looks them up when they may be
/// another sandbox's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// Any.
    Sandbox,
    /// The client that makes the request.
    Maker,
    /// Those that were made through the same open file description as the one that makes the request.
    Description,
}

/// How many handles a field stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    One,
    /// As many as the 4-byte field at `count_at` says, one after the other, and never more than `most`.
    Array {
        most: u16,
        count_at: u16,
    },
    /// The field is a pointer: as many as fit into the buffer behind it.
    Behind,
}

/// What becomes of objects.
pub type Effect = nvproxy_abi_effects::Effect<Offsets>;

/// Handles of objects.
pub type Objects = nvproxy_abi_effects::Objects<Offsets>;

/// How much memory an object takes.
pub type Amount = nvproxy_abi_effects::Amount<Offsets>;

/// A list of pairs of 4 bytes: what is asked for (NV2080_CTRL_FB_INFO_INDEX_*), and the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryList {
    pub at: u16,
    /// The field is a pointer to the list, rather than the list.
    pub behind: bool,
    /// The 4-byte field that says how many pairs there are.
    pub count_at: u16,
}

/// For whom the driver reserves a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reserved {
    /// Administrators, or clients in the kernel.
    Privileged,
    /// The driver itself.
    Internal,
}

/// A pointer in the parameters: an 8-byte address, little-endian. Null means that there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pointer {
    pub at: u16,
    pub length: Length,
    pub contents: Contents,
}

/// How long what a pointer points to is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// As many bytes.
    Fixed(u32),
    /// As many elements of `scale` bytes as the 4-byte field at `at` of the same parameters says.
    Field { at: u16, scale: u32 },
    /// As many rows as the 4-byte field at `at` says, each of as many elements of `scale` bytes.
    Square { at: u16, scale: u32 },
    /// As many bytes as the row of its contents says.
    OfContents,
}

/// What a pointer points to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contents {
    /// Bytes in which nothing has to be looked for.
    Bytes,
    /// Parameters of the control command named by the 4-byte field at `command_at`.
    Control { command_at: u16 },
    /// Parameters of the class named by the 4-byte field at `class_at`.
    Class { class_at: u16 },
}

/// A descriptor number in the parameters: 4 bytes, little-endian, negative for none. (Where the driver's field has 8
/// bytes it looks at the lower 4.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    pub at: u16,
    pub role: Role,
}

/// Which of the descriptions behind a task's descriptor is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The one on which the server issues requests.
    Command,
    /// The one that the task itself holds: to map it, or one of the open-only nodes, to show that it could be opened.
    Held,
    /// None yet: the driver makes one, and writes its number here. What the program has here names nothing.
    Result,
}

/// What is peculiar about issuing a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traits {
    /// It can take 200 µs or more, so that others should not wait behind it.
    pub may_block: bool,
    /// It pins memory of the calling address space and so has to be issued from the task's own.
    pub pins: bool,
    /// Once it succeeds, the descriptor that it was issued on delivers operating system events.
    pub makes_event: bool,
    /// (offset, bits): bits of an 8-byte field that are as here on the way in, and as the program had them on the way out.
    pub forced_bits: Option<(u16, ForcedBits)>,
    /// It is answered with success and not issued.
    pub answered: bool,
}

/// What bits of a field are to be, whatever a program has there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForcedBits {
    pub set: u64,
    pub cleared: u64,
}

impl ForcedBits {
    /// The field with these bits, of one that has another value.
    pub fn in_place_of(self, value: u64) -> u64 {
        value & !self.cleared | self.set
    }
}

/// Further rows for one request, by the value of a 4-byte field of it. They describe the same parameters, add to the
/// row that refers to them, and belong to [`Family::Alloc`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variants {
    pub at: u16,
    pub rows: &'static [Request],
}

/// Bits of a 4-byte field with which a request is refused, and the NV_STATUS it is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusedFlags {
    pub at: u16,
    pub bits: u32,
    pub status: u32,
}

impl Request {
    /// The `size` of requests of which the driver takes several sizes.
    pub const ANY: u32 = u32::MAX;
    /// The `size` of commands of the GPU's firmware's of which it is not known: at most [`Request::MOST`].
    pub const BOUNDED: u32 = u32::MAX - 1;
    /// The most bytes of parameters of such a command. The queues by which the driver and the firmware speak have as many
    /// (`_getMsgQueueParams`, src/nvidia/src/kernel/gpu/gsp/message_queue_cpu.c, in every release from 515.43.04 to 595.45.04). The
    /// most that a program was seen to ask with are 67,396.
    pub const MOST: u32 = 256 << 10;

    /// How many bytes its parameters have, where it takes one size alone.
    pub fn only_size(&self) -> Option<u32> {
        let is_one = ![Request::ANY, Request::BOUNDED].contains(&self.size);
        is_one.then_some(self.size)
    }

    /// Whether parameters of `size` bytes are passed for this request.
    pub fn accepts(&self, size: u32) -> bool {
        match self.size {
            Request::ANY => true,
            Request::BOUNDED => size <= Request::MOST,
            exactly => size == exactly,
        }
    }
}
