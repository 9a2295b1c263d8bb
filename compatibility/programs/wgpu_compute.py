"""Squares numbers by a compute shader of WebGPU, which runs on Vulkan here, and prints a checksum of them.

Needs: pip install wgpu
"""
import array
import zlib

import wgpu
from wgpu.utils.compute import compute_with_buffers

SHADER = """
@group(0) @binding(0) var<storage, read> given: array<u32>;
@group(0) @binding(1) var<storage, read_write> squared: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
    squared[at.x] = given[at.x] * given[at.x];
}
"""

adapter = wgpu.gpu.request_adapter_sync(power_preference="high-performance")
given = array.array("I", range(4096))
found = compute_with_buffers({0: given.tobytes()}, {1: (4096, "I")}, SHADER, n=64)
squared = array.array("I", found[1].tobytes())
right = sum(1 for one, square in zip(given, squared) if square == one * one)
print(adapter.info["device"], adapter.info["backend_type"])
print(f"{right} of {len(given)} right, checksum {zlib.crc32(squared.tobytes()):08x}")
