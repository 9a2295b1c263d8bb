// Addresses that are reserved, and physical memory that is made and mapped there (cuMemCreate, cuMemMap).
#include "checked.h"
#include <cuda.h>
#include <dlfcn.h>

static const int PARTS = 8;
static void *library;

// The driver's library by name, so that no stub of it is needed to link.
#define CALL(function, ...)                                                                                             \
    do {                                                                                                                \
        const auto call_ = reinterpret_cast<decltype(&function)>(dlsym(library, #function));                            \
        const int status_ = call_ ? (int)call_(__VA_ARGS__) : -1;                                                       \
        if (status_ != 0) return checked(#function, status_, 0);                                                        \
    } while (0)

__global__ void fill(int *numbers, size_t count) {
    for (size_t place = blockIdx.x * blockDim.x + threadIdx.x; place < count; place += gridDim.x * blockDim.x)
        numbers[place] = 3;
}

int main() {
    DO(cudaFree(nullptr));
    library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) return 1;
    CUmemAllocationProp kind = {};
    kind.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    kind.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    size_t part = 0;
    CALL(cuMemGetAllocationGranularity, &part, &kind, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    CUdeviceptr place = 0;
    CALL(cuMemAddressReserve, &place, PARTS * part, 0, 0, 0);
    CUmemAccessDesc access = {};
    access.location = kind.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    for (int each = 0; each < PARTS; each++) {
        CUmemGenericAllocationHandle memory;
        CALL(cuMemCreate, &memory, part, &kind, 0);
        CALL(cuMemMap, place + each * part, part, 0, memory, 0);
        CALL(cuMemRelease, memory);
    }
    CALL(cuMemSetAccess, place, PARTS * part, &access, 1);
    int *numbers = reinterpret_cast<int *>(place);
    const size_t count = PARTS * part / sizeof(int);
    fill<<<64, 256>>>(numbers, count);
    DO(cudaGetLastError());
    int ends[2] = {};
    DO(cudaMemcpy(&ends[0], numbers, sizeof(int), cudaMemcpyDeviceToHost));
    DO(cudaMemcpy(&ends[1], numbers + count - 1, sizeof(int), cudaMemcpyDeviceToHost));
    CALL(cuMemUnmap, place, PARTS * part);
    CALL(cuMemAddressFree, place, PARTS * part);
    return checked("sum of the ends", ends[0] + ends[1], 6);
}
