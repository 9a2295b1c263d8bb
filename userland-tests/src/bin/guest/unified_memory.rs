//! Unified memory: the requests that a program makes of it before it uses it.

use std::os::fd::AsRawFd;

use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::NV_VASPACE_ALLOCATION_PARAMETERS;
use nvproxy_sim::structs::uvm::*;
use ringfence::guest::ioctl;
use zerocopy::FromZeros;

use crate::Outcome;
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{ALL, DEVICE, Gpu, MEMORY, MIB, word};

pub const GPU: NvProcessorUuid = NvProcessorUuid {
    uuid: *b"simulated GPU \0\0",
};
/// NV_VASPACE_ALLOCATION_FLAGS_IS_EXTERNALLY_OWNED (nvos.h).
pub const EXTERNALLY_OWNED: u32 = 1 << 3;
const ADDRESS_SPACE: u32 = MEMORY + 1;
/// Where the range lies.
const BASE: u64 = 0x10_0000_0000;

/// Issues a UVM ioctl with these parameters and prints what it came to.
macro_rules! say {
    ($what:literal, $file:expr, $request:ident, $parameters:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let mut parameters = $parameters::new_zeroed();
        $(parameters.$field = $value;)*
        let outcome = ioctl(&$file, $request, &mut parameters);
        println!("{}: {}", $what, word(outcome.and_then(|_| ringfence::guest::check(parameters.rmStatus))));
    }};
}

/// Ties a GPU to an address space, maps an allocation there, and takes it apart again.
pub fn walk(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let uvm = ringfence::guest::open(nvproxy_abi::node::Node::Uvm)?;
    say!(
        "before it is initialized",
        uvm,
        UVM_CREATE_RANGE_GROUP,
        UVM_CREATE_RANGE_GROUP_PARAMS {}
    );
    let mut initialize = UVM_INITIALIZE_PARAMS::new_zeroed();
    println!(
        "initialize: {}",
        word(ioctl(&uvm, UVM_INITIALIZE, &mut initialize))
    );
    println!(
        "its flags and status: {:#x} {:#x}",
        initialize.flags, initialize.rmStatus
    );
    println!("register a GPU: {}", word(register_gpu(&uvm)));
    println!("once more: {}", word(register_gpu(&uvm)));
    println!("elsewhere: {}", word(register_gpu(&address_space()?)));

    let mut parameters = NV_VASPACE_ALLOCATION_PARAMETERS::new_zeroed();
    parameters.flags = EXTERNALLY_OWNED;
    gpu.client
        .allocate(DEVICE, ADDRESS_SPACE, FERMI_VASPACE_A, &mut parameters)?;
    gpu.allocate(MEMORY, MIB)?;
    let (client, control) = (gpu.client.root, gpu.client.control.as_raw_fd());
    say!(
        "tie its address space",
        uvm,
        UVM_REGISTER_GPU_VASPACE,
        UVM_REGISTER_GPU_VASPACE_PARAMS {
            gpuUuid: GPU,
            rmCtrlFd: control,
            hClient: client,
            hVaSpace: ADDRESS_SPACE
        }
    );
    say!(
        "create a range",
        uvm,
        UVM_CREATE_EXTERNAL_RANGE,
        UVM_CREATE_EXTERNAL_RANGE_PARAMS {
            base: BASE,
            length: MIB
        }
    );
    let mut attributes = [UvmGpuMappingAttributes::new_zeroed(); 256];
    attributes[0].gpuUuid = GPU;
    say!(
        "map",
        uvm,
        UVM_MAP_EXTERNAL_ALLOCATION,
        UVM_MAP_EXTERNAL_ALLOCATION_PARAMS {
            base: BASE,
            length: MIB,
            perGpuAttributes: attributes,
            gpuAttributesCount: 1,
            rmCtrlFd: control,
            hClient: client,
            hMemory: MEMORY
        }
    );
    // The mapping keeps the memory.
    gpu.free(MEMORY)?;
    println!("allocated: {}", ALL - gpu.free_memory()?);
    say!(
        "free half of the range",
        uvm,
        UVM_FREE,
        UVM_FREE_PARAMS {
            base: BASE,
            length: MIB / 2
        }
    );
    say!(
        "free the range",
        uvm,
        UVM_FREE,
        UVM_FREE_PARAMS {
            base: BASE,
            length: MIB
        }
    );
    println!("allocated: {}", ALL - gpu.free_memory()?);
    say!(
        "untie",
        uvm,
        UVM_UNREGISTER_GPU_VASPACE,
        UVM_UNREGISTER_GPU_VASPACE_PARAMS { gpuUuid: GPU }
    );
    say!(
        "unregister",
        uvm,
        UVM_UNREGISTER_GPU,
        UVM_UNREGISTER_GPU_PARAMS { gpu_uuid: GPU }
    );
    Ok(())
}
