// The distance of two feature maps by LPIPS (Zhang et al. 2018): both are scaled to unit length at each pixel, their squared
// difference is weighted per channel, and the mean over the pixels is taken.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
/// Floats of scratch memory: the pixels' distances, and the partial sums of their means.
constexpr int64_t perceptual_scratch_floats(int64_t n, int64_t pixels) { return n * pixels + 32 * n; }
}  // namespace kiln

KILN_KERNEL_API(
    /// f, g [n, pixels, c], head [c]: value[n] = mean over pixels of sum over c of head[c] (f/(|f|+e) - g/(|g|+e))^2, e = 1e-10.
    void perceptual_forward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* f, const void* g, const float* head,
                            float* value, float* scratch);
    /// df = seed[n] times the gradient with respect to f. Where all of a pixel's f are 0 the formula is 0/0; df is 0 there.
    void perceptual_backward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* f, const void* g, const float* head,
                             const float* seed, void* df);)
