//! GPUs that the sandbox was not given, and what is told of other tenants.

use std::fs::File;

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::{
    NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS, NV_OS_DESC_MEMORY_ALLOCATION_PARAMS,
    NV_VASPACE_ALLOCATION_PARAMETERS, NV0080_ALLOC_PARAMETERS,
};
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::{
    NVOS00_PARAMETERS, NVOS21_PARAMETERS, NVOS57_PARAMETERS, NVOS64_PARAMETERS,
    nv_ioctl_card_info_t, nv_ioctl_numa_info_t, nv_ioctl_rm_api_version_t, nv_ioctl_sys_params_t,
};
use nvproxy_sim::structs::uvm::{NvProcessorUuid, UVM_INITIALIZE_PARAMS, UVM_REGISTER_GPU_PARAMS};
use ringfence::guest::{Client, Result, check, frontend, ioctl, open};
use zerocopy::{FromBytes, FromZeros};

use crate::Outcome;
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB, SUBDEVICE, word};

/// NV0000_CTRL_GPU_INVALID_ID and NV0000_CTRL_GPU_ATTACH_ALL_PROBED_IDS.
const NONE: u32 = u32::MAX;
const ALL: u32 = 0xffff;

/// A client that another tenant has of the simulated driver.
pub const ANOTHERS: u32 = 0xc1d0_0040;

/// The id and the UUID of the simulated GPU with this minor number.
fn names(minor: &str) -> std::result::Result<(u32, [u8; 16]), Box<dyn std::error::Error>> {
    let minor: u8 = minor.parse()?;
    let mut uuid = *b"simulated GPU \0\0";
    uuid[15] = minor;
    Ok(((u32::from(minor) + 1) << 8, uuid))
}

/// A list of ids with room for as many as the driver can have.
fn list<const N: usize>(ids: &[u32], rest: u32) -> [u32; N] {
    let mut list = [rest; N];
    list[..ids.len()].copy_from_slice(ids);
    list
}

/// Every request that names a GPU: with a GPU that was given, with one that was not, and with both where a list is taken.
pub fn named(arguments: &[String]) -> Outcome {
    let [own, other] = arguments else {
        return Err("named OWN-MINOR OTHER-MINOR".into());
    };
    let (own, other) = (names(own)?, names(other)?);
    let client = Client::new()?;
    for (what, control) in LISTS {
        let [mine, theirs, both] =
            [&[own.0][..], &[other.0], &[own.0, other.0]].map(|ids| word(control(&client, ids)));
        println!("{what}: {mine} {theirs} {both}");
    }
    println!("attach all: {}", word(attach(&client, &[ALL])));
    println!("detach all: {}", word(detach(&client, &[ALL])));
    for (what, control) in SINGLE {
        let [mine, theirs] = [own.0, other.0].map(|id| word(control(&client, id)));
        println!("{what}: {mine} {theirs}");
    }
    let [mine, theirs] = [own.1, other.1].map(|uuid| word(register(uuid)));
    println!("register with UVM: {mine} {theirs}");
    Ok(())
}

type OfList = fn(&Client, &[u32]) -> Result<()>;
type OfOne = fn(&Client, u32) -> Result<()>;

const LISTS: &[(&str, OfList)] = &[
    ("attach to the description", attach_to_description),
    ("attach", attach),
    ("detach", detach),
    ("peers", |client, ids| {
        let mut parameters = list::<44>(ids, 0);
        parameters[32] = ids.len() as u32;
        command(client, NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS, parameters)
    }),
    ("peers, second form", |client, ids| {
        let mut parameters = list::<2087>(ids, 0);
        parameters[32] = ids.len() as u32;
        command(client, NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_V2, parameters)
    }),
    ("matrix of peers", |client, ids| {
        let mut parameters = [0; 338];
        (parameters[0], parameters[1]) = (1, 1);
        (parameters[2], parameters[10]) = (ids[0], ids[ids.len() - 1]);
        command(
            client,
            NV0000_CTRL_CMD_SYSTEM_GET_P2P_CAPS_MATRIX,
            parameters,
        )
    }),
];

