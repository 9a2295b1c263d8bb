// Memory that CUDA allocates pinned, and memory of the program's own that is pinned later.
#include "checked.h"
#include <cstring>

static const size_t BYTES = 16 << 20;
static const int ROUNDS = 8;

__global__ void increment(unsigned char *bytes) { bytes[(size_t)blockIdx.x * blockDim.x + threadIdx.x] += 1; }

int main() {
    unsigned char *on_gpu = nullptr, *allocated = nullptr;
    unsigned char *own = static_cast<unsigned char *>(std::aligned_alloc(4096, BYTES));
    if (!own) return 1;
    DO(cudaMalloc(&on_gpu, BYTES));
    std::memset(own, 1, BYTES);
    long long sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        DO(cudaHostRegister(own, BYTES, cudaHostRegisterDefault));
        DO(cudaMallocHost(&allocated, BYTES));
        DO(cudaMemcpyAsync(on_gpu, own, BYTES, cudaMemcpyHostToDevice));
        increment<<<BYTES / 256, 256>>>(on_gpu);
        DO(cudaGetLastError());
        DO(cudaMemcpyAsync(allocated, on_gpu, BYTES, cudaMemcpyDeviceToHost));
        DO(cudaDeviceSynchronize());
        sum += allocated[0] + allocated[BYTES - 1];
        DO(cudaFreeHost(allocated));
        DO(cudaHostUnregister(own));
    }
    DO(cudaFree(on_gpu));
    std::free(own);
    return checked("sum", sum, 4LL * ROUNDS);
}
