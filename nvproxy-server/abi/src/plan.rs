//! The walk over one request's bytes that finds everything it refers to.
//!
//! A request is flattened into a *payload*: the ioctl's argument, then every buffer that it points to, each starting
//! at a multiple of 8. A [`Planner`] reads a segment once it is there, finds the pointers in it, and asks for what
//! they point to. Every buffer is asked for after the one that points to it, so that the payload only ever grows at
//! its end. Whoever holds the task's memory copies what is asked for; whoever was sent a finished payload checks that
//! it has what would have been asked for. Both get the same [`Plan`], since it depends on the payload's bytes alone.
//!
//! The bytes are hostile. Every sum is checked, every field read is bounds-checked, and the payload's length is capped.

use std::ops::Range;

use ringfence_faults::{Act, Point, at};
use smallvec::SmallVec;

use crate::Abi;
use crate::firmware;
use crate::node::Node;
use crate::number;
use crate::refusal::{Answer, EFAULT, EINVAL, ENOSYS, Refusal, What};
use crate::status;
use crate::table::{
    Contents, Effect, Family, ForcedBits, Length, Otherwise, Passed, Pointer, Request, Reserved,
    Role,
};

/// The most bytes that the driver copies for one pointer (RMAPI_PARAM_COPY_MAX_PARAMS_SIZE,
/// src/nvidia/inc/kernel/rmapi/param_copy.h).
pub const MAXIMUM_BUFFER: u32 = 1 << 20;

/// The most bytes of a payload: one buffer of the size that the driver accepts, and 128 KiB for the rest.
pub const MAXIMUM_PAYLOAD: usize = (1 << 20) + (128 << 10);

/// The most segments that a request has, by the tables of any release.
pub const MAXIMUM_SEGMENTS: usize = 8;
/// The most descriptor fields that a request has, by the same.
pub const MAXIMUM_FIELDS: usize = 2;

/// A part of the payload. Offsets and lengths are in bytes; the offset is a multiple of 8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    pub offset: u32,
    /// Zero where a pointer is set and its count is zero, which the driver distinguishes from a null pointer.
    pub length: u32,
    /// The offset in the payload of the 8-byte field that points here; `None` for the argument itself.
    pub pointer_at: Option<u32>,
}

/// Task memory at `address` that is to be placed at `payload[offset..offset + length]`; `length` is not zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    pub address: u64,
    pub offset: u32,
    pub length: u32,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Append this to the payload, pad it with zeros to a multiple of 8, and call [`Planner::step`] again.
    Fetch(Fetch),
    /// The payload holds everything: call [`Planner::finish`].
    Complete,
}

/// A descriptor number in the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorField {
    /// The offset in the payload of the 4-byte number. A negative number names nothing. One that names nothing that
    /// the task could mean here is to become -1, so that the driver answers for itself.
    pub at: u32,
    pub role: Role,
}

/// A finished walk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order of offset; the first is the ioctl's argument.
    pub segments: SmallVec<[Segment; MAXIMUM_SEGMENTS]>,
    pub descriptors: SmallVec<[DescriptorField; MAXIMUM_FIELDS]>,
    /// The row of the control command or of the class if it is about one, otherwise the ioctl's.
    pub request: &'static Request,
    pub family: Family,
    /// The number of the control command or of the class if it is about one, otherwise the ioctl's.
    pub id: u32,
    /// The ioctl's row.
    pub ioctl: &'static Request,
    /// The offset in the payload of the parameters that `request` describes, if there are any.
    pub request_at: Option<u32>,
    forced_bits: Option<(u32, ForcedBits)>,
    length: u32,
}

impl Plan {
    /// Whether the request can take long (see [`crate::table::Traits::may_block`]).
    pub fn may_block(&self) -> bool {
        self.ioctl.traits.may_block || self.request.traits.may_block
    }

    /// Whether the request has to be issued from the task's own address space.
    pub fn pins(&self) -> bool {
        self.ioctl.traits.pins || self.request.traits.pins
    }

