// A sum by atomic additions, first within each block.
#include "checked.h"

static const int COUNT = 1 << 22, ROUNDS = 10;

__global__ void add_up(const int *numbers, unsigned long long *sum) {
    __shared__ unsigned long long of_block;
    if (threadIdx.x == 0) of_block = 0;
    __syncthreads();
    for (int place = blockIdx.x * blockDim.x + threadIdx.x; place < COUNT; place += gridDim.x * blockDim.x)
        atomicAdd(&of_block, (unsigned long long)numbers[place]);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(sum, of_block);
}

int main() {
    int *host = nullptr, *numbers = nullptr;
    unsigned long long *sum = nullptr, seen = 0;
    DO(cudaMallocHost(&host, COUNT * sizeof(int)));
    DO(cudaMalloc(&numbers, COUNT * sizeof(int)));
    DO(cudaMalloc(&sum, sizeof *sum));
    DO(cudaMemset(sum, 0, sizeof *sum));
    for (int place = 0; place < COUNT; place++) host[place] = place % 4;
    DO(cudaMemcpy(numbers, host, COUNT * sizeof(int), cudaMemcpyHostToDevice));
    for (int round = 0; round < ROUNDS; round++) add_up<<<256, 256>>>(numbers, sum);
    DO(cudaGetLastError());
    DO(cudaMemcpy(&seen, sum, sizeof seen, cudaMemcpyDeviceToHost));
    DO(cudaFree(sum));
    DO(cudaFree(numbers));
    DO(cudaFreeHost(host));
    // 0, 1, 2 and 3 in turn.
    return checked("sum", (long long)seen, ROUNDS * (COUNT / 4) * 6LL);
}
