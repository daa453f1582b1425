// The head of a projection discriminator (Miyato & Koyama 2018): features h are relu summed over the pixels, and
//
//   logit[n] = <w, h[n]> + bias + <embed[label[n]], h[n]>
//
// h, w, embed in one storage type; logits and gradients of weights in f32.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
constexpr int64_t sum_pool_scratch_floats(int64_t n, int c) { return 65 * n * c; }
constexpr int64_t projection_scratch_floats(int64_t n) { return 32 * n; }
}  // namespace kiln

KILN_KERNEL_API(
    /// h[n, c] = sum over the pixels of relu(x[n, p, c]). scratch: sum_pool_scratch_floats.
    void relu_sum_pool_forward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, void* h, float* scratch);
    /// dx = dh[n, c] where x > 0.
    void relu_sum_pool_backward(Stream stream, DType t, int64_t n, int64_t pixels, int c, const void* x, const void* dh, void* dx);
    /// logits [n] from h [n, c], w [c], bias [1] (f32), embed [classes, c] and labels [n]; embed and labels may be null.
    /// scratch: projection_scratch_floats.
    void projection_forward(Stream stream, DType t, int64_t n, int c, const void* h, const void* w, const float* bias,
                            const void* embed, const int32_t* labels, float* logits, float* scratch);
    /// dh [n, c] (type t), dw [c] and dembed [classes, c] (f32, overwritten), dbias [1] (added to) from dlogits [n]. Any may be
    /// null; the sums run over n in order.
    void projection_backward(Stream stream, DType t, int64_t n, int classes, int c, const void* h, const void* w, const void* embed,
                             const int32_t* labels, const float* dlogits, void* dh, float* dw, float* dembed, float* dbias);)
