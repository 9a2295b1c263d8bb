//! What is derived: the rows, and which of them each release has.

use std::collections::BTreeSet;

use nvproxy_abi_catalogue::version::DriverVersion;
use nvproxy_abi_effects::{Effect, Form, Number};

use crate::families::ByFamily;
use crate::policy::Capability;

/// The tables of all releases.
#[derive(Debug)]
pub struct Tables {
    /// Every distinct row, of all families and releases.
    pub rows: Vec<Row>,
    /// Sorted by version.
    pub releases: Vec<ReleaseTables>,
    /// What some release calls a request, for those that no row names: by family, sorted by id.
    pub names: ByFamily<Vec<(u32, String)>>,
    /// Commands with numbers of the firmware's for which some release has an entry after all.
    pub published: BTreeSet<u32>,
    pub words: Words,
}

/// The command words by which the driver of some release reads anything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// On `/dev/nvidiactl` and the GPUs: number and size, where they lie in a word.
    pub sized: BTreeSet<u32>,
    /// Numbers there that are read whatever the size.
    pub any_size: BTreeSet<u32>,
    /// Whole words of UVM's, those that the headers of the driver's own tests have aside.
    pub uvm: BTreeSet<u32>,
}

/// The rows of one release, as indices into [`Tables::rows`].
#[derive(Debug)]
pub struct ReleaseTables {
    pub version: DriverVersion,
    /// Sorted by id, then by size.
    pub rows: ByFamily<Vec<u16>>,
}

/// One request, as `nvproxy_abi::table::Request` describes it. Offsets are bytes into its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Row {
    pub id: u32,
    pub name: String,
    pub size: Size,
    /// The structure of its parameters, for whoever wants to check the offsets.
    pub structure: Option<String>,
    pub pointers: Vec<Pointer>,
    pub descriptors: Vec<Descriptor>,
    pub status: Option<Place>,
    pub may_block: bool,
    pub pins: bool,
    pub makes_event: bool,
    pub forced_bits: Option<(Place, ForcedBits)>,
    pub variants: Option<(Place, Vec<Row>)>,
    pub refused_flags: Option<RefusedFlags>,
    /// Sorted, each once.
    pub capabilities: Vec<Capability>,
    pub reserved: Option<Reserved>,
    pub clients: Vec<ClientField>,
    pub effect: Option<Effect<Places>>,
    pub memory_list: Option<MemoryList>,
    pub gpus: Vec<GpuField>,
    pub passed: Vec<Passed>,
    pub gpu_lists: Vec<GpuList>,
    pub cleared: Vec<Cleared>,
    pub answered: bool,
}

/// What bits of a field are to be, whatever a program has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForcedBits {
    pub set: u64,
    pub cleared: u64,
}

/// How many bytes a row's parameters have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    Exactly(u32),
    /// As many as a command of the firmware's may have.
    Bounded,
    /// The driver takes several sizes.
    #[default]
    Any,
}

/// A field of a row's structure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its path in the structure, as in `params.fd`.
    pub path: String,
    pub at: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    pub place: Place,
    pub length: Length,
    pub contents: Contents,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    Fixed(u32),
    Field { count: Place, scale: u32 },
    Square { side: Place, scale: u32 },
    OfContents,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Contents {
    Bytes,
    Control { command: Place },
    Class { class: Place },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    pub place: Place,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Command,
    Held,
    Result,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedFlags {
    pub place: Place,
    pub bits: u32,
    /// The name of an NV_STATUS.
    pub status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientField {
    pub place: Place,
    pub extent: Extent,
    /// The name of an NV_STATUS.
    pub absent: String,
    pub whose: Whose,
    pub is_filled_in: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    #[default]
    Sandbox,
    Maker,
    Description,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    One,
    Array { most: u16, count: Place },
    Behind,
}

/// The form of the rows: a field is its place, by name and by offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Places;

impl Form for Places {
    type Field<T: Number> = Place;
    type Array<T: Number> = ArrayPlace;
}

/// An array in a row's structure: no more than `most` elements, each `stride` bytes behind the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArrayPlace {
    pub place: Place,
    pub stride: u16,
    pub most: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemoryList {
    pub place: Place,
    pub behind: bool,
    pub count: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuField {
    pub place: Place,
    pub naming: Naming,
    /// The name of an NV_STATUS.
    pub absent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Naming {
    Id,
    Uuid,
    Counted {
        most: u16,
        count: Place,
    },
    Until {
        most: u16,
        end: u32,
        unused: Option<u32>,
    },
    Rest {
        unused: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Passed {
    pub place: Place,
    pub width: u8,
    pub of_clients: bool,
    pub values: Values,
    pub otherwise: Otherwise,
}

impl Passed {
    /// Whether the driver is told another value in the place of what is not passed.
    pub fn is_replaced(&self) -> bool {
        matches!(self.otherwise, Otherwise::Instead(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// The name of an NV_STATUS.
    Refused(String),
    Instead(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    OneOf(Vec<u64>),
    AtLeast(u64),
    AtMost(u64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GpuList {
    pub place: Place,
    pub stride: u16,
    /// `None` where the list goes on to the end of the parameters.
    pub most: Option<u16>,
    pub id: u16,
    pub fill: u8,
    pub count: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cleared {
    pub place: Place,
    pub length: u16,
    pub stride: u16,
    pub count: u16,
    pub fill: u8,
}

/// For whom the driver reserves a request, by its own tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reserved {
    /// Clients with administrator's rights, or in the kernel.
    Privileged,
    /// The driver itself.
    Internal,
}
