// A cooperative launch: all blocks wait for one another within the kernel.
#include "checked.h"
#include <cooperative_groups.h>

static const int ROUNDS = 50, BLOCKS = 8, THREADS = 64;

__global__ void pass_on(int *numbers) {
    cooperative_groups::grid_group grid = cooperative_groups::this_grid();
    const int count = gridDim.x * blockDim.x;
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    for (int round = 0; round < ROUNDS; round++) {
        const int next = numbers[(place + 1) % count];
        grid.sync();
        numbers[place] = next + 1;
        grid.sync();
    }
}

int main() {
    const int count = BLOCKS * THREADS;
    int supported = 0, *numbers = nullptr;
    DO(cudaDeviceGetAttribute(&supported, cudaDevAttrCooperativeLaunch, 0));
    if (!supported) return checked("sum without cooperative launches", 0, 1);
    DO(cudaMalloc(&numbers, count * sizeof(int)));
    DO(cudaMemset(numbers, 0, count * sizeof(int)));
    void *arguments[] = {&numbers};
    DO(cudaLaunchCooperativeKernel(reinterpret_cast<void *>(pass_on), dim3(BLOCKS), dim3(THREADS), arguments, 0, nullptr));
    static int seen[BLOCKS * THREADS];
    DO(cudaMemcpy(seen, numbers, sizeof seen, cudaMemcpyDeviceToHost));
    DO(cudaFree(numbers));
    long long sum = 0;
    for (int place = 0; place < count; place++) sum += seen[place];
    return checked("sum", sum, (long long)count * ROUNDS);
}
