//! What requests call the GPUs that the sandbox was given, as the driver says it.
//!
//! The server knows GPUs by the minor numbers of their nodes. What belongs to which number is asked of the driver, on a
//! description of `nvidiactl` of the server's own: ids by NV_ESC_CARD_INFO, UUIDs by
//! NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID, which needs a client, and answers once the driver has started the GPU. Both
//! have been the same in all releases with open source.
//!
//! The description is opened by who opens another for a request, since a confined thread cannot open one that takes
//! requests; so nothing is open before the program asks for something.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nvproxy_abi::number::{
    NV_ESC_CARD_INFO, NV_ESC_RM_ALLOC, NV_ESC_RM_CONTROL, NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID,
    NV01_ROOT_CLIENT, ioctl_word,
};
use nvproxy_abi::plan::Segment;
use nvproxy_abi::structs::{NVOS21_PARAMETERS, NVOS54_PARAMETERS, nv_ioctl_card_info_t};
use ringfence_ipc::locks::IgnorePoison;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::issue::Issue;
use crate::backend::{Call, GpuNames};
use crate::request::Buffer;

/// How many GPUs the driver can tell of: more than it can have (NV_MAX_DEVICES, nvlimits.h). It fills none of a shorter list.
const CARDS: usize = 128;
/// NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID_FLAGS: 16 bytes of SHA-1, rather than text.
const BINARY: u32 = 0x2;
const UUID: u32 = 16;

/// NV0000_CTRL_GPU_GET_UUID_FROM_GPU_ID_PARAMS (ctrl/ctrl0000/ctrl0000gpu.h).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[expect(non_snake_case, reason = "NVIDIA's names")]
struct UuidOfGpu {
    gpuId: u32,
    flags: u32,
    gpuUuid: [u8; 256],
    uuidStrLen: u32,
}

/// The names of GPUs.
pub(super) struct Identities {
    control: PathBuf,
    issue: Issue,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What the driver is asked on.
    command: Option<OwnedFd>,
    client: Option<u32>,
    /// By minor number, as far as they were asked for.
    gpus: Vec<(u8, GpuNames)>,
}

impl Identities {
    /// The driver whose `nvidiactl` is at `control`.
    pub fn new(control: PathBuf, issue: Issue) -> Identities {
        Identities {
            control,
            issue,
            known: Mutex::default(),
        }
    }

    /// Opens what the driver is asked on. The calling thread must not be confined. If it cannot be opened, no GPU has a
    /// name.
    pub fn reach(&self) {
        let mut known = self.known();
        if known.command.is_none() {
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
            known.command = open(&self.control, flags, Mode::empty()).ok();
        }
    }

    /// Closes it: the process is to ask for nothing any more.
    pub fn leave(&self) {
        *self.known() = Known::default();
    }

    /// The names of the GPUs with these minor numbers. One of which the driver does not know an id is left out.
    pub fn of(&self, minors: &[u8]) -> Vec<GpuNames> {
        let mut known = self.known();
        let is_complete = minors.iter().all(|minor| {
            let mut gpus = known.gpus.iter();
            gpus.any(|(known, names)| known == minor && names.uuid.is_some())
        });
        if !is_complete && let Some(command) = known.command.take() {
            self.ask(&command, &mut known, minors);
            known.command = Some(command);
        }
        known.gpus.iter().map(|(_, names)| *names).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().ignore_poison()
    }

    /// Asks for what is not known yet. Whatever goes wrong leaves a GPU without a name.
    fn ask(&self, command: &OwnedFd, known: &mut Known, minors: &[u8]) {
        let cards = self.cards(command).unwrap_or_default();
        for (minor, id) in cards {
            let is_known = known.gpus.iter().any(|(of, _)| *of == minor);
            if minors.contains(&minor) && !is_known {
                known.gpus.push((minor, GpuNames { id, uuid: None }));
            }
        }
        if known.client.is_none() {
            known.client = self.client(command).ok();
        }
        let Some(client) = known.client else { return };
        for (_, names) in known
            .gpus
            .iter_mut()
            .filter(|(_, names)| names.uuid.is_none())
        {
            names.uuid = self.uuid(command, client, names.id).unwrap_or_default();
        }
    }

