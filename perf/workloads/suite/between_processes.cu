// Two processes: one allocates memory of the GPU, and the other writes it by a handle (cudaIpcOpenMemHandle).
#include "checked.h"
#include <sys/wait.h>
#include <unistd.h>

static const int COUNT = 1 << 16;

__global__ void fill(int *numbers) { numbers[blockIdx.x * blockDim.x + threadIdx.x] = 7; }

static int writer(int from) {
    cudaIpcMemHandle_t handle;
    if (read(from, &handle, sizeof handle) != (ssize_t)sizeof handle) return 1;
    void *numbers = nullptr;
    DO(cudaIpcOpenMemHandle(&numbers, handle, cudaIpcMemLazyEnablePeerAccess));
    fill<<<COUNT / 256, 256>>>(static_cast<int *>(numbers));
    DO(cudaGetLastError());
    DO(cudaDeviceSynchronize());
    DO(cudaIpcCloseMemHandle(numbers));
    return 0;
}

int main() {
    int ends[2];
    if (pipe(ends) != 0) return 1;
    // Before either has begun with CUDA, which does not outlive fork(2).
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        close(ends[1]);
        return writer(ends[0]);
    }
    close(ends[0]);
    int *numbers = nullptr;
    DO(cudaMalloc(&numbers, COUNT * sizeof(int)));
    DO(cudaMemset(numbers, 0, COUNT * sizeof(int)));
    DO(cudaDeviceSynchronize());
    cudaIpcMemHandle_t handle;
    DO(cudaIpcGetMemHandle(&handle, numbers));
    if (write(ends[1], &handle, sizeof handle) != (ssize_t)sizeof handle) return 1;
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    static int seen[COUNT];
    DO(cudaMemcpy(seen, numbers, sizeof seen, cudaMemcpyDeviceToHost));
    long long sum = 0;
    for (int place = 0; place < COUNT; place++) sum += seen[place];
    DO(cudaFree(numbers));
    return checked("sum of what the other wrote", sum, 7LL * COUNT);
}