    /// The rows that describe the request, each with the offset in the payload of the parameters that it describes.
    pub fn rows(&self) -> impl Iterator<Item = (&'static Request, u32)> {
        let is_further = !std::ptr::eq(self.ioctl, self.request);
        let further = self.request_at.filter(|_| is_further);
        let further = further.map(|at| (self.request, at));
        std::iter::once((self.ioctl, 0)).chain(further)
    }

    /// The segment that the pointer field at `at` of the payload points to.
    pub fn segment_behind(&self, at: u32) -> Option<&Segment> {
        let mut segments = self.segments.iter();
        segments.find(|segment| segment.pointer_at == Some(at))
    }

    /// Where in the payload the parameters end that begin at `at`.
    pub fn end_of(&self, at: u32) -> u32 {
        let mut segments = self.segments.iter();
        let segment = segments.find(|segment| segment.offset == at);
        segment.map_or(at, |segment| segment.offset + segment.length)
    }

    /// Parts of the payload that are zero on the way in, and on the way out filled with a byte: the driver has them for
    /// its answer, which is not told ([`crate::table::Cleared`]).
    pub fn cleared(&self) -> impl Iterator<Item = (Range<usize>, u8)> {
        self.rows().flat_map(move |(row, base)| {
            let end = self.end_of(base) as usize;
            row.cleared.iter().flat_map(move |cleared| {
                (0..usize::from(cleared.count)).map(move |index| {
                    let from = usize::from(cleared.at) + index * usize::from(cleared.stride);
                    let from = (base as usize + from).min(end);
                    let to = (from + usize::from(cleared.length)).min(end);
                    (from..to, cleared.fill)
                })
            })
        })
    }

    /// Whether the request is answered with success and not issued.
    pub fn is_answered(&self) -> bool {
        self.ioctl.traits.answered || self.request.traits.answered
    }

    /// Whether the descriptor that the request was issued on delivers events once it succeeded.
    pub fn makes_event(&self) -> bool {
        self.ioctl.traits.makes_event || self.request.traits.makes_event
    }

    /// The payload offset of the number of the descriptor that the driver makes, where it makes one.
    pub fn result_at(&self) -> Option<u32> {
        let mut fields = self.descriptors.iter();
        let field = fields.find(|field| field.role == Role::Result);
        field.map(|field| field.at)
    }

    /// Whether the request makes a client.
    pub fn makes_client(&self) -> bool {
        matches!(self.ioctl.effect, Some(Effect::Allocate { .. }))
            && self.request.effect == Some(Effect::Client)
    }

    /// Whether the request names clients.
    pub fn names_clients(&self) -> bool {
        self.rows().any(|(row, _)| !row.clients.is_empty())
    }

    /// (payload offset, bits): what bits of an 8-byte field are to be on the way in. On the way out they are as they were.
    pub fn forced_bits(&self) -> Option<(u32, ForcedBits)> {
        self.forced_bits
    }

    /// Bytes of the whole payload, the padding of the last segment included.
    pub fn total_length(&self) -> usize {
        self.length as usize
    }

    /// (where, which): payload offsets of a client's handle that is to stand where the program has 0, until the answer is told, and of the
    /// one that makes the request.
    pub fn filled_in(&self) -> impl Iterator<Item = (u32, u32)> {
        let maker = self.ioctl.clients.first().map(|maker| u32::from(maker.at));
        self.rows().flat_map(move |(row, base)| {
            let fields = row.clients.iter().filter(|field| field.is_filled_in);
            fields.filter_map(move |field| Some((base + u32::from(field.at), maker?)))
        })
    }

    /// The payload offset of the NV_STATUS in the ioctl's argument, where it has one.
    pub fn status_at(&self) -> Option<u32> {
        self.ioctl.status_at.map(u32::from)
    }
}

/// A segment that was found, and how to read it.
#[derive(Clone, Copy, Debug)]
struct Found {
    segment: Segment,
    address: u64,
    /// The row that describes the contents, where there is something to be looked for in them.
    row: Option<&'static Request>,
}

