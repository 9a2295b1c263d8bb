// A kernel for a debugger to stop in: see breakpoint.gdb.
// nvcc -g -G -arch=native -o breakpoint breakpoint.cu
#include <cstdio>
#include <cuda_runtime.h>

__global__ void scale(int *numbers, int factor) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    int scaled = (index + 1) * factor;
    numbers[index] = scaled;
}

int main() {
    int *numbers;
    int last = 0;
    if (cudaMalloc(&numbers, 64 * sizeof(int)) != cudaSuccess) return 1;
    scale<<<2, 32>>>(numbers, 7);
    if (cudaMemcpy(&last, numbers + 63, sizeof last, cudaMemcpyDeviceToHost) != cudaSuccess) return 1;
    std::printf("last: %d\n", last);
    return 0;
}
