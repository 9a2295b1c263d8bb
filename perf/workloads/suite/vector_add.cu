// Adds two vectors.
#include "checked.h"
#include <vector>

static const int COUNT = 1 << 20;

__global__ void add(const int *left, const int *right, int *sum) {
    const int place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place < COUNT) sum[place] = left[place] + right[place];
}

int main() {
    const size_t bytes = COUNT * sizeof(int);
    std::vector<int> left(COUNT), right(COUNT), sum(COUNT);
    for (int place = 0; place < COUNT; place++) {
        left[place] = place % 100;
        right[place] = 2 * left[place];
    }
    int *on_gpu[3];
    for (int each = 0; each < 3; each++) DO(cudaMalloc(&on_gpu[each], bytes));
    DO(cudaMemcpy(on_gpu[0], left.data(), bytes, cudaMemcpyHostToDevice));
    DO(cudaMemcpy(on_gpu[1], right.data(), bytes, cudaMemcpyHostToDevice));
    add<<<COUNT / 256, 256>>>(on_gpu[0], on_gpu[1], on_gpu[2]);
    DO(cudaGetLastError());
    DO(cudaMemcpy(sum.data(), on_gpu[2], bytes, cudaMemcpyDeviceToHost));
    for (int each = 0; each < 3; each++) DO(cudaFree(on_gpu[each]));
    long long right_ones = 0;
    for (int place = 0; place < COUNT; place++) right_ones += sum[place] == 3 * (place % 100);
    return checked("right sums", right_ones, COUNT);
}