/// The walk over one request.
#[derive(Clone, Debug)]
pub struct Planner {
    abi: &'static Abi,
    family: Family,
    ioctl: &'static Request,
    /// The control command or class, once it is known; until then the ioctl.
    request: &'static Request,
    /// Its number.
    id: u32,
    request_at: Option<u32>,
    found: SmallVec<[Found; MAXIMUM_SEGMENTS]>,
    descriptors: SmallVec<[DescriptorField; MAXIMUM_FIELDS]>,
    forced_bits: Option<(u32, ForcedBits)>,
    /// How many of `found` have been read for further pointers.
    read: usize,
    /// How many of `found` have been asked for.
    asked: usize,
    /// Bytes of payload that have been asked for.
    length: u32,
    /// Where the next segment to be found goes.
    end: u32,
}

impl Planner {
    /// Starts the walk over the request with command word `ioctl` on `node`. `argument` is the ioctl's third argument,
    /// an address in the task; it only appears in the [`Fetch`] of the first segment, so that one who was sent a
    /// payload passes 0.
    pub fn new(
        abi: &'static Abi,
        node: Node,
        ioctl: u32,
        argument: u64,
    ) -> Result<Planner, Refusal> {
        let (family, row, size) = match node {
            Node::Uvm => uvm_row(abi, ioctl)?,
            Node::Control | Node::Gpu(_) => frontend_row(abi, ioctl)?,
            // None is made on such a node.
            Node::OpenOnly(_) => return Err(MALFORMED),
        };
        let mut planner = Planner {
            abi,
            family,
            ioctl: row,
            request: row,
            id: row.id,
            request_at: Some(0),
            found: SmallVec::new(),
            descriptors: SmallVec::new(),
            forced_bits: None,
            read: 0,
            asked: 0,
            length: 0,
            end: 0,
        };
        planner.append(row, u64::from(size), argument, None, Some(row))?;
        Ok(planner)
    }

    /// Takes the walk a step further. `payload` holds every segment asked for so far and nothing else: it ends where
    /// the last one does, rounded up to a multiple of 8. After an error the walk is over.
    pub fn step(&mut self, payload: &[u8]) -> Result<Step, Refusal> {
        if payload.len() != self.length as usize {
            return Err(MALFORMED);
        }
        loop {
            if self.read < self.asked
                && let Some(&found) = self.found.get(self.read)
            {
                self.read += 1;
                if let Some(row) = found.row {
                    let parameters = part(payload, found.segment).ok_or(MALFORMED)?;
                    self.examine(row, found.segment.offset, parameters)?;
                }
            } else if let Some(found) = self.found.get(self.asked) {
                self.asked += 1;
                let Segment { offset, length, .. } = found.segment;
                if length > 0 {
                    self.length = (offset + length).next_multiple_of(8);
                    return Ok(Step::Fetch(Fetch {
                        address: found.address,
                        offset,
                        length,
                    }));
                }
            } else {
                return Ok(Step::Complete);
            }
        }
    }

    /// Whether something may be asked for behind what was asked for last.
    pub fn may_ask_further(&self) -> bool {
        let asked = self.found.get(self.asked.wrapping_sub(1));
        asked.is_some_and(|found| found.row.is_some_and(|row| !row.pointers.is_empty()))
    }

    /// What the program sees if the memory that was asked for last cannot be read. `nvidia_ioctl` and the UVM driver
    /// answer EFAULT for the argument; a nested buffer is copied by `portMemExCopyFromUser`, whose failure is
    /// NV_ERR_INVALID_ADDRESS.
    pub fn unreadable(&self) -> Answer {
        match self.ioctl.status_at {
            Some(at) if self.asked > 1 => Answer::Status {
                at: at.into(),
                status: status::NV_ERR_INVALID_ADDRESS,
            },
            _ => Answer::Errno(EFAULT),
        }
    }

    /// The plan, once [`Planner::step`] has answered [`Step::Complete`].
    pub fn finish(self) -> Plan {
        Plan {
            segments: self.found.iter().map(|found| found.segment).collect(),
            descriptors: self.descriptors,
            request: self.request,
            family: self.family,
            id: self.id,
            ioctl: self.ioctl,
            request_at: self.request_at,
            forced_bits: self.forced_bits,
            length: self.length,
        }
    }

