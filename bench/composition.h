// The pieces that only an unfused composition needs: one pass over memory each, as a framework without fusion would run them.
#pragma once
#include "kernels/exec/api.h"

KILN_KERNEL_API(
    /// z = x * y, element by element.
    void multiply(Stream stream, DType t, int64_t n, const void* x, const void* y, void* z);
    /// out[n, c] = sum over the pixels of x [n, pixels, c], f32. scratch: gate_scratch_floats(n, c).
    void sum_pixels(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, float* out, float* scratch);
    /// value -= rate * m / (sqrt(v) * root + eps).
    void adam_apply(Stream stream, int64_t n, float rate, float root, float eps, const float* m, const float* v, float* value);)
