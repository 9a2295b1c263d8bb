"""Trains a small network with PyTorch: batches from pinned memory, an optimizer, a product of matrices.

Prints how long it took, and a checksum of what was learned, which has to be the same wherever it runs.
"""
import time

import torch

torch.manual_seed(7)
began = time.perf_counter()
device = torch.device("cuda")
square = torch.randn(2048, 2048, device=device)
trace = (square @ square.T).diagonal().mean().item()
network = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 512)).to(device)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
loss = torch.zeros(())
for _ in range(25):
    batch = torch.randn(128, 512).pin_memory().to(device, non_blocking=True)
    loss = (network(batch) - batch).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.cuda.synchronize()
print(f"trained for {time.perf_counter() - began:.2f} s")
print(f"checksum {trace:.3f} {loss.item():.6f}")
