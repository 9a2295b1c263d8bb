//! How much a sandbox may have, and how much it may have in any case.

use nvproxy_protocol::options::Settings;
use nvproxy_protocol::size::Size;

/// Most clients of a sandbox. A CUDA process has two or three.
pub const MAXIMUM_CLIENTS: usize = 1 << 12;

/// Most objects of a sandbox. PyTorch has some two hundred, and one more for each 2 MiB to 20 MiB of GPU memory at most:
/// a machine with eight GPUs of 192 GiB, each filled in pieces of 2 MiB, has 786,432.
pub const MAXIMUM_OBJECTS: usize = 1 << 20;

/// Bytes of the host's memory that each client and object counts for besides what it asks for: the driver keeps a record
/// of it in memory that no cgroup accounts for (portMemAllocNonPaged). They are of different sizes; a page stands for all.
pub const RECORD: u64 = 4 << 10;

/// How much a sandbox may have. It is what the launcher said, and so never comes from another server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of memory of each GPU.
    pub gpu_memory: Option<u64>,
    /// Bytes of the host's memory that the driver may take.
    pub host_memory: Option<u64>,
    pub clients: usize,
    pub objects: usize,
}

impl Limits {
    /// Those that the launcher has set.
    pub fn of(settings: &Settings) -> Limits {
        Limits::with_memory(
            settings.gpu_memory.map(Size::bytes),
            settings.host_memory.map(Size::bytes),
        )
    }

    /// The limits of a sandbox that may have this many bytes of each GPU's memory, and of the host's.
    pub fn with_memory(gpu_memory: Option<u64>, host_memory: Option<u64>) -> Limits {
        Limits {
            gpu_memory,
            host_memory,
            clients: MAXIMUM_CLIENTS,
            objects: MAXIMUM_OBJECTS,
        }
    }

    /// Those of a ledger that has not been given any.
    pub fn nothing() -> Limits {
        Limits {
            gpu_memory: Some(0),
            host_memory: Some(0),
            clients: 0,
            objects: 0,
        }
    }
}

/// There is no room under a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
