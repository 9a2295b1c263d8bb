// What programs ask before they begin: devices, their properties and attributes, peers, memory, limits.
#include "checked.h"

static const int ROUNDS = 20;

int main() {
    int count = 0, right = 0, expected = 0;
    DO(cudaGetDeviceCount(&count));
    for (int round = 0; round < ROUNDS; round++) {
        for (int device = 0; device < count; device++) {
            DO(cudaSetDevice(device));
            cudaDeviceProp properties;
            DO(cudaGetDeviceProperties(&properties, device));
            int major = 0, processors = 0, driver = 0, runtime = 0;
            DO(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
            DO(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
            DO(cudaDriverGetVersion(&driver));
            DO(cudaRuntimeGetVersion(&runtime));
            size_t free = 0, total = 0, stack = 0;
            DO(cudaMemGetInfo(&free, &total));
            DO(cudaDeviceGetLimit(&stack, cudaLimitStackSize));
            char bus[32];
            int same = -1;
            DO(cudaDeviceGetPCIBusId(bus, sizeof bus, device));
            DO(cudaDeviceGetByPCIBusId(&same, bus));
            int reached = 0;
            for (int peer = 0; peer < count; peer++) {
                int access = 0;
                if (peer != device) DO(cudaDeviceCanAccessPeer(&access, device, peer));
                reached += access == 0 || access == 1;
            }
            right += properties.major == major && properties.multiProcessorCount == processors && driver > 0 && runtime > 0 &&
                     free <= total && stack > 0 && same == device && reached == count;
            expected++;
        }
    }
    return checked("answers that agree", right, expected);
}
