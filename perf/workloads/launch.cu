// Answers each line of standard input, a number N, with N times in nanoseconds, each of the launch of an empty kernel.
// `back-to-back`: the part of one launch in a hundred that are awaited together. `awaited`: each launch is awaited.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <cuda_runtime.h>

__global__ void nothing() {}

static const int BATCH = 100;

static bool failed(cudaError_t status) {
    if (status != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
    return status != cudaSuccess;
}

int main(int count, char **arguments) {
    const bool awaited = count == 2 && std::strcmp(arguments[1], "awaited") == 0;
    const int launches = awaited ? 1 : BATCH;
    if (failed(cudaFree(nullptr))) return 1;
    long samples = 0;
    while (std::scanf("%ld", &samples) == 1) {
        for (long sample = 0; sample < samples; sample++) {
            const auto started = std::chrono::steady_clock::now();
            for (int launch = 0; launch < launches; launch++) nothing<<<1, 1>>>();
            if (failed(cudaDeviceSynchronize())) return 1;
            const auto elapsed = std::chrono::steady_clock::now() - started;
            const long long time = std::chrono::nanoseconds(elapsed).count() / launches;
            std::printf(sample == 0 ? "%lld" : " %lld", time);
        }
        std::printf("\n");
        std::fflush(stdout);
    }
    return 0;
}
