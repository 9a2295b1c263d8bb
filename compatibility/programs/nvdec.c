/* Decodes a video by NVDEC and compares each picture with what was encoded.
 *
 * The program writes the H.264 stream itself: each picture is an IDR picture whose macroblocks are I_PCM, which means that the
 * samples stand in the stream as they are (ITU-T H.264, 7.3.5). So the decoder has to give exactly the bytes that went in.
 *
 *     gcc -O1 -o nvdec nvdec.c -ldl     (headers: libffmpeg-nvenc-dev of Debian and Ubuntu)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ffnvcodec/dynlink_loader.h>

enum { ACROSS = 16, DOWN = 12, WIDTH = 16 * ACROSS, HEIGHT = 16 * DOWN, PICTURES = 4, SURFACES = 4 };
enum { LUMA = WIDTH * HEIGHT, CHROMA = LUMA / 4, ROOM = 2 * LUMA + 4096 };

static CudaFunctions *cuda;
static CuvidFunctions *cuvid;
static CUvideodecoder decoder;
static int shown, different;
static unsigned checksum = 2166136261u;

static void check(CUresult result, const char *what) {
    if (result != CUDA_SUCCESS) {
        printf("%s: CUDA error %d\n", what, result);
        exit(1);
    }
}

/* The sample of a plane (0: Y, 1: Cb, 2: Cr) of a picture. Never below 16, so that no start code can come about. */
static unsigned char sample(int picture, int plane, int x, int y) {
    return 16 + (x * 3 + y * 5 + (x * y >> 4) + plane * 67 + picture * 31) % 220;
}

struct bits {
    unsigned char *bytes;
    size_t length;
};

static void put(struct bits *to, unsigned value, int count) {
    while (count-- > 0) {
        if (value >> count & 1)
            to->bytes[to->length / 8] |= 0x80 >> to->length % 8;
        to->length++;
    }
}

/* An unsigned Exp-Golomb code, ue(v). */
static void put_ue(struct bits *to, unsigned value) {
    int extra = 31 - __builtin_clz(value + 1);
    put(to, 0, extra);
    put(to, value + 1, extra + 1);
}

static void start(struct bits *to, unsigned header) {
    put(to, 1, 32);
    put(to, header, 8);
}

static void end(struct bits *to) {
    put(to, 1, 1);
    while (to->length % 8)
        put(to, 0, 1);
}

static void put_parameters(struct bits *to) {
    start(to, 0x67); /* sequence parameter set, Baseline, level 3 */
    put(to, 66, 8);
    put(to, 0, 8);
    put(to, 30, 8);
    put_ue(to, 0);
    put_ue(to, 0); /* frame_num has 4 bits */
    put_ue(to, 2); /* pictures are shown in the order of the stream */
    put_ue(to, 1);
    put(to, 0, 1);
    put_ue(to, ACROSS - 1);
    put_ue(to, DOWN - 1);
    put(to, 0xc, 4); /* frames only, direct_8x8, no cropping, no VUI */
    end(to);
    start(to, 0x68); /* picture parameter set */
    put_ue(to, 0);
    put_ue(to, 0);
    put(to, 0, 2);
    put_ue(to, 0);
    put_ue(to, 0);
    put_ue(to, 0);
    put(to, 0, 3);
    put_ue(to, 0);
    put_ue(to, 0);
    put_ue(to, 0);
    put(to, 4, 3); /* slices say whether they are deblocked */
    end(to);
}

static void put_picture(struct bits *to, int picture) {
    start(to, 0x65);
    put_ue(to, 0);
    put_ue(to, 7);
    put_ue(to, 0);
    put(to, 0, 4);
    put_ue(to, picture % 2); /* IDR pictures that follow each other have different numbers */
    put(to, 0, 2);
    put_ue(to, 0);
    put_ue(to, 1); /* not deblocked */
    for (int block = 0; block < ACROSS * DOWN; block++) {
        put_ue(to, 25); /* I_PCM */
        while (to->length % 8)
            put(to, 0, 1);
        for (int plane = 0; plane < 3; plane++) {
            int side = plane ? 8 : 16;
            for (int at = 0; at < side * side; at++)
                put(to, sample(picture, plane, block % ACROSS * side + at % side, block / ACROSS * side + at / side), 8);
        }
    }
    end(to);
}

