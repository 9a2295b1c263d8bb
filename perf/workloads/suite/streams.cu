// Eight streams, each of which copies, computes and copies back, over and over.
#include "checked.h"

static const int STREAMS = 8, ROUNDS = 16, COUNT = 1 << 16;

__global__ void increment(int *numbers) { numbers[blockIdx.x * blockDim.x + threadIdx.x] += 1; }

int main() {
    const size_t bytes = COUNT * sizeof(int);
    cudaStream_t streams[STREAMS];
    int *host[STREAMS], *on_gpu[STREAMS];
    for (int each = 0; each < STREAMS; each++) {
        DO(cudaStreamCreateWithFlags(&streams[each], cudaStreamNonBlocking));
        DO(cudaMallocHost(&host[each], bytes));
        DO(cudaMalloc(&on_gpu[each], bytes));
        for (int place = 0; place < COUNT; place++) host[each][place] = each;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int each = 0; each < STREAMS; each++) {
            DO(cudaMemcpyAsync(on_gpu[each], host[each], bytes, cudaMemcpyHostToDevice, streams[each]));
            increment<<<COUNT / 256, 256, 0, streams[each]>>>(on_gpu[each]);
            DO(cudaGetLastError());
            DO(cudaMemcpyAsync(host[each], on_gpu[each], bytes, cudaMemcpyDeviceToHost, streams[each]));
        }
    }
    long long right = 0;
    for (int each = 0; each < STREAMS; each++) {
        DO(cudaStreamSynchronize(streams[each]));
        for (int place = 0; place < COUNT; place++) right += host[each][place] == each + ROUNDS;
        DO(cudaStreamDestroy(streams[each]));
        DO(cudaFreeHost(host[each]));
        DO(cudaFree(on_gpu[each]));
    }
    return checked("right numbers of all streams", right, (long long)STREAMS * COUNT);
}
