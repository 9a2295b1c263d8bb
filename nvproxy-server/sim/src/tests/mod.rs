//! The simulated driver through the trait for backends, as the server uses it: every request is planned first.

mod controls;
mod damaged;
mod dma_buf;
mod events;
mod export;
mod hostile;
mod mapping;
mod objects;
mod pinning;
mod saved;
mod scenario;
mod uvm;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::structs::class::*;
use crate::structs::frontend::*;
use nix::errno::Errno;
use nvproxy_abi::Abi;
use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use nvproxy_abi::plan::{Planner, Step};
use nvproxy_abi::policy::Capabilities;
use nvproxy_abi::status::*;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::{Configuration, Simulator};
use nvproxy_server::backend::{self, Backend, Call, DeviceFile, OpenFlags};

const VERSION: &str = "580.159.04";
/// The release whose tables serve that one.
const TABLES: &str = "580.142";

static ABI: LazyLock<&'static Abi> = LazyLock::new(|| {
    let version = TABLES.parse().expect("a version");
    Abi::of_release(&version, Capabilities::ALL).expect("tables")
});

fn abi() -> &'static Abi {
    &ABI
}
/// Where the argument is in the memory of the pretended task.
const ARGUMENT: u64 = 0x1000;
/// Bytes of memory of a GPU.
const MEMORY: u64 = 16 << 20;

/// A driver with GPUs that have the minor numbers 0 and 3.
fn driver() -> Simulator {
    let mut configuration =
        Configuration::new(VERSION.parse().expect("a version"), abi(), vec![0, 3]);
    configuration.gpus = vec![0, 3];
    configuration.memory = MEMORY;
    configuration.register_gpu = Duration::ZERO;
    Simulator::new(configuration).expect("a simulator")
}

/// An open description and the descriptor that the task has.
struct Open {
    node: Node,
    file: Arc<dyn DeviceFile>,
    granted: OwnedFd,
}

fn open(driver: &Simulator, node: Node) -> Open {
    let opened = driver
        .open(node, OpenFlags::default())
        .expect("an open description");
    Open {
        node,
        file: opened.file.expect("a file"),
        granted: opened.granted,
    }
}

/// How a request reaches the driver.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Server,
    /// From the task itself, on the lent descriptor.
    Task,
}

/// What the task has in memory besides the argument, by address.
type TaskMemory = BTreeMap<u64, Vec<u8>>;

impl Open {
    /// Plans the request as the server does, issues it, and copies every buffer back.
    fn issue_bytes(
        &self,
        way: Way,
        request: u32,
        argument: &mut [u8],
        memory: &mut TaskMemory,
    ) -> Result<i32, Errno> {
        let mut planner =
            Planner::new(abi(), self.node, request, ARGUMENT).expect("a known request");
        let mut payload: Vec<u8> = Vec::new();
        let mut fetched = Vec::new();
        while let Step::Fetch(fetch) = planner.step(&payload).expect("a well-formed request") {
            let source: &[u8] = if fetch.address == ARGUMENT {
                argument
            } else {
                &memory[&fetch.address]
            };
            let (at, length) = (fetch.offset as usize, fetch.length as usize);
            payload.resize((at + length).next_multiple_of(8), 0);
            payload[at..at + length].copy_from_slice(&source[..length]);
            fetched.push((fetch.address, at, length));
        }
        let plan = planner.finish();
        let call = Call {
            request,
            payload: &mut payload,
            segments: &plan.segments,
            descriptors: &[],
            made: None,
        };
        let result = match way {
            Way::Server => self.file.ioctl(call),
            Way::Task => self.file.pinned(Err(Errno::ENOTTY), call),
        };
        for (address, at, length) in fetched {
            let target = if address == ARGUMENT {
                &mut *argument
            } else {
                memory.get_mut(&address).expect("memory")
            };
            target[..length].copy_from_slice(&payload[at..at + length]);
        }
        result
    }

