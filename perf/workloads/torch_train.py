"""A small training run as programs of PyTorch are: batches from pinned memory, a network, an optimizer.

Prints a checksum of what was learned, which has to be the same wherever the run was.
"""
import torch

STEPS = 50
torch.manual_seed(1)
device = torch.device("cuda")
left = torch.randn(4096, 4096, device=device)
product = (left @ left.T).diagonal().mean().item()
network = torch.nn.Sequential(
    torch.nn.Linear(1024, 2048),
    torch.nn.GELU(),
    torch.nn.Linear(2048, 1024),
).to(device)
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
loss = torch.zeros(())
for _ in range(STEPS):
    batch = torch.randn(256, 1024).pin_memory().to(device, non_blocking=True)
    loss = (network(batch) - batch).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.cuda.synchronize()
print(f"checksum {product:.3f} {loss.item():.6f}")
