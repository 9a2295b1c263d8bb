// Decodes the JPEG image that is named by the GPU's own engine, and prints a checksum of the picture.
// nvcc -O1 -o nvjpeg nvjpeg.cu -lnvjpeg
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <cuda_runtime.h>
#include <nvjpeg.h>

#define DO(call) do { int r_ = (int)(call); if (r_) { std::fprintf(stderr, "%s: %d\n", #call, r_); std::exit(1); } } while (0)

int main(int count, char **arguments) {
    FILE *file = count > 1 ? std::fopen(arguments[1], "rb") : nullptr;
    if (!file) {
        std::fprintf(stderr, "name a JPEG image\n");
        return 2;
    }
    std::vector<unsigned char> jpeg(1 << 20);
    size_t length = std::fread(jpeg.data(), 1, jpeg.size(), file);
    nvjpegHandle_t handle;
    nvjpegJpegState_t state;
    DO(nvjpegCreateEx(NVJPEG_BACKEND_HARDWARE, 0, 0, 0, &handle));
    DO(nvjpegJpegStateCreate(handle, &state));
    DO(nvjpegDecodeBatchedInitialize(handle, state, 1, 1, NVJPEG_OUTPUT_RGBI));
    int components, widths[NVJPEG_MAX_COMPONENT], heights[NVJPEG_MAX_COMPONENT];
    nvjpegChromaSubsampling_t subsampling;
    DO(nvjpegGetImageInfo(handle, jpeg.data(), length, &components, &subsampling, widths, heights));
    size_t bytes = (size_t)widths[0] * heights[0] * 3;
    nvjpegImage_t image = {};
    DO(cudaMalloc(&image.channel[0], bytes));
    image.pitch[0] = widths[0] * 3;
    const unsigned char *data = jpeg.data();
    DO(nvjpegDecodeBatched(handle, state, &data, &length, &image, 0));
    DO(cudaDeviceSynchronize());
    std::vector<uint8_t> picture(bytes);
    DO(cudaMemcpy(picture.data(), image.channel[0], bytes, cudaMemcpyDeviceToHost));
    uint32_t sum = 2166136261u;
    for (uint8_t byte : picture) sum = (sum ^ byte) * 16777619u;
    std::printf("%d x %d: %08x\n", widths[0], heights[0], sum);
}