    fn issue_with<T: FromBytes + IntoBytes + Immutable>(
        &self,
        request: u32,
        argument: &mut T,
        memory: &mut TaskMemory,
    ) -> Result<i32, Errno> {
        self.issue_bytes(Way::Server, request, argument.as_mut_bytes(), memory)
    }

    /// An ioctl without nested buffers on nvidiactl or a GPU.
    fn ioctl<T: FromBytes + IntoBytes + Immutable>(
        &self,
        number: u32,
        argument: &mut T,
    ) -> Result<i32, Errno> {
        self.issue_with(
            ioctl_word(number, size_of::<T>()),
            argument,
            &mut TaskMemory::new(),
        )
    }

    fn number(&self) -> i32 {
        self.file.number().expect("a number")
    }

    /// NV_ESC_RM_ALLOC: status and handle.
    fn allocate_bytes(
        &self,
        client: u32,
        parent: u32,
        object: u32,
        class: u32,
        parameters: Option<&mut [u8]>,
    ) -> (u32, u32) {
        let mut memory = TaskMemory::new();
        let mut argument = NVOS64_PARAMETERS::new_zeroed();
        (argument.hRoot, argument.hObjectParent, argument.hObjectNew) = (client, parent, object);
        argument.hClass = class;
        if let Some(bytes) = &parameters {
            argument.pAllocParms = 0x2000;
            memory.insert(0x2000, bytes.to_vec());
        }
        let request = ioctl_word(NV_ESC_RM_ALLOC, size_of::<NVOS64_PARAMETERS>());
        assert_eq!(self.issue_with(request, &mut argument, &mut memory), Ok(0));
        if let Some(bytes) = parameters {
            bytes.copy_from_slice(&memory[&0x2000]);
        }
        (argument.status, argument.hObjectNew)
    }

    fn allocate<T: FromBytes + IntoBytes + Immutable>(
        &self,
        client: u32,
        parent: u32,
        object: u32,
        class: u32,
        parameters: &mut T,
    ) -> u32 {
        self.allocate_bytes(
            client,
            parent,
            object,
            class,
            Some(parameters.as_mut_bytes()),
        )
        .0
    }

    /// A new client.
    fn client(&self) -> u32 {
        let mut handle = 0u32;
        let allocated = self.allocate_bytes(0, 0, 0, NV01_ROOT_CLIENT, Some(handle.as_mut_bytes()));
        assert_eq!(allocated, (NV_OK, handle));
        handle
    }

    /// A device of the GPU with instance `gpu`, with handle `device`, and its subdevice, whose handle is one more.
    fn device(&self, client: u32, device: u32, gpu: u32) -> u32 {
        let mut parameters = NV0080_ALLOC_PARAMETERS::new_zeroed();
        parameters.deviceId = gpu;
        assert_eq!(
            self.allocate(client, client, device, NV01_DEVICE_0, &mut parameters),
            NV_OK
        );
        let mut parameters = NV2080_ALLOC_PARAMETERS { subDeviceId: 0 };
        assert_eq!(
            self.allocate(
                client,
                device,
                device + 1,
                NV20_SUBDEVICE_0,
                &mut parameters
            ),
            NV_OK
        );
        device
    }

    /// Memory of a class under `parent`: the status.
    fn memory(&self, client: u32, parent: u32, object: u32, class: u32, size: u64) -> u32 {
        let mut parameters = NV_MEMORY_ALLOCATION_PARAMS::new_zeroed();
        parameters.size = size;
        self.allocate(client, parent, object, class, &mut parameters)
    }

    fn free(&self, client: u32, object: u32) -> u32 {
        let mut argument = NVOS00_PARAMETERS {
            hRoot: client,
            hObjectParent: 0,
            hObjectOld: object,
            status: 0xdead,
        };
        assert_eq!(self.ioctl(NV_ESC_RM_FREE, &mut argument), Ok(0));
        argument.status
    }

