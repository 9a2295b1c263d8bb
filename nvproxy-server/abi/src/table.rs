//! The types of the tables' rows. A row says all that has to be known to carry a request to the driver, and who may make
//! it; what the request does is none of its business.

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
    /// Bytes of its parameters, or [`Request::ANY`] where the driver takes several sizes.
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
    /// The one that the task itself holds, to map it.
    Mapping,
    /// A capability, opened from `/dev/nvidia-caps`.
    Capability,
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
    /// (offset, bits): bits of an 8-byte field that are set on the way in and cleared on the way out.
    pub set_bits: Option<(u16, u64)>,
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

    /// Whether the driver takes parameters of `size` bytes for this request.
    pub fn accepts(&self, size: u32) -> bool {
        self.size == Request::ANY || self.size == size
    }
}
