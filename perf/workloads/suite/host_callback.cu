// Functions of the host that a stream calls between kernels.
#include "checked.h"

static const int ROUNDS = 200;

__global__ void increment(int *number) { *number += 1; }

static void called(void *data) { *static_cast<int *>(data) += 1; }

int main() {
    cudaStream_t stream;
    int *number = nullptr, seen = 0, calls = 0;
    DO(cudaStreamCreate(&stream));
    DO(cudaMalloc(&number, sizeof(int)));
    DO(cudaMemsetAsync(number, 0, sizeof(int), stream));
    for (int round = 0; round < ROUNDS; round++) {
        increment<<<1, 1, 0, stream>>>(number);
        DO(cudaGetLastError());
        DO(cudaLaunchHostFunc(stream, called, &calls));
    }
    DO(cudaStreamSynchronize(stream));
    DO(cudaMemcpy(&seen, number, sizeof(int), cudaMemcpyDeviceToHost));
    DO(cudaFree(number));
    DO(cudaStreamDestroy(stream));
    return checked("increments and calls", seen + calls, 2LL * ROUNDS);
}
