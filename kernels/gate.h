// Skip-layer excitation's product (Liu et al. 2021, section 3.1): a gate per picture and channel times a high-resolution map.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
constexpr int64_t gate_scratch_floats(int64_t n, int c) { return 64 * n * c; }
}  // namespace kiln

KILN_KERNEL_API(
    /// y[n, p, c] = x[n, p, c] * g[n, c]; p runs over the `pixels` of a picture.
    void gate_forward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, const void* g, void* y);
    /// dx = dy * g and dg[n, c] = sum over p of dy * x (f32), in one pass over dy and x. scratch: gate_scratch_floats(n, c).
    void gate_backward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, const void* g, const void* dy,
                       void* dx, float* dg, float* scratch);)