    /// Looks for everything that `row` knows of in the parameters that it describes, which start at `base`.
    fn examine(
        &mut self,
        row: &'static Request,
        base: u32,
        parameters: &[u8],
    ) -> Result<(), Refusal> {
        if std::ptr::eq(row, self.request) {
            self.request_at = Some(base);
        }
        let family = self.family;
        if let Some(refused) = row.refused_flags {
            let flags = field(parameters, refused.at)?;
            if flags & refused.bits != 0 {
                let what = What::Flags {
                    family: self.family,
                    id: row.id,
                    name: row.name,
                    flags,
                };
                return Err(self.refuse(what, refused.status));
            }
        }
        if let Some((at, bits)) = row.traits.forced_bits {
            self.forced_bits = Some((base + u32::from(at), bits));
        }
        for descriptor in row.descriptors {
            self.descriptors.push(DescriptorField {
                at: base + u32::from(descriptor.at),
                role: descriptor.role,
            });
        }
        for pointer in row.pointers {
            self.follow(row, pointer, base, parameters)?;
        }
        self.check_values(family, row, base, parameters)?;
        let Some(variants) = row.variants else {
            return Ok(());
        };
        let id = field(parameters, variants.at)?;
        let variant = variants.rows.iter().find(|variant| variant.id == id);
        let variant = variant.ok_or_else(|| {
            let what = self.abi.unknown(Family::Alloc, id);
            self.refuse(what, status::NV_ERR_INVALID_CLASS)
        })?;
        self.descend(Family::Alloc, variant, id);
        self.examine(variant, base, parameters)
    }

    /// Refuses values of fields that are not passed, or has the driver told others. `family` is that of `row`, whose
    /// parameters start at `base`; the class or command is known by now.
    fn check_values(
        &mut self,
        family: Family,
        row: &'static Request,
        base: u32,
        parameters: &[u8],
    ) -> Result<(), Refusal> {
        let makes_client = self.request.effect == Some(Effect::Client);
        for passed in row.passed {
            if passed.of_clients && !makes_client {
                continue;
            }
            let value = value(parameters, passed)?;
            // A test leaves this out, to show that it would notice.
            if passed.values.contain(value) || at(Point::Values) == Some(Act::Drop) {
                continue;
            }
            let status = match passed.otherwise {
                Otherwise::Refused(status) => status,
                Otherwise::Instead(instead) => {
                    let (at, bits) = replaced(passed, instead);
                    self.forced_bits = Some((base + at, bits));
                    continue;
                }
            };
            let what = What::Value {
                family,
                id: row.id,
                name: row.name,
                field: passed.field,
                value,
            };
            return Err(self.refuse(what, status));
        }
        Ok(())
    }

