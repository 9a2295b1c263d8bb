//! What nearly every scenario starts with: a client with a GPU, and a word for what a request came to.

use std::fs::File;
use std::time::{Duration, Instant};

use nvproxy_abi::node::Node;
use nvproxy_abi::number::*;
use ringfence::guest::{Client, Error, Nothing, Result, open};

/// Handles of objects; any numbers do.
pub const DEVICE: u32 = 0x1000;
pub const SUBDEVICE: u32 = 0x1001;
pub const MEMORY: u32 = 0x1002;

/// The notification that software triggers (NV2080_NOTIFIERS_SW, cl2080_notification.h).
const SOFTWARE_NOTIFICATION: u32 = 0;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
/// The memory of a simulated GPU.
pub const ALL: u64 = 80 * GIB;

/// How long what happens behind the program's back may take before it counts as not happening.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A client with the first GPU.
pub struct Gpu {
    pub client: Client,
    /// The GPU's own node.
    pub node: File,
}

impl Gpu {
    /// Allocates a client, and a device and subdevice of the first GPU.
    pub fn open() -> Result<Gpu> {
        let (client, node) = Client::of_first_gpu(DEVICE, SUBDEVICE)?;
        Ok(Gpu { client, node })
    }

    /// Allocates memory of the GPU.
    pub fn allocate(&self, memory: u32, bytes: u64) -> Result<()> {
        self.client
            .memory(DEVICE, memory, NV01_MEMORY_LOCAL_USER, bytes)
    }

    /// Allocates memory of the host.
    pub fn allocate_system(&self, memory: u32, bytes: u64) -> Result<()> {
        self.client
            .memory(DEVICE, memory, NV01_MEMORY_SYSTEM, bytes)
    }

    /// A description on which the notification that software triggers is heard, by the new object `event`.
    pub fn hear_software(&self, event: u32) -> Result<File> {
        let events = open(Node::Control)?;
        let client = &self.client;
        client.register_event_descriptor(&events)?;
        client.event(SUBDEVICE, event, SOFTWARE_NOTIFICATION, &events)?;
        Ok(events)
    }

    /// Has the subdevice tell of what software triggers, which a client does once.
    pub fn enable_software(&self) -> Result<()> {
        self.client
            .enable_notification(SUBDEVICE, SOFTWARE_NOTIFICATION)
    }

    /// Triggers that notification.
    pub fn trigger_software(&self) -> Result<()> {
        let command = NV2080_CTRL_CMD_EVENT_SET_TRIGGER;
        self.client.control(SUBDEVICE, command, &mut Nothing {})
    }

    /// Frees an object below the device.
    pub fn free(&self, object: u32) -> Result<()> {
        self.client.free(DEVICE, object)
    }

    /// Bytes of the GPU's memory that nobody has allocated.
    pub fn free_memory(&self) -> Result<u64> {
        self.client.free_memory(SUBDEVICE)
    }

    /// Waits until the GPU has this much free memory.
    pub fn wait_for_free_memory(&self, bytes: u64) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while self.free_memory()? != bytes {
            let free = self.free_memory()?;
            assert!(
                Instant::now() < deadline,
                "{free} bytes of GPU memory are free, not {bytes}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// What a request came to, in a word.
pub fn word<T>(outcome: Result<T>) -> String {
    match outcome {
        Ok(_) => "ok".to_owned(),
        Err(Error::Errno(errno)) => format!("{errno:?}"),
        Err(status) => status.to_string(),
    }
}
