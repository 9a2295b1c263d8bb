//! The simulated GPUs: what identifies them and how much memory they have.

use std::sync::Arc;

use super::memory::VideoMemory;

/// What the GPUs are called.
pub(super) const NAME: &str = "NVIDIA H100 80GB HBM3 (simulated)";
pub(super) const SHORT_NAME: &str = "GH100GL-A";

/// PCI identity of an H100 SXM5 80GB.
pub(super) const VENDOR: u16 = 0x10de;
pub(super) const DEVICE: u16 = 0x2330;
pub(super) const SUBSYSTEM: u32 = 0x16c1_10de;
pub(super) const REVISION: u32 = 0xa1;

/// Where the apertures of the first GPU are, and how far those of the next are from it.
const REGISTERS: u64 = 0x2000_0000_0000;
pub(super) const REGISTERS_SIZE: u64 = 16 << 20;
const APERTURES_APART: u64 = 1 << 40;
/// The most bytes of memory that fit into an aperture.
const LARGEST_MEMORY: u64 = APERTURES_APART >> 1;

/// One GPU. Its instance, of the GPU and of the device alike, is its index.
#[derive(Debug)]
pub(super) struct Gpu {
    pub minor: u8,
    pub bus: u8,
    /// By which control commands name it; made from its place on the PCI bus.
    pub id: u32,
    pub uuid: [u8; 16],
    pub memory: Arc<VideoMemory>,
    /// The physical address of its registers.
    pub registers: u64,
}

impl Gpu {
    pub fn new(instance: usize, minor: u8, memory: u64) -> Gpu {
        // Every GPU is on a bus of its own; two of at most 248 minors share none.
        let bus = minor.wrapping_add(1);
        let mut uuid = *b"simulated GPU \0\0";
        uuid[15] = minor;
        Gpu {
            minor,
            bus,
            id: u32::from(bus) << 8,
            uuid,
            memory: VideoMemory::new(memory),
            registers: REGISTERS + APERTURES_APART * instance as u64,
        }
    }

    /// The physical address of its memory.
    pub fn aperture(&self) -> u64 {
        self.registers + APERTURES_APART - LARGEST_MEMORY
    }

    /// Its UUID as text, as `nvidia-smi -L` prints it.
    pub fn uuid_text(&self) -> String {
        let hexadecimal: Vec<String> = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let group =
            |range: std::ops::Range<usize>| hexadecimal.get(range).unwrap_or_default().concat();
        format!(
            "GPU-{}-{}-{}-{}-{}",
            group(0..4),
            group(4..6),
            group(6..8),
            group(8..10),
            group(10..16)
        )
    }
}
