//! Unified memory.
//!
//! `unsafe` is here because mmap takes addresses.

#![allow(unsafe_code)]

use super::*;
use crate::parameters::*;
use crate::structs::uvm::*;
use std::os::fd::AsRawFd;

pub(super) const SHARED: u64 = 2;
pub(super) const FIRST: NvProcessorUuid = NvProcessorUuid {
    uuid: *b"simulated GPU \0\0",
};
pub(super) const SECOND: NvProcessorUuid = NvProcessorUuid {
    uuid: *b"simulated GPU \0\x03",
};
pub(super) const EXTERNALLY_OWNED: u32 = 1 << 3;
pub(super) const BASE: u64 = 0x10_0000_0000;

/// Issues a UVM ioctl and returns the parameters.
macro_rules! uvm {
    ($file:expr, $request:ident, $parameters:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let mut parameters = $parameters::new_zeroed();
        parameters.rmStatus = 0xdead;
        $(parameters.$field = $value;)*
        assert_eq!($file.issue_with($request, &mut parameters, &mut TaskMemory::new()), Ok(0));
        parameters
    }};
}
pub(super) use uvm;

pub(super) fn initialized(driver: &Simulator) -> Open {
    let file = open(driver, Node::Uvm);
    assert_eq!(
        uvm!(
            file,
            UVM_INITIALIZE,
            UVM_INITIALIZE_PARAMS { flags: SHARED }
        )
        .rmStatus,
        NV_OK
    );
    file
}

pub(super) fn register_gpu(file: &Open, gpu: NvProcessorUuid) -> u32 {
    uvm!(
        file,
        UVM_REGISTER_GPU,
        UVM_REGISTER_GPU_PARAMS { gpu_uuid: gpu }
    )
    .rmStatus
}

pub(super) fn enable_peers(file: &Open, one: NvProcessorUuid, other: NvProcessorUuid) -> u32 {
    uvm!(
        file,
        UVM_ENABLE_PEER_ACCESS,
        UVM_ENABLE_PEER_ACCESS_PARAMS {
            gpuUuidA: one,
            gpuUuidB: other,
        }
    )
    .rmStatus
}

/// The status, and the new group's number.
pub(super) fn create_group(file: &Open) -> (u32, u64) {
    let group = uvm!(
        file,
        UVM_CREATE_RANGE_GROUP,
        UVM_CREATE_RANGE_GROUP_PARAMS {}
    );
    (group.rmStatus, group.rangeGroupId)
}

pub(super) fn address_space(control: &Open, client: u32, object: u32, flags: u32) {
    let mut parameters = NV_VASPACE_ALLOCATION_PARAMETERS::new_zeroed();
    parameters.flags = flags;
    assert_eq!(
        control.allocate(client, 0x10, object, FERMI_VASPACE_A, &mut parameters),
        NV_OK
    );
}

/// A device, its address space 0x20 and an address space of UVM that the GPU is tied to.
fn tied(driver: &Simulator) -> (Open, Open, u32, Open) {
    let (control, gpu, client) = device(driver);
    let file = initialized(driver);
    address_space(&control, client, 0x20, EXTERNALLY_OWNED);
    assert_eq!(register_gpu(&file, FIRST), NV_OK);
    let tie = uvm!(
        file,
        UVM_REGISTER_GPU_VASPACE,
        UVM_REGISTER_GPU_VASPACE_PARAMS {
            gpuUuid: FIRST,
            hClient: client,
            hVaSpace: 0x20
        }
    );
    assert_eq!(tie.rmStatus, NV_OK);
    (control, gpu, client, file)
}

#[test]
fn nothing_works_before_initialization() {
    let driver = driver();
    let file = open(&driver, Node::Uvm);
    assert_eq!(create_group(&file).0, NV_ERR_ILLEGAL_ACTION);
    assert_eq!(register_gpu(&file, FIRST), NV_ERR_ILLEGAL_ACTION);
    // One without a model.
    let mut migrate = [0u8; 80];
    assert_eq!(
        file.issue_with(UVM_MIGRATE, &mut migrate, &mut TaskMemory::new()),
        Ok(0)
    );
    assert_eq!(
        u32::read_from_bytes(&migrate[72..76]),
        Ok(NV_ERR_ILLEGAL_ACTION)
    );
    assert_eq!(
        file.issue_with(UVM_DEINITIALIZE, &mut (), &mut TaskMemory::new()),
        Ok(0)
    );
}

