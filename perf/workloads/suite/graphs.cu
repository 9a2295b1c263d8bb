// A graph that is captured of a stream, and launched many times.
#include "checked.h"

static const int KERNELS = 20, LAUNCHES = 500;

__global__ void increment(int *number) { *number += 1; }

int main() {
    int *number = nullptr, seen = 0;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    DO(cudaMalloc(&number, sizeof(int)));
    DO(cudaMemset(number, 0, sizeof(int)));
    DO(cudaDeviceSynchronize());
    DO(cudaStreamCreate(&stream));
    DO(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int kernel = 0; kernel < KERNELS; kernel++) increment<<<1, 1, 0, stream>>>(number);
    DO(cudaStreamEndCapture(stream, &graph));
    DO(cudaGraphInstantiateWithFlags(&executable, graph, 0));
    for (int launch = 0; launch < LAUNCHES; launch++) DO(cudaGraphLaunch(executable, stream));
    DO(cudaStreamSynchronize(stream));
    DO(cudaMemcpy(&seen, number, sizeof(int), cudaMemcpyDeviceToHost));
    DO(cudaGraphExecDestroy(executable));
    DO(cudaGraphDestroy(graph));
    DO(cudaStreamDestroy(stream));
    DO(cudaFree(number));
    return checked("increments", seen, KERNELS * LAUNCHES);
}
