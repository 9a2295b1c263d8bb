// What fits on a GPU at once: occupancy, attributes of a kernel, and a launch with as much shared memory as there is.
#include "checked.h"

__global__ void fill(int *numbers, int count) {
    extern __shared__ int shared[];
    for (int place = threadIdx.x; place < count; place += blockDim.x) shared[place] = place;
    __syncthreads();
    if (threadIdx.x == 0) numbers[blockIdx.x] = shared[count - 1] + 1;
}

int main() {
    int bytes = 0, processors = 0, blocks = 0, smallest = 0, size = 0;
    DO(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    DO(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    cudaFuncAttributes attributes;
    DO(cudaFuncGetAttributes(&attributes, fill));
    bytes -= (int)attributes.sharedSizeBytes;
    DO(cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    DO(cudaFuncSetCacheConfig(fill, cudaFuncCachePreferShared));
    DO(cudaOccupancyMaxPotentialBlockSize(&smallest, &size, fill, (size_t)bytes, 0));
    DO(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, fill, 256, (size_t)bytes));
    const int count = bytes / (int)sizeof(int), grid = processors * blocks;
    if (grid < 1 || smallest < 1 || size < 1) return checked("blocks that fit", grid, 1);
    int *numbers = nullptr;
    DO(cudaMalloc(&numbers, grid * sizeof(int)));
    fill<<<grid, 256, bytes>>>(numbers, count);
    DO(cudaGetLastError());
    int *seen = static_cast<int *>(std::malloc(grid * sizeof(int)));
    DO(cudaMemcpy(seen, numbers, grid * sizeof(int), cudaMemcpyDeviceToHost));
    long long right = 0;
    for (int block = 0; block < grid; block++) right += seen[block] == count;
    std::free(seen);
    DO(cudaFree(numbers));
    return checked("blocks that saw all of their memory", right, grid);
}
