// Pointwise non-linearities, forward and backward. n elements of storage type t; any layout.
#pragma once
#include "kernels/exec/api.h"

namespace kiln {
enum class Activation : uint8_t { none, relu, leaky_relu, swish, sigmoid, tanh };  // leaky_relu: slope 0.2
constexpr float kLeakySlope = 0.2f;
}  // namespace kiln

KILN_KERNEL_API(
    /// y = act(x).
    void activation_forward(Stream stream, DType t, Activation act, int64_t n, const void* x, void* y);
    /// dx = dy * act'(x). `saved` is x; for sigmoid and tanh it is y.
    void activation_backward(Stream stream, DType t, Activation act, int64_t n, const void* saved, const void* dy, void* dx);
    /// Gated linear unit (Dauphin et al. 2017): x [rows, 2h] -> y [rows, h] = x[:, :h] * sigmoid(x[:, h:]).
    void glu_forward(Stream stream, DType t, int64_t rows, int h, const void* x, void* y);
    void glu_backward(Stream stream, DType t, int64_t rows, int h, const void* x, const void* dy, void* dx);)
