// Memory of the device's pool, allocated and freed in the order of a stream.
#include "checked.h"

static const int ROUNDS = 200;
static const size_t COUNT = 1 << 20;

__global__ void fill(int *numbers, int with) { numbers[blockIdx.x * blockDim.x + threadIdx.x] = with; }

int main() {
    int supported = 0;
    DO(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, 0));
    if (!supported) return checked("sum without pools", 0, 1);
    cudaStream_t stream;
    DO(cudaStreamCreate(&stream));
    long long sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        void *memory = nullptr;
        int seen = 0;
        DO(cudaMallocAsync(&memory, COUNT * sizeof(int), stream));
        int *numbers = static_cast<int *>(memory);
        fill<<<COUNT / 256, 256, 0, stream>>>(numbers, round);
        DO(cudaGetLastError());
        DO(cudaMemcpyAsync(&seen, numbers + COUNT - 1, sizeof(int), cudaMemcpyDeviceToHost, stream));
        DO(cudaFreeAsync(memory, stream));
        // At each of these the pool gives back to the driver what is free.
        DO(cudaStreamSynchronize(stream));
        sum += seen;
    }
    DO(cudaStreamDestroy(stream));
    return checked("sum", sum, (long long)ROUNDS * (ROUNDS - 1) / 2);
}
