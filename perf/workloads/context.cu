// Prints how many nanoseconds cuInit and the primary context of the first GPU take, in a process that has neither yet.
// The driver's library is loaded by name, so that nothing of CUDA's runtime is in the time.
#include <chrono>
#include <cstdio>
#include <dlfcn.h>

template <typename Function> static Function symbol(void *library, const char *name) {
    return reinterpret_cast<Function>(dlsym(library, name));
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
    int device = 0;
    void *context = nullptr;
    const auto started = std::chrono::steady_clock::now();
    int status = initialize(0);
    if (status == 0) status = device_get(&device, 0);
    if (status == 0) status = context_retain(&context, device);
    const auto elapsed = std::chrono::steady_clock::now() - started;
    if (status != 0) {
        std::fprintf(stderr, "CUresult %d\n", status);
        return 1;
    }
    std::printf("%lld\n", static_cast<long long>(std::chrono::nanoseconds(elapsed).count()));
    return 0;
}
