//! A client of the driver, as a program inside a sandbox writes one: device files and `ioctl`, no CUDA.
//!
//! The demonstration and the tests' programs are made of it. It does what libcuda does, in the same order: a client on
//! `/dev/nvidiactl`, a device and a subdevice of a GPU whose node is open, objects below them, and mappings through
//! descriptions opened for the purpose.
//!
//! `unsafe` is here because ioctl and mmap take addresses.

#![allow(unsafe_code)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::status;
use nvproxy_sim::structs::class::*;
use nvproxy_sim::structs::control::*;
use nvproxy_sim::structs::frontend::*;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The ioctl failed.
    Errno(Errno),
    /// The ioctl returned 0 and the driver's status is an error.
    Status(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Errno(errno) => write!(formatter, "{errno}"),
            Error::Status(code) => match status::name(*code) {
                Some(name) => write!(formatter, "{name}"),
                None => write!(formatter, "NV_STATUS {code:#x}"),
            },
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::Errno(errno)
    }
}

/// What a request came to.
pub type Result<T> = std::result::Result<T, Error>;

/// The status as a result.
pub fn check(code: u32) -> Result<()> {
    if code == status::NV_OK {
        Ok(())
    } else {
        Err(Error::Status(code))
    }
}

/// Opens a device node as libcuda does.
pub fn open(node: Node) -> Result<File> {
    let path = format!("/dev/{}", node.file_name());
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path);
    opened.map_err(|error| Error::Errno(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
}

/// Issues the ioctl with this command word on `file`; returns what the ioctl returned.
pub fn ioctl<P: FromBytes + IntoBytes>(
    file: &impl AsFd,
    command: u32,
    parameters: &mut P,
) -> Result<i32> {
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: the parameters are plain bytes that outlive the call. Pointers in them were put there by this module
    // or by a test that is about them; like any program's they are the kernel's to check.
    let result = unsafe {
        libc::ioctl(
            descriptor,
            command as libc::Ioctl,
            std::ptr::from_mut(parameters),
        )
    };
    Ok(Errno::result(result)?)
}

/// Issues a frontend ioctl: the command word follows from the number and the parameters' size.
pub fn frontend<P: FromBytes + IntoBytes>(
    file: &impl AsFd,
    number: u32,
    parameters: &mut P,
) -> Result<i32> {
    ioctl(file, ioctl_word(number, size_of::<P>()), parameters)
}

/// A client of the resource manager, freed when its description is closed for the last time.
#[derive(Debug)]
pub struct Client {
    pub control: File,
    /// The client's handle, which is also that of its root object.
    pub root: u32,
}

impl Client {
    /// Opens `/dev/nvidiactl` and allocates a client on it.
    pub fn new() -> Result<Client> {
        Client::on(open(Node::Control)?)
    }

    /// Allocates a client on a description of `/dev/nvidiactl`.
    pub fn on(control: File) -> Result<Client> {
        let mut client = Client { control, root: 0 };
        let mut request = NVOS21_PARAMETERS::new_zeroed();
        request.hClass = NV01_ROOT_CLIENT;
        frontend(&client.control, NV_ESC_RM_ALLOC, &mut request)?;
        check(request.status)?;
        client.root = request.hObjectNew;
        Ok(client)
    }

    /// A client with a `device` and `subdevice` of the first GPU, and the open node of that.
    pub fn of_first_gpu(device: u32, subdevice: u32) -> Result<(Client, File)> {
        let client = Client::new()?;
        let node = open(Node::Gpu(0))?;
        client.register(&node)?;
        let first = client.probed_gpus()?.first().copied().unwrap_or_default();
        let instance = client.attach(first)?;
        client.device(instance, device, subdevice)?;
        Ok((client, node))
    }

    /// Allocates `object` of `class` below `parent`.
    pub fn allocate<P: FromBytes + IntoBytes>(
        &self,
        parent: u32,
        object: u32,
        class: u32,
        parameters: &mut P,
    ) -> Result<()> {
        let mut request = NVOS64_PARAMETERS::new_zeroed();
        request.hRoot = self.root;
        request.hObjectParent = parent;
        request.hObjectNew = object;
        request.hClass = class;
        // As libcuda does: the size follows from the class.
        request.paramsSize = 0;
        request.pAllocParms = if size_of::<P>() == 0 {
            0
        } else {
            std::ptr::from_mut(parameters) as u64
        };
        frontend(&self.control, NV_ESC_RM_ALLOC, &mut request)?;
        check(request.status)
    }

    /// Runs a control command on `object`.
    pub fn control<P: FromBytes + IntoBytes>(
        &self,
        object: u32,
        command: u32,
        parameters: &mut P,
    ) -> Result<()> {
        let mut request = NVOS54_PARAMETERS::new_zeroed();
        request.hClient = self.root;
        request.hObject = object;
        request.cmd = command;
        request.paramsSize = size_of::<P>() as u32;
        request.params = if size_of::<P>() == 0 {
            0
        } else {
            std::ptr::from_mut(parameters) as u64
        };
        frontend(&self.control, NV_ESC_RM_CONTROL, &mut request)?;
        check(request.status)
    }

    /// Frees `object`, a child of `parent`, and everything below it.
    pub fn free(&self, parent: u32, object: u32) -> Result<()> {
        let mut request = NVOS00_PARAMETERS::new_zeroed();
        request.hRoot = self.root;
        request.hObjectParent = parent;
        request.hObjectOld = object;
        frontend(&self.control, NV_ESC_RM_FREE, &mut request)?;
        check(request.status)
    }

    /// The ids of the GPUs that the driver found.
    pub fn probed_gpus(&self) -> Result<Vec<u32>> {
        /// What fills unused places (NV0000_CTRL_GPU_INVALID_ID, ctrl0000gpu.h).
        const INVALID: u32 = u32::MAX;
        let mut probed = NV0000_CTRL_GPU_GET_PROBED_IDS_PARAMS::new_zeroed();
        self.control(self.root, NV0000_CTRL_CMD_GPU_GET_PROBED_IDS, &mut probed)?;
        Ok(probed
            .gpuIds
            .into_iter()
            .take_while(|id| *id != INVALID)
            .collect())
    }

    /// Attaches a GPU by its id and returns its device instance.
    pub fn attach(&self, gpu: u32) -> Result<u32> {
        let mut attached = NV0000_CTRL_GPU_ATTACH_IDS_PARAMS::new_zeroed();
        attached.gpuIds.fill(u32::MAX);
        attached.gpuIds[0] = gpu;
        self.control(self.root, NV0000_CTRL_CMD_GPU_ATTACH_IDS, &mut attached)?;
        let mut information = NV0000_CTRL_GPU_GET_ID_INFO_V2_PARAMS::new_zeroed();
        information.gpuId = gpu;
        self.control(
            self.root,
            NV0000_CTRL_CMD_GPU_GET_ID_INFO_V2,
            &mut information,
        )?;
        Ok(information.deviceInstance)
    }

    /// Ties an open description of a GPU to this client's (NV_ESC_REGISTER_FD).
    pub fn register(&self, gpu: &File) -> Result<()> {
        let mut request = nv_ioctl_register_fd_t {
            ctl_fd: self.control.as_raw_fd(),
        };
        frontend(gpu, NV_ESC_REGISTER_FD, &mut request).map(drop)
    }

    /// Allocates a device and its subdevice.
    pub fn device(&self, instance: u32, device: u32, subdevice: u32) -> Result<()> {
        let mut parameters = NV0080_ALLOC_PARAMETERS::new_zeroed();
        parameters.deviceId = instance;
        parameters.hClientShare = self.root;
        self.allocate(self.root, device, NV01_DEVICE_0, &mut parameters)?;
        self.allocate(
            device,
            subdevice,
            NV20_SUBDEVICE_0,
            &mut NV2080_ALLOC_PARAMETERS::new_zeroed(),
        )
    }

    /// Allocates `size` bytes of memory of `class` below `device`.
    pub fn memory(&self, device: u32, memory: u32, class: u32, size: u64) -> Result<()> {
        /// Flags and attributes of an allocation that the processor maps (nvos.h): NVOS32_ATTR_LOCATION_PCI with
        /// cached pages for system memory; video memory is the default.
        const LOCATION_PCI: u32 = 1 << 25;
        const COHERENCY_CACHED: u32 = 1 << 29;
        let mut parameters = NV_MEMORY_ALLOCATION_PARAMS::new_zeroed();
        parameters.owner = self.root;
        parameters.size = size;
        if class == NV01_MEMORY_SYSTEM {
            parameters.attr = LOCATION_PCI | COHERENCY_CACHED;
        }
        self.allocate(device, memory, class, &mut parameters)
    }

    /// Bytes of the memory of `subdevice` that nobody has allocated.
    pub fn free_memory(&self, subdevice: u32) -> Result<u64> {
        /// NV2080_CTRL_FB_INFO_INDEX_HEAP_FREE (ctrl2080fb.h): in KiB.
        const HEAP_FREE: u32 = 0x16;
        let mut parameters = NV2080_CTRL_FB_GET_INFO_V2_PARAMS::new_zeroed();
        parameters.fbInfoListSize = 1;
        parameters.fbInfoList[0].index = HEAP_FREE;
        self.control(subdevice, NV2080_CTRL_CMD_FB_GET_INFO_V2, &mut parameters)?;
        Ok(u64::from(parameters.fbInfoList[0].data) << 10)
    }

    /// Maps `length` bytes of `memory` through a fresh description of `node`.
    pub fn map(&self, device: u32, memory: u32, length: usize, node: Node) -> Result<Mapping> {
        let target = open(node)?;
        let mut request = nv_ioctl_nvos33_parameters_with_fd::new_zeroed();
        request.params.hClient = self.root;
        request.params.hDevice = device;
        request.params.hMemory = memory;
        request.params.length = length as u64;
        request.fd = target.as_raw_fd();
        frontend(&self.control, NV_ESC_RM_MAP_MEMORY, &mut request)?;
        check(request.params.status)?;
        Mapping::of(&target, length)
    }

    /// Registers `number`, a descriptor of the description that events are to arrive on, for events of this client.
    pub fn register_event_descriptor(&self, on: &File) -> Result<()> {
        let mut request = nv_ioctl_alloc_os_event_t::new_zeroed();
        request.hClient = self.root;
        request.fd = on.as_raw_fd() as u32;
        frontend(on, NV_ESC_ALLOC_OS_EVENT, &mut request)?;
        check(request.Status)
    }

    /// Allocates an event that fires on notification `index` of `subdevice` and arrives at descriptor `on`.
    pub fn event(&self, subdevice: u32, event: u32, index: u32, on: &File) -> Result<()> {
        let mut parameters = NV0005_ALLOC_PARAMETERS::new_zeroed();
        parameters.hParentClient = self.root;
        parameters.hSrcResource = subdevice;
        parameters.hClass = NV01_EVENT_OS_EVENT;
        parameters.notifyIndex = index;
        parameters.data = on.as_raw_fd() as u64;
        self.allocate(subdevice, event, NV01_EVENT_OS_EVENT, &mut parameters)
    }

    /// Makes notification `index` of `subdevice` fire every time.
    pub fn enable_notification(&self, subdevice: u32, index: u32) -> Result<()> {
        /// NV2080_CTRL_EVENT_SET_NOTIFICATION_ACTION_REPEAT (ctrl2080event.h).
        const REPEAT: u32 = 2;
        let mut parameters = NV2080_CTRL_EVENT_SET_NOTIFICATION_PARAMS::new_zeroed();
        parameters.event = index;
        parameters.action = REPEAT;
        self.control(
            subdevice,
            NV2080_CTRL_CMD_EVENT_SET_NOTIFICATION,
            &mut parameters,
        )
    }

    /// Pins `length` bytes at `address` of this process as `memory` (NV01_MEMORY_SYSTEM_OS_DESCRIPTOR). The driver takes
    /// this on a GPU's node only (escape.c, 580.142).
    pub fn pin(
        &self,
        gpu: &File,
        device: u32,
        memory: u32,
        address: *const u8,
        length: usize,
    ) -> Result<()> {
        /// NVOS02_FLAGS (nvos.h): physicality non-contiguous, location PCI, cached, no mapping: as libcuda pins.
        const FLAGS: u32 = 0x4000_0000 | 1 << 12 | 1 << 4;
        let mut request = nv_ioctl_nvos02_parameters_with_fd::new_zeroed();
        request.params.hRoot = self.root;
        request.params.hObjectParent = device;
        request.params.hObjectNew = memory;
        request.params.hClass = NV01_MEMORY_SYSTEM_OS_DESCRIPTOR;
        request.params.flags = FLAGS;
        request.params.pMemory = address as u64;
        request.params.limit = length as u64 - 1;
        request.fd = -1;
        frontend(gpu, NV_ESC_RM_ALLOC_MEMORY, &mut request)?;
        check(request.params.status)
    }
}

/// Memory of the driver's, mapped into this process.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<libc::c_void>,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes of a description that NV_ESC_RM_MAP_MEMORY named.
    pub fn of(target: &File, length: usize) -> Result<Mapping> {
        let size = NonZeroUsize::new(length).ok_or(Error::Errno(Errno::EINVAL))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let address = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, target, 0) }?;
        Ok(Mapping { address, length })
    }

    /// Writes `bytes` at `offset`.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: inside the mapping. Volatile, because a device may see it.
            unsafe {
                self.address
                    .cast::<u8>()
                    .add(offset + index)
                    .write_volatile(*byte)
            };
        }
    }

    /// Reads `length` bytes at `offset`.
    pub fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        // SAFETY: inside the mapping. Volatile, because a device may change it.
        (0..length)
            .map(|index| unsafe {
                self.address
                    .cast::<u8>()
                    .add(offset + index)
                    .read_volatile()
            })
            .collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        let _ = unsafe { munmap(self.address, self.length) };
    }
}

/// Parameters of a request that has none.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Nothing {}
