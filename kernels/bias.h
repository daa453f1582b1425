// Biases of convolutions, fused with what follows them: an activation, or the sum of a residual block. x [rows, c],
// rows = n*h*w; biases [c], f32.
#pragma once
#include "kernels/activation.h"
#include "kernels/exec/api.h"

namespace kiln {
constexpr int64_t bias_scratch_floats(int c) { return int64_t(c) * 65; }
}  // namespace kiln

KILN_KERNEL_API(
    /// y = act(x + bias), act none or relu. y may be x.
    void bias_forward(Stream stream, DType t, int64_t rows, int c, const void* x, const float* bias, Activation act, void* y);
    /// dx = dy * act', from the output y; dbias += its sum over the rows. y is not read for act none. dx or dbias may be null.
    /// scratch: bias_scratch_floats.
    void bias_backward(Stream stream, DType t, int64_t rows, int c, const void* y, const void* dy, Activation act, void* dx,
                       float* dbias, float* scratch);
    /// A residual block's sum: y [n, h, w, c] = x + up(skip) + b1 + b2, where up doubles skip [n, h/2, w/2, c] by nearest
    /// neighbour if `upsample`, and is the identity on [n, h, w, c] if not. b1 and b2 may be null. y may be x.
    void residual_forward(Stream stream, DType t, int64_t n, int h, int w, int c, const void* x, const void* skip, bool upsample,
                          const float* b1, const float* b2, void* y);)
