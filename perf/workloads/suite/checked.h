// What the programs of the suite share: a call that fails ends the program, and one line says what was computed.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>

#define DO(call)                                                                                                        \
    do {                                                                                                                \
        const cudaError_t status_ = (call);                                                                             \
        if (status_ != cudaSuccess) {                                                                                   \
            std::fprintf(stderr, "%s: %s\n", #call, cudaGetErrorString(status_));                                       \
            std::exit(1);                                                                                               \
        }                                                                                                               \
    } while (0)

// Prints the line, and returns the status of the program.
static inline int checked(const char *what, long long found, long long expected) {
    if (found != expected) {
        std::fprintf(stderr, "%s: %lld instead of %lld\n", what, found, expected);
        return 1;
    }
    std::printf("%s: %lld\n", what, found);
    return 0;
}
