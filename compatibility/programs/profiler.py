"""Profiles a little work with torch.profiler, and prints which kernels it saw and how often."""
from collections import Counter

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

numbers = torch.arange(1 << 16, dtype=torch.float32, device="cuda")
torch.cuda.synchronize()
with profile(activities=[ProfilerActivity.CUDA]) as profiled:
    for _ in range(3):
        numbers = torch.sin(numbers) * 2
    torch.cuda.synchronize()
kernels = Counter(event.name for event in profiled.events() if event.device_type == DeviceType.CUDA)
for name, count in sorted(kernels.items()):
    print(f"{count} {name[:100]}")
if not kernels:
    raise SystemExit("it saw no kernel")
