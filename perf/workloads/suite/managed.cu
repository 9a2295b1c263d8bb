// Managed memory that processor and GPU write in turns, so that its pages move.
#include "checked.h"

static const int COUNT = 1 << 20, ROUNDS = 4;

__global__ void increment(int *numbers) { numbers[blockIdx.x * blockDim.x + threadIdx.x] += 1; }

int main() {
    int *numbers = nullptr;
    DO(cudaMallocManaged(&numbers, COUNT * sizeof(int)));
    for (int place = 0; place < COUNT; place++) numbers[place] = 0;
    for (int round = 0; round < ROUNDS; round++) {
        increment<<<COUNT / 256, 256>>>(numbers);
        DO(cudaGetLastError());
        DO(cudaDeviceSynchronize());
        for (int place = 0; place < COUNT; place++) numbers[place] += 1;
    }
    long long sum = 0;
    for (int place = 0; place < COUNT; place++) sum += numbers[place];
    DO(cudaFree(numbers));
    return checked("sum", sum, 2LL * ROUNDS * COUNT);
}
