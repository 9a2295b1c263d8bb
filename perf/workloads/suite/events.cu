// Events: recorded, awaited by another stream, asked for times, and awaited by a thread that sleeps.
#include "checked.h"

static const int ROUNDS = 500;

__global__ void increment(int *number) { *number += 1; }

int main() {
    cudaStream_t first, second;
    cudaEvent_t began, ended, asleep;
    int *number = nullptr, seen = 0;
    DO(cudaStreamCreate(&first));
    DO(cudaStreamCreate(&second));
    DO(cudaEventCreate(&began));
    DO(cudaEventCreate(&ended));
    DO(cudaEventCreateWithFlags(&asleep, cudaEventBlockingSync | cudaEventDisableTiming));
    DO(cudaMalloc(&number, sizeof(int)));
    DO(cudaMemset(number, 0, sizeof(int)));
    DO(cudaDeviceSynchronize());
    long long in_order = 0;
    for (int round = 0; round < ROUNDS; round++) {
        DO(cudaEventRecord(began, first));
        increment<<<1, 1, 0, first>>>(number);
        DO(cudaEventRecord(ended, first));
        DO(cudaStreamWaitEvent(second, ended, 0));
        increment<<<1, 1, 0, second>>>(number);
        DO(cudaEventRecord(asleep, second));
        DO(cudaEventSynchronize(asleep));
        float milliseconds = -1;
        DO(cudaEventElapsedTime(&milliseconds, began, ended));
        in_order += milliseconds >= 0;
    }
    DO(cudaMemcpy(&seen, number, sizeof(int), cudaMemcpyDeviceToHost));
    DO(cudaFree(number));
    return checked("increments and times", seen + in_order, 3LL * ROUNDS);
}
