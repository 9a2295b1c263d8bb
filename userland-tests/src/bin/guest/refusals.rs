//! Requests that the driver or the tables refuse, and that the next one is none the worse for it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use nvproxy_abi::node::{Node, OPEN_ONLY};
use nvproxy_abi::number::*;
use nvproxy_abi::status::NV_ERR_NOT_SUPPORTED;
use nvproxy_sim::structs::class::NVC639_ALLOCATION_PARAMETERS;
use nvproxy_sim::structs::frontend::{
    NVOS54_PARAMETERS, nv_ioctl_nvos02_parameters_with_fd, nv_ioctl_rm_api_version_t,
};
use ringfence::guest::{Client, Error, Nothing, Result, check, frontend, ioctl, open};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{DEVICE, Gpu, MEMORY, MIB, SUBDEVICE, word};
use crate::pinning::{Pages, pin};

/// A handle that names nothing.
const MISSING: u32 = 0x77;

/// Open-only nodes, and for each that opens a request on it and one that names it.
pub fn open_only(_: &[String]) -> Outcome {
    for series in OPEN_ONLY {
        let node = series.first();
        let came_to = match open(node) {
            Ok(file) => {
                let command = ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>());
                let request = ioctl(&file, command, &mut NVOS54_PARAMETERS::new_zeroed());
                let mut session = NVC639_ALLOCATION_PARAMETERS::new_zeroed();
                session.capDescriptor = file.as_raw_fd() as u64;
                let client = Client::new()?;
                let class = AMPERE_SMC_CONFIG_SESSION;
                let named = client.allocate(client.root, MEMORY, class, &mut session);
                let (request, named) = (word(request), word(named));
                format!("opened; a request: {request}; named in one: {named}")
            }
            refused => word(refused),
        };
        println!("/dev/{}: {came_to}", node.file_name());
    }
    Ok(())
}

/// The driver's own refusals, by their statuses.
pub fn statuses(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let other = Client::new()?;
    let client = &gpu.client;
    let name = NV2080_CTRL_CMD_GPU_GET_NAME_STRING;
    let say = |what: &str, outcome: Result<()>| println!("{what}: {}", word(outcome));

    let stranger = Client {
        control: client.control.try_clone()?,
        root: MISSING,
    };
    say(
        "missing client",
        stranger.control(MISSING, name, &mut [0u8; 132]),
    );
    let stranger = Client {
        control: client.control.try_clone()?,
        root: other.root,
    };
    say(
        "client of another description",
        stranger.control(
            other.root,
            NV0000_CTRL_CMD_GPU_GET_PROBED_IDS,
            &mut [0u8; 384],
        ),
    );
    say(
        "missing object",
        client.control(MISSING, name, &mut [0u8; 132]),
    );
    say(
        "command of another class",
        client.control(DEVICE, name, &mut [0u8; 132]),
    );
    say(
        "parameters of another size",
        client.control(SUBDEVICE, name, &mut [0u8; 131]),
    );
    say(
        "parameters missing",
        client.control(SUBDEVICE, name, &mut Nothing {}),
    );
    say(
        "argument of another size",
        frontend(&client.control, NV_ESC_RM_FREE, &mut [0u8; 20]).map(drop),
    );
    say(
        "on another node",
        frontend(&gpu.node, NV_ESC_RM_FREE, &mut [0u8; 16]).map(drop),
    );

    say(
        "missing parent",
        client.memory(MISSING, MEMORY, NV01_MEMORY_SYSTEM, MIB),
    );
    say(
        "parent of another class",
        client.memory(SUBDEVICE, MEMORY, NV01_MEMORY_SYSTEM, MIB),
    );
    say(
        "class that this GPU lacks",
        client.memory(DEVICE, MEMORY, TURING_USERMODE_A, MIB),
    );
    say("no bytes", gpu.allocate(MEMORY, 0));
    say("allocated", gpu.allocate(MEMORY, MIB));
    say("handle in use", gpu.allocate(MEMORY, MIB));
    say(
        "mapping more than there is",
        client.map(DEVICE, MEMORY, 2 << 20, Node::Gpu(0)).map(drop),
    );
    say("freed", gpu.free(MEMORY));
    say("freed again", gpu.free(MEMORY));
    say(
        "mapping what was freed",
        client.map(DEVICE, MEMORY, 4096, Node::Gpu(0)).map(drop),
    );
    Ok(())
}