    /// Finds what a pointer in the parameters of `row` points to.
    fn follow(
        &mut self,
        row: &'static Request,
        pointer: &Pointer,
        base: u32,
        parameters: &[u8],
    ) -> Result<(), Refusal> {
        // What is unknown is refused whether or not there are parameters for it.
        let contents = match pointer.contents {
            Contents::Bytes => None,
            Contents::Control { command_at } => Some(self.control(field(parameters, command_at)?)?),
            Contents::Class { class_at } => Some(self.class(field(parameters, class_at)?)?),
        };
        let address = long_field(parameters, pointer.at)?;
        let length = match pointer.length {
            Length::Fixed(length) => u64::from(length),
            Length::Field { at, scale } => u64::from(field(parameters, at)?) * u64::from(scale),
            Length::Square { at, scale } => {
                let side = u64::from(field(parameters, at)?);
                (side * side).saturating_mul(u64::from(scale))
            }
            Length::OfContents => contents.map_or(0, |row| u64::from(row.size)),
        };
        // For what is filled in there has to be a place.
        if let Some(row) = contents
            && address == 0
            && row.clients.iter().any(|field| field.is_filled_in)
        {
            let what = What::BadSize {
                family: self.family,
                id: self.id,
                name: row.name,
                size: 0,
            };
            return Err(self.refuse(what, status::NV_ERR_INVALID_ARGUMENT));
        }
        // For a command of the firmware's the driver sets memory aside, as much as is said, before it looks whether there is
        // anything (`RmGssLegacyRpcCmd`).
        let sets_aside = length > 0 && firmware::is_of_firmware(self.id);
        if address == 0 && !sets_aside {
            return Ok(());
        }
        // A test leaves this out, to show that it would notice.
        let is_left_out = sets_aside && at(Point::Firmware) == Some(Act::Drop);
        if let Some(contents) = contents
            && !is_left_out
            && !u32::try_from(length).is_ok_and(|length| contents.accepts(length))
        {
            let what = What::BadSize {
                family: self.family,
                id: self.id,
                name: contents.name,
                size: u32::try_from(length).unwrap_or(u32::MAX),
            };
            return Err(self.refuse(what, status::NV_ERR_INVALID_ARGUMENT));
        }
        if address == 0 {
            return Ok(());
        }
        self.append(
            contents.unwrap_or(row),
            length,
            address,
            Some(base + u32::from(pointer.at)),
            contents,
        )
    }

    /// Adds a segment to those that were found. `of` is the row to blame if it is too large.
    fn append(
        &mut self,
        of: &'static Request,
        length: u64,
        address: u64,
        pointer_at: Option<u32>,
        row: Option<&'static Request>,
    ) -> Result<(), Refusal> {
        let fitting = u32::try_from(length).ok().filter(|&length| {
            length <= MAXIMUM_BUFFER
                && self.end as usize + (length as usize).next_multiple_of(8) <= MAXIMUM_PAYLOAD
        });
        let Some(length) = fitting else {
            let what = What::TooLarge {
                family: self.family,
                id: of.id,
                name: of.name,
                length,
            };
            return Err(self.refuse(what, status::NV_ERR_INVALID_ARGUMENT));
        };
        self.found.push(Found {
            segment: Segment {
                offset: self.end,
                length,
                pointer_at,
            },
            address,
            row,
        });
        self.end += length.next_multiple_of(8);
        Ok(())
    }

    /// The row of a control command.
    fn control(&mut self, command: u32) -> Result<&'static Request, Refusal> {
        let row = self.abi.control(command);
        // resControlLookup_IMPL, src/nvidia/src/libraries/resserv/src/rs_resource.c.
        let row = row.map_err(|what| self.withhold(what, status::NV_ERR_NOT_SUPPORTED))?;
        self.descend(Family::Control, row, command);
        Ok(row)
    }

    /// The row of an allocation class.
    fn class(&mut self, class: u32) -> Result<&'static Request, Refusal> {
        let row = self.abi.class(class);
        // rmapiGetClassAllocParamSize, src/nvidia/src/kernel/rmapi/resource_desc.c.
        let row = row.map_err(|what| self.withhold(what, status::NV_ERR_INVALID_CLASS))?;
        self.descend(Family::Alloc, row, class);
        Ok(row)
    }

    /// Notes that the request is, more precisely, what `row` describes.
    fn descend(&mut self, family: Family, row: &'static Request, id: u32) {
        self.family = family;
        self.request = row;
        self.id = id;
        self.request_at = None;
    }

    /// Refuses what the tables withhold. What they do not have, or not for this sandbox, is answered as by a driver
    /// that lacks it, with `lacking`; what the driver reserves, as the driver answers those for whom it does not
    /// (`rmControlValidateClientPrivilegeAccess` and `serverControl_ValidateCookie`,
    /// src/nvidia/src/kernel/rmapi/control.c).
    fn withhold(&self, what: What, lacking: u32) -> Refusal {
        let status = match what {
            What::Reserved {
                reserved: Reserved::Privileged,
                ..
            } => status::NV_ERR_INSUFFICIENT_PERMISSIONS,
            What::Reserved {
                reserved: Reserved::Internal,
                ..
            } => status::NV_ERR_NOT_SUPPORTED,
            _ => lacking,
        };
        self.refuse(what, status)
    }

    /// Refuses the request with an NV_STATUS; with EINVAL if its argument has no place for one.
    fn refuse(&self, what: What, status: u32) -> Refusal {
        let answer = match self.ioctl.status_at {
            Some(at) => Answer::Status {
                at: at.into(),
                status,
            },
            None => Answer::Errno(EINVAL),
        };
        Refusal { what, answer }
    }
}

