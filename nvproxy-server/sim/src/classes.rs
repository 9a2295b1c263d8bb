//! The classes that the simulated GPU has: under what an object of each may be allocated, and what of it is modelled.
//!
//! From src/nvidia/src/kernel/rmapi/resource_list.h. The size of a class's parameters is in the request tables.

use nvproxy_abi::number::*;
use serde::{Deserialize, Serialize};

/// What of an object is modelled, which is also how classes name the parents that they allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Kind {
    Client,
    Device,
    Subdevice,
    AddressSpace,
    SystemMemory,
    VideoMemory,
    PinnedMemory,
    RegisterMemory,
    VirtualMemory,
    ChannelGroup,
    ContextShare,
    Channel,
    /// An engine's class bound to a channel.
    Engine,
    Event,
    /// A subscription to a part of a GPU.
    Instance,
    /// One to a part of that.
    ComputeInstance,
    /// The right to divide GPUs, or to watch all of their parts.
    Session,
    /// An object with no behaviour of its own.
    Leaf,
}

impl Kind {
    /// Whether events can be attached to the object (INotifier, src/nvidia/generated/).
    pub fn notifies(self) -> bool {
        matches!(
            self,
            Kind::Client | Kind::Subdevice | Kind::Channel | Kind::Engine
        )
    }

    /// Whether the object can be duplicated into another client (`resCanCopy`).
    pub fn can_be_copied(self) -> bool {
        use Kind::*;
        matches!(
            self,
            AddressSpace
                | SystemMemory
                | VideoMemory
                | PinnedMemory
                | RegisterMemory
                | VirtualMemory
                | ChannelGroup
        )
    }

    /// The upper half of the control commands that the object has, besides those of its own class.
    pub fn interfaces(self) -> &'static [u32] {
        match self {
            Kind::Client => &[0x0000],
            Kind::Device => &[0x0080],
            Kind::Subdevice => &[0x2080],
            Kind::SystemMemory | Kind::VideoMemory | Kind::PinnedMemory | Kind::RegisterMemory => {
                &[0x0041]
            }
            Kind::VirtualMemory => &[0x0041],
            Kind::Channel => &[0x506f, 0x906f, 0xa06f, 0xc36f],
            _ => &[],
        }
    }
}

/// Whether a class wants parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parameters {
    None,
    Optional,
    Required,
}

/// What may hold objects of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parents {
    Any,
    OneOf(&'static [Kind]),
}

/// The rules of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub id: u32,
    pub kind: Kind,
    pub parents: Parents,
    pub parameters: Parameters,
    /// A parent may have only one child of the class.
    pub single: bool,
}

impl Class {
    pub fn allows(&self, parent: Kind) -> bool {
        match self.parents {
            Parents::Any => true,
            Parents::OneOf(kinds) => kinds.contains(&parent),
        }
    }
}

/// Looks up a class that is allocated under some other object (clients, which are under none, are not here).
pub(super) fn class(id: u32) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.id == id)
}

/// The classes that NV0080_CTRL_CMD_GPU_GET_CLASSLIST_V2 lists.
pub(super) fn all() -> impl Iterator<Item = u32> {
    CLASSES.iter().map(|class| class.id)
}

const CLIENT: Parents = Parents::OneOf(&[Kind::Client]);
const DEVICE: Parents = Parents::OneOf(&[Kind::Device]);
const SUBDEVICE: Parents = Parents::OneOf(&[Kind::Subdevice]);
const EITHER_DEVICE: Parents = Parents::OneOf(&[Kind::Device, Kind::Subdevice]);
const INSTANCE: Parents = Parents::OneOf(&[Kind::Instance]);
const CHANNEL: Parents = Parents::OneOf(&[Kind::Channel]);
const CHANNEL_GROUP: Parents = Parents::OneOf(&[Kind::ChannelGroup]);
const CHANNEL_HOLDER: Parents = Parents::OneOf(&[Kind::Device, Kind::ChannelGroup]);

const fn many(id: u32, kind: Kind, parents: Parents, parameters: Parameters) -> Class {
    Class {
        id,
        kind,
        parents,
        parameters,
        single: false,
    }
}

const fn single(id: u32, kind: Kind, parents: Parents, parameters: Parameters) -> Class {
    Class {
        id,
        kind,
        parents,
        parameters,
        single: true,
    }
}

use Parameters::{None as NoParameters, Optional, Required};

static CLASSES: &[Class] = &[
    many(NV01_DEVICE_0, Kind::Device, CLIENT, Optional),
    many(NV20_SUBDEVICE_0, Kind::Subdevice, DEVICE, Optional),
    many(NV2081_BINAPI, Kind::Leaf, SUBDEVICE, Optional),
    many(FERMI_VASPACE_A, Kind::AddressSpace, EITHER_DEVICE, Required),
    many(NV01_MEMORY_SYSTEM, Kind::SystemMemory, DEVICE, Required),
    many(
        NV01_MEMORY_LOCAL_USER,
        Kind::VideoMemory,
        EITHER_DEVICE,
        Required,
    ),
    many(
        NV01_MEMORY_SYSTEM_OS_DESCRIPTOR,
        Kind::PinnedMemory,
        DEVICE,
        Required,
    ),
    many(NV50_MEMORY_VIRTUAL, Kind::VirtualMemory, DEVICE, Required),
    many(RM_USER_SHARED_DATA, Kind::SystemMemory, SUBDEVICE, Required),
    many(HOPPER_USERMODE_A, Kind::RegisterMemory, SUBDEVICE, Optional),
    many(KEPLER_CHANNEL_GROUP_A, Kind::ChannelGroup, DEVICE, Required),
    many(
        FERMI_CONTEXT_SHARE_A,
        Kind::ContextShare,
        CHANNEL_GROUP,
        Required,
    ),
    many(
        HOPPER_CHANNEL_GPFIFO_A,
        Kind::Channel,
        CHANNEL_HOLDER,
        Required,
    ),
    many(HOPPER_DMA_COPY_A, Kind::Engine, CHANNEL, Optional),
    many(HOPPER_COMPUTE_A, Kind::Engine, CHANNEL, Optional),
    many(NV01_EVENT_OS_EVENT, Kind::Event, Parents::Any, Required),
    many(GT200_DEBUGGER, Kind::Leaf, DEVICE, Required),
    many(GF100_SUBDEVICE_MASTER, Kind::Leaf, SUBDEVICE, NoParameters),
    single(NV20_SUBDEVICE_DIAG, Kind::Leaf, SUBDEVICE, NoParameters),
    many(GF100_SUBDEVICE_INFOROM, Kind::Leaf, SUBDEVICE, NoParameters),
    single(NV50_THIRD_PARTY_P2P, Kind::Leaf, SUBDEVICE, Optional),
    many(NV50_P2P, Kind::Leaf, CLIENT, Required),
    single(
        AMPERE_SMC_PARTITION_REF,
        Kind::Instance,
        SUBDEVICE,
        Required,
    ),
    single(
        AMPERE_SMC_EXEC_PARTITION_REF,
        Kind::ComputeInstance,
        INSTANCE,
        Required,
    ),
    single(AMPERE_SMC_CONFIG_SESSION, Kind::Session, CLIENT, Required),
    single(AMPERE_SMC_MONITOR_SESSION, Kind::Session, CLIENT, Required),
    many(NV_CONFIDENTIAL_COMPUTE, Kind::Leaf, CLIENT, Optional),
];