#[test]
fn initialization_is_repeated_with_the_same_flags_only() {
    let driver = driver();
    let file = open(&driver, Node::Uvm);
    let initialize =
        |flags| uvm!(file, UVM_INITIALIZE, UVM_INITIALIZE_PARAMS { flags: flags }).rmStatus;
    assert_eq!(initialize(4), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(initialize(SHARED), NV_OK);
    assert_eq!(initialize(SHARED), NV_OK);
    assert_eq!(initialize(0), NV_ERR_INVALID_ARGUMENT);
    let mut migrate = [0xff_u8; 80];
    assert_eq!(
        file.issue_with(UVM_MIGRATE, &mut migrate, &mut TaskMemory::new()),
        Ok(0)
    );
    assert_eq!(u32::read_from_bytes(&migrate[72..76]), Ok(NV_OK));
}

#[test]
fn a_shared_address_space_needs_no_second_descriptor() {
    let driver = driver();
    let (file, second) = (initialized(&driver), open(&driver, Node::Uvm));
    let mm_initialize = |fd| {
        uvm!(
            second,
            UVM_MM_INITIALIZE,
            UVM_MM_INITIALIZE_PARAMS { uvmFd: fd }
        )
        .rmStatus
    };
    assert_eq!(mm_initialize(file.number()), 0x10006);
    assert_eq!(mm_initialize(second.number()), NV_ERR_INVALID_ARGUMENT);
    let private = open(&driver, Node::Uvm);
    assert_eq!(
        uvm!(private, UVM_INITIALIZE, UVM_INITIALIZE_PARAMS { flags: 0 }).rmStatus,
        NV_OK
    );
    assert_eq!(mm_initialize(private.number()), NV_OK);
    assert_eq!(mm_initialize(private.number()), NV_ERR_INVALID_STATE);
}

#[test]
fn a_shared_address_space_can_be_mapped_at_any_address() {
    let driver = driver();
    let shared = initialized(&driver);
    let private = open(&driver, Node::Uvm);
    assert_eq!(
        uvm!(private, UVM_INITIALIZE, UVM_INITIALIZE_PARAMS { flags: 0 }).rmStatus,
        NV_OK
    );
    let map = |file: &Open| {
        let (protection, descriptor) =
            (libc::PROT_READ | libc::PROT_WRITE, file.granted.as_raw_fd());
        // SAFETY: the mapping goes where nothing is, and nothing refers to it when it is given up.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_SHARED,
                descriptor,
                BASE as i64,
            )
        };
        if address == libc::MAP_FAILED {
            Err(Errno::last())
        } else {
            Ok(address)
        }
    };
    let mapping = map(&shared).expect("a mapping");
    // SAFETY: four bytes of the mapping, which is writable and shared with nobody.
    unsafe { mapping.cast::<[u8; 4]>().write(*b"byte") };
    assert_eq!(shared.read(BASE), *b"byte");
    // SAFETY: nothing refers to the mapping any more.
    assert_eq!(unsafe { libc::munmap(mapping, 4096) }, 0);
    assert_eq!(map(&private), Err(Errno::EPERM));
}

#[test]
fn gpus_are_registered_once() {
    let driver = driver();
    let file = initialized(&driver);
    let register = |gpu| register_gpu(&file, gpu);
    let unknown = NvProcessorUuid { uuid: [9; 16] };
    assert_eq!(register(unknown), NV_ERR_GPU_UUID_NOT_FOUND);
    let registered = uvm!(
        file,
        UVM_REGISTER_GPU,
        UVM_REGISTER_GPU_PARAMS { gpu_uuid: FIRST }
    );
    assert_eq!(
        (
            registered.rmStatus,
            registered.numaEnabled,
            registered.numaNodeId
        ),
        (NV_OK, 0, -1)
    );
    assert_eq!(register(FIRST), NV_ERR_INVALID_DEVICE);
    let peers = || enable_peers(&file, SECOND, FIRST);
    assert_eq!(peers(), NV_ERR_INVALID_DEVICE);
    assert_eq!(register(SECOND), NV_OK);
    assert_eq!(peers(), NV_OK);
    assert_eq!(peers(), NV_ERR_INVALID_DEVICE);
    let unregister = || {
        uvm!(
            file,
            UVM_UNREGISTER_GPU,
            UVM_UNREGISTER_GPU_PARAMS { gpu_uuid: FIRST }
        )
        .rmStatus
    };
    assert_eq!(unregister(), NV_OK);
    assert_eq!(unregister(), NV_ERR_INVALID_DEVICE);
    assert_eq!(register(FIRST), NV_OK);
    assert_eq!(peers(), NV_OK);
}

