// Exports memory of the GPU as a dma-buf, as RDMA with other devices does, and prints each outcome: once of cuMemAlloc, once of memory that
// was mapped by cuMemCreate.
// nvcc -O1 -o dmabuf dmabuf.cu -lcuda
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t BYTES = 4 << 20;

static const char *name(CUresult result) {
    const char *text = nullptr;
    return cuGetErrorName(result, &text) == CUDA_SUCCESS ? text : "an unknown error";
}

static void need(const char *what, CUresult result) {
    if (result == CUDA_SUCCESS) return;
    std::printf("%s: %s\n", what, name(result));
    std::exit(1);
}

// Whether it could be exported.
static bool export_range(const char *how, CUdeviceptr address) {
    int descriptor = -1;
    CUresult result = cuMemGetHandleForAddressRange(&descriptor, address, BYTES, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
    std::printf("%s: %s\n", how, name(result));
    if (result != CUDA_SUCCESS) return false;
    char link[64], target[256] = {};
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, target, sizeof target - 1);
    struct stat status;
    bool known = fstat(descriptor, &status) == 0;
    std::printf("%s: it is %s, by fstat %lld bytes, by lseek %lld\n", how, length > 0 && std::strstr(target, "dmabuf") ? "a dma-buf" : target,
                known ? (long long)status.st_size : -1LL, (long long)lseek(descriptor, 0, SEEK_END));
    std::printf("%s: closed: %d\n", how, close(descriptor));
    return true;
}

static bool of_mapped(CUdevice device) {
    CUmemAllocationProp properties = {};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    int with_rdma = 0;
    cuDeviceGetAttribute(&with_rdma, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, device);
    properties.allocFlags.gpuDirectRDMACapable = with_rdma;
    CUmemGenericAllocationHandle memory;
    CUdeviceptr address;
    need("cuMemCreate", cuMemCreate(&memory, BYTES, &properties, 0));
    need("cuMemAddressReserve", cuMemAddressReserve(&address, BYTES, 0, 0, 0));
    need("cuMemMap", cuMemMap(address, BYTES, 0, memory, 0));
    CUmemAccessDesc access = {};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    need("cuMemSetAccess", cuMemSetAccess(address, BYTES, &access, 1));
    return export_range("mapped memory", address);
}

int main() {
    CUdevice device;
    CUcontext context;
    need("cuInit", cuInit(0));
    need("cuDeviceGet", cuDeviceGet(&device, 0));
    int supported = -1;
    need("cuDeviceGetAttribute", cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, device));
    std::printf("supported: %d\n", supported);
    need("cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain(&context, device));
    need("cuCtxSetCurrent", cuCtxSetCurrent(context));
    CUdeviceptr memory;
    need("cuMemAlloc", cuMemAlloc(&memory, BYTES));
    const bool allocated = export_range("cuMemAlloc", memory);
    const bool mapped = of_mapped(device);
    return allocated && mapped ? 0 : 1;
}
