// Many small allocations, freed in another order, and as many that are freed at once.
#include "checked.h"

static const int COUNT = 2000;

int main() {
    static unsigned char *memory[COUNT];
    long long sum = 0;
    for (int each = 0; each < COUNT; each++) {
        DO(cudaMalloc(&memory[each], 64 + 16 * (each % 100)));
        DO(cudaMemset(memory[each], each % 8, 64));
    }
    for (int each = COUNT - 1; each >= 0; each -= 2) DO(cudaFree(memory[each]));
    for (int each = 0; each < COUNT; each += 2) {
        unsigned char seen = 0;
        DO(cudaMemcpy(&seen, memory[each], 1, cudaMemcpyDeviceToHost));
        sum += seen;
        DO(cudaFree(memory[each]));
    }
    for (int each = 0; each < COUNT; each++) {
        DO(cudaMalloc(&memory[each], 1024));
        DO(cudaFree(memory[each]));
    }
    // The even ones were filled with 0, 2, 4 and 6 in turn.
    return checked("sum", sum, 3LL * COUNT / 2);
}