const SINGLE: &[(&str, OfOne)] = &[
    ("begin to attach", |client, id| {
        command(client, NV0000_CTRL_CMD_GPU_ASYNC_ATTACH_ID, [id])
    }),
    ("wait until it is attached", |client, id| {
        command(client, NV0000_CTRL_CMD_GPU_WAIT_ATTACH_ID, [id])
    }),
    ("information", |client, id| {
        let mut parameters = NV0000_CTRL_GPU_GET_ID_INFO_PARAMS::new_zeroed();
        parameters.gpuId = id;
        client.control(
            client.root,
            NV0000_CTRL_CMD_GPU_GET_ID_INFO,
            &mut parameters,
        )
    }),
    ("information, second form", |client, id| {
        command(
            client,
            NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2,
            list::<8>(&[id], 0),
        )
    }),
    ("place on the bus", |client, id| {
        command(
            client,
            NV0000_CTRL_CMD_GPU_GET_PCI_INFO,
            list::<3>(&[id], 0),
        )
    }),
    ("UUID", |client, id| {
        command(
            client,
            NV0000_CTRL_CMD_GPU_GET_UUID_FROM_GPU_ID,
            list::<67>(&[id], 0),
        )
    }),
    ("whether it is drained", |client, id| {
        command(
            client,
            NV0000_CTRL_CMD_GPU_QUERY_DRAIN_STATE,
            list::<3>(&[id], 0),
        )
    }),
    ("whether it is accounted", |client, id| {
        let parameters = list::<3>(&[id], 0);
        command(
            client,
            NV0000_CTRL_CMD_GPUACCT_GET_ACCOUNTING_STATE,
            parameters,
        )
    }),
];

fn command<const N: usize>(client: &Client, number: u32, mut parameters: [u32; N]) -> Result<()> {
    client.control(client.root, number, &mut parameters)
}

fn attach(client: &Client, ids: &[u32]) -> Result<()> {
    let mut parameters = NV0000_CTRL_GPU_ATTACH_IDS_PARAMS::new_zeroed();
    parameters.gpuIds = list(ids, NONE);
    client.control(client.root, NV0000_CTRL_CMD_GPU_ATTACH_IDS, &mut parameters)
}

fn detach(client: &Client, ids: &[u32]) -> Result<()> {
    command(
        client,
        NV0000_CTRL_CMD_GPU_DETACH_IDS,
        list::<32>(ids, NONE),
    )
}

/// On a description of its own, since one can be attached to once.
fn attach_to_description(_: &Client, ids: &[u32]) -> Result<()> {
    let control = open(Node::Control)?;
    frontend(&control, NV_ESC_ATTACH_GPUS_TO_FD, &mut list::<4>(ids, 0)).map(drop)
}

fn register(uuid: [u8; 16]) -> Result<()> {
    let uvm = open(Node::Uvm)?;
    let mut initialization = UVM_INITIALIZE_PARAMS::new_zeroed();
    ioctl(&uvm, UVM_INITIALIZE, &mut initialization)?;
    check(initialization.rmStatus)?;
    let mut parameters = UVM_REGISTER_GPU_PARAMS::new_zeroed();
    parameters.gpu_uuid = NvProcessorUuid { uuid };
    parameters.rmCtrlFd = -1;
    ioctl(&uvm, UVM_REGISTER_GPU, &mut parameters)?;
    check(parameters.rmStatus)
}

/// The ids in a list up to the first that is none, if those behind it are none, too.
fn listed(ids: &[u32]) -> Vec<u32> {
    let count = ids.iter().take_while(|id| **id != NONE).count();
    let (listed, rest) = ids.split_at(count);
    assert!(rest.iter().all(|id| *id == NONE), "{ids:x?}");
    listed.to_vec()
}