static int CUDAAPI begin(void *data, CUVIDEOFORMAT *format) {
    CUVIDDECODECREATEINFO info = {0};
    (void)data;
    printf("%ux%u, chroma format %d\n", format->coded_width, format->coded_height, format->chroma_format);
    info.ulWidth = info.ulMaxWidth = info.ulTargetWidth = format->coded_width;
    info.ulHeight = info.ulMaxHeight = info.ulTargetHeight = format->coded_height;
    info.ulNumDecodeSurfaces = SURFACES;
    info.ulNumOutputSurfaces = 1;
    info.CodecType = format->codec;
    info.ChromaFormat = format->chroma_format;
    info.OutputFormat = cudaVideoSurfaceFormat_NV12;
    info.DeinterlaceMode = cudaVideoDeinterlaceMode_Weave;
    info.ulCreationFlags = cudaVideoCreate_PreferCUVID;
    check(cuvid->cuvidCreateDecoder(&decoder, &info), "cuvidCreateDecoder");
    return SURFACES;
}

static int CUDAAPI decode(void *data, CUVIDPICPARAMS *picture) {
    (void)data;
    check(cuvid->cuvidDecodePicture(decoder, picture), "cuvidDecodePicture");
    return 1;
}

/* Compares a picture in NV12: the luma, then Cb and Cr in turns. */
static void look(const unsigned char *bytes) {
    for (int at = 0; at < LUMA + 2 * CHROMA; at++) {
        int chroma = at - LUMA, x = at % WIDTH, y = at / WIDTH;
        unsigned char expected = chroma < 0 ? sample(shown, 0, x, y) : sample(shown, 1 + x % 2, x / 2, chroma / WIDTH);
        different += bytes[at] != expected;
        checksum = (checksum ^ bytes[at]) * 16777619u;
    }
}

static int CUDAAPI show(void *data, CUVIDPARSERDISPINFO *picture) {
    static unsigned char bytes[LUMA + 2 * CHROMA];
    CUVIDPROCPARAMS how = {0};
    CUDA_MEMCPY2D copy = {0};
    CUdeviceptr frame;
    unsigned pitch;
    (void)data;
    if (!picture)
        return 1;
    how.progressive_frame = picture->progressive_frame;
    check(cuvid->cuvidMapVideoFrame(decoder, picture->picture_index, &frame, &pitch, &how), "cuvidMapVideoFrame");
    copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.srcDevice = frame;
    copy.srcPitch = pitch;
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstHost = bytes;
    copy.dstPitch = copy.WidthInBytes = WIDTH;
    copy.Height = HEIGHT + HEIGHT / 2;
    check(cuda->cuMemcpy2D(&copy), "cuMemcpy2D");
    check(cuvid->cuvidUnmapVideoFrame(decoder, frame), "cuvidUnmapVideoFrame");
    look(bytes);
    shown++;
    return 1;
}

int main(void) {
    CUcontext context;
    CUvideoparser parser;
    CUVIDPARSERPARAMS how = {0};
    CUVIDSOURCEDATAPACKET packet = {0}, last = {0};
    struct bits stream = {calloc(PICTURES, ROOM), 0};

    put_parameters(&stream);
    for (int picture = 0; picture < PICTURES; picture++)
        put_picture(&stream, picture);
    if (cuda_load_functions(&cuda, NULL) || cuvid_load_functions(&cuvid, NULL)) {
        printf("libcuda.so.1 or libnvcuvid.so.1 cannot be loaded\n");
        return 1;
    }
    check(cuda->cuInit(0), "cuInit");
    check(cuda->cuCtxCreate(&context, 0, 0), "cuCtxCreate");
    how.CodecType = cudaVideoCodec_H264;
    how.ulMaxNumDecodeSurfaces = SURFACES;
    how.pfnSequenceCallback = begin;
    how.pfnDecodePicture = decode;
    how.pfnDisplayPicture = show;
    check(cuvid->cuvidCreateVideoParser(&parser, &how), "cuvidCreateVideoParser");
    packet.payload = stream.bytes;
    packet.payload_size = stream.length / 8;
    check(cuvid->cuvidParseVideoData(parser, &packet), "cuvidParseVideoData");
    last.flags = CUVID_PKT_ENDOFSTREAM;
    check(cuvid->cuvidParseVideoData(parser, &last), "cuvidParseVideoData");
    check(cuvid->cuvidDestroyVideoParser(parser), "cuvidDestroyVideoParser");
    check(cuvid->cuvidDestroyDecoder(decoder), "cuvidDestroyDecoder");
    check(cuda->cuCtxDestroy(context), "cuCtxDestroy");
    printf("%d pictures of %d, %d bytes different, checksum %08x\n", shown, PICTURES, different, checksum);
    return shown != PICTURES || different;
}
