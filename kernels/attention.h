// What self-attention (Zhang et al. 2019, SAGAN) needs beside matrix products: the softmax of rows of scores, its gradient, and
// the learned residual sum x + gamma * o. The scores are not scaled by 1/sqrt(d): BigGAN's are not.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
constexpr int64_t gamma_scratch_floats() { return 33; }
}  // namespace kiln

KILN_KERNEL_API(
    /// p[r, :] = softmax(scores[r, :]), scores f32 [rows, m], p of type t; p may be scores where t is f32.
    void softmax_forward(Stream stream, DType t, int64_t rows, int m, const float* scores, void* p);
    /// ds = p (dp - sum over m of dp p), per row; dp f32, p and ds of type t; ds may be dp where t is f32.
    void softmax_backward(Stream stream, DType t, int64_t rows, int m, const void* p, const float* dp, void* ds);
    /// y = x + gamma o; gamma is one number in device memory. n elements.
    void gamma_forward(Stream stream, DType t, int64_t n, const void* x, const void* o, const float* gamma, void* y);
    /// dout = gamma dy, dgamma += <dy, o>; dout or dgamma may be null. scratch: gamma_scratch_floats.
    void gamma_backward(Stream stream, DType t, int64_t n, const void* o, const void* dy, const float* gamma, void* dout,
                        float* dgamma, float* scratch);)
