//! GPU memory that only a mapping of UVM keeps (`--gpu-memory 4GiB`): a program can free what it has mapped.

use std::fs::File;
use std::os::fd::AsRawFd;

use nvproxy_abi::number::*;
use nvproxy_sim::structs::class::NV_VASPACE_ALLOCATION_PARAMETERS;
use nvproxy_sim::structs::uvm::*;
use ringfence::guest::{Result, check, ioctl};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::concurrency::{address_space, register_gpu};
use crate::gpu::{DEVICE, GIB, Gpu, MEMORY, MIB, word};
use crate::memory_limit::{eventually_all, say};
use crate::unified_memory::{EXTERNALLY_OWNED, GPU};

/// Of the GPU's address space, which UVM manages.
const ADDRESS_SPACE: u32 = MEMORY + 0x100;
const BASE: u64 = 0x10_0000_0000;
/// How much is mapped of 3 GiB.
const LENGTH: u64 = 4 * MIB;

/// Issues a UVM ioctl with these parameters.
macro_rules! request {
    ($file:expr, $request:ident, $parameters:ident { $($field:ident: $value:expr),* $(,)? }) => {{
        let mut parameters = $parameters::new_zeroed();
        $(parameters.$field = $value;)*
        ioctl(&$file, $request, &mut parameters).and_then(|_| check(parameters.rmStatus))
    }};
}

/// UVM_MAP_DYNAMIC_PARALLELISM_REGION_PARAMS.
#[repr(C)]
#[expect(non_snake_case, reason = "the driver's names")]
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
struct RegionParameters {
    base: u64,
    length: u64,
    gpuUuid: NvProcessorUuid,
    rmStatus: u32,
    padding: u32,
}

/// An address space of UVM with a range, to which the first GPU is tied.
pub struct Space<'a> {
    uvm: File,
    gpu: &'a Gpu,
}

impl<'a> Space<'a> {
    pub fn new(gpu: &'a Gpu) -> Result<Space<'a>> {
        let space = Space {
            uvm: address_space()?,
            gpu,
        };
        register_gpu(&space.uvm)?;
        space.tie()?;
        let range = UVM_CREATE_EXTERNAL_RANGE;
        request!(
            space.uvm,
            range,
            UVM_CREATE_EXTERNAL_RANGE_PARAMS {
                base: BASE,
                length: LENGTH
            }
        )?;
        Ok(space)
    }

    /// Has a page of its own for kernels that start kernels, as CUDA has one (UVM_MAP_DYNAMIC_PARALLELISM_REGION).
    pub fn map_region(&self, index: u32) -> Result<()> {
        const PAGE: u64 = 4 << 10;
        request!(
            self.uvm,
            UVM_MAP_DYNAMIC_PARALLELISM_REGION,
            RegionParameters {
                base: BASE + GIB + u64::from(index) * PAGE,
                length: PAGE,
                gpuUuid: GPU
            }
        )
    }

    fn tie(&self) -> Result<()> {
        request!(
            self.uvm,
            UVM_REGISTER_GPU_VASPACE,
            UVM_REGISTER_GPU_VASPACE_PARAMS {
                gpuUuid: GPU,
                rmCtrlFd: self.gpu.client.control.as_raw_fd(),
                hClient: self.gpu.client.root,
                hVaSpace: ADDRESS_SPACE
            }
        )
    }

    /// Maps 3 GiB, of which the mapping is all that is left.
    fn keep(&self) -> Result<()> {
        self.gpu.allocate(MEMORY, 3 * GIB)?;
        self.map(MEMORY)?;
        self.gpu.free(MEMORY)
    }

    pub fn map(&self, memory: u32) -> Result<()> {
        self.map_of(self.gpu.client.root, memory)
    }

    /// Maps what `client` has.
    pub fn map_of(&self, client: u32, memory: u32) -> Result<()> {
        let mut attributes = [UvmGpuMappingAttributes::new_zeroed(); 256];
        attributes[0].gpuUuid = GPU;
        request!(
            self.uvm,
            UVM_MAP_EXTERNAL_ALLOCATION,
            UVM_MAP_EXTERNAL_ALLOCATION_PARAMS {
                base: BASE,
                length: LENGTH,
                perGpuAttributes: attributes,
                gpuAttributesCount: 1,
                rmCtrlFd: self.gpu.client.control.as_raw_fd(),
                hClient: client,
                hMemory: memory
            }
        )
    }

    fn unmap(&self, base: u64, length: u64) -> Result<()> {
        request!(
            self.uvm,
            UVM_UNMAP_EXTERNAL,
            UVM_UNMAP_EXTERNAL_PARAMS {
                base: base,
                length: length,
                gpuUuid: GPU
            }
        )
    }

    /// Unmaps all that [`Space::map`] mapped.
    pub fn unmap_all(&self) -> Result<()> {
        self.unmap(BASE, LENGTH)
    }

    pub fn free(&self) -> Result<()> {
        request!(
            self.uvm,
            UVM_FREE,
            UVM_FREE_PARAMS {
                base: BASE,
                length: LENGTH
            }
        )
    }

    fn unregister_gpu(&self) -> Result<()> {
        request!(
            self.uvm,
            UVM_UNREGISTER_GPU,
            UVM_UNREGISTER_GPU_PARAMS { gpu_uuid: GPU }
        )
    }

    fn untie(&self) -> Result<()> {
        request!(
            self.uvm,
            UVM_UNREGISTER_GPU_VASPACE,
            UVM_UNREGISTER_GPU_VASPACE_PARAMS { gpuUuid: GPU }
        )
    }
}

/// Something that takes the mapping away.
type Way = (&'static str, fn(&Space<'_>) -> Result<()>);