    /// NV_ESC_RM_DUP_OBJECT: status and handle.
    fn duplicate(&self, client: u32, parent: u32, object: u32, source: (u32, u32)) -> (u32, u32) {
        let mut argument = NVOS55_PARAMETERS::new_zeroed();
        (argument.hClient, argument.hParent, argument.hObject) = (client, parent, object);
        (argument.hClientSrc, argument.hObjectSrc) = source;
        assert_eq!(self.ioctl(NV_ESC_RM_DUP_OBJECT, &mut argument), Ok(0));
        (argument.status, argument.hObject)
    }

    /// NV_ESC_RM_CONTROL with nested buffers: the status.
    fn control_with<T: FromBytes + IntoBytes + Immutable>(
        &self,
        client: u32,
        object: u32,
        command: u32,
        parameters: &mut T,
        memory: &mut TaskMemory,
    ) -> u32 {
        let mut argument = NVOS54_PARAMETERS::new_zeroed();
        (argument.hClient, argument.hObject, argument.cmd) = (client, object, command);
        if size_of::<T>() != 0 {
            (argument.params, argument.paramsSize) = (0x2000, size_of::<T>() as u32);
            memory.insert(0x2000, parameters.as_bytes().to_vec());
        }
        let request = ioctl_word(NV_ESC_RM_CONTROL, size_of::<NVOS54_PARAMETERS>());
        assert_eq!(self.issue_with(request, &mut argument, memory), Ok(0));
        if let Some(bytes) = memory.get(&0x2000) {
            parameters.as_mut_bytes().copy_from_slice(bytes);
        }
        argument.status
    }

    fn control<T: FromBytes + IntoBytes + Immutable>(
        &self,
        client: u32,
        object: u32,
        command: u32,
        parameters: &mut T,
    ) -> u32 {
        self.control_with(client, object, command, parameters, &mut TaskMemory::new())
    }

    /// NV_ESC_RM_MAP_MEMORY with `target` to be mapped: status and address.
    fn map(
        &self,
        client: u32,
        device: u32,
        memory: u32,
        range: (u64, u64),
        target: i32,
    ) -> (u32, u64) {
        let mut argument = nv_ioctl_nvos33_parameters_with_fd::new_zeroed();
        argument.fd = target;
        let parameters = &mut argument.params;
        (parameters.hClient, parameters.hDevice, parameters.hMemory) = (client, device, memory);
        (parameters.offset, parameters.length) = range;
        assert_eq!(self.ioctl(NV_ESC_RM_MAP_MEMORY, &mut argument), Ok(0));
        (argument.params.status, argument.params.pLinearAddress)
    }

    /// What a task does through a mapping of its descriptor, without one: both reach the same pages.
    fn write(&self, at: u64, bytes: &[u8]) {
        let file = File::from(self.granted.try_clone().expect("a descriptor"));
        file.write_all_at(bytes, at).expect("written");
    }

    fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let file = File::from(self.granted.try_clone().expect("a descriptor"));
        let mut bytes = [0; N];
        file.read_exact_at(&mut bytes, at).expect("read");
        bytes
    }

    fn length(&self) -> u64 {
        File::from(self.granted.try_clone().expect("a descriptor"))
            .metadata()
            .expect("metadata")
            .len()
    }
}

/// nvidiactl, the GPU with minor number 0, and a client with a device 0x10 and its subdevice 0x11.
fn device(driver: &Simulator) -> (Open, Open, u32) {
    let (control, gpu) = (open(driver, Node::Control), open(driver, Node::Gpu(0)));
    let client = control.client();
    control.device(client, 0x10, 0);
    (control, gpu, client)
}

/// A client whose objects the GPU's description can allocate.
fn registered(driver: &Simulator) -> (Open, Open, u32) {
    let (control, gpu, client) = device(driver);
    assert_eq!(
        gpu.ioctl(
            NV_ESC_REGISTER_FD,
            &mut nv_ioctl_register_fd_t {
                ctl_fd: control.number()
            }
        ),
        Ok(0)
    );
    (control, gpu, client)
}