/// Requests that are in no table, each several times, and requests that are.
pub fn unknown(arguments: &[String]) -> Outcome {
    let times: u32 = arguments.first().map_or(Ok(1), |times| times.parse())?;
    let gpu = Gpu::open()?;
    let uvm = open(Node::Uvm)?;
    for _ in 0..times {
        let control = gpu.client.control(SUBDEVICE, 0x2080_7fff, &mut [0u8; 16]);
        // NV2080_CTRL_CMD_GPU_SET_POWER (ctrl2080gpu.h) is in no table of compute programs.
        let named = gpu.client.control(SUBDEVICE, 0x2080_0112, &mut [0u8; 8]);
        let class = gpu.client.allocate(DEVICE, MEMORY, 0xfeed, &mut [0u8; 8]);
        let number = frontend(&gpu.client.control, 0x77, &mut [0u8; 8]);
        let on_uvm = ioctl(&uvm, 0x7e, &mut [0u8; 8]);
        println!(
            "{} {} {} {} {}",
            word(control),
            word(named),
            word(class),
            word(number),
            word(on_uvm)
        );
        println!(
            "then {}",
            word(gpu.allocate(MEMORY, MIB).and_then(|()| gpu.free(MEMORY)))
        );
    }
    Ok(())
}

/// As many different requests that are in no table as it is told.
pub fn made_up(arguments: &[String]) -> Outcome {
    let count: u32 = arguments.first().map_or(Ok(1), |count| count.parse())?;
    let gpu = Gpu::open()?;
    let is_refused = |command| {
        let refused = gpu.client.control(SUBDEVICE, command, &mut [0u8; 16]);
        matches!(refused, Err(Error::Status(NV_ERR_NOT_SUPPORTED)))
    };
    let refused = (0..count).filter(|index| is_refused(0x20ff_0000 + index));
    println!("refused: {}", refused.count());
    Ok(())
}

/// A way to have lines written into the log.
type Way = fn(&Gpu, u32) -> Outcome;

const WAYS: &[(&str, Way)] = &[
    ("another's client", |gpu, index| {
        command(
            gpu,
            0xdead_0000 + index,
            NV0000_CTRL_CMD_SYSTEM_GET_BUILD_VERSION,
        )
    }),
    ("made up", |gpu, index| {
        command(gpu, gpu.client.root, 0x20ff_0000 + index)
    }),
    ("failed opens", |_, _| {
        let missing = Path::new("/dev/nvidia77");
        File::options().read(true).write(true).open(missing)?;
        Ok(())
    }),
    ("opens", |_, _| {
        open(Node::Control)?;
        Ok(())
    }),
    ("pins", |gpu, _| pin_nothing(gpu)),
    ("killed pins", |gpu, _| {
        let pages = Pages::new(libc::MAP_PRIVATE)?;
        expect_success(child(|| Ok(pin(gpu, MEMORY, &pages)?))?)
    }),
    ("releases", |gpu, index| {
        let mut parameters = nv_ioctl_rm_api_version_t::new_zeroed();
        let other = format!("1.2.{index}");
        parameters.versionString[..other.len()].copy_from_slice(other.as_bytes());
        frontend(
            &gpu.client.control,
            NV_ESC_CHECK_VERSION_STR,
            &mut parameters,
        )?;
        Ok(())
    }),
];

fn command(gpu: &Gpu, client: u32, command: u32) -> Outcome {
    let mut request = NVOS54_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject, request.cmd) = (client, client, command);
    frontend(&gpu.client.control, NV_ESC_RM_CONTROL, &mut request)?;
    Ok(check(request.status)?)
}

fn pin_nothing(gpu: &Gpu) -> Outcome {
    let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
    request.params.hRoot = gpu.client.root;
    request.params.hObjectParent = 0x7777;
    request.params.hObjectNew = 0x7778;
    request.params.hClass = NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
    request.params.limit = 4095;
    frontend(&gpu.node, NV_ESC_RM_ALLOC_MEMORY, &mut request)?;
    Ok(check(request.params.status)?)
}

/// What a program can do to have lines written into the log, so many times, in each of these ways.
pub fn flood(arguments: &[String]) -> Outcome {
    let [count, ways @ ..] = arguments else {
        return Err("flood COUNT WAY...".into());
    };
    let count: u32 = count.parse()?;
    let gpu = Gpu::open()?;
    for what in ways {
        let way = WAYS.iter().find(|(name, _)| name == what);
        let (_, way) = way.ok_or("a way that is not known")?;
        let failed = (0..count).filter(|index| way(&gpu, *index).is_err());
        println!("{what}: {}", failed.count());
    }
    Ok(())
}