const MALFORMED: Refusal = Refusal {
    what: What::Malformed,
    answer: Answer::Errno(EINVAL),
};

/// The row of an ioctl on `/dev/nvidiactl` or a GPU, and the size of its argument.
///
/// The driver looks at the number and the size in the command word and at nothing else of it (`nvidia_ioctl`,
/// kernel-open/nvidia/nv.c). It answers EINVAL to a number that it does not know (`RmIoctl`,
/// src/nvidia/arch/nvalloc/unix/src/escape.c, the default case) and to one whose size is not its structure's (every
/// other case there, in `nvidia_ioctl` and in `rm_ioctl`, osapi.c).
fn frontend_row(abi: &'static Abi, ioctl: u32) -> Result<(Family, &'static Request, u32), Refusal> {
    let (_, id, size) = number::parts(ioctl);
    let family = Family::Frontend;
    let answer = Answer::Errno(EINVAL);
    let row = abi.frontend(id, size);
    row.map(|row| (family, row, size))
        .map_err(|what| Refusal { what, answer })
}

/// The row of an ioctl on `/dev/nvidia-uvm`, and the size of its argument.
///
/// UVM's command words carry no size. It answers ENOSYS to those that it does not know: `uvm_ioctl`
/// (kernel-open/nvidia-uvm/uvm.c) passes them to `uvm_test_ioctl` (uvm_test.c), which a driver in production disables.
fn uvm_row(abi: &'static Abi, ioctl: u32) -> Result<(Family, &'static Request, u32), Refusal> {
    let family = Family::Uvm;
    let row = abi.uvm(ioctl).map_err(|what| Refusal {
        what,
        answer: Answer::Errno(ENOSYS),
    })?;
    Ok((family, row, row.size))
}

/// The bytes of a segment.
fn part(payload: &[u8], segment: Segment) -> Option<&[u8]> {
    payload
        .get(segment.offset as usize..)?
        .get(..segment.length as usize)
}

/// The 4-byte field at `at`. A table's row never names one beyond its parameters, unless they may be of any size.
fn field(parameters: &[u8], at: u16) -> Result<u32, Refusal> {
    read(parameters, at).map(u32::from_le_bytes)
}

/// The 8-byte field at `at`.
fn long_field(parameters: &[u8], at: u16) -> Result<u64, Refusal> {
    read(parameters, at).map(u64::from_le_bytes)
}

/// The value of a field that is only passed with certain ones.
fn value(parameters: &[u8], passed: &Passed) -> Result<u64, Refusal> {
    Ok(match passed.width {
        1 => u64::from(u8::from_le_bytes(read(parameters, passed.at)?)),
        2 => u64::from(u16::from_le_bytes(read(parameters, passed.at)?)),
        4 => u64::from(field(parameters, passed.at)?),
        _ => long_field(parameters, passed.at)?,
    })
}

/// Where 8 bytes of the parameters are to have which bits, if the field of `passed` is to be `instead`: those that end where the field
/// does, since the driver may answer in what is behind it.
fn replaced(passed: &Passed, instead: u64) -> (u32, ForcedBits) {
    let (at, width) = (u32::from(passed.at), u32::from(passed.width));
    let start = (at + width).saturating_sub(8);
    let shift = 8 * (at - start);
    let all = u64::MAX >> (64 - 8 * width);
    let bits = ForcedBits {
        set: instead << shift,
        cleared: all << shift,
    };
    (start, bits)
}

fn read<const N: usize>(parameters: &[u8], at: u16) -> Result<[u8; N], Refusal> {
    parameters
        .get(usize::from(at)..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(MALFORMED)
}
