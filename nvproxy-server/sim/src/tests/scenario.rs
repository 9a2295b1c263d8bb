//! A program that uses everything that the driver keeps, step by step.
//!
//! Every step asserts what has to come out and returns those answers that the driver may choose.
//!
//! `unsafe` is here because somebody else could shorten a file that is mapped.

#![allow(unsafe_code)]

use std::os::fd::AsFd;

use crate::structs::control::*;
use crate::structs::uvm::*;
use memmap2::MmapOptions;

use super::events::*;
use super::export::{export_one, import_one};
use super::pinning::pin;
use super::saved::World;
use super::uvm::*;
use super::*;
use crate::parameters::UVM_UNREGISTER_CHANNEL_PARAMS;

/// The handles of the first two clients.
const CLIENT: u32 = 0xc1d0_0000;
const OTHER: u32 = 0xc1d0_0001;

fn register_with(file: &Open, control: &Open) -> Result<i32, Errno> {
    let ctl_fd = control.number();
    file.ioctl(NV_ESC_REGISTER_FD, &mut nv_ioctl_register_fd_t { ctl_fd })
}

/// A channel: the number that names it to the doorbell.
fn channel(control: &Open, object: u32) -> u32 {
    let mut parameters = NV_CHANNEL_ALLOC_PARAMS::new_zeroed();
    let class = HOPPER_CHANNEL_GPFIFO_A;
    let allocated = control.allocate(CLIENT, 0x10, object, class, &mut parameters);
    assert_eq!(allocated, NV_OK);
    let mut token = 0u32;
    let command = NVC36F_CTRL_CMD_GPFIFO_GET_WORK_SUBMIT_TOKEN;
    let asked = control.control(CLIENT, object, command, &mut token);
    assert_eq!(asked, NV_OK);
    token
}

fn map_dma(control: &Open, memory: u32) -> (u32, u64) {
    let mut argument = NVOS46_PARAMETERS::new_zeroed();
    (argument.hClient, argument.hDevice) = (CLIENT, 0x10);
    (argument.hDma, argument.hMemory, argument.length) = (0x40, memory, 4096);
    let issued = control.ioctl(NV_ESC_RM_MAP_MEMORY_DMA, &mut argument);
    assert_eq!(issued, Ok(0));
    (argument.status, argument.dmaOffset)
}

fn unmap(control: &Open, address: u64) -> u32 {
    let mut argument = NVOS34_PARAMETERS::new_zeroed();
    (argument.hClient, argument.hDevice, argument.hMemory) = (CLIENT, 0x10, 0x20);
    argument.pLinearAddress = address;
    assert_eq!(control.ioctl(NV_ESC_RM_UNMAP_MEMORY, &mut argument), Ok(0));
    argument.status
}

/// KiB of the GPU's memory that are free.
pub(super) fn free_memory(control: &Open) -> u32 {
    const HEAP_FREE: u32 = 0x16;
    let mut parameters = NV2080_CTRL_FB_GET_INFO_V2_PARAMS::new_zeroed();
    parameters.fbInfoListSize = 1;
    parameters.fbInfoList[0].index = HEAP_FREE;
    let command = NV2080_CTRL_CMD_FB_GET_INFO_V2;
    let asked = control.control(CLIENT, 0x11, command, &mut parameters);
    assert_eq!(asked, NV_OK);
    parameters.fbInfoList[0].data
}

fn map_external(world: &World, memory: u32) -> u32 {
    let mut attributes = [UvmGpuMappingAttributes::new_zeroed(); 256];
    attributes[0].gpuUuid = FIRST;
    let parameters = uvm!(
        world["uvm"],
        UVM_MAP_EXTERNAL_ALLOCATION,
        UVM_MAP_EXTERNAL_ALLOCATION_PARAMS {
            base: BASE,
            length: 65536,
            perGpuAttributes: attributes,
            gpuAttributesCount: 1,
            hClient: CLIENT,
            hMemory: memory,
        }
    );
    parameters.rmStatus
}