/// What is told of the machine's GPUs.
pub fn told(_: &[String]) -> Outcome {
    let client = Client::new()?;
    let mut probed = [0u32; 96];
    client.control(client.root, NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, &mut probed)?;
    println!(
        "probed {:x?}, excluded {:x?}",
        listed(&probed[..32]),
        listed(&probed[32..64])
    );
    let mut attached = [0u32; 32];
    client.control(
        client.root,
        NV0000_CTRL_CMD_GPU_GET_ATTACHED_IDS,
        &mut attached,
    )?;
    println!("attached {:x?}", listed(&attached));
    let mut active = [0u32; 769];
    client.control(
        client.root,
        NV0000_CTRL_CMD_GPU_GET_ACTIVE_DEVICE_IDS,
        &mut active,
    )?;
    let ids: Vec<u32> = active[1..].iter().step_by(3).copied().collect();
    let (counted, rest) = ids.split_at(active[0] as usize);
    assert!(rest.iter().all(|id| *id == 0), "{ids:x?}");
    println!("active {counted:x?}");
    let mut bytes = [0u8; 8 * size_of::<nv_ioctl_card_info_t>()];
    frontend(&client.control, NV_ESC_CARD_INFO, &mut bytes)?;
    let cards = <[nv_ioctl_card_info_t; 8]>::read_from_bytes(&bytes);
    let cards = cards.map_err(|_| "cards of another size")?;
    let count = cards.iter().take_while(|card| card.valid != 0).count();
    let rest = bytes.get(count * size_of::<nv_ioctl_card_info_t>()..);
    assert!(rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0)));
    let cards = cards.iter().take(count);
    println!(
        "cards {:x?}",
        cards.map(|card| card.gpu_id).collect::<Vec<_>>()
    );
    let mut groups = [0u32; 561];
    client.control(
        client.root,
        NV0000_CTRL_CMD_SYNC_GPU_BOOST_GROUP_INFO,
        &mut groups,
    )?;
    println!("groups {}, with {:x?}", groups[0], &groups[2..4]);
    Ok(())
}

/// A program says how large a block of memory is, first wrongly, then otherwise; and what the driver has of it.
pub fn block_size(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    for size in [1 << 20, 1 << 30] {
        let mut parameters = nv_ioctl_sys_params_t {
            memblock_size: size,
        };
        let said = frontend(&gpu.client.control, NV_ESC_SYS_PARAMS, &mut parameters);
        println!("{size:x}: {}", word(said.map(drop)));
    }
    let mut numa = nv_ioctl_numa_info_t::new_zeroed();
    frontend(&gpu.node, NV_ESC_NUMA_INFO, &mut numa)?;
    println!("the driver has {:x}", numa.memblock_size);
    Ok(())
}

/// A program asks whether it is of the driver's release, in each of the three ways, rightly and wrongly.
pub fn releases(_: &[String]) -> Outcome {
    let client = Client::new()?;
    let check = |how: u8, text: &[u8]| {
        let mut parameters = nv_ioctl_rm_api_version_t::new_zeroed();
        parameters.cmd = how.into();
        parameters.versionString[..text.len()].copy_from_slice(text);
        let answer = frontend(&client.control, NV_ESC_CHECK_VERSION_STR, &mut parameters);
        let told = parameters.versionString.split(|byte| *byte == 0).next();
        (
            answer.map(drop),
            told.unwrap_or_default().to_owned(),
            parameters.cmd,
            parameters.reply,
        )
    };
    let (_, own, ..) = check(b'2', b"");
    let branch = own.split(|byte| *byte == b'.').next().unwrap_or_default();
    let other = [branch, b".1"].concat();
    for (how, text) in [
        (0, &own),
        (0, &other),
        (b'1', &own),
        (b'1', &other),
        (b'2', &other),
    ] {
        let (answer, told, cmd, reply) = check(how, text);
        let told = if told == own {
            "the driver's"
        } else {
            "its own"
        };
        println!("{how}: {}, {told} ({cmd} {reply})", word(answer));
    }
    println!("of another branch: {}", word(check(b'1', b"1.2.3").0));
    Ok(())
}