    /// The minor number and the id of every GPU of the machine.
    fn cards(&self, command: &OwnedFd) -> Result<Vec<(u8, u32)>, Errno> {
        let mut cards = vec![nv_ioctl_card_info_t::new_zeroed(); CARDS];
        let mut argument = Buffer::default();
        argument.resize(size_of_val(&*cards))?;
        argument.bytes_mut().fill(0);
        self.request(command, NV_ESC_CARD_INFO, &mut argument, argument_alone)?;
        cards.as_mut_bytes().copy_from_slice(argument.bytes());
        let valid = cards.iter().filter(|card| card.valid != 0);
        let named =
            valid.filter_map(|card| Some((u8::try_from(card.minor_number).ok()?, card.gpu_id)));
        Ok(named.collect())
    }

    /// A client, which lives as long as the description.
    fn client(&self, command: &OwnedFd) -> Result<u32, Errno> {
        let mut allocation = NVOS21_PARAMETERS::new_zeroed();
        allocation.hClass = NV01_ROOT_CLIENT;
        let mut argument = Buffer::default();
        argument.resize(size_of_val(&allocation))?;
        argument.bytes_mut().copy_from_slice(allocation.as_bytes());
        self.request(command, NV_ESC_RM_ALLOC, &mut argument, argument_alone)?;
        // Where the status stands has changed; the driver chooses no handle for a client that it does not make.
        let handle = word(argument.bytes(), offset_of!(NVOS21_PARAMETERS, hObjectNew));
        handle.ok_or(Errno::EINVAL)
    }

    fn uuid(&self, command: &OwnedFd, client: u32, id: u32) -> Result<Option<[u8; 16]>, Errno> {
        const ARGUMENT: usize = size_of::<NVOS54_PARAMETERS>();
        let mut control = NVOS54_PARAMETERS::new_zeroed();
        (control.hClient, control.hObject) = (client, client);
        control.cmd = NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID;
        control.paramsSize = size_of::<UuidOfGpu>() as u32;
        let mut asked = UuidOfGpu::new_zeroed();
        (asked.gpuId, asked.flags) = (id, BINARY);
        let mut payload = Buffer::default();
        payload.resize(ARGUMENT + size_of::<UuidOfGpu>())?;
        let (argument, parameters) = payload.bytes_mut().split_at_mut(ARGUMENT);
        argument.copy_from_slice(control.as_bytes());
        parameters.copy_from_slice(asked.as_bytes());
        self.request(command, NV_ESC_RM_CONTROL, &mut payload, |length| {
            let parameters = Segment {
                offset: ARGUMENT as u32,
                length: length - ARGUMENT as u32,
                pointer_at: Some(offset_of!(NVOS54_PARAMETERS, params) as u32),
            };
            vec![segment(ARGUMENT as u32), parameters]
        })?;
        let answer = payload.bytes().get(ARGUMENT..);
        let answer = answer.and_then(|bytes| UuidOfGpu::read_from_bytes(bytes).ok());
        let answer = answer.filter(|answer| answer.uuidStrLen == UUID);
        Ok(answer.and_then(|answer| answer.gpuUuid.first_chunk().copied()))
    }

    /// Issues a request whose payload consists of these segments.
    fn request(
        &self,
        command: &OwnedFd,
        number: u32,
        payload: &mut Buffer,
        segments: impl FnOnce(u32) -> Vec<Segment>,
    ) -> Result<i32, Errno> {
        let length = payload.bytes().len();
        let segments = segments(length as u32);
        let argument = segments.first().map_or(0, |segment| segment.length);
        let call = Call {
            request: ioctl_word(number, argument as usize),
            payload: payload.bytes_mut(),
            segments: &segments,
            descriptors: &[],
            made: None,
        };
        (self.issue)(command, call)
    }
}

fn segment(length: u32) -> Segment {
    Segment {
        offset: 0,
        length,
        pointer_at: None,
    }
}

/// The segments of a request without pointers.
fn argument_alone(length: u32) -> Vec<Segment> {
    vec![segment(length)]
}

/// The 4 bytes at `at`, unless they are 0.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes)).filter(|word| *word != 0)
}