fn register_channel(world: &World, channel: u32) -> u32 {
    let parameters = uvm!(
        world["uvm"],
        UVM_REGISTER_CHANNEL,
        UVM_REGISTER_CHANNEL_PARAMS {
            gpuUuid: FIRST,
            hClient: CLIENT,
            hChannel: channel,
            base: 2 * BASE,
            length: 65536,
        }
    );
    parameters.rmStatus
}

fn create_range(world: &World, base: u64) -> u32 {
    let parameters = uvm!(
        world["uvm"],
        UVM_CREATE_EXTERNAL_RANGE,
        UVM_CREATE_EXTERNAL_RANGE_PARAMS {
            base: base,
            length: 65536,
        }
    );
    parameters.rmStatus
}

fn system_parameters(world: &World, size: u64) -> Result<i32, Errno> {
    let mut argument = nv_ioctl_sys_params_t {
        memblock_size: size,
    };
    world["control"].ioctl(NV_ESC_SYS_PARAMS, &mut argument)
}

/// What a program does, and its answers.
pub(super) type Step = fn(&mut World) -> String;

/// How many steps have been made when there is most to be saved.
pub(super) const RICHEST: usize = SETTING_UP.len();

/// The whole of it.
pub(super) fn scenario() -> impl Iterator<Item = Step> {
    SETTING_UP.iter().chain(GOING_ON).copied()
}