/// What would change a GPU for others, with values of CUDA's and with others.
pub fn values(_: &[String]) -> Outcome {
    const GROUP: u32 = 0x20;
    const SPACE: u32 = 0x21;
    let gpu = Gpu::open()?;
    gpu.allocate(MEMORY, 2 * MIB)?;
    let client = &gpu.client;
    for flags in [0x12, 0x10, 0x52, 0x01] {
        let mut boost = [flags, u32::MAX];
        let boosted = client.control(SUBDEVICE, NV2080_CTRL_CMD_PERF_BOOST, &mut boost);
        println!("boost {flags:x}: {}", word(boosted));
    }
    let mut group = NV_CHANNEL_GROUP_ALLOCATION_PARAMETERS::new_zeroed();
    client.allocate(DEVICE, GROUP, KEPLER_CHANNEL_GROUP_A, &mut group)?;
    for microseconds in [2_048u64, 2_049, 4_000_000, 1 << 32] {
        let mut slice = [microseconds];
        let set = client.control(GROUP, NVA06C_CTRL_CMD_SET_TIMESLICE, &mut slice);
        let mut had = [0u64];
        client.control(GROUP, NVA06C_CTRL_CMD_GET_TIMESLICE, &mut had)?;
        let ([still], [had]) = (slice, had);
        println!(
            "timeslice {microseconds}: {}, still {still}, {had} to the driver",
            word(set)
        );
    }
    for kind in 0..8u32 {
        // RS_SHARE_POLICY (rs_access.h): the target, which rights, the type.
        let policy = [client.root, 1, kind];
        let command = NV0000_CTRL_CMD_CLIENT_SET_INHERITED_SHARE_POLICY;
        let inherited = client.control(client.root, command, &mut policy.clone());
        let mut request = NVOS57_PARAMETERS::new_zeroed();
        request.hClient = client.root;
        request.sharePolicy = policy;
        let [all, device, memory] = [client.root, DEVICE, MEMORY].map(|object| {
            request.hObject = object;
            let shared = frontend(&client.control, NV_ESC_RM_SHARE, &mut request);
            word(shared.and_then(|_| check(request.status)))
        });
        let inherited = word(inherited);
        println!("share {kind}: {inherited} {all} {device} {memory}");
    }
    for index in 0..5u32 {
        let mut space = NV_VASPACE_ALLOCATION_PARAMETERS::new_zeroed();
        space.index = index;
        let made = client.allocate(DEVICE, SPACE, FERMI_VASPACE_A, &mut space);
        println!("address space {index}: {}", word(made));
        let _ = client.free(DEVICE, SPACE);
    }
    let mut space = NV_VASPACE_ALLOCATION_PARAMETERS::new_zeroed();
    // NV_VASPACE_ALLOCATION_FLAGS_IS_FLA.
    space.flags = 0x200;
    let made = client.allocate(DEVICE, SPACE, FERMI_VASPACE_A, &mut space);
    println!("address space of the fabric's: {}", word(made));
    let _ = client.free(DEVICE, SPACE);
    // Another client of the sandbox's own; and page tables in host memory, of which the driver is told nothing.
    let other = Client::new()?;
    for (share, flags) in [(client.root, 0), (other.root, 0), (client.root, 4)] {
        let mut device = NV0080_ALLOC_PARAMETERS::new_zeroed();
        (device.hClientShare, device.flags) = (share, flags);
        let whose = ["own", "other"][usize::from(share != client.root)];
        let made = client.allocate(client.root, DEVICE + 0x100, NV01_DEVICE_0, &mut device);
        println!("device of {whose} client, flags {flags}: {}", word(made));
        let _ = client.free(client.root, DEVICE + 0x100);
    }
    for kind in 0..3 {
        let mut memory = NV_OS_DESC_MEMORY_ALLOCATION_PARAMS::new_zeroed();
        (memory.descriptorType, memory.descriptor, memory.limit) = (kind, u64::MAX << 47, 4095);
        let made = client.allocate(DEVICE, SPACE, NV01_MEMORY_SYSTEM_OS_DESCRIPTOR, &mut memory);
        // Of the first kind it is an address of the program's own, which is none.
        println!(
            "descriptor of kind {kind}: {}",
            if kind == 0 {
                "asked".into()
            } else {
                word(made)
            }
        );
        let _ = client.free(DEVICE, SPACE);
    }
    Ok(())
}

