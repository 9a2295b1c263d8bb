// Constant memory, and an array that is read as a texture.
#include "checked.h"

static const int SIDE = 256;

__constant__ int factors[4];

__global__ void look(cudaTextureObject_t texture, int *sums) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    sums[y * SIDE + x] = tex2D<int>(texture, x, y) * factors[(x + y) % 4];
}

int main() {
    static int image[SIDE * SIDE], seen[SIDE * SIDE];
    const int of_host[4] = {1, 2, 3, 4};
    for (int place = 0; place < SIDE * SIDE; place++) image[place] = place % 50;
    DO(cudaMemcpyToSymbol(factors, of_host, sizeof of_host));
    cudaChannelFormatDesc format = cudaCreateChannelDesc<int>();
    cudaArray_t array;
    DO(cudaMallocArray(&array, &format, SIDE, SIDE));
    const size_t line = SIDE * sizeof(int);
    DO(cudaMemcpy2DToArray(array, 0, 0, image, line, line, SIDE, cudaMemcpyHostToDevice));
    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray;
    resource.res.array.array = array;
    cudaTextureDesc description = {};
    description.addressMode[0] = description.addressMode[1] = cudaAddressModeClamp;
    description.filterMode = cudaFilterModePoint;
    description.readMode = cudaReadModeElementType;
    cudaTextureObject_t texture = 0;
    DO(cudaCreateTextureObject(&texture, &resource, &description, nullptr));
    int *sums = nullptr;
    DO(cudaMalloc(&sums, sizeof seen));
    look<<<dim3(SIDE / 16, SIDE / 16), dim3(16, 16)>>>(texture, sums);
    DO(cudaGetLastError());
    DO(cudaMemcpy(seen, sums, sizeof seen, cudaMemcpyDeviceToHost));
    DO(cudaDestroyTextureObject(texture));
    DO(cudaFreeArray(array));
    DO(cudaFree(sums));
    long long right = 0;
    for (int place = 0; place < SIDE * SIDE; place++)
        right += seen[place] == image[place] * of_host[(place % SIDE + place / SIDE) % 4];
    return checked("right products", right, SIDE * SIDE);
}
