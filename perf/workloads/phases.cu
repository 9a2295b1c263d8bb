// Prints how many nanoseconds each phase of a program of CUDA's driver interface takes, a line for all: cuInit and the
// primary context; allocating 64 MiB of the GPU and freeing them, 20 times; the same of 16 MiB of pinned memory, 10 times;
// giving back the context. The driver's library is loaded by name, so that nothing of CUDA's runtime is in the times.
#include <chrono>
#include <cstdio>
#include <dlfcn.h>

template <typename Function> static Function symbol(void *library, const char *name) {
    return reinterpret_cast<Function>(dlsym(library, name));
}

static std::chrono::steady_clock::time_point began;

static long long lap() {
    const auto now = std::chrono::steady_clock::now();
    const auto elapsed = std::chrono::nanoseconds(now - began).count();
    began = now;
    return static_cast<long long>(elapsed);
}

int main() {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    auto initialize = symbol<int (*)(unsigned)>(library, "cuInit");
    auto device_get = symbol<int (*)(int *, int)>(library, "cuDeviceGet");
    auto context_retain = symbol<int (*)(void **, int)>(library, "cuDevicePrimaryCtxRetain");
    auto context_set = symbol<int (*)(void *)>(library, "cuCtxSetCurrent");
    auto context_release = symbol<int (*)(int)>(library, "cuDevicePrimaryCtxRelease_v2");
    auto allocate = symbol<int (*)(unsigned long long *, size_t)>(library, "cuMemAlloc_v2");
    auto free = symbol<int (*)(unsigned long long)>(library, "cuMemFree_v2");
    auto allocate_host = symbol<int (*)(void **, size_t)>(library, "cuMemAllocHost_v2");
    auto free_host = symbol<int (*)(void *)>(library, "cuMemFreeHost");
    int device = 0;
    void *context = nullptr;
    began = std::chrono::steady_clock::now();
    int status = initialize(0);
    if (status == 0) status = device_get(&device, 0);
    if (status == 0) status = context_retain(&context, device);
    if (status == 0) status = context_set(context);
    const long long beginning = lap();
    for (int each = 0; each < 20 && status == 0; each++) {
        unsigned long long memory = 0;
        status = allocate(&memory, 64 << 20);
        if (status == 0) status = free(memory);
    }
    const long long of_gpu = lap();
    for (int each = 0; each < 10 && status == 0; each++) {
        void *memory = nullptr;
        status = allocate_host(&memory, 16 << 20);
        if (status == 0) status = free_host(memory);
    }
    const long long pinned = lap();
    if (status == 0) status = context_release(device);
    const long long end = lap();
    if (status != 0) {
        std::fprintf(stderr, "CUresult %d\n", status);
        return 1;
    }
    std::printf("%lld %lld %lld %lld\n", beginning, of_gpu, pinned, end);
    return 0;
}