/// A program chooses the handle of a client, in each of the ways, in each form of the request and of each class: one that
/// nobody has, and one that another tenant of the machine has.
pub fn chosen(_: &[String]) -> Outcome {
    const FREE: u32 = 0xc1d0_0555;
    for class in [NV01_ROOT, NV01_ROOT_NON_PRIV, NV01_ROOT_CLIENT] {
        for (whose, wanted) in [("free", FREE), ("another's", ANOTHERS)] {
            for (root, object) in [(0, 0), (wanted, 0), (0, wanted), (wanted, wanted)] {
                let [chosen, named] = [root, object].map(|handle| match handle {
                    0 => "0",
                    _ => whose,
                });
                let [first, second] = [first_form, second_form].map(|make| {
                    // Freed at once: with its description it would end when the server has closed that.
                    let made = open(Node::Control).and_then(|on| {
                        let client = make(&on, class, root, object)?;
                        free_client(&on, client)
                    });
                    word(made)
                });
                println!("{class:x} {chosen} {named}: {first} {second}");
            }
        }
    }
    Ok(())
}

/// Makes a client; returns its handle.
fn first_form(control: &File, class: u32, root: u32, object: u32) -> Result<u32> {
    let mut request = NVOS21_PARAMETERS::new_zeroed();
    (request.hRoot, request.hObjectNew, request.hClass) = (root, object, class);
    frontend(control, NV_ESC_RM_ALLOC, &mut request)?;
    check(request.status)?;
    Ok(request.hObjectNew)
}

/// The same.
fn second_form(control: &File, class: u32, root: u32, object: u32) -> Result<u32> {
    let mut request = NVOS64_PARAMETERS::new_zeroed();
    (request.hRoot, request.hObjectNew, request.hClass) = (root, object, class);
    frontend(control, NV_ESC_RM_ALLOC, &mut request)?;
    check(request.status)?;
    Ok(request.hObjectNew)
}

fn free_client(control: &File, client: u32) -> Result<()> {
    let mut request = NVOS00_PARAMETERS::new_zeroed();
    (request.hRoot, request.hObjectOld) = (client, client);
    frontend(control, NV_ESC_RM_FREE, &mut request)?;
    check(request.status)
}

/// What is told of the processes that used a GPU's engines.
pub fn utilization(_: &[String]) -> Outcome {
    const SAMPLES: usize = 16;
    const SAMPLE: usize = 776;
    let gpu = Gpu::open()?;
    let mut parameters = [0u8; 55_888];
    // What a program leaves there reaches nobody.
    parameters[SAMPLES..].fill(0x5a);
    parameters[4..8].copy_from_slice(&((72 * SAMPLE) as u32).to_ne_bytes());
    let command = NV2080_CTRL_CMD_PERF_GET_GPUMON_PERFMON_UTIL_SAMPLES_V2;
    gpu.client.control(SUBDEVICE, command, &mut parameters)?;
    let number = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| parameters[at + byte]));
    for (engine, name) in ["fb", "gr", "nvenc", "nvdec", "nvjpg", "nvofa"]
        .iter()
        .enumerate()
    {
        let at = SAMPLES + 8 + engine * 128;
        let called = parameters[at + 16..at + 116]
            .iter()
            .take_while(|byte| **byte != 0);
        println!(
            "{name}: {} of 10000, process {:x}, in a guest {:x} {:?}, at {:x}{:08x}",
            number(at),
            number(at + 8),
            number(at + 12),
            String::from_utf8_lossy(&called.copied().collect::<Vec<_>>()),
            number(at + 124),
            number(at + 120),
        );
    }
    // The samples behind it have no process.
    let last = SAMPLES + 71 * SAMPLE + 8;
    println!("last: process {:x}", number(last + 8));
    Ok(())
}
