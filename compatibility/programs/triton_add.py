"""Adds two vectors by a kernel of Triton's, which is compiled when it runs."""
import torch
import triton
import triton.language as tl


@triton.jit
def add(left, right, sums, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_there = at < count
    tl.store(sums + at, tl.load(left + at, mask=is_there) + tl.load(right + at, mask=is_there), mask=is_there)


count = 10_000
left = torch.arange(count, dtype=torch.float32, device="cuda")
right = 2 * left
sums = torch.empty_like(left)
add[(triton.cdiv(count, 256),)](left, right, sums, count, BLOCK=256)
if not torch.equal(sums, left + right):
    raise SystemExit("the sums are wrong")
print(f"sum {sums.sum().item():.0f}")
