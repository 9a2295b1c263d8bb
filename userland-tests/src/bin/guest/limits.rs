//! The GPU's memory runs out, and is there again.

use crate::Outcome;
use crate::gpu::{GIB, Gpu, MEMORY, word};

/// Allocates until nothing is left, frees one allocation, and allocates again.
pub fn memory(_: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    println!("81 GiB: {}", word(gpu.allocate(MEMORY, 81 * GIB)));
    let allocated = (0..)
        .take_while(|index| gpu.allocate(MEMORY + index, 10 * GIB).is_ok())
        .count();
    println!(
        "allocations of 10 GiB: {allocated}, free bytes: {}",
        gpu.free_memory()?
    );
    println!("one more byte: {}", word(gpu.allocate(MEMORY + 100, 1)));
    gpu.free(MEMORY + 3)?;
    println!(
        "11 GiB where 10 were freed: {}",
        word(gpu.allocate(MEMORY + 3, 11 * GIB))
    );
    println!("10 GiB: {}", word(gpu.allocate(MEMORY + 3, 10 * GIB)));
    println!(
        "2^64 bytes of the host's: {}",
        word(gpu.allocate_system(MEMORY + 101, u64::MAX))
    );
    println!(
        "1 MiB of the host's: {}",
        word(gpu.allocate_system(MEMORY + 101, 1 << 20))
    );
    Ok(())
}