/// Makes something of every kind.
static SETTING_UP: &[Step] = &[
    |world| {
        let control = world.open("control", Node::Control);
        let gpus = [
            world.open("gpu", Node::Gpu(0)),
            world.open("other gpu", Node::Gpu(3)),
        ];
        assert_eq!(world["control"].client(), CLIENT);
        world["control"].device(CLIENT, 0x10, 0);
        format!("{control} {gpus:?}")
    },
    |world| {
        assert_eq!(system_parameters(world, 1 << 27), Ok(0));
        let allocated = world["control"].memory(CLIENT, 0x10, 0x20, NV01_MEMORY_SYSTEM, 3 * 4096);
        assert_eq!(allocated, NV_OK);
        let target = world.open("first", Node::Control);
        let (status, address) = world["control"].map(CLIENT, 0x10, 0x20, (0, 3 * 4096), target);
        assert_eq!(status, NV_OK);
        let file = File::from(world["first"].granted.try_clone().expect("a copy"));
        // SAFETY: nobody truncates the file.
        let mapping = unsafe { MmapOptions::new().len(3 * 4096).map_mut(&file) };
        world.mapping = Some(mapping.expect("a mapping"));
        format!("{address:#x}")
    },
    // Written by the task, and left in a file that has no description any more.
    |world| {
        let mapping = world.mapping.as_mut().expect("a mapping");
        mapping[4096..4100].copy_from_slice(b"page");
        world.close("first");
        String::new()
    },
    |world| {
        let control = &world["control"];
        let allocated = control.memory(CLIENT, 0x10, 0x21, NV01_MEMORY_LOCAL_USER, 65536);
        assert_eq!(allocated, NV_OK);
        let target = world["gpu"].number();
        let (status, address) = control.map(CLIENT, 0x10, 0x21, (0, 65536), target);
        assert_eq!(status, NV_OK);
        world["gpu"].write(0, b"video");
        format!("{address:#x} {}", free_memory(control))
    },
    |world| {
        let control = &world["control"];
        // Handles that are generated do not come again so soon.
        for generated in [0xcaf0_0000, 0xcaf0_0001] {
            let allocated = control.allocate_bytes(CLIENT, 0x11, 0, HOPPER_USERMODE_A, None);
            assert_eq!(allocated, (NV_OK, generated));
            assert_eq!(control.free(CLIENT, generated), NV_OK);
        }
        let registers = control.allocate_bytes(CLIENT, 0x11, 0x41, HOPPER_USERMODE_A, None);
        assert_eq!(registers.0, NV_OK);
        let virtual_memory = control.memory(CLIENT, 0x10, 0x40, NV50_MEMORY_VIRTUAL, 8192);
        assert_eq!(virtual_memory, NV_OK);
        let mapped = map_dma(control, 0x20);
        assert_eq!(mapped.0, NV_OK);
        format!("{mapped:?}")
    },
    |world| {
        let control = &world["control"];
        let channels = [channel(control, 0x50), channel(control, 0x51)];
        assert_eq!(channels, [1, 2]);
        String::new()
    },
    // A description that uses the clients of another, which the program has closed.
    |world| {
        world.open("closed", Node::Control);
        assert_eq!(world["closed"].client(), OTHER);
        world["closed"].device(OTHER, 0x10, 0);
        world.open("registered", Node::Gpu(0));
        let registered = register_with(&world["registered"], &world["closed"]);
        assert_eq!(registered, Ok(0));
        let shared = (CLIENT, 0x21);
        assert_eq!(
            world["closed"].duplicate(OTHER, 0x10, 0x21, shared).0,
            NV_OK
        );
        world.close("closed");
        assert_eq!(
            pin(&world["registered"], OTHER, 0x22, Way::Task, |_| ()),
            NV_OK
        );
        String::new()
    },
    |world| {
        let parcel = world.open("parcel", Node::Control);
        let control = world.open.remove("control").expect("a description");
        let party = (control, CLIENT);
        assert_eq!(export_one(&party, 0x21, parcel), NV_OK);
        world.open.insert("control", party.0);
        String::new()
    },
    // Three registrations: one whose event is pending in an event descriptor, one whose event came before there was
    // any, and one that is gone and has left its event object behind.
    |world| {
        for (name, key) in [("pending", KEY), ("early", KEY + 1), ("gone", KEY + 2)] {
            world.open(name, Node::Control);
            assert_eq!(register(&world[name], CLIENT, key), NV_OK);
            let object = 0x60 + key;
            let made = event(&world["control"], CLIENT, object, 0x11, NOTIFIER_SW, key);
            assert_eq!(made, NV_OK);
        }
        world.listen("pending");
        assert_eq!(unregister(&world["gone"], CLIENT, KEY + 2), NV_OK);
        let switched = switch(&world["control"], CLIENT, NOTIFIER_SW, REPEAT);
        assert_eq!(switched, NV_OK);
        assert!(!is_readable(&world.events["pending"]));
        trigger(&world["control"], CLIENT);
        assert!(is_readable(&world.events["pending"]));
        String::new()
    },
    |world| {
        world.open("uvm", Node::Uvm);
        let initialized = uvm!(
            world["uvm"],
            UVM_INITIALIZE,
            UVM_INITIALIZE_PARAMS { flags: SHARED }
        );
        assert_eq!(initialized.rmStatus, NV_OK);
        for gpu in [FIRST, SECOND] {
            assert_eq!(register_gpu(&world["uvm"], gpu), NV_OK);
        }
        assert_eq!(enable_peers(&world["uvm"], FIRST, SECOND), NV_OK);
        world["uvm"].write(BASE, b"managed");
        String::new()
    },
    |world| {
        address_space(&world["control"], CLIENT, 0x70, EXTERNALLY_OWNED);
        let tie = uvm!(
            world["uvm"],
            UVM_REGISTER_GPU_VASPACE,
            UVM_REGISTER_GPU_VASPACE_PARAMS {
                gpuUuid: FIRST,
                hClient: CLIENT,
                hVaSpace: 0x70,
            }
        );
        assert_eq!(tie.rmStatus, NV_OK);
        assert_eq!(create_range(world, BASE), NV_OK);
        assert_eq!(register_channel(world, 0x50), NV_OK);
        let pool = uvm!(
            world["uvm"],
            UVM_ALLOC_SEMAPHORE_POOL,
            UVM_ALLOC_SEMAPHORE_POOL_PARAMS {
                base: 3 * BASE,
                length: 4096,
            }
        );
        assert_eq!(pool.rmStatus, NV_OK);
        assert_eq!(create_group(&world["uvm"]), (NV_OK, 1));
        String::new()
    },
    // Memory that is left only where the GPU has mapped it.
    |world| {
        let control = &world["control"];
        let allocated = control.memory(CLIENT, 0x10, 0x23, NV01_MEMORY_LOCAL_USER, 65536);
        assert_eq!(allocated, NV_OK);
        assert_eq!(map_external(world, 0x23), NV_OK);
        assert_eq!(control.free(CLIENT, 0x23), NV_OK);
        format!("{}", free_memory(control))
    },
    |world| {
        let (private, space) = (open(&world.driver, Node::Uvm), "private");
        let parameters = uvm!(private, UVM_INITIALIZE, UVM_INITIALIZE_PARAMS { flags: 0 });
        assert_eq!(parameters.rmStatus, NV_OK);
        world.open.insert(space, private);
        let fd = world[space].number();
        let parameters = uvm!(
            world[space],
            UVM_MM_INITIALIZE,
            UVM_MM_INITIALIZE_PARAMS { uvmFd: fd }
        );
        assert_eq!(parameters.rmStatus, NV_OK);
        format!("{fd}")
    },
];

