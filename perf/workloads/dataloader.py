"""A fixed amount of work of PyTorch's DataLoader: four worker processes make batches, which are pinned and copied to the GPU.

Prints how many nanoseconds it took from the loader's making to the last batch, and a checksum, which has to be the same
wherever it was run.
"""
import time

import torch


class Numbers(torch.utils.data.Dataset):
    """Items that are made anew when they are asked for, each by its number alone."""

    def __len__(self):
        return 4096

    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        return torch.randint(0, 256, (3, 96, 96), generator=generator, dtype=torch.uint8)


def main():
    total = torch.zeros((), dtype=torch.int64, device="cuda")
    began = time.perf_counter_ns()
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=64, num_workers=4, pin_memory=True)
    for batch in loader:
        total += batch.to("cuda", non_blocking=True).sum(dtype=torch.int64)
    checksum = total.item()
    print(time.perf_counter_ns() - began)
    print(f"checksum {checksum}")


if __name__ == "__main__":
    main()