#[test]
fn a_gpu_is_tied_to_an_address_space_of_its_own() {
    let driver = driver();
    let (control, _gpu, client) = device(&driver);
    let file = initialized(&driver);
    address_space(&control, client, 0x20, EXTERNALLY_OWNED);
    address_space(&control, client, 0x21, 0);
    let tie = |client, space| {
        uvm!(
            file,
            UVM_REGISTER_GPU_VASPACE,
            UVM_REGISTER_GPU_VASPACE_PARAMS {
                gpuUuid: FIRST,
                hClient: client,
                hVaSpace: space
            }
        )
        .rmStatus
    };
    assert_eq!(tie(client, 0x20), NV_ERR_INVALID_DEVICE);
    assert_eq!(register_gpu(&file, FIRST), NV_OK);
    assert_eq!(tie(1, 0x20), NV_ERR_INVALID_CLIENT);
    assert_eq!(tie(client, 0x99), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(tie(client, 0x10), NV_ERR_INVALID_OBJECT);
    assert_eq!(tie(client, 0x21), NV_ERR_INVALID_FLAGS);
    assert_eq!(tie(client, 0x20), NV_OK);
    assert_eq!(tie(client, 0x20), NV_ERR_INVALID_DEVICE);
    let untie = || {
        uvm!(
            file,
            UVM_UNREGISTER_GPU_VASPACE,
            UVM_UNREGISTER_GPU_VASPACE_PARAMS { gpuUuid: FIRST }
        )
        .rmStatus
    };
    assert_eq!(untie(), NV_OK);
    assert_eq!(untie(), NV_ERR_INVALID_DEVICE);
}

#[test]
fn range_groups_are_numbered() {
    let driver = driver();
    let file = initialized(&driver);
    for id in 1..=2 {
        assert_eq!(create_group(&file), (NV_OK, id));
    }
    let set = |id| {
        uvm!(
            file,
            UVM_SET_RANGE_GROUP,
            UVM_SET_RANGE_GROUP_PARAMS {
                rangeGroupId: id,
                requestedBase: BASE,
                length: 4096
            }
        )
        .rmStatus
    };
    assert_eq!(set(1), NV_OK);
    let destroy = || {
        uvm!(
            file,
            UVM_DESTROY_RANGE_GROUP,
            UVM_DESTROY_RANGE_GROUP_PARAMS { rangeGroupId: 1 }
        )
        .rmStatus
    };
    assert_eq!(destroy(), NV_OK);
    assert_eq!(destroy(), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(set(1), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(set(0), NV_OK);
}

#[test]
fn ranges_do_not_collide_and_are_freed_whole() {
    let driver = driver();
    let file = initialized(&driver);
    let create = |base, length| {
        uvm!(
            file,
            UVM_CREATE_EXTERNAL_RANGE,
            UVM_CREATE_EXTERNAL_RANGE_PARAMS {
                base: base,
                length: length
            }
        )
        .rmStatus
    };
    let pool = |base, length| {
        uvm!(
            file,
            UVM_ALLOC_SEMAPHORE_POOL,
            UVM_ALLOC_SEMAPHORE_POOL_PARAMS {
                base: base,
                length: length
            }
        )
        .rmStatus
    };
    let free = |base, length| {
        uvm!(
            file,
            UVM_FREE,
            UVM_FREE_PARAMS {
                base: base,
                length: length
            }
        )
        .rmStatus
    };
    let validate = |base, length| {
        uvm!(
            file,
            UVM_VALIDATE_VA_RANGE,
            UVM_VALIDATE_VA_RANGE_PARAMS {
                base: base,
                length: length
            }
        )
        .rmStatus
    };
    for (base, length) in [
        (0, 4096),
        (BASE, 0),
        (BASE + 1, 4096),
        (BASE, 4097),
        (u64::MAX - 4095, 8192),
    ] {
        assert_eq!(create(base, length), NV_ERR_INVALID_ADDRESS);
        assert_eq!(pool(base, length), NV_ERR_INVALID_ADDRESS);
        assert_eq!(free(base, length), NV_ERR_INVALID_ADDRESS);
    }
    assert_eq!(create(BASE, 8192), NV_OK);
    assert_eq!(create(BASE + 4096, 4096), NV_ERR_UVM_ADDRESS_IN_USE);
    assert_eq!(create(BASE - 4096, 8192), NV_ERR_UVM_ADDRESS_IN_USE);
    assert_eq!(pool(BASE + 8192, 4096), NV_OK);
    assert_eq!(validate(BASE, 8192), NV_OK);
    assert_eq!(validate(BASE, 4096), NV_ERR_INVALID_ADDRESS);
    assert_eq!(validate(0x20_0000_0000, 4096), NV_OK);
    assert_eq!(free(BASE, 4096), NV_ERR_INVALID_ADDRESS);
    assert_eq!(free(BASE, 8192), NV_OK);
    assert_eq!(free(BASE, 8192), NV_ERR_INVALID_ADDRESS);
    assert_eq!(create(BASE + 4096, 4096), NV_OK);
}

#[test]
fn an_external_allocation_lives_while_it_is_mapped() {
    let driver = driver();
    let (control, _gpu, client, file) = tied(&driver);
    assert_eq!(
        control.memory(client, 0x10, 0x30, NV01_MEMORY_LOCAL_USER, MEMORY),
        NV_OK
    );
    assert_eq!(
        uvm!(
            file,
            UVM_CREATE_EXTERNAL_RANGE,
            UVM_CREATE_EXTERNAL_RANGE_PARAMS {
                base: BASE,
                length: MEMORY
            }
        )
        .rmStatus,
        NV_OK
    );
    let map = |base, offset, memory, gpus: &[NvProcessorUuid]| {
        let mut attributes = [UvmGpuMappingAttributes::new_zeroed(); 256];
        for (attributes, gpu) in attributes.iter_mut().zip(gpus) {
            attributes.gpuUuid = *gpu;
        }
        uvm!(
            file,
            UVM_MAP_EXTERNAL_ALLOCATION,
            UVM_MAP_EXTERNAL_ALLOCATION_PARAMS {
                base: base,
                length: 65536,
                offset: offset,
                perGpuAttributes: attributes,
                gpuAttributesCount: gpus.len() as u64,
                hClient: client,
                hMemory: memory,
            }
        )
        .rmStatus
    };
    assert_eq!(map(BASE, 0, 0x30, &[]), NV_ERR_INVALID_ARGUMENT);
    assert_eq!(map(BASE - 65536, 0, 0x30, &[FIRST]), NV_ERR_INVALID_ADDRESS);
    assert_eq!(
        map(BASE + MEMORY - 4096, 0, 0x30, &[FIRST]),
        NV_ERR_INVALID_ADDRESS
    );
    assert_eq!(map(BASE, 0, 0x30, &[SECOND]), NV_ERR_INVALID_DEVICE);
    assert_eq!(map(BASE, 0, 0x99, &[FIRST]), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(
        map(BASE, MEMORY - 4096, 0x30, &[FIRST]),
        NV_ERR_INVALID_OFFSET
    );
    // All or none: the second GPU is not registered.
    assert_eq!(map(BASE, 0, 0x30, &[FIRST, SECOND]), NV_ERR_INVALID_DEVICE);
    assert_eq!(control.free(client, 0x30), NV_OK);
    let allocate = || control.memory(client, 0x10, 0x30, NV01_MEMORY_LOCAL_USER, MEMORY);
    assert_eq!(allocate(), NV_OK);
    assert_eq!(map(BASE, 0, 0x30, &[FIRST]), NV_OK);
    assert_eq!(control.free(client, 0x30), NV_OK);
    assert_eq!(allocate(), NV_ERR_NO_MEMORY);
    let unmap = uvm!(
        file,
        UVM_UNMAP_EXTERNAL,
        UVM_UNMAP_EXTERNAL_PARAMS {
            base: BASE,
            length: 65536,
            gpuUuid: FIRST
        }
    );
    assert_eq!(unmap.rmStatus, NV_OK);
    assert_eq!(allocate(), NV_OK);
    assert_eq!(map(BASE, 0, 0x30, &[FIRST]), NV_OK);
    assert_eq!(control.free(client, 0x30), NV_OK);
    drop(file);
    assert_eq!(allocate(), NV_OK);
}

#[test]
fn channels_are_registered_with_their_ranges() {
    let driver = driver();
    let (control, _gpu, client, file) = tied(&driver);
    let mut channel = NV_CHANNEL_ALLOC_PARAMS::new_zeroed();
    assert_eq!(
        control.allocate(client, 0x10, 0x30, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_OK
    );
    let register = |gpu, channel, base| {
        uvm!(
            file,
            UVM_REGISTER_CHANNEL,
            UVM_REGISTER_CHANNEL_PARAMS {
                gpuUuid: gpu,
                hClient: client,
                hChannel: channel,
                base: base,
                length: 65536
            }
        )
        .rmStatus
    };
    let unregister = |channel| {
        uvm!(
            file,
            UVM_UNREGISTER_CHANNEL,
            UVM_UNREGISTER_CHANNEL_PARAMS {
                gpuUuid: FIRST,
                hClient: client,
                hChannel: channel
            }
        )
        .rmStatus
    };
    assert_eq!(register(SECOND, 0x30, BASE), NV_ERR_INVALID_DEVICE);
    assert_eq!(register(FIRST, 0x99, BASE), NV_ERR_OBJECT_NOT_FOUND);
    assert_eq!(register(FIRST, 0x20, BASE), NV_ERR_INVALID_OBJECT_HANDLE);
    assert_eq!(register(FIRST, 0x30, BASE), NV_OK);
    let create = || {
        uvm!(
            file,
            UVM_CREATE_EXTERNAL_RANGE,
            UVM_CREATE_EXTERNAL_RANGE_PARAMS {
                base: BASE,
                length: 4096
            }
        )
        .rmStatus
    };
    assert_eq!(create(), NV_ERR_UVM_ADDRESS_IN_USE);
    assert_eq!(
        uvm!(
            file,
            UVM_FREE,
            UVM_FREE_PARAMS {
                base: BASE,
                length: 65536
            }
        )
        .rmStatus,
        NV_ERR_INVALID_ADDRESS
    );
    assert_eq!(unregister(0x31), NV_ERR_INVALID_CHANNEL);
    // Another channel may need the same; the range goes with the last.
    assert_eq!(
        control.allocate(client, 0x10, 0x31, HOPPER_CHANNEL_GPFIFO_A, &mut channel),
        NV_OK
    );
    assert_eq!(register(FIRST, 0x31, BASE), NV_OK);
    assert_eq!(unregister(0x30), NV_OK);
    assert_eq!(unregister(0x30), NV_ERR_INVALID_CHANNEL);
    assert_eq!(create(), NV_ERR_UVM_ADDRESS_IN_USE);
    assert_eq!(unregister(0x31), NV_OK);
    assert_eq!(create(), NV_OK);
}

#[test]
fn the_region_of_dynamic_parallelism_is_aligned() {
    let driver = driver();
    let (_control, _gpu, _client, file) = tied(&driver);
    let map = |base, length, gpu| {
        uvm!(
            file,
            UVM_MAP_DYNAMIC_PARALLELISM_REGION,
            UVM_MAP_DYNAMIC_PARALLELISM_REGION_PARAMS {
                base: base,
                length: length,
                gpuUuid: gpu
            }
        )
        .rmStatus
    };
    assert_eq!(map(BASE, 3 * 4096, FIRST), NV_ERR_INVALID_ADDRESS);
    assert_eq!(map(BASE + 4096, 65536, FIRST), NV_ERR_INVALID_ADDRESS);
    assert_eq!(map(BASE, 65536, SECOND), NV_ERR_INVALID_DEVICE);
    assert_eq!(map(BASE, 65536, FIRST), NV_OK);
    assert_eq!(map(BASE, 65536, FIRST), NV_ERR_UVM_ADDRESS_IN_USE);
}

#[test]
fn pageable_memory_is_out_of_reach() {
    let file = initialized(&driver());
    let access = uvm!(
        file,
        UVM_PAGEABLE_MEM_ACCESS,
        UVM_PAGEABLE_MEM_ACCESS_PARAMS {
            pageableMemAccess: 1
        }
    );
    assert_eq!((access.rmStatus, access.pageableMemAccess), (NV_OK, 0));
}
