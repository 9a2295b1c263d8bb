//! How much a sandbox may have, and how much it may have in any case.

use nvproxy_protocol::options::Settings;
use nvproxy_protocol::size::Size;

/// Most clients of a sandbox. A CUDA process has two or three.
pub const MAXIMUM_CLIENTS: usize = 1 << 12;

/// Most objects of a sandbox. PyTorch has some two hundred, and one more for each 2 MiB to 20 MiB of GPU memory at most:
/// a machine with eight GPUs of 192 GiB, each filled in pieces of 2 MiB, has 786,432.
pub const MAXIMUM_OBJECTS: usize = 1 << 20;

/// Most records of events of the operating system. The driver walks those of the whole machine with a lock held
/// (`allocate_os_event`, src/nvidia/arch/nvalloc/unix/src/osapi.c). A CUDA process was recorded to have nine.
pub const MAXIMUM_OS_EVENTS: usize = 1 << 12;

/// Bytes of the host's memory that each client and object counts for besides what it asks for: the driver keeps a record
/// of it in memory that no cgroup accounts for (portMemAllocNonPaged). They are of different sizes; a page stands for all.
pub const RECORD: u64 = 4 << 10;

/// How much a sandbox may have. It is what the launcher said, and so never comes from another server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The user's, which are read here where they hold.
    pub settings: Settings,
    pub clients: usize,
    pub objects: usize,
    /// Records of events of the operating system.
    pub os_events: usize,
}

impl Limits {
    /// Those that the launcher has set, and those that hold in any case.
    pub fn of(settings: &Settings) -> Limits {
        Limits {
            settings: settings.clone(),
            clients: MAXIMUM_CLIENTS,
            objects: MAXIMUM_OBJECTS,
            os_events: MAXIMUM_OS_EVENTS,
        }
    }

    /// Those of a sandbox that may have no more than this of each GPU's memory, and of the host's.
    pub fn with_memory(gpu_memory: Size, host_memory: Size) -> Limits {
        let mut settings = Settings::WITHOUT_LIMITS;
        settings.gpu_memory = Some(gpu_memory);
        settings.host_memory = Some(host_memory);
        Limits::of(&settings)
    }

    /// Those of a ledger that has not been given any.
    pub fn nothing() -> Limits {
        Limits {
            clients: 0,
            objects: 0,
            os_events: 0,
            ..Limits::with_memory(Size::NOTHING, Size::NOTHING)
        }
    }
}

/// There is no room under a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;
