"""The first inference of a small transformer with random weights, as a program does it that has just started.

Prints how many nanoseconds it took from the first use of the GPU to the result, and a checksum, which has to be the same
wherever it was run.
"""
import time

import torch

torch.manual_seed(1)
layer = torch.nn.TransformerEncoderLayer(
    d_model=512, nhead=8, dim_feedforward=2048, dropout=0.0, batch_first=True
)
network = torch.nn.Sequential(
    torch.nn.Embedding(8192, 512),
    torch.nn.TransformerEncoder(layer, num_layers=6, enable_nested_tensor=False),
    torch.nn.Linear(512, 8192),
).eval()
words = torch.randint(0, 8192, (8, 128))
began = time.perf_counter_ns()
with torch.inference_mode():
    network.to("cuda")
    chosen = network(words.to("cuda")).float().sum(dim=-1).cpu()
print(time.perf_counter_ns() - began)
print(f"checksum {chosen.double().sum().item():.2f}")