/// Uses it all, and takes it down.
static GOING_ON: &[Step] = &[
    |world| {
        assert_eq!(system_parameters(world, 1 << 28), Err(Errno::EBUSY));
        assert_eq!(system_parameters(world, 1 << 27), Ok(0));
        let target = world["gpu"].number();
        let again = world["control"].map(CLIENT, 0x10, 0x21, (0, 65536), target);
        assert_eq!(again.0, NV_ERR_STATE_IN_USE);
        for open in world.open.values() {
            let number = world.driver.number_of(open.granted.as_fd());
            assert_eq!(number, Ok(open.number()));
        }
        String::new()
    },
    // The mapping was made before, from a file whose description is closed.
    |world| {
        world.mapping.as_mut().expect("a mapping")[4096..4098].copy_from_slice(b"PA");
        let target = world.open("second", Node::Control);
        let (status, address) = world["control"].map(CLIENT, 0x10, 0x20, (4096, 4096), target);
        assert_eq!((status, world["second"].read(0)), (NV_OK, *b"PAge"));
        assert_eq!(unmap(&world["control"], address), NV_OK);
        assert_eq!(unmap(&world["control"], address), NV_ERR_OBJECT_NOT_FOUND);
        // The rest is still where it was mapped first.
        assert_eq!(unmap(&world["control"], address - 4096), NV_OK);
        format!("{target} {address:#x}")
    },
    |world| {
        let control = &world["control"];
        let mapped = [map_dma(control, 0x20), map_dma(control, 0x20)];
        assert_eq!(mapped.map(|(status, _)| status), [NV_OK, NV_ERR_NO_MEMORY]);
        let registers = control.allocate_bytes(CLIENT, 0x11, 0, HOPPER_USERMODE_A, None);
        assert_eq!(registers, (NV_OK, 0xcaf0_0002));
        assert_eq!(channel(control, 0x52), 3);
        format!("{mapped:?}")
    },
    |world| {
        let pending = &world.events["pending"];
        assert!(is_readable(pending));
        take(pending);
        assert!(!is_readable(pending));
        world.listen("early");
        assert!(is_readable(&world.events["early"]));
        take(&world.events["early"]);
        String::new()
    },
    // What was made before a handover fires into descriptors that were given out before.
    |world| {
        world.listen("gone");
        assert_eq!(register(&world["gone"], CLIENT, KEY + 2), NV_OK);
        let again = register(&world["pending"], CLIENT, KEY);
        assert_eq!(again, NV_ERR_INSUFFICIENT_RESOURCES);
        trigger(&world["control"], CLIENT);
        let readable = ["pending", "early", "gone"].map(|name| is_readable(&world.events[name]));
        assert_eq!(readable, [true, true, false]);
        String::new()
    },
    |world| {
        take(&world.events["pending"]);
        let control = &world["control"];
        assert_eq!(switch(control, CLIENT, NOTIFIER_SW, 0), NV_OK);
        assert_eq!(switch(control, CLIENT, NOTIFIER_SW, SINGLE), NV_OK);
        trigger(control, CLIENT);
        String::new()
    },
    |world| {
        take(&world.events["pending"]);
        trigger(&world["control"], CLIENT);
        assert!(!is_readable(&world.events["pending"]));
        String::new()
    },
    |world| {
        let file = &world["uvm"];
        assert_eq!(file.read(BASE), *b"managed");
        assert_eq!(register_gpu(file, SECOND), NV_ERR_INVALID_DEVICE);
        assert_eq!(enable_peers(file, SECOND, FIRST), NV_ERR_INVALID_DEVICE);
        assert_eq!(create_group(file), (NV_OK, 2));
        let collisions = [BASE, 2 * BASE, 3 * BASE].map(|base| create_range(world, base));
        assert_eq!(collisions, [NV_ERR_UVM_ADDRESS_IN_USE; 3]);
        String::new()
    },
    |world| {
        let before = free_memory(&world["control"]);
        let unmapped = uvm!(
            world["uvm"],
            UVM_UNMAP_EXTERNAL,
            UVM_UNMAP_EXTERNAL_PARAMS {
                base: BASE,
                length: 65536,
                gpuUuid: FIRST,
            }
        );
        assert_eq!(unmapped.rmStatus, NV_OK);
        assert_eq!(free_memory(&world["control"]), before + 64);
        let unregistered = uvm!(
            world["uvm"],
            UVM_UNREGISTER_CHANNEL,
            UVM_UNREGISTER_CHANNEL_PARAMS {
                gpuUuid: FIRST,
                hClient: CLIENT,
                hChannel: 0x50,
            }
        );
        assert_eq!(unregistered.rmStatus, NV_OK);
        assert_eq!(create_range(world, 2 * BASE), NV_OK);
        String::new()
    },
    |world| {
        let fd = world["private"].number();
        let parameters = uvm!(
            world["private"],
            UVM_MM_INITIALIZE,
            UVM_MM_INITIALIZE_PARAMS { uvmFd: fd }
        );
        assert_eq!(parameters.rmStatus, NV_ERR_INVALID_STATE);
        String::new()
    },
    // The closed description lives in the registered one, and in it a copy of memory and pinned memory.
    |world| {
        let registered = register_with(&world["registered"], &world["control"]);
        assert_eq!(registered, Err(Errno::EINVAL));
        let taken = pin(&world["registered"], OTHER, 0x22, Way::Task, |_| ());
        assert_eq!(taken, NV_ERR_INSERT_DUPLICATE_NAME);
        let copied = world["control"].duplicate(CLIENT, 0x10, 0x24, (OTHER, 0x21));
        assert_eq!(copied, (NV_OK, 0x24));
        world.close("registered");
        let copied = world["control"].duplicate(CLIENT, 0x10, 0x25, (OTHER, 0x21));
        assert_eq!(copied.0, NV_ERR_INVALID_OBJECT_HANDLE);
        String::new()
    },
    // One allocation by three names and in a parcel is one allocation, and shows the same bytes.
    |world| {
        let control = world.open.remove("control").expect("a description");
        let party = (control, CLIENT);
        let parcel = world["parcel"].number();
        assert_eq!(import_one(&party, 0x10, 0x26, parcel), (NV_OK, 0x26));
        world.open.insert("control", party.0);
        let target = world.open("video", Node::Gpu(0));
        let control = &world["control"];
        for freed in [0x21, 0x24] {
            assert_eq!(control.free(CLIENT, freed), NV_OK);
        }
        let (status, _) = control.map(CLIENT, 0x10, 0x26, (0, 65536), target);
        assert_eq!((status, world["video"].read(0)), (NV_OK, *b"video"));
        let before = free_memory(control);
        assert_eq!(control.free(CLIENT, 0x26), NV_OK);
        assert_eq!(free_memory(control), before);
        world.close("parcel");
        assert_eq!(free_memory(&world["control"]), before + 64);
        String::new()
    },
    |world| {
        world.open.retain(|name, _| *name == "control");
        let all = u32::try_from(MEMORY >> 10).expect("KiB");
        assert_eq!(free_memory(&world["control"]), all);
        let other = world.open("other", Node::Control);
        let client = world["other"].client();
        format!("{other} {client:#x}")
    },
];