static WAYS: &[Way] = &[
    ("the range freed", |space| space.free()),
    ("unmapped", |space| space.unmap(BASE, LENGTH)),
    ("another mapped there", |space| {
        space.gpu.allocate(MEMORY, LENGTH)?;
        space.map(MEMORY)?;
        space.gpu.free(MEMORY)
    }),
    ("the GPU's address space taken away", |space| space.untie()),
    ("the GPU unregistered", |space| space.unregister_gpu()),
];

/// A client with the first GPU, and an address space of it that UVM can manage.
pub fn gpu_for_unified_memory() -> Result<Gpu> {
    let gpu = Gpu::open()?;
    let mut parameters = NV_VASPACE_ALLOCATION_PARAMETERS::new_zeroed();
    parameters.flags = EXTERNALLY_OWNED;
    gpu.client
        .allocate(DEVICE, ADDRESS_SPACE, FERMI_VASPACE_A, &mut parameters)?;
    Ok(gpu)
}

/// Mappings keep memory, and it is given back by whichever way they go.
pub fn ways(_: &[String]) -> Outcome {
    let gpu = gpu_for_unified_memory()?;
    for (what, way) in WAYS {
        let space = Space::new(&gpu)?;
        space.keep()?;
        let before = gpu.allocate(MEMORY, 2 * GIB);
        way(&space)?;
        let after = gpu.allocate(MEMORY, 2 * GIB);
        println!("{what}: {}, then {}", word(before), word(after));
        gpu.free(MEMORY)?;
    }
    let space = Space::new(&gpu)?;
    space.keep()?;
    space.unmap(BASE, LENGTH / 2)?;
    say("half of it unmapped", gpu.allocate(MEMORY, 2 * GIB));
    let other = Space::new(&gpu)?;
    other.free()?;
    let what = "the same range freed in another address space";
    say(what, gpu.allocate(MEMORY, 2 * GIB));
    println!("free {} MiB", gpu.free_memory()? / MIB);
    say("1 GiB more", gpu.allocate(MEMORY, GIB));
    gpu.free(MEMORY)?;
    drop((space, other));
    eventually_all("the address space closed", &gpu)?;
    let holder = child(|| {
        let gpu = gpu_for_unified_memory()?;
        Ok(Space::new(&gpu)?.keep()?)
    })?;
    expect_success(holder)?;
    eventually_all("the process ended", &gpu)
}
