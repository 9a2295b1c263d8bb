// Adds two vectors on the GPU and compares with the host's sum. It is what compute-sanitizer, Nsight Compute and Nsight Systems look at, too.
// nvcc -O2 -arch=native -o vectoradd vectoradd.cu
#include <cstdio>
#include <vector>
#include <cuda_runtime.h>

static const int COUNT = 1 << 16;

__global__ void add(const float *left, const float *right, float *sum) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < COUNT) sum[i] = left[i] + right[i];
}

static bool failed(const char *what, cudaError_t status) {
    if (status != cudaSuccess) std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
    return status != cudaSuccess;
}

int main() {
    std::vector<float> left(COUNT), right(COUNT), sum(COUNT);
    for (int i = 0; i < COUNT; i++) {
        left[i] = 0.5f * i;
        right[i] = 3.0f - i;
    }
    const size_t bytes = COUNT * sizeof(float);
    float *on_gpu[3] = {};
    for (float *&vector : on_gpu)
        if (failed("cudaMalloc", cudaMalloc(&vector, bytes))) return 1;
    if (failed("copying", cudaMemcpy(on_gpu[0], left.data(), bytes, cudaMemcpyHostToDevice))) return 1;
    if (failed("copying", cudaMemcpy(on_gpu[1], right.data(), bytes, cudaMemcpyHostToDevice))) return 1;
    add<<<COUNT / 256, 256>>>(on_gpu[0], on_gpu[1], on_gpu[2]);
    if (failed("the kernel", cudaDeviceSynchronize())) return 1;
    if (failed("copying back", cudaMemcpy(sum.data(), on_gpu[2], bytes, cudaMemcpyDeviceToHost))) return 1;
    for (int i = 0; i < COUNT; i++) {
        if (sum[i] != left[i] + right[i]) {
            std::fprintf(stderr, "element %d is %f\n", i, sum[i]);
            return 1;
        }
    }
    for (float *vector : on_gpu) cudaFree(vector);
    std::printf("%d sums are right\n", COUNT);
    return 0;
}
